"""The replicas of one executor: one connection each, watched, the least loaded first.

                       +-- Replica 127.0.0.1:4001   ready, 3 in flight  <-- watch (grpc.health.v1), endpoint_discovery
    call(request) --> ReplicaPool
                       +-- Replica 127.0.0.1:4002   ready, 2 in flight  <-- picked

A replica takes calls from the moment its health says SERVING and its endpoints are known, until its health says
otherwise or a call finds it gone. Small calls share one stream, where the replica's worker can do that (`exchange`). A
call that found the replica gone is tried on another, if it cannot have run or may run twice; with no replica ready it
waits a little for one to come back.

A process that is stopped, or a machine that vanished, does not answer HTTP/2 pings: its calls end with the connection,
after `_PING_SECONDS + _PONG_SECONDS` at most. One that answers, but not what was asked, or several times in a row not
in time while others do, is put aside for a while; what may run twice is tried on another.

An address is anything that gRPC resolves to one server. Several servers behind one `dns:///` name are `names`' affair,
which calls `add` and `remove` as the name's addresses change.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2

from flowdex import wire
from flowdex.errors import (
    DeadlineExceeded,
    ExecutorError,
    FlowdexError,
    InvalidInput,
    TooLarge,
    Unavailable,
    error_from_grpc,
)
from flowdex.proto import flowdex_pb2 as pb
from flowdex.timeouts import within
from flowdex_orchestrator.gateway.answer import Answer, read_answer
from flowdex_orchestrator.gateway.exchange import LARGEST_REQUEST, Exchange, Metadata, NotBegun
from flowdex_orchestrator.load import facts, load_method, mean_queue_ms, queue_ms
from flowdex_orchestrator.tls import PLAIN, Hop
from flowdex_orchestrator.traits import NO_TRAITS, Traits

__all__ = ["Metadata", "Replica", "ReplicaPool"]

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
_TROUBLES = 3  # answers in a row that are none, or too late, until a replica is put aside
_FIRST_ASIDE, _LONGEST_ASIDE = 5.0, 60.0  # seconds
_IN_TIME = 1.0  # seconds that a call must have had for its being late to be the replica's fault
_REMOVED = "was removed"
_NOT_SERVING = "is not serving: it is starting, stopping, or its canary failed (see /status)"
# Statuses that no executor answers with: something is wrong with the replica, and perhaps not with another one.
_BROKEN = (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.DATA_LOSS)
_OVERSIZED, _SERVER = "Received message larger than max", "SERVER:"  # gRPC's words
# What gRPC says when a call never left: nothing can have run.
_NEVER_SENT = ("failed to connect", "connection refused", "dns resolution failed", "name resolution")


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
        self.troubles = _TROUBLES - 1  # the next one is enough
        self.fail(reason)
        self._pause = self._aside
        self._aside = min(2 * self._aside, _LONGEST_ASIDE)

    async def queue_ms(self) -> float | None:
        """Mean milliseconds that requests wait in it; None where it does not say."""
        return await queue_ms(self._load, _LOAD_SECONDS)

    async def close(self) -> None:
        """Close the connection; calls still on it fail."""
        self._down(_REMOVED)
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
                    self._down(_reason(error))
                    self._exchange.lose(_reason(error))
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


class ReplicaPool:
    """All replicas of one executor, behind one `call`.

    Must be made inside a running event loop.

    Args:
        name: The executor's name.
        addresses: Its replicas.
        timeout: Seconds after which one call fails, None for no limit but the request's deadline.
        retries: How often a call that may have run is tried on another replica.
        wait: Seconds a call waits, in all, for a replica to be ready.
        on_change: Called when the pool becomes ready or stops being so, and when its endpoints have changed.
        hop: How to connect.
        largest: Bytes of the largest reply; -1 for no limit.
    """

    def __init__(
        self,
        name: str,
        addresses: Sequence[str],
        *,
        timeout: float | None = None,
        retries: int = 2,
        wait: float = 10.0,
        on_change: Callable[[], None] = lambda: None,
        hop: Hop = PLAIN,
        largest: int = -1,
    ) -> None:
        self.name = name
        self.endpoints: frozenset[str] | None = None
        self.schemas = pb.EndpointsProto().schemas
        self.splittable: frozenset[str] = frozenset()
        self._timeout = timeout
        self._retries = retries
        self._wait = wait
        self._on_change = on_change
        self._hop = hop
        self._largest = largest
        self._available = asyncio.Event()
        self._replicas: list[Replica] = []
        for address in addresses:
            self.add(address)

    def configure(self, *, timeout: float | None, retries: int, wait: float) -> None:
        """Go by other limits from the next call on; see the class."""
        self._timeout, self._retries, self._wait = timeout, retries, wait

    @property
    def tenants(self) -> bool:
        """Whether all replicas that are ready keep the documents of tenants apart."""
        return all(replica.traits.tenants for replica in self._replicas if replica.ready)

    @property
    def replicas(self) -> Sequence[Replica]:
        """The replicas, for reading."""
        return self._replicas

    @property
    def ready(self) -> bool:
        """Whether at least one replica takes calls."""
        return self._available.is_set()

    @property
    def ready_count(self) -> int:
        """How many replicas take calls."""
        return sum(replica.ready for replica in self._replicas)

    async def queue_ms(self) -> float | None:
        """Milliseconds that requests wait, the mean over the ready replicas; None where none says."""
        ready = [replica for replica in self._replicas if replica.ready]
        return mean_queue_ms(await asyncio.gather(*(replica.queue_ms() for replica in ready)))

    def add(self, address: str, *, name: str | None = None) -> None:
        """Add a replica; it takes calls as soon as it is serving. An address that is there already stays as it is.

        Args:
            address: Where it is.
            name: What its certificate is for, where that is not the address.
        """
        if all(replica.address != address for replica in self._replicas):
            hop = self._hop.named(name)
            self._replicas.append(Replica(address, self._changed, hop, largest=self._largest))

    async def remove(self, address: str, *, drain: float = 30.0) -> None:
        """Take a replica out: no new calls at once, its connection closes when it is idle or `drain` seconds passed."""
        replica = next((replica for replica in self._replicas if replica.address == address), None)
        if replica is None:
            return
        self._replicas.remove(replica)
        self._refresh()
        end = time.monotonic() + drain
        while replica.in_flight and time.monotonic() < end:  # noqa: ASYNC110 - no call pays for an event that few need
            await asyncio.sleep(0.02)
        await replica.close()

    async def close(self) -> None:
        """Close all connections."""
        replicas, self._replicas = self._replicas, []
        self._available.clear()
        await asyncio.gather(*(replica.close() for replica in replicas))

    async def wait_ready(self, deadline: float | None) -> None:
        """Return once a replica is ready.

        Args:
            deadline: The request's, in `time.monotonic()` seconds.

        Raises:
            DeadlineExceeded: The deadline came first.
            Unavailable: None became ready within the pool's `wait`.
        """
        if not self._available.is_set():
            await self._wait_until(time.monotonic() + self._wait, deadline)

    async def call(
        self,
        request: bytes,
        *,
        deadline: float | None = None,
        metadata: Metadata = (),
        idempotent: bool = False,
        documents: int | None = None,
        endpoint: str | None = None,
    ) -> Answer:
        """Send a request to the least loaded replica, and to others if that one turns out to be gone, or broken.

        Args:
            request: A serialised `DataRequestProto`.
            deadline: In `time.monotonic()` seconds.
            metadata: Passed on to the executor.
            idempotent: Whether it may run twice.
            documents: How many documents the reply has; None for any number.
            endpoint: What is asked, which the reply repeats; None for anything.

        Returns:
            The reply, which may carry an error of the executor in its header.

        Raises:
            Unavailable: No replica answered.
            DeadlineExceeded: The deadline passed, or the executor's time-out.
            ExecutorError: What was answered is no reply to the request.
            FlowdexError: Another class, if gRPC or the executor's server ended the call with a status.
        """
        give_up = 0.0  # set when first needed: the usual call never looks at this clock
        runs = 0
        stream_ended = False
        broken: list[Replica] = []
        while True:
            replica = self._pick(broken) or self._pick(())
            if replica is None:
                give_up = give_up or time.monotonic() + self._wait
                await self._wait_until(give_up, deadline)
                continue
            timeout = self._time_left(deadline)
            replica.in_flight += 1
            failure: FlowdexError
            try:
                answer = read_answer(await replica.call(request, timeout, metadata), documents, endpoint)
                replica.troubles, replica.answered = 0, time.monotonic()
                return answer
            except grpc.aio.AioRpcError as error:
                if _is_gone(error):
                    if isinstance(error, NotBegun) and not stream_ended:  # it may only have been an old stream
                        stream_ended = True
                        continue
                    replica.fail(_reason(error))
                    give_up = give_up or time.monotonic() + self._wait
                    runs += not _never_sent(error)
                    if (runs and not idempotent) or runs > self._retries or time.monotonic() > give_up:
                        raise self._gone(replica, error, runs) from None
                    continue
                failure = self._translate(error, deadline)
                if not _is_trouble(error, timeout):
                    raise failure from None
                may_be_better = error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED
            except InvalidInput as error:
                failure = ExecutorError(
                    f"executor {self.name!r} at {replica.address} did not answer what it was asked: {error.message}",
                    executor=self.name,
                )
                may_be_better = True
            finally:
                replica.in_flight -= 1
            runs += 1
            broken.append(replica)
            self._note_trouble(replica, failure)
            another = any(each.ready and each not in broken for each in self._replicas)
            if not (may_be_better and idempotent and another) or runs > self._retries:
                raise failure

    async def stream(
        self, request: bytes, *, deadline: float | None = None, metadata: Metadata = ()
    ) -> AsyncIterator[bytes]:
        """Send a `SingleDocumentRequestProto` and yield the serialised replies; raises as `call` does."""
        give_up = 0.0
        while True:
            replica = self._pick(())
            if replica is None:
                give_up = give_up or time.monotonic() + self._wait
                await self._wait_until(give_up, deadline)
                continue
            replica.in_flight += 1
            call = replica.stream(request, timeout=self._time_left(deadline), metadata=metadata)
            try:
                async for reply in call:
                    yield reply
                return
            except grpc.aio.AioRpcError as error:
                if not _is_gone(error):
                    raise self._translate(error, deadline) from None
                replica.fail(_reason(error))
                give_up = give_up or time.monotonic() + self._wait
                if not _never_sent(error) or time.monotonic() > give_up:
                    raise self._gone(replica, error, 1) from None
            finally:
                call.cancel()
                replica.in_flight -= 1

    def _pick(self, broken: Sequence[Replica]) -> Replica | None:
        """The ready replica with the fewest calls in flight; any of them when several have as few.

        Args:
            broken: Replicas that have not answered this call as they should.
        """
        best: Replica | None = None
        ties = 1
        for replica in self._replicas:
            if not replica.ready or (broken and replica in broken):
                continue
            if best is None or replica.in_flight < best.in_flight:
                best, ties = replica, 1
            elif replica.in_flight == best.in_flight:
                ties += 1
                if random.random() * ties < 1:  # nosec B311 # spreads load, hides nothing
                    best = replica
        return best

    def _note_trouble(self, replica: Replica, failure: FlowdexError) -> None:
        """Put a replica aside that does not answer as it should, again and again, while another one does."""
        replica.troubles += 1
        if replica.troubles == 1:
            replica.troubled = time.monotonic()
        if replica.troubles >= _TROUBLES and any(
            each.ready and each is not replica and each.answered > replica.troubled for each in self._replicas
        ):
            replica.put_aside(f"has failed {replica.troubles} times in a row, while others have not: {failure.message}")

    def _time_left(self, deadline: float | None) -> float | None:
        if deadline is None:
            return self._timeout
        left = deadline - time.monotonic()
        if left <= 0:
            raise DeadlineExceeded(f"the request's deadline passed before executor {self.name!r} was called")
        return left if self._timeout is None else min(left, self._timeout)

    async def _wait_until(self, give_up: float, deadline: float | None) -> None:
        until = give_up if deadline is None else min(give_up, deadline)
        try:
            await within(self._available.wait(), until - time.monotonic())
        except asyncio.TimeoutError:
            if until == deadline:
                raise DeadlineExceeded(
                    f"the request's deadline passed while no replica of executor {self.name!r} was ready: {self._why()}"
                ) from None
            raise Unavailable(
                f"no replica of executor {self.name!r} is ready: {self._why()}. See its log; "
                f"the gateway waited {self._wait:g} s (gateway.uses_with.replica_wait)",
                retry_after=1.0,
                executor=self.name,
            ) from None

    def _why(self) -> str:
        return "; ".join(f"{replica.address} {replica.failure}" for replica in self._replicas) or "it has no address"

    def _translate(self, error: grpc.aio.AioRpcError, deadline: float | None) -> FlowdexError:
        details = error.details() or ""
        if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
            if self._timeout is not None and (deadline is None or time.monotonic() < deadline):
                message = (
                    f"executor {self.name!r} did not answer within its timeout_send of {self._timeout * 1000:g} ms"
                )
            else:
                message = f"the request's deadline passed while executor {self.name!r} was working on it"
            return DeadlineExceeded(message, executor=self.name)
        if _is_oversized(error):
            return TooLarge(
                f"executor {self.name!r} answered with more than {self._largest} bytes "
                "(gateway.uses_with.max_reply_bytes); ask for less at once",
                executor=self.name,
            )
        translated = error_from_grpc(error.code(), f"executor {self.name!r}: {details}")
        translated.executor = self.name
        return translated

    def _gone(self, replica: Replica, error: grpc.aio.AioRpcError, runs: int) -> FlowdexError:
        if not runs:
            tried = "no connection could be made"
        elif runs == 1:
            tried = "it is not tried again, as it may have run (gateway.uses_with.idempotent_endpoints)"
        else:
            tried = f"it was tried {runs} times"
        return Unavailable(
            f"executor {self.name!r} at {replica.address} went away during the call ({_reason(error)}); {tried}",
            executor=self.name,
        )

    def _changed(self, replica: Replica) -> None:
        if replica.ready:
            logger.info("executor %s: replica %s is ready", self.name, replica.address)
            self.endpoints = frozenset(replica.endpoints.endpoints)
            self.schemas = replica.endpoints.schemas
            self.splittable = replica.traits.splittable
        elif replica.failure != _REMOVED:
            logger.warning("executor %s: replica %s is out: %s", self.name, replica.address, replica.failure)
        self._refresh()

    def _refresh(self) -> None:
        if any(replica.ready for replica in self._replicas):
            self._available.set()
        else:
            self._available.clear()
        self._on_change()


def _is_gone(error: grpc.aio.AioRpcError) -> bool:
    """Whether the replica went away, as opposed to having answered with an error.

    CANCELLED counts: this side's own cancellation is a CancelledError, so it was the server that dropped the call.
    """
    return error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


def _is_oversized(error: grpc.aio.AioRpcError) -> bool:
    """Whether it is this side that did not take the reply, rather than the replica that did not take the call."""
    details = error.details() or ""
    return error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED and _OVERSIZED in details and _SERVER not in details


def _is_trouble(error: grpc.aio.AioRpcError, timeout: float | None) -> bool:
    """Whether a status tells of a replica that is not as it should be, rather than of the request."""
    if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
        return timeout is not None and timeout >= _IN_TIME
    return error.code() in _BROKEN or _is_oversized(error)


def _never_sent(error: grpc.aio.AioRpcError) -> bool:
    if isinstance(error, NotBegun):
        return True
    details = (error.details() or "").lower()
    return any(sign in details for sign in _NEVER_SENT)


def _reason(error: grpc.aio.AioRpcError) -> str:
    """The gist of what gRPC said, such as "Connection refused"."""
    details = error.details() or error.code().name
    return details.rsplit("; last error: ", 1)[-1].split("\n", 1)[0]
