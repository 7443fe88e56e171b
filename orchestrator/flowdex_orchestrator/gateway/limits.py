"""What one request may carry, whichever protocol it came over: every request passes here, as bytes, in the router.

    Frame --check_parameters, check_documents--> nothing, or TooLarge with the name of the limit

A small message cannot hold more than the limits: a document takes two bytes at least and a character one. So the usual
request costs a few comparisons, and only one that is large enough to break a limit is walked over or parsed. What has a
meaning only to one executor (a filter, `limit`, tags, ids) is checked there, with limits among its own settings.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from google.protobuf.message import DecodeError
from google.protobuf.struct_pb2 import Struct

from flowdex.errors import TooLarge
from flowdex.proto import flowdex_pb2 as pb
from flowdex_orchestrator.gateway.frame import Frame
from flowdex_orchestrator.gateway.settings import GatewaySettings
from flowdex_orchestrator.gateway.splitting import count_documents

__all__ = ["check_count", "check_documents", "check_parameters", "check_single_document", "needs_check"]

_Request = TypeVar("_Request", pb.DataRequestProto, pb.SingleDocumentRequestProto)

_SMALLEST_DOCUMENT = 2  # bytes: a tag, and the length 0


def check_count(count: int, what: str, limits: GatewaySettings) -> None:
    """Refuse more texts or documents than allowed; `what` names them.

    Raises:
        TooLarge: They are more than `max_texts`.
    """
    if count > limits.max_texts:
        raise TooLarge(
            f"{count} {what} in one request are more than the {limits.max_texts} allowed (gateway.uses_with.max_texts)"
        )


def needs_check(frame: Frame, limits: GatewaySettings) -> bool:
    """Whether the documents of a request can break a limit at all; if not, `check_documents` has nothing to find."""
    size = len(frame.data)
    return size > limits.max_texts * _SMALLEST_DOCUMENT or size > limits.max_text_characters


def check_parameters(frame: Frame, parameters: Struct, limits: GatewaySettings) -> None:
    """Refuse more parameters than allowed, or larger ones.

    Raises:
        TooLarge: There are more than `max_parameters`, or they take more than `max_parameter_bytes`.
    """
    if len(frame.parameters) > limits.max_parameter_bytes:
        raise TooLarge(
            f"the parameters have {len(frame.parameters)} bytes, more than the {limits.max_parameter_bytes} allowed "
            "(gateway.uses_with.max_parameter_bytes)"
        )
    if (count := len(parameters.fields)) > limits.max_parameters:
        raise TooLarge(
            f"{count} parameters are more than the {limits.max_parameters} allowed (gateway.uses_with.max_parameters)"
        )


def check_documents(frame: Frame, limits: GatewaySettings) -> None:
    """Refuse more documents than allowed, or a text that is longer.

    It takes time in proportion to the message: run it in a thread for a large one.

    Raises:
        TooLarge: There are more documents than `max_texts`, or a text has more than `max_text_characters`.
    """
    most = limits.max_text_characters
    if count_documents(frame.data, limits.max_texts + 1) > limits.max_texts:
        raise TooLarge(
            f"there are more than the {limits.max_texts} documents allowed in one request (gateway.uses_with.max_texts)"
        )
    if len(frame.data) > most and (message := _parsed(pb.DataRequestProto, frame)) is not None:
        for index, doc in enumerate(message.data.docs.docs):
            if doc.ByteSize() > most:
                _check_texts(doc.data.values(), f"document {index}", most)


def check_single_document(frame: Frame, limits: GatewaySettings) -> None:
    """The same for a request that has one document in the place of a list.

    Raises:
        TooLarge: A text in it has more than `max_text_characters`.
    """
    most = limits.max_text_characters
    if len(frame.data) > most and (message := _parsed(pb.SingleDocumentRequestProto, frame)) is not None:
        _check_texts(message.document.data.values(), "the document", most)


def _parsed(kind: type[_Request], frame: Frame) -> _Request | None:
    """The documents of a request; None where they are damaged, which whoever reads them says."""
    try:
        return kind.FromString(bytes(frame.data))
    except DecodeError:
        return None


def _check_texts(nodes: Iterable[pb.NodeProto], where: str, most: int) -> None:
    """Look at every string in a document, wherever it stands."""
    for node in nodes:
        kind = node.WhichOneof("content")
        if kind == "text":
            if len(node.text) > most:
                raise TooLarge(
                    f"{where} has a text of {len(node.text)} characters, more than the {most} allowed "
                    "(gateway.uses_with.max_text_characters)"
                )
        elif kind in ("list", "set", "tuple"):
            _check_texts(getattr(node, kind).data, where, most)
        elif kind in ("dict", "doc"):
            _check_texts(getattr(node, kind).data.values(), where, most)
        elif kind == "doc_array":
            for doc in node.doc_array.docs:
                _check_texts(doc.data.values(), where, most)
