"""Tiny executors for the gateway's tests: real gRPC servers on loopback, in the test's own event loop."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio
import httpx
import numpy as np

from flowdex import wire
from flowdex.documents import DocumentBatch
from flowdex.errors import FlowdexError
from flowdex.proto import flowdex_pb2 as pb
from flowdex_orchestrator.access import Guard
from flowdex_orchestrator.gateway.server import Gateway
from flowdex_orchestrator.gateway.settings import ExecutorTarget, GatewaySettings
from flowdex_orchestrator.health import HealthService
from flowdex_orchestrator.traits import NO_TRAITS, Traits

Handler = Callable[[pb.DataRequestProto], Awaitable[None]]


class FakeExecutor:
    """An executor that does what the test says: `handlers` change the request in place, or raise."""

    def __init__(
        self, name: str, handlers: dict[str, Handler | None], port: int = 0, traits: Traits = NO_TRAITS
    ) -> None:
        self.name = name
        self.traits = traits
        self.queue_ms: Callable[[], float] = lambda: 0.0
        self.handlers = handlers
        self.port = port
        self.health = HealthService()
        self.seen: list[pb.DataRequestProto] = []
        self.streamed: list[pb.SingleDocumentRequestProto] = []
        self.in_flight = 0
        self.metadata: list[dict[str, Any]] = []
        self.time_left: list[float | None] = []
        self.cancelled = 0
        self.answers: bytes | None = None  # to everything, whatever the handlers do
        self.describes: bytes | None = None  # itself
        self.server: grpc.aio.Server | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def start(self, serving: bool = True) -> FakeExecutor:
        """Listen, on the same port as before if there was one."""
        self.health = HealthService()
        self.server = grpc.aio.server(options=(("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", -1)))
        self.server.add_generic_rpc_handlers(
            (
                grpc.method_handlers_generic_handler(
                    "jina.JinaSingleDataRequestRPC",
                    {"process_single_data": grpc.unary_unary_rpc_method_handler(self._process)},
                ),
                grpc.method_handlers_generic_handler(
                    "flowdex.v1.ExecutorRPC", {"load": grpc.unary_unary_rpc_method_handler(self._load)}
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

    async def _process(self, data: bytes, context: Any) -> bytes:
        request = wire.read_request(data)
        self.seen.append(pb.DataRequestProto.FromString(data))
        self.metadata.append(dict(context.invocation_metadata()))
        self.time_left.append(context.time_remaining())
        self.in_flight += 1
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
        finally:
            self.in_flight -= 1
        if self.answers is not None:
            return self.answers
        request.routes.add(executor=self.name)  # as stock Jina's workers do; the gateway writes routes anew
        return request.SerializeToString()

    async def _stream(self, data: bytes, context: Any) -> AsyncIterator[bytes]:
        request = pb.SingleDocumentRequestProto.FromString(data)
        self.streamed.append(pb.SingleDocumentRequestProto.FromString(data))
        for number in range(3):
            request.document.data["text"].text = f"{self.name} {number}"
            yield request.SerializeToString()

    async def _load(self, data: bytes, context: Any) -> bytes:
        return json.dumps({"queue_ms": self.queue_ms()}).encode()

    async def _endpoints(self, data: bytes, context: Any) -> bytes:
        if self.describes is not None:
            return self.describes
        context.set_trailing_metadata(self.traits.metadata())
        return pb.EndpointsProto(endpoints=[*self.handlers, "_jina_dry_run_"]).SerializeToString()


async def embed(request: pb.DataRequestProto) -> None:
    """A handler that gives every document the vector [length of its text, 0.5]."""
    batch = DocumentBatch.from_proto(request.data.docs)
    batch.embeddings = np.array([[len(text or ""), 0.5] for text in batch.texts], dtype=np.float32)


def append(suffix: str) -> Handler:
    """A handler that appends to every document's text."""

    async def handler(request: pb.DataRequestProto) -> None:
        batch = DocumentBatch.from_proto(request.data.docs)
        batch.texts = [(text or "") + suffix for text in batch.texts]

    return handler


def result(name: str, **values: Any) -> Handler:
    """A handler that returns a dictionary, the way Jina's workers do."""

    async def handler(request: pb.DataRequestProto) -> None:
        request.parameters.get_or_create_struct(wire.RESULTS_KEY).Clear()
        request.parameters[wire.RESULTS_KEY].update({name: values})

    return handler


def failing(error: Exception) -> Handler:
    """A handler that raises."""

    async def handler(request: pb.DataRequestProto) -> None:
        raise error

    return handler


def sleeping(seconds: float) -> Handler:
    """A handler that takes its time."""

    async def handler(request: pb.DataRequestProto) -> None:
        await asyncio.sleep(seconds)

    return handler


def waiting(until: asyncio.Event) -> Handler:
    """A handler that is busy until it is told to go on."""

    async def handler(request: pb.DataRequestProto) -> None:
        await until.wait()

    return handler


async def eventually(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait, within bounds, until something holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come true in time"
        await asyncio.sleep(0.01)


@dataclass
class Flow:
    """A gateway in front of fake executors, with a channel and an HTTP client to talk to it."""

    gateway: Gateway
    channel: grpc.aio.Channel
    http: httpx.AsyncClient
    ports: dict[str, int]

    async def call(self, endpoint: str, *texts: str, timeout: float | None = 10.0, **options: Any) -> Any:
        """One unary call; the reply, parsed."""
        documents = DocumentBatch.from_columns(ids=[f"id-{number}" for number in range(len(texts))], texts=list(texts))
        return await self.send(wire.build_request(endpoint, documents, **options), timeout=timeout)

    async def send(self, data: bytes, timeout: float | None = 10.0, metadata: Any = ()) -> pb.DataRequestProto:
        """One unary call with these bytes."""
        method = self.channel.unary_unary(wire.PROCESS_SINGLE_DATA)
        return wire.read_request(await method(data, timeout=timeout, metadata=metadata))


def texts_of(reply: pb.DataRequestProto) -> list[str | None]:
    """The texts of a reply's documents; raises the error it carries, if it does."""
    error = wire.error_of(reply.header)
    if error is not None:
        raise error
    return wire.documents_of(reply).texts


@asynccontextmanager
async def serving(
    *executors: FakeExecutor | Sequence[FakeExecutor],
    needs: Mapping[str, Sequence[str]] | None = None,
    settings: GatewaySettings | None = None,
    ready: bool = True,
    guard: Guard | None = None,
    **options: Any,
) -> AsyncIterator[Flow]:
    """Run a gateway in front of fake executors, started here; several in a list are replicas of one.

    Args:
        executors: In the order of the flow.
        needs: As in a flow file; without it they form a chain.
        settings: The gateway's.
        ready: Whether to wait until it is ready.
        guard: Who may call.
        **options: For every `ExecutorTarget`.
    """
    groups = [each if isinstance(each, Sequence) else [each] for each in executors]
    for executor in (executor for group in groups for executor in group):
        if executor.server is None and executor.port == 0:
            await executor.start()
    targets = []
    for number, group in enumerate(groups):
        name = group[0].name
        follows = (groups[number - 1][0].name,) if number else ()
        addresses = tuple(executor.address for executor in group)
        targets.append(
            ExecutorTarget(name, tuple(needs.get(name, ())) if needs is not None else follows, addresses, **options)
        )
    try:
        async with Gateway(targets, settings or GatewaySettings(), guard=guard) as gateway:
            ports = await gateway.serve("127.0.0.1", grpc_port=0, http_port=0)
            if ready:
                await asyncio.wait_for(gateway.wait_ready(), 10)
            address = f"127.0.0.1:{ports['grpc']}"
            options_ = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))
            async with (
                grpc.aio.insecure_channel(address, options=options_) as channel,
                httpx.AsyncClient(base_url=f"http://127.0.0.1:{ports['http']}", trust_env=False) as http,
            ):
                yield Flow(gateway, channel, http, ports)
    finally:
        for executor in (executor for group in groups for executor in group):
            await executor.stop()
