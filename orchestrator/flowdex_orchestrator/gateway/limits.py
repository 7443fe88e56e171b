"""What one request may carry, whichever protocol it came over: every request passes here, as bytes, in the router.

    Frame --check_head, check_parameters, check_documents--> nothing, or TooLarge with the name of the limit

A small message cannot hold more than the limits: a document takes two bytes at least and a character one. So the usual
request costs a few comparisons, and only one that is large enough to break a limit is walked over. What has a
meaning only to one executor (a filter, `limit`, tags, ids) is checked there, with limits among its own settings.
"""

from __future__ import annotations

from google.protobuf.struct_pb2 import Struct

from flowdex.errors import TooLarge
from flowdex_orchestrator.gateway.fields import check_fields
from flowdex_orchestrator.gateway.frame import Frame
from flowdex_orchestrator.gateway.settings import GatewaySettings
from flowdex_orchestrator.gateway.splitting import count_documents

__all__ = ["check_count", "check_documents", "check_head", "check_parameters", "check_single_document", "needs_check"]

_SMALLEST_FIELD = 2  # bytes: a tag, and the length 0; so is the smallest document


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
    return size > limits.max_texts * _SMALLEST_FIELD or _is_large(frame, limits)


def check_head(frame: Frame, limits: GatewaySettings) -> None:
    """Refuse a header or parameters of too many bytes, before they are parsed.

    Raises:
        TooLarge: They take more than `max_header_bytes`, or `max_parameter_bytes`.
    """
    if len(frame.parameters) > limits.max_parameter_bytes:
        raise TooLarge(
            f"the parameters have {len(frame.parameters)} bytes, more than the {limits.max_parameter_bytes} allowed "
            "(gateway.uses_with.max_parameter_bytes)"
        )
    if len(frame.header) > limits.max_header_bytes:
        raise TooLarge(
            f"the header has {len(frame.header)} bytes, more than the {limits.max_header_bytes} allowed "
            "(gateway.uses_with.max_header_bytes)"
        )


def check_parameters(parameters: Struct, limits: GatewaySettings) -> None:
    """Refuse more parameters than allowed.

    Raises:
        TooLarge: There are more than `max_parameters`.
    """
    if (count := len(parameters.fields)) > limits.max_parameters:
        raise TooLarge(
            f"{count} parameters are more than the {limits.max_parameters} allowed (gateway.uses_with.max_parameters)"
        )


def check_documents(frame: Frame, limits: GatewaySettings) -> None:
    """Refuse more documents than allowed, more in them, or a text that is longer.

    It takes time in proportion to the message: run it in a thread for a large one.

    Raises:
        TooLarge: There are more documents than `max_texts`, they have more than `max_fields`, or a text has more than
            `max_text_characters`.
        InvalidInput: They are damaged.
    """
    if count_documents(frame.data, limits.max_texts + 1) > limits.max_texts:
        raise TooLarge(
            f"there are more than the {limits.max_texts} documents allowed in one request (gateway.uses_with.max_texts)"
        )
    if _is_large(frame, limits):
        check_fields(frame.data, most=limits.max_fields, longest=limits.max_text_characters)


def check_single_document(frame: Frame, limits: GatewaySettings) -> None:
    """The same for a request that has one document in the place of a list.

    Raises:
        TooLarge: As `check_documents`.
        InvalidInput: It is damaged.
    """
    if _is_large(frame, limits):
        check_fields(frame.data, most=limits.max_fields, longest=limits.max_text_characters, single=True)


def _is_large(frame: Frame, limits: GatewaySettings) -> bool:
    size = len(frame.data)
    return size > limits.max_text_characters or size > limits.max_fields * _SMALLEST_FIELD
