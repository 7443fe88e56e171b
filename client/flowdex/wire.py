"""The protocol on the wire: method paths, requests, replies, and errors inside replies.

    build_request(...) -> bytes --gRPC, any of the paths below--> bytes -> read_head(...) / read_request(...)

Everything here works on bytes and on our own messages (`flowdex.proto`). A message is its head (header, parameters,
routes) and its documents, and the two may be serialised apart and joined: protobuf lets a reader skip the documents and
a writer append them (https://protobuf.dev/programming-guides/encoding/#last-one-wins).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf import struct_pb2
from google.protobuf.message import DecodeError

from flowdex.documents import DocumentBatch, new_id
from flowdex.errors import ExecutorError, FlowdexError, InvalidInput, error_from_name
from flowdex.nodes import checked_text
from flowdex.proto import flowdex_pb2 as pb
from flowdex.proto.encoding import delimited

# Method paths of the Jina 3 protocol; the messages behind them are in flowdex/proto/flowdex.proto.
PROCESS_SINGLE_DATA = "/jina.JinaSingleDataRequestRPC/process_single_data"
PROCESS_DATA = "/jina.JinaDataRequestRPC/process_data"
CALL = "/jina.JinaRPC/Call"
STREAM_DOC = "/jina.JinaSingleDocumentRequestRPC/stream_doc"
ENDPOINT_DISCOVERY = "/jina.JinaDiscoverEndpointsRPC/endpoint_discovery"
DRY_RUN = "/jina.JinaGatewayDryRunRPC/dry_run"
INFO_STATUS = "/jina.JinaInfoRPC/_status"
# Ours: the executor's load as JSON, {"queue_ms": 12.5, "in_flight": 3}.
LOAD = "/flowdex.v1.ExecutorRPC/load"
# Ours: many calls over one stream that stays; the messages are in flowdex/proto/exchange.proto.
EXCHANGE = "/flowdex.v1.ExecutorRPC/exchange"

# Where an endpoint that returns a dictionary leaves it, keyed by executor name (Jina's contract).
RESULTS_KEY = "__results__"
# Trailing metadata of a unary reply that carries an error in its status (Jina's contract).
IS_ERROR_METADATA = ("is-error", "true")

DEFAULT_ENDPOINT = "/default"

SUCCESS = pb.StatusProto.SUCCESS
ERROR = pb.StatusProto.ERROR


# ---- parameters ----

# A value deeper than this is refused when written: protobuf refuses to read more than 100 messages inside each other,
# and a dictionary costs three of them.
MAX_DEPTH = 24


def struct_from_dict(values: Mapping[str, Any] | None) -> struct_pb2.Struct:
    """Convert parameters to the wire's JSON-like structure; numbers become doubles there.

    Raises:
        InvalidInput: A value has no JSON form, an integer no exact double, or the nesting no end.
    """
    struct = struct_pb2.Struct()
    _write_fields(struct, values or {}, MAX_DEPTH)
    return struct


def _write_fields(struct: struct_pb2.Struct, values: Mapping[str, Any], depth: int) -> None:
    if depth <= 0:
        raise InvalidInput(f"parameters nested more than {MAX_DEPTH} deep cannot be sent")
    for key, item in values.items():
        _write_value(struct.fields[checked_text(key, "a parameter's name")], item, depth)


def _write_value(target: struct_pb2.Value, value: Any, depth: int) -> None:
    if value is None:
        target.null_value = struct_pb2.NULL_VALUE
    elif isinstance(value, str):
        target.string_value = checked_text(value, "a parameter")
    elif isinstance(value, bool):
        target.bool_value = value
    elif isinstance(value, (int, float)):
        target.number_value = _exact_float(value)
    elif isinstance(value, Mapping):
        target.struct_value.SetInParent()
        _write_fields(target.struct_value, value, depth - 1)
    elif isinstance(value, (list, tuple)):
        if depth <= 0:
            raise InvalidInput(f"parameters nested more than {MAX_DEPTH} deep cannot be sent")
        target.list_value.SetInParent()
        for item in value:
            _write_value(target.list_value.values.add(), item, depth - 1)
    else:
        raise InvalidInput(f"parameters must be JSON values, got a value of type {type(value).__name__}")


def _exact_float(value: float) -> float:
    try:
        number = float(value)
    except OverflowError:
        number = 0.0
    if isinstance(value, int) and number != value:
        raise InvalidInput("an integer of more than 53 bits does not fit a parameter; send it as a string")
    return number


def dict_from_struct(struct: struct_pb2.Struct) -> dict[str, Any]:
    """Convert parameters from the wire: numbers are floats, as Jina's executors see them."""
    return {key: _read_value(value) for key, value in struct.fields.items()}


def _read_value(value: struct_pb2.Value) -> Any:
    kind = value.WhichOneof("kind")
    if kind is None or kind == "null_value":
        return None
    if kind == "struct_value":
        return dict_from_struct(value.struct_value)
    if kind == "list_value":
        return [_read_value(item) for item in value.list_value.values]
    return getattr(value, kind)


# ---- requests ----


def build_request(
    endpoint: str,
    documents: DocumentBatch | None = None,
    *,
    parameters: Mapping[str, Any] | None = None,
    request_id: str | None = None,
    target_executor: str | None = None,
) -> bytes:
    """Serialise a `DataRequestProto` for `endpoint`.

    Raises:
        InvalidInput: The parameters are not JSON, or a name is not Unicode.
    """
    head = pb.DataRequestProtoWoData()
    head.header.request_id = checked_text(request_id, "the request's id") if request_id else new_id()
    head.header.exec_endpoint = checked_text(endpoint, "the endpoint")
    if target_executor:
        head.header.target_executor = checked_text(target_executor, "the target executor")
    if parameters:
        head.parameters.CopyFrom(struct_from_dict(parameters))
    return head.SerializeToString() + serialize_data(documents or DocumentBatch())


def serialize_data(documents: DocumentBatch) -> bytes:
    """Serialise documents as the field `data` of a request or reply, to be joined to its serialised head."""
    docs = documents.to_bytes()
    content = delimited(1, len(docs))  # DataContentProto.docs
    return b"".join((delimited(4, len(content) + len(docs)), content, docs))  # DataRequestProto.data


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


# ---- replies ----


def read_reply(data: bytes) -> pb.DataRequestProto:
    """Parse a reply.

    Raises:
        FlowdexError: The one it carries.
    """
    reply = read_request(data)
    error = error_of(reply.header)
    if error is not None:
        raise error
    return reply


def results_of(reply: pb.DataRequestProto) -> dict[str, dict[str, Any]]:
    """What endpoints that return a dictionary left in a reply, by executor; whole numbers are ints again."""
    found = dict_from_struct(reply.parameters).get(RESULTS_KEY)
    if not isinstance(found, dict):
        return {}
    return {name: whole_numbers(value) for name, value in found.items() if isinstance(value, dict)}


def whole_numbers(value: Any) -> Any:
    """The same JSON value with whole numbers as ints: on the wire all numbers of parameters are doubles."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {key: whole_numbers(item) for key, item in value.items()}
    return [whole_numbers(item) for item in value] if isinstance(value, list) else value


# ---- errors inside replies ----


def set_error(
    header: pb.HeaderProto, error: BaseException, *, executor: str = "", stacks: list[str] | None = None
) -> None:
    """Write `error` into a reply's header, the way Jina does: class name, message, and stacks only if given."""
    header.status.Clear()
    header.status.code = ERROR
    message = _unicode(error.message if isinstance(error, FlowdexError) else str(error))
    name = type(error).__name__
    header.status.description = message or name
    header.status.exception.name = name
    header.status.exception.args.append(message)
    header.status.exception.executor = executor
    header.status.exception.stacks.extend(map(_unicode, stacks or []))


def _unicode(text: str) -> str:
    """An error must travel, whatever the text it quotes: what is not Unicode becomes a question mark."""
    return text.encode(errors="replace").decode()


def error_of(header: pb.HeaderProto) -> FlowdexError | None:
    """The error a reply carries, as the class that was raised; None when it carries none."""
    if header.status.code != ERROR:
        return None
    exception = header.status.exception
    message = exception.args[0] if exception.args else header.status.description
    if not exception.name:
        return ExecutorError(header.status.description or "the executor failed", executor=exception.executor or None)
    return error_from_name(exception.name, message, executor=exception.executor or None)
