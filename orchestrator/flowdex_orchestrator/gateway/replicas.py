"""The replicas of one executor: one connection each, watched, the least loaded first.

                       +-- Replica 127.0.0.1:4001   ready, 3 in flight  <-- watch (grpc.health.v1), endpoint_discovery
    call(request) --> ReplicaPool
                       +-- Replica 127.0.0.1:4002   ready, 2 in flight  <-- picked

A call that found the replica gone is tried on another, if it cannot have run or may run twice; with no replica ready it
waits a little for one to come back.

A process that is stopped, or a machine that vanished, does not answer HTTP/2 pings: its calls end with the connection,
after seven seconds at most (`replica`). One that answers, but not what was asked, or several times in a row not
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

import grpc
import grpc.aio

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
from flowdex_orchestrator.gateway.exchange import Metadata, NotBegun
from flowdex_orchestrator.gateway.replica import REMOVED, TROUBLES, Replica
from flowdex_orchestrator.gateway.statuses import is_gone, is_oversized, is_trouble, reason_of, was_never_sent
from flowdex_orchestrator.load import mean_queue_ms
from flowdex_orchestrator.tls import PLAIN, Hop

__all__ = ["ReplicaPool"]

logger = logging.getLogger(__name__)


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
                if is_gone(error):
                    if isinstance(error, NotBegun) and not stream_ended:  # it may only have been an old stream
                        stream_ended = True
                        continue
                    replica.fail(reason_of(error))
                    give_up = give_up or time.monotonic() + self._wait
                    runs += not was_never_sent(error)
                    if (runs and not idempotent) or runs > self._retries or time.monotonic() > give_up:
                        raise self._gone(replica, error, runs) from None
                    continue
                failure = self._translate(error, deadline)
                if not is_trouble(error, timeout):
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
                if not is_gone(error):
                    raise self._translate(error, deadline) from None
                replica.fail(reason_of(error))
                give_up = give_up or time.monotonic() + self._wait
                if not was_never_sent(error) or time.monotonic() > give_up:
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
        if replica.troubles >= TROUBLES and any(
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
        if is_oversized(error):
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
            f"executor {self.name!r} at {replica.address} went away during the call ({reason_of(error)}); {tried}",
            executor=self.name,
        )

    def _changed(self, replica: Replica) -> None:
        if replica.ready:
            logger.info("executor %s: replica %s is ready", self.name, replica.address)
            self.endpoints = frozenset(replica.endpoints.endpoints)
            self.schemas = replica.endpoints.schemas
            self.splittable = replica.traits.splittable
        elif replica.failure != REMOVED:
            logger.warning("executor %s: replica %s is out: %s", self.name, replica.address, replica.failure)
        self._refresh()

    def _refresh(self) -> None:
        if any(replica.ready for replica in self._replicas):
            self._available.set()
        else:
            self._available.clear()
        self._on_change()
