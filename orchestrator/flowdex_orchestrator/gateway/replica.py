"""One replica of an executor: its connection, its health, how many calls it is working on.

A replica takes calls from the moment its health says SERVING and its endpoints are known, until its health says
otherwise or a call finds it gone. Small calls share one stream, where the replica's worker can do that (`exchange`).

An address is anything that gRPC resolves to one server. Several servers behind one `dns:///` name are `names`' affair.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2

from flowdex import wire
from flowdex.proto import flowdex_pb2 as pb
from flowdex.timeouts import within
from flowdex_orchestrator.gateway.exchange import LARGEST_REQUEST, Exchange, Metadata
from flowdex_orchestrator.gateway.statuses import reason_of
from flowdex_orchestrator.load import facts, load_method, queue_ms
from flowdex_orchestrator.tls import PLAIN, Hop
from flowdex_orchestrator.traits import NO_TRAITS, Traits

__all__ = ["REMOVED", "TROUBLES", "Replica"]

_Unary = grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
_Stream = grpc.aio.UnaryStreamMultiCallable[Any, Any]

logger = logging.getLogger(__name__)

_PING_SECONDS, _PONG_SECONDS = 3.0, 4.0
_CHANNEL_OPTIONS = (
    ("grpc.max_send_message_length", -1),  # the limit is enforced once, where requests enter
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
    ("grpc.enable_retries", 0),  # retries are decided here, where what may run twice is known
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 5000),  # this is how long an attempt may take: a busy replica is slow to greet
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.keepalive_time_ms", int(_PING_SECONDS * 1000)),
    ("grpc.keepalive_timeout_ms", int(_PONG_SECONDS * 1000)),
    # gRPC measures the bandwidth by pings, too. While one of those is under way, as it mostly is under load, it sends
    # no other one, and waits for its answer as long as this says (by itself, a minute).
    ("grpc.http2.ping_timeout_ms", int(_PONG_SECONDS * 1000)),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
)
# Then it is opened again. The answer to that is data, after which a server forgives pings: gRPC's servers, where nobody
# has told them otherwise (stock Jina's), hang up after the third one without (gRFC A8).
_WATCH_SECONDS = 8.0
_ANSWER_SECONDS = 5.0  # for the first health answer, and for the endpoints
_LOAD_SECONDS = 2.0
_RETIRE_SECONDS = 60.0  # for calls on a connection that another has taken the place of
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 0.5
_STABLE_SECONDS = 5.0
TROUBLES = 3  # answers in a row that are none, or too late, until a replica is put aside
_FIRST_ASIDE, _LONGEST_ASIDE = 5.0, 60.0  # seconds
REMOVED = "was removed"
_NOT_SERVING = "is not serving: it is starting, stopping, or its canary failed (see /status)"


class Replica:
    """One replica: its connection, whether it is ready, how many calls it is working on.

    Args:
        address: `host:port`, or any target that gRPC understands.
        on_change: Called when it becomes ready or stops being so.
        hop: How to connect; where its certificate files change, a new connection takes the old one's place.
        largest: Bytes of the largest reply; -1 for no limit.

    Attributes:
        answered: When it last answered as it should, in `time.monotonic()` seconds.
        troubles: How often it has not, since then.
        troubled: When the first of those was.
    """

    __slots__ = (
        "_aside",
        "_channel",
        "_discover",
        "_exchange",
        "_generation",
        "_hop",
        "_largest",
        "_load",
        "_on_change",
        "_options",
        "_pause",
        "_process",
        "_ready_since",
        "_retired",
        "_task",
        "_watch",
        "address",
        "answered",
        "endpoints",
        "failure",
        "in_flight",
        "ready",
        "stream",
        "traits",
        "troubled",
        "troubles",
    )

    def __init__(
        self, address: str, on_change: Callable[[Replica], None], hop: Hop = PLAIN, *, largest: int = -1
    ) -> None:
        self.address = address
        self._hop = hop
        self.ready = False
        self.in_flight = 0
        self.failure = "not reached yet"
        self.endpoints = pb.EndpointsProto()
        self.traits = NO_TRAITS
        self._on_change = on_change
        self.answered = self.troubled = 0.0
        self.troubles = 0
        self._pause = _FIRST_PAUSE
        self._aside = _FIRST_ASIDE
        self._ready_since = 0.0
        self._largest = largest
        self._options = (*_CHANNEL_OPTIONS, ("grpc.max_receive_message_length", largest))
        self._retired: set[asyncio.Task[None]] = set()
        self._connect(hop.generation, hop.channel(address, self._options))
        self._task = asyncio.get_running_loop().create_task(self._keep_watching())

    def _connect(self, generation: int, channel: grpc.aio.Channel) -> None:
        self._generation = generation
        self._channel = channel
        # No serialisers: what goes in and comes out are the bytes of the messages.
        self._process: _Unary = self._channel.unary_unary(wire.PROCESS_SINGLE_DATA)
        self._exchange = Exchange(self._channel, largest=self._largest)
        self.stream: _Stream = self._channel.unary_stream(wire.STREAM_DOC)
        self._discover: _Unary = self._channel.unary_unary(wire.ENDPOINT_DISCOVERY)
        self._load = load_method(self._channel)
        self._watch: _Stream = self._channel.unary_stream(
            "/grpc.health.v1.Health/Watch",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )

    async def _renew(self, generation: int) -> None:
        """Connect anew, with new certificates, if the replica accepts them; calls on the old connection end there."""
        renewed = self._hop.channel(self.address, self._options)
        try:
            if self.ready:
                await within(renewed.channel_ready(), _ANSWER_SECONDS)
        except BaseException as error:
            await renewed.close()
            if not isinstance(error, asyncio.TimeoutError):
                raise
            logger.warning(
                "%s does not accept the new certificates: the connection with the old ones stays", self.address
            )
            return
        exchange, channel = self._exchange, self._channel
        self._connect(generation, renewed)

        async def retire() -> None:
            await exchange.retire(_RETIRE_SECONDS)
            await channel.close(_RETIRE_SECONDS)

        task = asyncio.get_running_loop().create_task(retire())
        self._retired.add(task)
        task.add_done_callback(self._retired.discard)

    async def call(self, request: bytes, timeout: float | None, metadata: Metadata) -> bytes:
        """Make a call; the reply's bytes. Raises `grpc.aio.AioRpcError`."""
        if self.traits.exchange and len(request) <= LARGEST_REQUEST:
            return await self._exchange(request, timeout=timeout, metadata=metadata)
        return await self._process(request, timeout=timeout, metadata=metadata)

    def fail(self, reason: str) -> None:
        """Take no more calls until its health has been asked again: a call has just found it gone."""
        if self.ready:
            self._down(reason)
            self._task.cancel()
            self._task = asyncio.get_running_loop().create_task(self._keep_watching())

    async def facts(self) -> dict[str, Any]:
        """What it says of itself: versions, uptime, its canary; nothing where it does not say."""
        return await facts(self._load, _LOAD_SECONDS)

    def put_aside(self, reason: str) -> None:
        """Take no more calls for a while, which is longer each time; those that it works on go on."""
        self.troubles = TROUBLES - 1  # the next one is enough
        self.fail(reason)
        self._pause = self._aside
        self._aside = min(2 * self._aside, _LONGEST_ASIDE)

    async def queue_ms(self) -> float | None:
        """Mean milliseconds that requests wait in it; None where it does not say."""
        return await queue_ms(self._load, _LOAD_SECONDS)

    async def close(self) -> None:
        """Close the connection; calls still on it fail."""
        self._down(REMOVED)
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self._exchange.close()
        await self._channel.close()
        for task in self._retired:
            task.cancel()
        await asyncio.gather(*self._retired, return_exceptions=True)

    def _up(self) -> None:
        if not self.ready:
            self.ready, self.failure = True, ""
            self._ready_since = time.monotonic()
            self._on_change(self)

    def _down(self, reason: str) -> None:
        self.failure = reason
        if self.ready:
            self.ready = False
            if time.monotonic() - self._ready_since > _STABLE_SECONDS:
                self._pause = _FIRST_PAUSE
            if time.monotonic() - self._ready_since > _LONGEST_ASIDE:
                self._aside = _FIRST_ASIDE
            self._on_change(self)

    async def _keep_watching(self) -> None:
        while True:
            if not self.ready:
                await asyncio.sleep(self._pause * random.uniform(0.8, 1.2))  # nosec B311 # spreads load, hides nothing
                self._pause = min(2 * self._pause, _LONGEST_PAUSE)
            if (generation := self._hop.generation) != self._generation:
                await self._renew(generation)
            try:
                await self._watch_once()
                self._down(self.failure or "its server ended the health watch")
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED:
                    self._down(reason_of(error))
                    self._exchange.lose(reason_of(error))
                elif not self.ready and not self.failure:
                    self.failure = "does not answer"
            except asyncio.TimeoutError:
                self._down(f"no health answer within {_ANSWER_SECONDS:g} s")
            except DecodeError:
                self._down("it does not answer as an executor does")

    async def _watch_once(self) -> None:
        call = self._watch(health_pb2.HealthCheckRequest(), timeout=_WATCH_SECONDS)
        try:
            response: Any = await within(call.read(), _ANSWER_SECONDS)
            while response is not grpc.aio.EOF:
                if response.status != health_pb2.HealthCheckResponse.SERVING:
                    self._down(_NOT_SERVING)
                    return  # ask again soon, rather than be the call that a stopping server waits for
                if not self.ready:
                    discovery: Any = self._discover(b"", timeout=_ANSWER_SECONDS)
                    self.endpoints = pb.EndpointsProto.FromString(await discovery)
                    self.traits = Traits.from_metadata(await discovery.trailing_metadata())
                    if self._hop.files is None:
                        self._exchange.prefer_local(self.traits.local_socket)
                    self._up()
                response = await call.read()
        finally:
            call.cancel()
