"""A request's way through the flow: from the bytes that came in to the bytes that go out.

    bytes --split--> header --plan--> call --bytes--> call --bytes--> call --> + parameters, routes --> bytes
                                        (documents are never parsed, except to merge the replies of branches)

A reply is laid out like a request, so the reply of one executor is the next one's request. The caller's parameters
reach every executor unchanged, save what Jina's rules address to one executor alone; what executors return as
dictionaries is gathered under `parameters["__results__"]`. The first reply that carries an error is the answer.

A large request is divided between the replicas of an executor that allows it (`splitting`); each part is a call.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
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
from flowdex.merge import merge_documents
from flowdex.priority import Priority, priority_in
from flowdex.proto import flowdex_pb2 as pb
from flowdex.wire import ERROR, RESULTS_KEY, documents_of, error_of, read_request, struct_from_dict
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
from flowdex_orchestrator.gateway.parameters import is_specific, specific_to
from flowdex_orchestrator.gateway.profiling import ENCODE, PROFILE, as_encode
from flowdex_orchestrator.gateway.replicas import ReplicaPool
from flowdex_orchestrator.gateway.settings import GatewaySettings
from flowdex_orchestrator.gateway.splitting import count_documents, cut, join, worth_cutting
from flowdex_orchestrator.gateway.topology import GATEWAY, Plan, Step, Topology
from flowdex_orchestrator.gateway.trail import Call, SlowLog, Trail
from flowdex_orchestrator.gateway.waiting import Admission, Backlog

if TYPE_CHECKING:
    from flowdex_orchestrator.observability.tracing import Tracing

__all__ = ["Reply", "Router"]

logger = logging.getLogger(__name__)

_RESULTS_MARK = RESULTS_KEY.encode()
_REINDEX_MARK = b"reindex"  # the parameter of /index that makes it a step of reindexing
_CACHED_PLANS = 1024
STATUS_ENDPOINT = "/status"
_CUT_ASIDE = 1 << 20  # bytes: a larger message is cut in a thread
_COUNTED = 1 << 18  # bytes: of a larger request the documents are not counted on the way


class Reply(NamedTuple):
    """What comes out: a serialised reply, and whether it carries an error in its header."""

    data: bytes
    is_error: bool


class _Message(NamedTuple):
    """A request or reply on its way.

    Attributes:
        frame: Its fields.
        data: The serialised whole, None where it has to be joined first.
        is_error: Whether its header carries an error.
    """

    frame: Frame
    data: bytes | None
    is_error: bool = False


class _Failed(Exception):
    """Ends the branches of a request at once: one of them was answered with an error."""

    def __init__(self, reply: _Message, reason: str) -> None:
        super().__init__(reason)
        self.reply = reply


@dataclass
class _Request:
    """What the steps of one request share."""

    endpoint: str
    asked: bytes  # the parameters, serialised, as the caller sent them
    parameters: bytes  # the same with what the gateway adds
    specific: Struct | None  # parsed, when some of them are addressed to one executor
    deadline: float | None
    idempotent: bool
    bulk: bool
    trail: Trail


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
        self._backlogs = {name: Backlog(partial(_ready_count, pools, name)) for name in topology.executors}
        self.admission = Admission(settings, self._backlogs)
        self._topology = topology
        self._pools = pools
        self._settings = settings
        self._guard = guard
        self._tracing = tracing
        self._slow = SlowLog(settings.slow_request_ms)
        self._plans: dict[tuple[str, str], Plan] = {}
        self._floating: set[asyncio.Task[_Message]] = set()
        self.metrics = Metrics()
        self._own: dict[str, Callable[[], Awaitable[Mapping[str, Any]]]] = {}

    def configure(self, settings: GatewaySettings) -> None:
        """Go by other limits from the next request on; see `Gateway.configure`."""
        self._settings = settings
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
        self.in_flight += 1
        trail = Trail(metadata, self._tracing)
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
            request = _Request(endpoint, frame.parameters, parameters, specific, deadline, idempotent, bulk, trail)
            run = self._run_chain if plan.chain is not None else self._run_graph
            answer = await run(plan, _Message(frame, data), request)
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
        self.in_flight += 1
        trail = Trail(metadata, self._tracing)
        endpoint = ""
        ended: BaseException | None = None
        grant = FREE
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
            if is_specific(head.parameters, self._pools):
                data = frame._replace(parameters=_parameters_of(executor, head.parameters)).join()
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
            self._note(trail, endpoint, ended, True)
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

    # ---- on the way ----

    async def _run_chain(self, plan: Plan, message: _Message, request: _Request) -> _Message:
        for step in plan.steps:
            message = await self._call(step.executor, message, request)
            if message.is_error:
                break
        return message

    async def _run_graph(self, plan: Plan, message: _Message, request: _Request) -> _Message:
        tasks: list[asyncio.Task[_Message]] = []

        async def run(step: Step) -> _Message:
            inputs = [await asyncio.shield(tasks[source]) for source in step.sources]
            reply = await self._call(step.executor, await _merge(inputs) if inputs else message, request)
            if reply.is_error:
                raise _Failed(reply, f"executor {step.executor!r} answered with an error")
            return reply

        for step in plan.steps:
            task = asyncio.create_task(run(step))
            tasks.append(task)
            if not step.awaited:
                self._floating.add(task)
                task.add_done_callback(self._floated)
        awaited = [task for task, step in zip(tasks, plan.steps, strict=True) if step.awaited]
        try:
            await asyncio.gather(*awaited)
        except _Failed as failed:
            return failed.reply
        finally:
            for task in awaited:
                task.cancel()
        return await _merge([tasks[output].result() for output in plan.outputs])

    async def _call(self, executor: str, message: _Message, request: _Request) -> _Message:
        """Call one executor with the request, or with the reply of the one before it."""
        frame, data, _ = message
        parameters = request.parameters
        if request.specific is not None:
            parameters = _parameters_of(executor, request.specific)
        replicas = self._replicas_to_share(executor, frame, request)
        if replicas > 1 and (parts := await self._cut(frame, replicas)):
            messages = [frame._replace(parameters=parameters, data=part).join() for part in parts]
            reply = await self._call_with_parts(executor, messages, request)
            if not reply.is_error:
                return reply
            # The error of a part would name documents by their place in the part: the whole is asked for its own.
        if data is None or frame.parameters != parameters:
            data = frame._replace(parameters=parameters).join()
        return await self._call_with(executor, data, request, request.trail.calls)

    def _replicas_to_share(self, executor: str, frame: Frame, request: _Request) -> int:
        """Between how many replicas the documents may be divided; 1 or less for not at all."""
        pool, least = self._pools[executor], self._settings.split_documents
        if request.endpoint not in pool.splittable or not request.idempotent or not least:
            return 1
        return pool.ready_count if worth_cutting(frame.data, least) else 1

    async def _cut(self, frame: Frame, replicas: int) -> list[bytes]:
        least = self._settings.split_documents
        if len(frame.data) < _CUT_ASIDE:
            return cut(frame.data, replicas, least)
        return await asyncio.to_thread(cut, frame.data, replicas, least)

    async def _call_with_parts(self, executor: str, parts: Sequence[bytes], request: _Request) -> _Message:
        """Call replicas of one executor at the same time: their replies in order as one, or one that is an error."""
        made: list[Call] = []
        tasks = [asyncio.create_task(self._call_with(executor, part, request, made)) for part in parts]
        try:
            for task in asyncio.as_completed(tasks):
                reply = await task
                if reply.is_error:
                    return reply
        finally:
            for each in tasks:
                each.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        request.trail.calls += made
        frames = [task.result().frame for task in tasks]
        return _Message(frames[0]._replace(data=join([frame.data for frame in frames])), None)

    async def _call_with(self, executor: str, data: bytes, request: _Request, calls: list[Call]) -> _Message:
        """Make one call and note it down in `calls`."""
        start = time.time_ns()
        pool = self._pools[executor]
        documents = None
        if request.endpoint in pool.splittable and len(data) <= _COUNTED:  # each document is answered by one
            documents = count_documents(split(data).data, _COUNTED)
        backlog, size, done = self._backlogs[executor], len(data), False
        backlog.enter(size, request.bulk)
        metadata, span = request.trail.hop(executor, size)
        failed = "Cancelled"
        try:
            answer = await pool.call(
                data,
                deadline=request.deadline,
                metadata=metadata,
                idempotent=request.idempotent,
                documents=documents,
                endpoint=request.endpoint,
            )
            done = True
            failed = answer.status.exception.name or "ExecutorError" if answer.is_error else ""
        except FlowdexError as error:
            failed = error.name
            self.metrics.observe_call(executor, (time.time_ns() - start) / 1e9, True)
            raise
        finally:
            backlog.leave(size, request.bulk, done)
            if span is not None:
                span.end(error=failed)
        end = time.time_ns()
        frame, is_error = answer.frame, answer.is_error
        results = frame.parameters if _RESULTS_MARK in frame.parameters else b""
        calls.append(Call(executor, start, end, answer.status, results, frame.route))
        self.metrics.observe_call(executor, (end - start) / 1e9, is_error)
        return _Message(frame, answer.data, is_error)

    def _floated(self, task: asyncio.Task[_Message]) -> None:
        self._floating.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.warning("a floating executor failed: %s", error)

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
    def _finish(request: _Request, answer: Frame) -> bytes:
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
    return function(data) if len(data) < _CUT_ASIDE else await asyncio.to_thread(function, data)


def _ready_count(pools: Mapping[str, ReplicaPool], name: str) -> int:
    return pools[name].ready_count


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


def _parameters_of(executor: str, parameters: Struct) -> bytes:
    """The parameters for one executor, serialised as a field of a request."""
    return pb.DataRequestProtoWoData(parameters=specific_to(executor, parameters)).SerializeToString()


def _add_route(message: pb.DataRequestProtoWoData, executor: str, start: int, end: int) -> pb.RouteProto:
    route = message.routes.add()
    route.executor = executor
    route.start_time.seconds, route.start_time.nanos = divmod(start, 1_000_000_000)
    route.end_time.seconds, route.end_time.nanos = divmod(end, 1_000_000_000)
    return route


async def _merge(replies: list[_Message]) -> _Message:
    """One message with the documents of all: off the event loop, as every document is read and written."""
    return replies[0] if len(replies) == 1 else await asyncio.to_thread(_merge_documents, replies)


def _merge_documents(replies: list[_Message]) -> _Message:
    batches = [documents_of(read_request(bytes(reply.frame.data))) for reply in replies]
    merged = pb.DataRequestProto()
    merged.data.docs.docs.extend(merge_documents(batches))
    return _Message(replies[0].frame._replace(data=merged.SerializeToString()), None)
