"""The replicas of one executor: one connection each, watched, the least loaded first.

                       +-- Replica 127.0.0.1:4001   ready, 3 in flight  <-- watch (grpc.health.v1), endpoint_discovery
    call(request) --> ReplicaPool
                       +-- Replica 127.0.0.1:4002   ready, 2 in flight  <-- picked

A replica takes calls from the moment its health says SERVING and its endpoints are known, until its health says
otherwise or a call finds it gone. Small calls share one stream, where the replica's worker can do that (`exchange`). A
call that found the replica gone is tried on another, if it cannot have run or may run twice; with no replica ready it
waits a little for one to come back.

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
from grpc_health.v1 import health_pb2

from flowdex import wire
from flowdex.errors import DeadlineExceeded, FlowdexError, Unavailable, error_from_grpc
from flowdex.proto import flowdex_pb2 as pb
from flowdex.timeouts import within
from flowdex_orchestrator.gateway.exchange import LARGEST_REQUEST, Exchange, Metadata, NotBegun
from flowdex_orchestrator.load import load_method, mean_queue_ms, queue_ms
from flowdex_orchestrator.traits import NO_TRAITS, Traits

__all__ = ["Metadata", "Replica", "ReplicaPool"]

_Unary = grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
_Stream = grpc.aio.UnaryStreamMultiCallable[Any, Any]

logger = logging.getLogger(__name__)

_CHANNEL_OPTIONS = (
    ("grpc.max_send_message_length", -1),  # the limit is enforced once, where requests enter
    ("grpc.max_receive_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
    ("grpc.enable_retries", 0),  # retries are decided here, where what may run twice is known
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
)
_WATCH_SECONDS = 30.0  # then it is opened again, which finds out about a connection that died in silence
_ANSWER_SECONDS = 5.0  # for the first health answer, and for the endpoints
_LOAD_SECONDS = 2.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 0.5
_STABLE_SECONDS = 5.0
_REMOVED = "was removed"
_NOT_SERVING = "is not serving: it is starting or stopping"
# What gRPC says when a call never left: nothing can have run.
_NEVER_SENT = ("failed to connect", "connection refused", "dns resolution failed", "name resolution")


class Replica:
    """One replica: its connection, whether it is ready, how many calls it is working on.

    Args:
        address: `host:port`, or any target that gRPC understands.
        on_change: Called when it becomes ready or stops being so.
    """

    __slots__ = (
        "_channel",
        "_discover",
        "_exchange",
        "_load",
        "_on_change",
        "_pause",
        "_process",
        "_ready_since",
        "_task",
        "_watch",
        "address",
        "endpoints",
        "failure",
        "in_flight",
        "ready",
        "stream",
        "traits",
    )

    def __init__(self, address: str, on_change: Callable[[Replica], None]) -> None:
        self.address = address
        self.ready = False
        self.in_flight = 0
        self.failure = "not reached yet"
        self.endpoints = pb.EndpointsProto()
        self.traits = NO_TRAITS
        self._on_change = on_change
        self._pause = _FIRST_PAUSE
        self._ready_since = 0.0
        self._channel = grpc.aio.insecure_channel(address, options=_CHANNEL_OPTIONS)
        # No serialisers: what goes in and comes out are the bytes of the messages.
        self._process: _Unary = self._channel.unary_unary(wire.PROCESS_SINGLE_DATA)
        self._exchange = Exchange(self._channel)
        self.stream: _Stream = self._channel.unary_stream(wire.STREAM_DOC)
        self._discover: _Unary = self._channel.unary_unary(wire.ENDPOINT_DISCOVERY)
        self._load = load_method(self._channel)
        self._watch: _Stream = self._channel.unary_stream(
            "/grpc.health.v1.Health/Watch",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        self._task = asyncio.get_running_loop().create_task(self._keep_watching())

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
            self._on_change(self)

    async def _keep_watching(self) -> None:
        while True:
            if not self.ready:
                await asyncio.sleep(self._pause * random.uniform(0.8, 1.2))  # nosec B311 # spreads load, hides nothing
                self._pause = min(2 * self._pause, _LONGEST_PAUSE)
            try:
                await self._watch_once()
                self._down(self.failure or "its server ended the health watch")
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED:
                    self._down(_reason(error))
                elif not self.ready and not self.failure:
                    self.failure = "does not answer"
            except asyncio.TimeoutError:
                self._down(f"no health answer within {_ANSWER_SECONDS:g} s")

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
    ) -> None:
        self.name = name
        self.endpoints: frozenset[str] | None = None
        self.schemas = pb.EndpointsProto().schemas
        self.splittable: frozenset[str] = frozenset()
        self._timeout = timeout
        self._retries = retries
        self._wait = wait
        self._on_change = on_change
        self._available = asyncio.Event()
        self._replicas: list[Replica] = []
        for address in addresses:
            self.add(address)

    def configure(self, *, timeout: float | None, retries: int, wait: float) -> None:
        """Go by other limits from the next call on; see the class."""
        self._timeout, self._retries, self._wait = timeout, retries, wait

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

    def add(self, address: str) -> None:
        """Add a replica; it takes calls as soon as it is serving. An address that is there already stays as it is."""
        if all(replica.address != address for replica in self._replicas):
            self._replicas.append(Replica(address, self._changed))

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
        self, request: bytes, *, deadline: float | None = None, metadata: Metadata = (), idempotent: bool = False
    ) -> bytes:
        """Send a request to the least loaded replica, and to others if that one turns out to be gone.

        Args:
            request: A serialised `DataRequestProto`.
            deadline: In `time.monotonic()` seconds.
            metadata: Passed on to the executor.
            idempotent: Whether it may run twice.

        Returns:
            The serialised reply, which may carry an error of the executor in its header.

        Raises:
            Unavailable: No replica answered.
            DeadlineExceeded: The deadline passed, or the executor's time-out.
            FlowdexError: Another class, if gRPC or the executor's server ended the call with a status.
        """
        give_up = 0.0  # set when first needed: the usual call never looks at this clock
        runs = 0
        stream_ended = False
        while True:
            replica = self._pick()
            if replica is None:
                give_up = give_up or time.monotonic() + self._wait
                await self._wait_until(give_up, deadline)
                continue
            timeout = self._time_left(deadline)
            replica.in_flight += 1
            try:
                return await replica.call(request, timeout, metadata)
            except grpc.aio.AioRpcError as error:
                if not _is_gone(error):
                    raise self._translate(error, deadline) from None
                if isinstance(error, NotBegun) and not stream_ended:  # it may only have been an old stream
                    stream_ended = True
                    continue
                replica.fail(_reason(error))
                give_up = give_up or time.monotonic() + self._wait
                runs += not _never_sent(error)
                if (runs and not idempotent) or runs > self._retries or time.monotonic() > give_up:
                    raise self._gone(replica, error, runs) from None
            finally:
                replica.in_flight -= 1

    async def stream(
        self, request: bytes, *, deadline: float | None = None, metadata: Metadata = ()
    ) -> AsyncIterator[bytes]:
        """Send a `SingleDocumentRequestProto` and yield the serialised replies; raises as `call` does."""
        give_up = 0.0
        while True:
            replica = self._pick()
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

    def _pick(self) -> Replica | None:
        """The ready replica with the fewest calls in flight; any of them when several have as few."""
        best: Replica | None = None
        ties = 1
        for replica in self._replicas:
            if not replica.ready:
                continue
            if best is None or replica.in_flight < best.in_flight:
                best, ties = replica, 1
            elif replica.in_flight == best.in_flight:
                ties += 1
                if random.random() * ties < 1:  # nosec B311 # spreads load, hides nothing
                    best = replica
        return best

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


def _never_sent(error: grpc.aio.AioRpcError) -> bool:
    if isinstance(error, NotBegun):
        return True
    details = (error.details() or "").lower()
    return any(sign in details for sign in _NEVER_SENT)


def _reason(error: grpc.aio.AioRpcError) -> str:
    """The gist of what gRPC said, such as "Connection refused"."""
    details = error.details() or error.code().name
    return details.rsplit("; last error: ", 1)[-1].split("\n", 1)[0]
