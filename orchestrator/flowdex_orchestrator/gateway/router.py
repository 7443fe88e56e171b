"""A request's way through the flow: from the bytes that came in to the bytes that go out.

    bytes --split--> header --admit, plan--> PlanRunner: calls --> + parameters, routes --> bytes

The caller's parameters reach every executor unchanged, save what Jina's rules address to one executor alone; what
executors return as dictionaries is gathered under `parameters["__results__"]`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple

from google.protobuf.struct_pb2 import Struct

from flowdex.errors import (
    FlowdexError,
    InvalidInput,
    NotFound,
    Overloaded,
    PermissionDenied,
    TooLarge,
)
from flowdex.priority import Priority, priority_in
from flowdex.proto import flowdex_pb2 as pb
from flowdex.wire import ERROR, RESULTS_KEY, error_of, struct_from_dict
from flowdex_orchestrator.access.guard import FREE, Grant, Guard
from flowdex_orchestrator.access.tenants import check_executors, pin
from flowdex_orchestrator.gateway.exchange import Metadata
from flowdex_orchestrator.gateway.frame import Frame, split
from flowdex_orchestrator.gateway.limits import (
    check_documents,
    check_head,
    check_parameters,
    check_single_document,
    needs_check,
)
from flowdex_orchestrator.gateway.metrics import Metrics
from flowdex_orchestrator.gateway.old_documents import downgrade, is_old, upgrade
from flowdex_orchestrator.gateway.parameters import is_specific
from flowdex_orchestrator.gateway.plan_runner import ASIDE, Message, PlanRunner, Request, parameters_of
from flowdex_orchestrator.gateway.profiling import ENCODE, PROFILE, as_encode
from flowdex_orchestrator.gateway.replicas import ReplicaPool
from flowdex_orchestrator.gateway.settings import GatewaySettings
from flowdex_orchestrator.gateway.topology import GATEWAY, Plan, Topology
from flowdex_orchestrator.gateway.trail import SlowLog, Trail
from flowdex_orchestrator.gateway.waiting import Admission

if TYPE_CHECKING:
    from flowdex_orchestrator.observability.tracing import Tracing

__all__ = ["Reply", "Router"]

logger = logging.getLogger(__name__)

_REINDEX_MARK = b"reindex"  # the parameter of /index that makes it a step of reindexing
_CACHED_PLANS = 1024
STATUS_ENDPOINT = "/status"


class Reply(NamedTuple):
    """What comes out: a serialised reply, and whether it carries an error in its header."""

    data: bytes
    is_error: bool


class Router:
    """Takes requests through the flow.

    Args:
        topology: The flow's graph.
        pools: The replicas of each executor.
        settings: The gateway's limits.
        guard: Who may call which endpoint; everybody any where None.

    Attributes:
        in_flight: Requests being worked on.
        admission: Who is let in.
    """

    def __init__(
        self,
        topology: Topology,
        pools: Mapping[str, ReplicaPool],
        settings: GatewaySettings,
        guard: Guard | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        self.in_flight = 0
        self.metrics = Metrics()
        self._runner = PlanRunner(topology.executors, pools, settings, self.metrics)
        self.admission = Admission(settings, self._runner.backlogs)
        self._topology = topology
        self._pools = pools
        self._settings = settings
        self._guard = guard
        self._tracing = tracing
        self._slow = SlowLog(settings.slow_request_ms)
        self._plans: dict[tuple[str, str], Plan] = {}
        self._own: dict[str, Callable[[], Awaitable[Mapping[str, Any]]]] = {}

    def configure(self, settings: GatewaySettings) -> None:
        """Go by other limits from the next request on; see `Gateway.configure`."""
        self._settings = settings
        self._runner.configure(settings)
        self.admission.configure(settings)

    def answer(self, endpoint: str, results: Callable[[], Awaitable[Mapping[str, Any]]]) -> None:
        """Answer an endpoint in the gateway itself.

        Args:
            endpoint: Its name; a request that names a target executor still goes there.
            results: Called for each request; what it returns is the reply's `__results__`, JSON values by name.
        """
        self._own[endpoint] = results

    @property
    def full(self) -> bool:
        """Whether one more bulk request might be refused."""
        return self.admission.full(self.in_flight)

    def forget_plans(self) -> None:
        """Make plans anew: an executor's endpoints may have changed."""
        self._plans.clear()

    def endpoints(self) -> dict[str, list[str]]:
        """All endpoints known so far, each with the executors that serve it."""
        return self._topology.endpoints({name: pool.endpoints or () for name, pool in self._pools.items()})

    async def handle(
        self, data: bytes, *, deadline: float | None = None, metadata: Metadata = (), let_in: bool = False
    ) -> Reply:
        """Answer one request.

        Args:
            data: A serialised `DataRequestProto`.
            deadline: In `time.monotonic()` seconds; None for no limit but the executors' own.
            metadata: Passed on to every executor.
            let_in: Whether it has waited until the router was not `full`, and is not refused for the wait.

        Returns:
            The reply, whose routes are the gateway's first, then one for each executor called.

        Raises:
            FlowdexError: The gateway's own verdict: `TooLarge`, `Overloaded`, `NotFound`, `Unavailable`, ...
        """
        bulk = self._admit(data, metadata)
        trail = Trail(metadata, self._tracing)
        self.in_flight += 1
        endpoint, begun, grant = "", False, FREE
        ended: BaseException | None = None
        try:
            frame = split(data)
            if old := is_old(frame.data):
                frame = frame._replace(data=await _aside(upgrade, frame.data))
                data = frame.join()
            head = self._head(frame)
            endpoint = head.header.exec_endpoint
            trail.name(head.header.request_id)
            grant = self._enter(endpoint, frame)
            await self._check_contents(frame, head.parameters)
            frame, data = _without_status(head, frame, data)
            if (own := self._own.get(endpoint)) is not None and not head.header.target_executor:
                results = await own()
                return Reply(_own_reply(trail.started, frame, results), False)
            try:
                plan = await self._plan(endpoint, head.header.target_executor, deadline)
            except NotFound:
                if endpoint != PROFILE:
                    raise
                endpoint, frame = ENCODE, as_encode(frame)
                data = frame.join()
                plan = await self._plan(endpoint, head.header.target_executor, deadline)
            if not let_in:
                self.admission.check_wait(plan, bulk, deadline)
            begun = True
            parameters = self._pinned(plan, endpoint, frame.parameters, head.parameters, grant)
            specific = head.parameters if parameters and is_specific(head.parameters, self._pools) else None
            idempotent = endpoint in self._settings.idempotent_endpoints
            request = Request(endpoint, frame.parameters, parameters, specific, deadline, idempotent, bulk, trail)
            answer = await self._runner.run(plan, Message(frame, data), request)
            if answer.is_error:
                ended = error_of(answer.frame.header_only().header)
            frame = answer.frame
            if old:
                frame = frame._replace(data=await _aside(downgrade, frame.data))
            return Reply(self._finish(request, frame), answer.is_error)
        except BaseException as error:
            ended = error
            raise
        finally:
            self.in_flight -= 1
            grant.leave()
            self._note(trail, endpoint, ended, begun)
            del ended  # an error holds this frame, which must not hold it

    def admit_unread(
        self,
        endpoint: str,
        size: int,
        *,
        asked: Priority | None = None,
        deadline: float | None = None,
        any_executor: bool = False,
    ) -> None:
        """Refuse a request of which no more than this is known, if `handle` would.

        Args:
            endpoint: What it will ask for.
            size: Bytes, 0 where they are not known.
            asked: The priority that it says.
            deadline: In `time.monotonic()` seconds.
            any_executor: Whether it will name one of the executors that serve the endpoint.

        Raises:
            Overloaded: There is no place for it, or it would wait too long.
        """
        bulk = self.admission.is_bulk(size, asked)
        try:
            self.admission.check_places(self.in_flight, bulk)
            plan = self._plans.get((endpoint, ""))
            if plan is not None and any_executor:
                self.admission.check_any([step.executor for step in plan.steps], bulk, deadline)
            elif plan is not None:
                self.admission.check_wait(plan, bulk, deadline)
        except Overloaded as error:
            self.metrics.refuse(endpoint, error)
            raise

    async def handle_stream(
        self, data: bytes, *, deadline: float | None = None, metadata: Metadata = ()
    ) -> AsyncIterator[bytes]:
        """Answer one `SingleDocumentRequestProto` with the stream of replies of the first executor that serves it.

        Raises:
            FlowdexError: As `handle`.
        """
        bulk = self._admit(data, metadata)
        trail = Trail(metadata, self._tracing)
        self.in_flight += 1
        endpoint, begun, grant = "", False, FREE
        ended: BaseException | None = None
        try:
            frame = split(data)
            head = self._head(frame)
            endpoint = head.header.exec_endpoint
            trail.name(head.header.request_id)
            grant = self._enter(endpoint, frame)
            if grant.tenant is not None:
                raise PermissionDenied("endpoints that answer a stream are not for the key of a tenant")
            check_parameters(head.parameters, self._settings)
            check_single_document(frame, self._settings)
            plan = await self._plan(endpoint, head.header.target_executor, deadline)
            executor = plan.steps[0].executor
            self.admission.check_wait(plan, bulk, deadline)
            begun = True
            if is_specific(head.parameters, self._pools):
                data = frame._replace(parameters=parameters_of(executor, head.parameters)).join()
            onward, span = trail.hop(executor, len(data))
            try:
                async for reply in self._pools[executor].stream(data, deadline=deadline, metadata=onward):
                    yield reply
            finally:
                if span is not None:
                    span.end()
        except BaseException as error:
            ended = error
            raise
        finally:
            self.in_flight -= 1
            grant.leave()
            self._note(trail, endpoint, ended, begun)
            del ended  # an error holds this frame, which must not hold it

    # ---- before ----

    def _enter(self, endpoint: str, frame: Frame) -> Grant:
        """Leave to go on, as far as keys say; see `Guard.enter`."""
        if self._guard is None:
            return FREE
        return self._guard.enter(endpoint, writes_copies=_REINDEX_MARK in frame.parameters)

    def _admit(self, data: bytes, metadata: Metadata) -> bool:
        """Let a request in, or count it as refused and say why; returns whether it is bulk."""
        try:
            size, most = len(data), self._settings.max_message_bytes
            if size > most:
                raise TooLarge(
                    f"the request has {size} bytes, more than the {most} allowed "
                    "(gateway.uses_with.max_message_bytes); send fewer documents in one request"
                )
            bulk = self.admission.is_bulk(size, priority_in(metadata))
            self.admission.check_places(self.in_flight, bulk)
            return bulk
        except FlowdexError as error:
            self.metrics.refuse(_endpoint_of(data), error)
            raise

    def _head(self, frame: Frame) -> pb.DataRequestProtoWoData:
        """Parse header and parameters, unless they are too large to."""
        check_head(frame, self._settings)
        return frame.head()

    async def _check_contents(self, frame: Frame, parameters: Struct) -> None:
        if frame.parameters:
            check_parameters(parameters, self._settings)
        if needs_check(frame, self._settings):
            await asyncio.to_thread(check_documents, frame, self._settings)

    async def _plan(self, endpoint: str, target: str, deadline: float | None) -> Plan:
        plan = self._plans.get((endpoint, target))
        if plan is None:
            for pool in self._pools.values():
                if pool.endpoints is None:  # never seen yet: whether it takes part is not known
                    await pool.wait_ready(deadline)
            plan = self._topology.plan(
                endpoint, {name: pool.endpoints or () for name, pool in self._pools.items()}, target
            )
            if len(self._plans) >= _CACHED_PLANS:  # callers can name as many endpoints as they like
                self._plans.clear()
            self._plans[endpoint, target] = plan
        return plan

    def _pinned(self, plan: Plan, endpoint: str, asked: bytes, parameters: Struct, grant: Grant) -> bytes:
        """The parameters, serialised, with the caller's tenant in them, if it has one; `parameters` is changed too."""
        if grant.tenant is None:
            return asked
        if endpoint == STATUS_ENDPOINT:
            raise PermissionDenied("what single executors say of themselves is not for the key of a tenant")
        check_executors(
            {name: pool.tenants for name, pool in self._pools.items()}, [step.executor for step in plan.steps]
        )
        pin(parameters, grant.tenant)
        return pb.DataRequestProtoWoData(parameters=parameters).SerializeToString()

    # ---- after ----

    def _note(self, trail: Trail, endpoint: str, ended: BaseException | None, begun: bool) -> None:
        """Count a request that is over, in good or bad order; one refused for overload before it began is apart."""
        took = time.time_ns() - trail.started
        if begun or not isinstance(ended, Overloaded):
            self.metrics.observe(endpoint, took / 1e9, ended)
        else:
            self.metrics.refuse(endpoint, ended)
        trail.end(endpoint, ended)
        if took > self._slow.threshold:
            self._slow.look(trail, endpoint, ended, took)

    @staticmethod
    def _finish(request: Request, answer: Frame) -> bytes:
        """Put the answer together: its header and documents, the caller's parameters, all results, the routes."""
        tail = pb.DataRequestProtoWoData()
        calls = request.trail.calls
        _add_route(tail, GATEWAY, request.trail.started, time.time_ns())
        for call in sorted(calls, key=attrgetter("start")) if len(calls) > 1 else calls:
            route = _add_route(tail, call.executor, call.start, call.end)
            if call.status.code == ERROR:
                route.status.CopyFrom(call.status)
            if call.results:
                parameters = pb.DataRequestProtoWoData.FromString(call.results).parameters
                if RESULTS_KEY in parameters.fields:
                    results = parameters.fields[RESULTS_KEY].struct_value
                    tail.parameters.fields[RESULTS_KEY].struct_value.fields.MergeFrom(results.fields)
        return answer._replace(parameters=request.asked).join(tail.SerializeToString())


async def _aside(function: Callable[[bytes | memoryview], bytes], data: bytes | memoryview) -> bytes:
    """`function(data)`, in a thread where that takes a while."""
    return function(data) if len(data) < ASIDE else await asyncio.to_thread(function, data)


def _without_status(head: pb.DataRequestProtoWoData, frame: Frame, data: bytes) -> tuple[Frame, bytes]:
    """The request without a status, which is for replies: executors would send it back as their own."""
    if not head.header.HasField("status"):
        return frame, data
    head.header.ClearField("status")
    frame = frame._replace(header=pb.DataRequestProtoWoData(header=head.header).SerializeToString())
    return frame, frame.join()


def _endpoint_of(data: bytes) -> str:
    try:
        return split(data).head().header.exec_endpoint
    except InvalidInput:
        return ""


def _own_reply(started: int, frame: Frame, results: Mapping[str, Any]) -> bytes:
    """The request as its own reply, with results among its parameters."""
    tail = pb.DataRequestProtoWoData()
    _add_route(tail, GATEWAY, started, time.time_ns())
    tail.parameters.fields[RESULTS_KEY].struct_value.CopyFrom(struct_from_dict(results))
    return frame.join(tail.SerializeToString())


def _add_route(message: pb.DataRequestProtoWoData, executor: str, start: int, end: int) -> pb.RouteProto:
    route = message.routes.add()
    route.executor = executor
    route.start_time.seconds, route.start_time.nanos = divmod(start, 1_000_000_000)
    route.end_time.seconds, route.end_time.nanos = divmod(end, 1_000_000_000)
    return route
