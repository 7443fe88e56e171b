"""The calls that answer a request: along a plan's steps, each to one replica of an executor or divided between several.

    Plan + Message --> call --Message--> call --Message--> ... --> Message of the last step
                        |                                (documents are parsed only to merge the replies of branches)
                        +-- a large request: cut, a part to each replica, joined

A reply is laid out like a request, so the reply of one executor is the next one's request. The first reply that carries
an error is the answer.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from google.protobuf.struct_pb2 import Struct

from flowdex.errors import FlowdexError
from flowdex.merge import merge_documents
from flowdex.proto import flowdex_pb2 as pb
from flowdex.wire import RESULTS_KEY, documents_of, read_request
from flowdex_orchestrator.gateway.frame import Frame, split
from flowdex_orchestrator.gateway.metrics import Metrics
from flowdex_orchestrator.gateway.parameters import specific_to
from flowdex_orchestrator.gateway.replicas import ReplicaPool
from flowdex_orchestrator.gateway.settings import GatewaySettings
from flowdex_orchestrator.gateway.splitting import count_documents, cut, join, worth_cutting
from flowdex_orchestrator.gateway.topology import Plan, Step
from flowdex_orchestrator.gateway.trail import Call, Trail
from flowdex_orchestrator.gateway.waiting import Backlog

__all__ = ["ASIDE", "Message", "PlanRunner", "Request", "parameters_of"]

logger = logging.getLogger(__name__)

ASIDE = 1 << 20
"""Bytes from which on a message is worked on in a thread."""
_RESULTS_MARK = RESULTS_KEY.encode()
_COUNTED = 1 << 18  # bytes: of a larger request the documents are not counted on the way


class Message(NamedTuple):
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

    def __init__(self, reply: Message, reason: str) -> None:
        super().__init__(reason)
        self.reply = reply


@dataclass
class Request:
    """What the steps of one request share."""

    endpoint: str
    asked: bytes  # the parameters, serialised, as the caller sent them
    parameters: bytes  # the same with what the gateway adds
    specific: Struct | None  # parsed, when some of them are addressed to one executor
    deadline: float | None
    idempotent: bool
    bulk: bool
    trail: Trail


class PlanRunner:
    """Takes a request along a plan.

    Args:
        executors: All of the flow.
        pools: The replicas of each.
        settings: The gateway's limits.
        metrics: Counts the calls.

    Attributes:
        backlogs: The calls in flight of each executor.
    """

    def __init__(
        self, executors: Sequence[str], pools: Mapping[str, ReplicaPool], settings: GatewaySettings, metrics: Metrics
    ) -> None:
        self.backlogs = {name: Backlog(partial(_ready_count, pools, name)) for name in executors}
        self._pools = pools
        self._settings = settings
        self._metrics = metrics
        self._floating: set[asyncio.Task[Message]] = set()

    def configure(self, settings: GatewaySettings) -> None:
        """Go by other limits from the next call on; see `Gateway.configure`."""
        self._settings = settings

    def run(self, plan: Plan, message: Message, request: Request) -> Coroutine[Any, Any, Message]:
        """Make the calls of a plan; the reply of its end, or the first that carries an error.

        Raises:
            FlowdexError: A call could not be made, or its reply is none.
        """
        return (self._run_chain if plan.chain is not None else self._run_graph)(plan, message, request)

    async def _run_chain(self, plan: Plan, message: Message, request: Request) -> Message:
        for step in plan.steps:
            message = await self._call(step.executor, message, request)
            if message.is_error:
                break
        return message

    async def _run_graph(self, plan: Plan, message: Message, request: Request) -> Message:
        tasks: list[asyncio.Task[Message]] = []

        async def run(step: Step) -> Message:
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

    async def _call(self, executor: str, message: Message, request: Request) -> Message:
        """Call one executor with the request, or with the reply of the one before it."""
        frame, data, _ = message
        parameters = request.parameters
        if request.specific is not None:
            parameters = parameters_of(executor, request.specific)
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

    def _replicas_to_share(self, executor: str, frame: Frame, request: Request) -> int:
        """Between how many replicas the documents may be divided; 1 or less for not at all."""
        pool, least = self._pools[executor], self._settings.split_documents
        if request.endpoint not in pool.splittable or not request.idempotent or not least:
            return 1
        return pool.ready_count if worth_cutting(frame.data, least) else 1

    async def _cut(self, frame: Frame, replicas: int) -> list[bytes]:
        least = self._settings.split_documents
        if len(frame.data) < ASIDE:
            return cut(frame.data, replicas, least)
        return await asyncio.to_thread(cut, frame.data, replicas, least)

    async def _call_with_parts(self, executor: str, parts: Sequence[bytes], request: Request) -> Message:
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
        return Message(frames[0]._replace(data=join([frame.data for frame in frames])), None)

    async def _call_with(self, executor: str, data: bytes, request: Request, calls: list[Call]) -> Message:
        """Make one call and note it down in `calls`."""
        start = time.time_ns()
        pool = self._pools[executor]
        documents = None
        if request.endpoint in pool.splittable and len(data) <= _COUNTED:  # each document is answered by one
            documents = count_documents(split(data).data, _COUNTED)
        backlog, size, done = self.backlogs[executor], len(data), False
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
            self._metrics.observe_call(executor, (time.time_ns() - start) / 1e9, True)
            raise
        finally:
            backlog.leave(size, request.bulk, done)
            if span is not None:
                span.end(error=failed)
        end = time.time_ns()
        frame, is_error = answer.frame, answer.is_error
        results = frame.parameters if _RESULTS_MARK in frame.parameters else b""
        calls.append(Call(executor, start, end, answer.status, results, frame.route))
        self._metrics.observe_call(executor, (end - start) / 1e9, is_error)
        return Message(frame, answer.data, is_error)

    def _floated(self, task: asyncio.Task[Message]) -> None:
        self._floating.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.warning("a floating executor failed: %s", error)


def _ready_count(pools: Mapping[str, ReplicaPool], name: str) -> int:
    return pools[name].ready_count


def parameters_of(executor: str, parameters: Struct) -> bytes:
    """The parameters for one executor, serialised as a field of a request."""
    return pb.DataRequestProtoWoData(parameters=specific_to(executor, parameters)).SerializeToString()


async def _merge(replies: list[Message]) -> Message:
    """One message with the documents of all: off the event loop, as every document is read and written."""
    return replies[0] if len(replies) == 1 else await asyncio.to_thread(_merge_documents, replies)


def _merge_documents(replies: list[Message]) -> Message:
    batches = [documents_of(read_request(bytes(reply.frame.data))) for reply in replies]
    merged = pb.DataRequestProto()
    merged.data.docs.docs.extend(merge_documents(batches))
    return Message(replies[0].frame._replace(data=merged.SerializeToString()), None)
