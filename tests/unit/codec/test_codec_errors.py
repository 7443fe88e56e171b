"""Every error keeps its class on every way to the caller."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from flowdex import errors, wire
from flowdex.errors import (
    ConfigurationError,
    ExecutorError,
    FlowdexError,
    InternalError,
    InvalidInput,
    TooLarge,
    error_from_grpc,
    error_from_name,
)
from flowdex.proto import flowdex_pb2 as pb

CLASSES = [
    value
    for name in errors.__all__
    if isinstance(value := getattr(errors, name), type)
    and issubclass(value, FlowdexError)
    and value is not FlowdexError
]
# Raised before anything is served: it never meets a protocol, and shares Conflict's code for the record.
SERVED = [cls for cls in CLASSES if cls is not ConfigurationError]


@pytest.mark.parametrize("cls", SERVED)
def test_a_grpc_code_leads_back_to_its_class(cls: type[FlowdexError]) -> None:
    error = error_from_grpc(cls.status.grpc, "what and why", retry_after=2.0)
    assert type(error) is cls
    assert error.message == str(error) == "what and why"


def test_no_two_classes_share_a_code() -> None:
    assert Counter(cls.status.grpc for cls in SERVED).most_common(1)[0][1] == 1


@pytest.mark.parametrize("cls", CLASSES)
def test_a_name_leads_back_to_its_class(cls: type[FlowdexError]) -> None:
    header = pb.HeaderProto()
    wire.set_error(header, cls("what and why"), executor="encoder")
    error = wire.error_of(pb.HeaderProto.FromString(header.SerializeToString()))
    assert type(error) is cls
    assert error.name == cls.__name__
    assert (error.message, error.executor) == ("what and why", "encoder")


@pytest.mark.parametrize("cls", CLASSES)
def test_every_class_has_a_status_of_its_kind(cls: type[FlowdexError]) -> None:
    assert 400 <= cls.status.http < 600
    assert cls.status.title
    assert cls.__doc__
    assert "status" in vars(cls) or cls is InternalError
    assert cls.status.retryable == (cls.status.http in (429, 503))


@pytest.mark.parametrize("code", list(grpc.StatusCode))
def test_every_grpc_code_has_a_class(code: grpc.StatusCode) -> None:
    error = error_from_grpc(code, "details")
    assert isinstance(error, FlowdexError)
    assert error.message == "details"
    if code is grpc.StatusCode.UNIMPLEMENTED:
        assert isinstance(error, errors.NotFound)


@pytest.mark.parametrize("limited", ["receive", "send"])
def test_grpcs_own_size_limit_is_no_overload(limited: str) -> None:
    """grpcio answers RESOURCE_EXHAUSTED, as for overload, but trying again would never help."""
    server = grpc.server(ThreadPoolExecutor(1), options=[("grpc.max_receive_message_length", 100)])
    handler = grpc.unary_unary_rpc_method_handler(lambda data, _: data)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("a.B", {"echo": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    options = [("grpc.max_send_message_length", 50)] if limited == "send" else []
    try:
        with (
            grpc.insecure_channel(f"127.0.0.1:{port}", options=options) as channel,
            pytest.raises(grpc.RpcError) as caught,
        ):
            channel.unary_unary("/a.B/echo")(bytes(200), timeout=20)
    finally:
        server.stop(0).wait(5)
    error = error_from_grpc(caught.value.code(), caught.value.details())
    assert type(error) is TooLarge
    assert not error.status.retryable


def test_unknown_names_are_the_executors() -> None:
    assert type(error_from_name("KeyError", "'k'")) is ExecutorError
    assert str(error_from_name("KeyError", "'k'", executor="e")) == "KeyError: 'k'"
    assert str(error_from_name("KeyError", "")) == "KeyError"
    assert error_from_name("KeyError", "", executor="e").executor == "e"


def test_pythons_own_classes_catch_them() -> None:
    assert issubclass(InvalidInput, ValueError)
    assert issubclass(errors.DeadlineExceeded, TimeoutError)
    assert issubclass(TooLarge, InvalidInput)
