"""The protocol on the wire: method paths, requests, replies, and errors inside replies.

    build_request(...) -> bytes --gRPC, any of the paths below--> bytes -> read_head(...) / read_documents(...)

Everything here works on bytes and on our own messages (`flowdex.proto`), so a gateway can forward a request of any size
after reading nothing but its head: protobuf lets a reader skip the documents, and lets a writer append a field to a
serialised message by concatenation (https://protobuf.dev/programming-guides/encoding/#last-one-wins).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf import json_format, struct_pb2
from google.protobuf.message import DecodeError

from flowdex.documents import DocumentBatch, new_id
from flowdex.errors import ExecutorError, FlowdexError, InvalidInput, error_from_name
from flowdex.proto import flowdex_pb2 as pb

# Method paths of the Jina 3 protocol; the messages behind them are in flowdex/proto/flowdex.proto.
PROCESS_SINGLE_DATA = "/jina.JinaSingleDataRequestRPC/process_single_data"
PROCESS_DATA = "/jina.JinaDataRequestRPC/process_data"
CALL = "/jina.JinaRPC/Call"
STREAM_DOC = "/jina.JinaSingleDocumentRequestRPC/stream_doc"
ENDPOINT_DISCOVERY = "/jina.JinaDiscoverEndpointsRPC/endpoint_discovery"
DRY_RUN = "/jina.JinaGatewayDryRunRPC/dry_run"
INFO_STATUS = "/jina.JinaInfoRPC/_status"

# Where an endpoint that returns a dictionary leaves it, keyed by executor name (Jina's contract).
RESULTS_KEY = "__results__"
# Trailing metadata of a unary reply that carries an error in its status (Jina's contract).
IS_ERROR_METADATA = ("is-error", "true")

DEFAULT_ENDPOINT = "/default"

SUCCESS = pb.StatusProto.SUCCESS
ERROR = pb.StatusProto.ERROR


# ---- parameters ----


def struct_from_dict(values: Mapping[str, Any] | None) -> struct_pb2.Struct:
    """Convert parameters to the wire's JSON-like structure; numbers become doubles there.

    Raises:
        InvalidInput: A value has no JSON form.
    """
    struct = struct_pb2.Struct()
    try:
        struct.update(dict(values or {}))
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"parameters must be JSON values: {error}") from None
    return struct


def dict_from_struct(struct: struct_pb2.Struct) -> dict[str, Any]:
    """Convert parameters from the wire: numbers are floats, as Jina's executors see them."""
    values: dict[str, Any] = json_format.MessageToDict(struct)
    return values


# ---- requests ----


def build_request(
    endpoint: str,
    documents: DocumentBatch | None = None,
    *,
    parameters: Mapping[str, Any] | None = None,
    request_id: str | None = None,
    target_executor: str | None = None,
) -> bytes:
    """Serialise a `DataRequestProto` for `endpoint`."""
    request = pb.DataRequestProto()
    request.header.request_id = request_id or new_id()
    request.header.exec_endpoint = endpoint
    if target_executor:
        request.header.target_executor = target_executor
    if parameters:
        request.parameters.CopyFrom(struct_from_dict(parameters))
    request.data.docs.SetInParent()
    if documents is not None:
        request.data.docs.docs.extend(documents)
    return request.SerializeToString()


def read_request(data: bytes) -> pb.DataRequestProto:
    """Parse a whole request or reply.

    Raises:
        InvalidInput: The bytes are not a `DataRequestProto`.
    """
    try:
        return pb.DataRequestProto.FromString(data)
    except DecodeError:
        raise InvalidInput("the request could not be decoded: not a DataRequestProto, or text not in UTF-8") from None


def read_head(data: bytes) -> pb.DataRequestProtoWoData:
    """Parse everything of a request or reply except its documents.

    Raises:
        InvalidInput: The bytes are not a `DataRequestProto`.
    """
    try:
        return pb.DataRequestProtoWoData.FromString(data)
    except DecodeError:
        raise InvalidInput("the request could not be decoded: not a DataRequestProto") from None


def documents_of(request: pb.DataRequestProto) -> DocumentBatch:
    """View the documents of a request.

    Raises:
        InvalidInput: They are sent as `docs_bytes`, which may hold a pickle and is never read.
    """
    if request.data.WhichOneof("documents") == "docs_bytes":
        raise InvalidInput("documents sent as docs_bytes are not read; send them as protobuf (the client's default)")
    return DocumentBatch.from_proto(request.data.docs)


# ---- errors inside replies ----


def set_error(
    header: pb.HeaderProto, error: BaseException, *, executor: str = "", stacks: list[str] | None = None
) -> None:
    """Write `error` into a reply's header, the way Jina does: class name, message, and stacks only if given."""
    header.status.Clear()
    header.status.code = ERROR
    message = error.message if isinstance(error, FlowdexError) else str(error)
    name = type(error).__name__
    header.status.description = message or name
    header.status.exception.name = name
    header.status.exception.args.append(message)
    header.status.exception.executor = executor
    header.status.exception.stacks.extend(stacks or [])


def error_of(header: pb.HeaderProto) -> FlowdexError | None:
    """The error a reply carries, as the class that was raised; None when it carries none."""
    if header.status.code != ERROR:
        return None
    exception = header.status.exception
    message = exception.args[0] if exception.args else header.status.description
    if not exception.name:
        return ExecutorError(header.status.description or "the executor failed", executor=exception.executor or None)
    return error_from_name(exception.name, message, executor=exception.executor or None)
