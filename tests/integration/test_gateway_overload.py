"""An executor that cannot keep up: who is refused, how, and what it costs those who are let in."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import grpc
import httpx
import pytest
from gateway_fakes import FakeExecutor, Flow, eventually, serving, texts_of

from flowdex import wire
from flowdex.documents import DocumentBatch
from flowdex.errors import Overloaded
from flowdex.proto import flowdex_pb2 as pb
from flowdex_orchestrator.gateway.settings import GatewaySettings

SECONDS = 0.02  # that the executor takes for one request, one after the other
SETTINGS = GatewaySettings(longest_wait=0.5, least_queue=4)
LONG = "a long text " * 300


def one_by_one(seconds: float = SECONDS) -> Callable[[pb.DataRequestProto], Awaitable[None]]:
    turn = asyncio.Lock()

    async def handler(request: pb.DataRequestProto) -> None:
        async with turn:
            await asyncio.sleep(seconds)

    return handler


class Overload:
    """Requests that are sent all at once, far more than the executor can answer within `longest_wait`."""

    def __init__(self, flow: Flow, endpoint: str = "/encode", count: int = 150) -> None:
        self._flow, self._endpoint = flow, endpoint
        self._count = count
        self._calls: list[asyncio.Future[pb.DataRequestProto]] = []

    async def __aenter__(self) -> None:
        calls = [self._flow.call(self._endpoint, LONG, timeout=30) for _ in range(self._count)]
        self._calls = [asyncio.ensure_future(call) for call in calls]
        admission = self._flow.gateway.router.admission
        await eventually(lambda: admission.waits()["a"]["bulk"] > 1)

    async def __aexit__(self, *_: object) -> None:
        for call in self._calls:
            call.cancel()
        await asyncio.gather(*self._calls, return_exceptions=True)


async def test_who_would_wait_too_long_is_refused_at_once_over_grpc() -> None:
    async with serving(FakeExecutor("a", {"/encode": one_by_one()}), settings=SETTINGS) as flow, Overload(flow):
        started = time.perf_counter()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await flow.call("/encode", LONG, timeout=120)  # however slow the machine: not the deadline is in the way
        assert time.perf_counter() - started < 0.3
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "longest_wait" in caught.value.details()
        assert int(caught.value.trailing_metadata()["retry-after-ms"]) >= 1000
        reply = await flow.http.get("/metrics")
    lines = dict(line.rsplit(" ", 1) for line in reply.text.splitlines() if not line.startswith("#"))
    assert float(lines['flowdex_requests_refused_total{reason="wait"}']) >= 1
    assert float(lines['flowdex_requests_total{endpoint="/encode",status="429"}']) >= 1
    bulk, small = (
        float(lines[f'flowdex_expected_wait_seconds{{executor="a",priority="{each}"}}'])
        for each in ("bulk", "interactive")
    )
    assert bulk > 0.5 > small


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/encode", {"texts": [LONG]}),
        ("/v1/embeddings", {"input": LONG, "model": "a"}),
        ("/embed", {"inputs": LONG}),
    ],
)
async def test_who_would_wait_too_long_is_refused_unread_over_http(path: str, body: dict[str, object]) -> None:
    executor = FakeExecutor("a", {"/encode": one_by_one()})
    async with serving(executor, settings=SETTINGS) as flow, Overload(flow):
        reply = await flow.http.post(path, json=body)
        assert reply.status_code == 429
        assert int(reply.headers["retry-after"]) >= 1
        shape = reply.json()
        if path == "/encode":
            assert shape["type"] == "urn:flowdex:error:Overloaded" and "longest_wait" in shape["detail"]
        elif path == "/embed":
            assert shape["error_type"] == "Overloaded"
        else:
            assert shape["error"]["code"] == "rate_limit_exceeded"
        # Nothing of the body was looked at: what it holds is not what it should be.
        unread = await flow.http.post(path, content=b"{" + b" " * 5000, headers={"content-type": "application/json"})
        assert unread.status_code == 429
        # The same connection goes on.
        assert (await flow.http.get("/health/live")).status_code == 200


async def test_a_short_request_is_let_in_while_bulk_is_refused() -> None:
    async with serving(FakeExecutor("a", {"/encode": one_by_one()}), settings=SETTINGS) as flow, Overload(flow):
        with pytest.raises(grpc.aio.AioRpcError):
            await flow.call("/encode", LONG)
        short = asyncio.ensure_future(flow.call("/encode", "a question"))
        await eventually(lambda: flow.gateway.router.admission.waits()["a"]["interactive"] > 0)
        # It can say itself that it can wait.
        request = wire.build_request("/encode", DocumentBatch.from_columns(texts=["a question"]))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await flow.send(request, metadata=(("x-priority", "bulk"),))
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        reply = await flow.http.post("/encode", json={"texts": "a"}, headers={"X-Priority": "bulk"})
        assert reply.status_code == 429
        reply = await flow.http.post("/encode", json={"texts": "a"}, headers={"X-Priority": "urgent"})
        assert (reply.status_code, "x-priority" in reply.text) == (422, True)
        assert texts_of(await short) == ["a question"]


async def test_who_would_be_late_is_refused_at_once() -> None:
    settings = GatewaySettings(longest_wait=60)
    async with serving(FakeExecutor("a", {"/encode": one_by_one()}), settings=settings) as flow, Overload(flow):
        started = time.perf_counter()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await flow.call("/encode", LONG, timeout=1)
        assert time.perf_counter() - started < 0.5
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "left" in caught.value.details()
        reply = await flow.http.post("/encode", json={"texts": [LONG]}, headers={"x-request-timeout-ms": "500"})
        assert reply.status_code == 429


async def test_the_priority_goes_on_to_executors() -> None:
    executor = FakeExecutor("a", {"/encode": None})
    async with serving(executor) as flow:
        await flow.send(wire.build_request("/encode"), metadata=(("x-priority", "bulk"),))
        await flow.http.post("/encode", json={"texts": "a"}, headers={"X-Priority": "interactive"})
        await flow.http.post("/encode", json={"texts": "a"})
    assert [metadata.get("x-priority") for metadata in executor.metadata] == ["bulk", "interactive", None]


async def test_a_stream_is_slowed_down_rather_than_refused() -> None:
    executor = FakeExecutor("a", {"/encode": one_by_one(0.01)})
    settings = GatewaySettings(longest_wait=0.2, least_queue=4)
    async with serving(executor, settings=settings) as flow:
        documents = DocumentBatch.from_columns(texts=[LONG])
        requests = [wire.build_request("/encode", documents) for _ in range(150)]
        call = flow.channel.stream_stream(wire.CALL)(iter(requests), timeout=30)
        errors = []
        async for data in call:
            errors.append(wire.error_of(wire.read_head(data).header))
            assert executor.in_flight <= settings.stream_window
    assert len(errors) == len(requests)
    assert not [error for error in errors if error is not None]


async def test_an_executor_that_keeps_up_refuses_nobody() -> None:
    async def quick(request: pb.DataRequestProto) -> None:
        await asyncio.sleep(0.01)

    async with serving(FakeExecutor("a", {"/encode": quick}), settings=SETTINGS) as flow:
        end = time.monotonic() + 1.5

        async def caller() -> int:
            count = 0
            while time.monotonic() < end:
                texts_of(await flow.call("/encode", LONG))
                count += 1
            return count

        assert sum(await asyncio.gather(*(caller() for _ in range(32)))) > 100
        assert not flow.gateway.router.admission.refused


async def test_a_refused_upload_does_not_keep_the_connection_from_its_answer() -> None:
    executor = FakeExecutor("a", {"/encode": one_by_one()})
    async with serving(executor, settings=SETTINGS) as flow, Overload(flow):
        content = b'{"texts": ["' + b"x" * 8_000_000 + b'"]}'
        try:
            reply = await flow.http.post("/encode", content=content, headers={"content-type": "application/json"})
        except httpx.WriteError as error:
            raise AssertionError("the connection was closed while the client was sending") from error
        assert reply.status_code == 429
        assert Overloaded.__name__ in reply.text
