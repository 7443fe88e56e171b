"""Tiny executors for the gateway's tests: real gRPC servers on loopback, in the test's own event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import grpc.aio
import pytest

from flowdex import wire
from flowdex.documents import DocumentBatch
from flowdex.errors import FlowdexError
from flowdex.proto import flowdex_pb2 as pb
from flowdex_orchestrator.health import HealthService

Handler = Callable[[pb.DataRequestProto], Awaitable[None]]


class FakeExecutor:
    """An executor that does what the test says: `handlers` change the request in place, or raise."""

    def __init__(self, name: str, handlers: dict[str, Handler | None], port: int = 0) -> None:
        self.name = name
        self.handlers = handlers
        self.port = port
        self.health = HealthService()
        self.seen: list[pb.DataRequestProto] = []
        self.metadata: list[dict[str, Any]] = []
        self.time_left: list[float | None] = []
        self.cancelled = 0
        self.server: grpc.aio.Server | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def start(self, serving: bool = True) -> FakeExecutor:
        self.server = grpc.aio.server(options=(("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", -1)))
        self.server.add_generic_rpc_handlers(
            (
                grpc.method_handlers_generic_handler(
                    "jina.JinaSingleDataRequestRPC",
                    {"process_single_data": grpc.unary_unary_rpc_method_handler(self._process)},
                ),
                grpc.method_handlers_generic_handler(
                    "jina.JinaSingleDocumentRequestRPC",
                    {"stream_doc": grpc.unary_stream_rpc_method_handler(self._stream)},
                ),
                grpc.method_handlers_generic_handler(
                    "jina.JinaDiscoverEndpointsRPC",
                    {"endpoint_discovery": grpc.unary_unary_rpc_method_handler(self._endpoints)},
                ),
                self.health.handler(),
            )
        )
        self.port = self.server.add_insecure_port(f"127.0.0.1:{self.port}")
        await self.server.start()
        self.health.set(serving)
        return self

    async def stop(self, grace: float | None = 0) -> None:
        if self.server is not None:
            self.health.close()
            server, self.server = self.server, None
            await server.stop(grace)
            self.health = HealthService()

    async def _process(self, data: bytes, context: Any) -> bytes:
        request = wire.read_request(data)
        self.seen.append(pb.DataRequestProto.FromString(data))
        self.metadata.append(dict(context.invocation_metadata()))
        self.time_left.append(context.time_remaining())
        handler = self.handlers.get(request.header.exec_endpoint, self.handlers.get(wire.DEFAULT_ENDPOINT))
        try:
            if handler is not None:
                await handler(request)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        except FlowdexError as error:
            wire.set_error(request.header, error, executor=self.name)
            context.set_trailing_metadata((wire.IS_ERROR_METADATA,))
        request.routes.add(executor=self.name)  # as stock Jina's workers do; the gateway writes routes anew
        return request.SerializeToString()

    async def _stream(self, data: bytes, context: Any) -> AsyncIterator[bytes]:
        request = pb.SingleDocumentRequestProto.FromString(data)
        for number in range(3):
            request.document.data["text"].text = f"{self.name} {number}"
            yield request.SerializeToString()

    async def _endpoints(self, data: bytes, context: Any) -> bytes:
        return pb.EndpointsProto(endpoints=[*self.handlers, "_jina_dry_run_"]).SerializeToString()


@pytest.fixture
async def fake_executor() -> AsyncIterator[Callable[..., Awaitable[FakeExecutor]]]:
    """Start fake executors: `await fake_executor("encoder", {"/encode": handler})`; all are stopped at the end."""
    running: list[FakeExecutor] = []

    async def start(
        name: str, handlers: dict[str, Handler | None], *, port: int = 0, serving: bool = True
    ) -> FakeExecutor:
        executor = FakeExecutor(name, handlers, port)
        running.append(executor)
        return await executor.start(serving)

    yield start
    for executor in running:
        await executor.stop()


@pytest.fixture
def eventually() -> Callable[..., Awaitable[None]]:
    """Wait, within bounds, until something holds: `await eventually(lambda: gateway.ready)`."""

    async def wait(condition: Callable[[], bool], seconds: float = 10.0) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, "it did not come true in time"
            await asyncio.sleep(0.01)

    return wait


@pytest.fixture
def append_text() -> Callable[[str], Handler]:
    """A handler that appends to every document's text."""

    def make(suffix: str) -> Handler:
        async def handler(request: pb.DataRequestProto) -> None:
            batch = DocumentBatch.from_proto(request.data.docs)
            batch.texts = [(text or "") + suffix for text in batch.texts]

        return handler

    return make
