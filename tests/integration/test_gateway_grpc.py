"""The gateway's gRPC services: streams, discovery, dry run, health, reflection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest
from gateway_fakes import FakeExecutor, append, eventually, serving, sleeping, texts_of
from google.protobuf import descriptor_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from flowdex import wire
from flowdex.documents import DocumentBatch
from flowdex.errors import Conflict, FlowdexError, NotFound
from flowdex.proto import flowdex_pb2 as pb
from flowdex.proto.reflection import GATEWAY_SERVICES
from flowdex_orchestrator.gateway.settings import GatewaySettings

IN_ORDER = (("__results_in_order__", "true"),)


def request(endpoint: str, text: str) -> bytes:
    return wire.build_request(endpoint, DocumentBatch.from_columns(texts=[text]), request_id=text)


async def slower_at_first(message: pb.DataRequestProto) -> None:
    """The earlier a request, the longer it takes."""
    number = int(wire.documents_of(message).texts[0] or 0)
    await asyncio.sleep(0.05 * (10 - number) if number < 10 else 0)


async def send(endpoint: str, count: int) -> AsyncIterator[bytes]:
    for number in range(count):
        yield request(endpoint, str(number))


async def test_a_stream_answers_as_soon_as_it_can() -> None:
    async with serving(FakeExecutor("a", {"/x": slower_at_first})) as flow:
        call = flow.channel.stream_stream(wire.CALL)(send("/x", 10), timeout=20)
        names = [wire.read_request(reply).header.request_id async for reply in call]
    assert sorted(names) == [str(number) for number in range(10)]
    assert names == [str(number) for number in reversed(range(10))]


async def test_a_stream_answers_in_order_if_asked_to() -> None:
    async with serving(FakeExecutor("a", {"/x": slower_at_first})) as flow:
        call = flow.channel.stream_stream(wire.CALL)(send("/x", 30), timeout=20, metadata=IN_ORDER)
        replies = [wire.read_request(reply) async for reply in call]
    assert [reply.header.request_id for reply in replies] == [str(number) for number in range(30)]
    assert [texts_of(reply) for reply in replies] == [[str(number)] for number in range(30)]


@pytest.mark.parametrize("in_order", [True, False])
async def test_a_stream_has_only_so_many_requests_in_flight(in_order: bool) -> None:
    a = FakeExecutor("a", {"/x": None})
    most = 0

    async def work(message: pb.DataRequestProto) -> None:
        nonlocal most
        most = max(most, a.in_flight)
        await asyncio.sleep(0.02)

    a.handlers["/x"] = work
    metadata = (("__prefetch__", "4"), *(IN_ORDER if in_order else ()))
    async with serving(a) as flow:
        call = flow.channel.stream_stream(wire.CALL)(send("/x", 40), timeout=20, metadata=metadata)
        assert len([reply async for reply in call]) == 40
    assert most == 4


async def test_a_stream_is_slowed_down_rather_than_refused() -> None:
    async with serving(FakeExecutor("a", {"/x": sleeping(0.02)}), settings=GatewaySettings(max_in_flight=3)) as flow:
        call = flow.channel.stream_stream(wire.CALL)(send("/x", 40), timeout=20)
        replies = [wire.read_request(reply) async for reply in call]
    assert [wire.error_of(reply.header) for reply in replies] == [None] * 40


async def test_an_error_on_a_stream_is_one_reply_and_the_stream_goes_on() -> None:
    async def fail(message: pb.DataRequestProto) -> None:
        raise Conflict("vectors of another model")

    async def mixed() -> AsyncIterator[bytes]:
        yield request("/x", "0")
        yield request("/unknown", "1")
        yield b"rubbish"
        yield request("/fail", "3")
        yield request("/x", "4")

    async with serving(FakeExecutor("a", {"/x": append("!"), "/fail": fail})) as flow:
        call = flow.channel.stream_stream(wire.CALL)(mixed(), timeout=20, metadata=IN_ORDER)
        replies = [wire.read_request(reply) async for reply in call]
    errors: list[FlowdexError | None] = [wire.error_of(reply.header) for reply in replies]
    assert [error and error.name for error in errors] == [None, "NotFound", "InvalidInput", "Conflict", None]
    assert isinstance(errors[1], NotFound)
    assert [reply.header.request_id for reply in replies] == ["0", "1", "", "3", "4"]
    assert texts_of(replies[4]) == ["4!"]


async def test_a_stream_that_is_cancelled_stops_the_work() -> None:
    a = FakeExecutor("a", {"/x": sleeping(30)})
    async with serving(a) as flow:
        call = flow.channel.stream_stream(wire.CALL)(send("/x", 5))
        await eventually(lambda: a.in_flight == 5)
        call.cancel()
        await eventually(lambda: a.cancelled == 5)
        await eventually(lambda: flow.gateway.router.in_flight == 0)


async def test_an_empty_stream() -> None:
    async with serving(FakeExecutor("a", {"/x": None})) as flow:
        call = flow.channel.stream_stream(wire.CALL)(send("/x", 0), timeout=10)
        assert [reply async for reply in call] == []


async def test_stream_doc_goes_to_the_first_executor_that_serves_it() -> None:
    a, b = FakeExecutor("a", {"/other": None}), FakeExecutor("b", {"/stream": None})
    message = pb.SingleDocumentRequestProto()
    message.header.exec_endpoint = "/stream"
    async with serving(a, b) as flow:
        method = flow.channel.unary_stream(wire.STREAM_DOC)
        replies = [
            pb.SingleDocumentRequestProto.FromString(reply)
            async for reply in method(message.SerializeToString(), timeout=10)
        ]
        assert [reply.document.data["text"].text for reply in replies] == ["b 0", "b 1", "b 2"]
        assert b.streamed == [message]
        message.parameters.update({"b": {"x": 1}, "y": 2})
        assert len([reply async for reply in method(message.SerializeToString(), timeout=10)]) == 3
        assert wire.dict_from_struct(b.streamed[1].parameters) == {"b": {"x": 1.0}, "x": 1.0, "y": 2.0}
        message.header.exec_endpoint = "/strem"
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            [reply async for reply in method(message.SerializeToString(), timeout=10)]
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        await eventually(lambda: flow.gateway.router.in_flight == 0)


async def test_discovery_dry_run_and_versions() -> None:
    a, b = FakeExecutor("a", {"/x": None}), FakeExecutor("b", {"/y": None, "/x": None})
    async with serving(a, b) as flow:
        found = pb.EndpointsProto.FromString(await flow.channel.unary_unary(wire.ENDPOINT_DISCOVERY)(b"", timeout=10))
        assert list(found.endpoints) == ["/x", "/y"]
        info = pb.JinaInfoProto.FromString(await flow.channel.unary_unary(wire.INFO_STATUS)(b"", timeout=10))
        assert set(info.jina) == {"flowdex", "python", "grpcio"}
        assert not info.envs, "the environment of a server is nobody's business"
        dry_run = flow.channel.unary_unary(wire.DRY_RUN)
        assert pb.StatusProto.FromString(await dry_run(b"", timeout=10)).code == wire.SUCCESS
        await b.stop(grace=None)
        await eventually(lambda: not flow.gateway.ready)
        status = pb.StatusProto.FromString(await dry_run(b"", timeout=10))
        assert status.code == wire.ERROR
        assert "b" in status.description


async def test_health_follows_the_executors_and_every_watcher_hears_it() -> None:
    a = FakeExecutor("a", {"/x": None})
    await a.start(serving=False)
    async with serving(a, ready=False) as flow:
        stub = health_pb2_grpc.HealthStub(flow.channel)
        heard: list[list[int]] = [[], []]

        async def watch(number: int) -> None:
            async for reply in stub.Watch(health_pb2.HealthCheckRequest(service="jina.JinaRPC")):
                heard[number].append(reply.status)

        watchers = [asyncio.ensure_future(watch(number)) for number in range(2)]
        leaving = stub.Watch(health_pb2.HealthCheckRequest())
        await leaving.read()
        leaving.cancel()
        assert (await stub.Check(health_pb2.HealthCheckRequest())).status == health_pb2.HealthCheckResponse.NOT_SERVING
        a.health.set(True)
        await eventually(lambda: flow.gateway.ready)
        assert (await stub.Check(health_pb2.HealthCheckRequest())).status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Check(health_pb2.HealthCheckRequest(service="no.such.Service"))
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        a.health.set(False)
        expected = [[2, 1, 2]] * 2
        await eventually(lambda: heard == expected)
    await asyncio.wait_for(asyncio.gather(*watchers, return_exceptions=True), 5)


async def test_reflection_describes_what_is_served() -> None:
    async with serving(FakeExecutor("a", {"/x": None})) as flow:
        stub = reflection_pb2_grpc.ServerReflectionStub(flow.channel)

        async def ask(**query: str) -> reflection_pb2.ServerReflectionResponse:
            call = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(**query)]))
            (reply,) = [reply async for reply in call]
            return reply

        listed = {each.name for each in (await ask(list_services="")).list_services_response.service}
        assert listed == {*GATEWAY_SERVICES, "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"}
        for name in listed:
            reply = await ask(file_containing_symbol=name)
            files = [
                descriptor_pb2.FileDescriptorProto.FromString(data)
                for data in reply.file_descriptor_response.file_descriptor_proto
            ]
            services = {f"{file.package}.{service.name}" for file in files for service in file.service}
            assert name in services


async def test_a_status_in_a_request_is_not_taken_for_a_verdict() -> None:
    """An executor gives a request's header back, and with it what the caller wrote there."""
    request = wire.read_request(wire.build_request("/x", DocumentBatch.from_columns(texts=["a"])))
    request.header.status.code = pb.StatusProto.ERROR
    request.header.status.exception.name = "InternalError"
    async with serving(FakeExecutor("a", {"/x": append("1")}), FakeExecutor("b", {"/x": append("2")})) as flow:
        reply = await flow.send(request.SerializeToString())
        assert texts_of(reply) == ["a12"]
