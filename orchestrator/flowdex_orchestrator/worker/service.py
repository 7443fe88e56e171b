"""The gRPC methods of an executor, on raw bytes: Jina's protocol in, Jina's protocol out.

    bytes --parse--> DataRequestProto --Endpoint--> DataRequestProto + route --serialise--> bytes
                          |                              ^
                          +-- any error ----> header.status, documents left out, `is-error` metadata

A reply always goes back, so that the caller sees the request's id and routes even where the executor failed. The gRPC
status is an error only where there is no reply to put it into: the bytes were no request, the executor is not loaded
yet, or the deadline has passed. Gateways of flowdex send their calls over one stream (`exchange`), all others make one
call for each; what happens to a request is the same.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import grpc
from google.protobuf.message import DecodeError

from flowdex import wire
from flowdex.deadline import caller_waits
from flowdex.errors import DeadlineExceeded, ExecutorError, FlowdexError, InvalidInput, Unavailable
from flowdex.priority import asked_priority, priority_in
from flowdex.proto import flowdex_pb2 as pb
from flowdex.trace_context import carrying
from flowdex.work_notes import noting
from flowdex_orchestrator.load import RESTARTS_VARIABLE
from flowdex_orchestrator.local_socket import Connection
from flowdex_orchestrator.observability.logs import about, shown
from flowdex_orchestrator.observability.tracing import onward
from flowdex_orchestrator.traits import NO_TRAITS, Traits
from flowdex_orchestrator.worker.canary import Canary
from flowdex_orchestrator.worker.endpoints import Call, EndpointTable, parameters_for
from flowdex_orchestrator.worker.exchange import Exchange, InFlight, Invocation, Refused

if TYPE_CHECKING:
    from flowdex_orchestrator.observability.tracing import Tracing

__all__ = ["ExecutorService"]

log = logging.getLogger(__name__)

_QUIET = 0.1  # seconds without a request after which none is on its way any more

Context = grpc.aio.ServicerContext[Any, Any]
Reply = pb.DataRequestProto | pb.SingleDocumentRequestProto
Observe = Callable[[str, float, str], None]


class _Answer(NamedTuple):
    data: bytes
    is_error: bool


class ExecutorService:
    """The methods of one executor.

    Args:
        name: The executor's name in the flow.
        stacks: Whether error replies carry the traceback.
        largest: Bytes of the largest reply; gRPC's own limit holds only for calls of their own.
        age: Seconds after which a stream of calls ends in good order, None for never.
        tracing: Makes spans; None for none.
        observe: Told of each request's end: its endpoint, seconds, the name of its error (empty for none).
    """

    def __init__(
        self,
        name: str,
        *,
        stacks: bool = False,
        largest: int = 2**31 - 1,
        age: float | None = None,
        tracing: Tracing | None = None,
        observe: Observe = lambda endpoint, seconds, error: None,
    ) -> None:
        self._name = name
        self._stacks = stacks
        self._endpoints: EndpointTable | None = None
        self._discovery = b""
        self._traits = NO_TRAITS
        self._info = b""
        self._versions: dict[str, str] = {}
        self._canary: Canary | None = None
        self._started = time.monotonic()
        self._observe = observe
        self._tracing = tracing
        self._draining = asyncio.Event()
        self._in_flight = InFlight()
        self._exchange = Exchange(self._exchanged, self._in_flight, self._draining, largest, age)

    @property
    def in_flight(self) -> int:
        """Requests being answered."""
        return self._in_flight.count

    def open(
        self,
        endpoints: EndpointTable,
        discovery: pb.EndpointsProto,
        info: pb.JinaInfoProto,
        traits: Traits = NO_TRAITS,
        canary: Canary | None = None,
    ) -> None:
        """Start to answer.

        Args:
            endpoints: The endpoints of the loaded executor.
            discovery: What to tell about them.
            info: What to tell about the software.
            traits: What to tell gateway and runner.
            canary: Whose state to tell.
        """
        self._canary = canary
        self._traits = traits
        self._discovery = discovery.SerializeToString()
        self._info = info.SerializeToString()
        self._versions = dict(info.jina)
        self._endpoints = endpoints

    async def serve_local(self, connection: Connection) -> None:
        """Answer the calls of a gateway on this machine, as over `wire.EXCHANGE`."""
        await self._exchange.serve_local(connection)

    async def drain(self) -> None:
        """End the streams of requests, each after what it is at; return when nothing is in flight."""
        self._draining.set()
        while True:
            await self._in_flight.wait_for_none()
            await asyncio.sleep(_QUIET)
            if not self._in_flight.count:
                return

    def handlers(self) -> list[grpc.GenericRpcHandler]:
        """The handlers to add to a `grpc.aio` server; they take and give bytes."""
        # (The stubs know only stream handlers that are generators.)
        exchange: Any = self._exchange.serve
        methods: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
            wire.EXCHANGE: grpc.stream_stream_rpc_method_handler(exchange),
            wire.PROCESS_SINGLE_DATA: grpc.unary_unary_rpc_method_handler(self._process_single_data),
            wire.PROCESS_DATA: grpc.unary_unary_rpc_method_handler(self._process_data),
            wire.CALL: grpc.stream_stream_rpc_method_handler(self._call),
            wire.STREAM_DOC: grpc.unary_stream_rpc_method_handler(self._stream_doc),
            wire.ENDPOINT_DISCOVERY: grpc.unary_unary_rpc_method_handler(self._endpoint_discovery),
            wire.INFO_STATUS: grpc.unary_unary_rpc_method_handler(self._status),
            wire.LOAD: grpc.unary_unary_rpc_method_handler(self._load),
        }
        handlers = []
        for path, handler in methods.items():
            service, method = path.strip("/").split("/")
            handlers.append(grpc.method_handlers_generic_handler(service, {method: handler}))
        return handlers

    # ---- the methods ----

    def _count(self, context: Context) -> None:
        self._in_flight.enter()
        # Called when the reply has been sent, or cannot be. (The stub's callback type is meant as a protocol.)
        context.add_done_callback(lambda context: self._in_flight.leave())  # type: ignore[arg-type]

    async def _exchanged(self, data: bytes, invocation: Invocation) -> bytes:
        return (await self._process(data, invocation)).data

    async def _process_single_data(self, data: bytes, context: Context) -> bytes:
        self._count(context)
        return await _sent(self._process(data, _invocation(context)), context)

    async def _process_data(self, data: bytes, context: Context) -> bytes:
        self._count(context)
        try:
            requests = list(pb.DataRequestListProto.FromString(data).requests)
        except DecodeError:
            requests = []
        if not requests:
            await context.abort(
                InvalidInput.status.grpc, "the bytes are not a DataRequestListProto with at least one request"
            )
        return await _sent(self._answer(requests, _invocation(context)), context)

    async def _call(self, requests: AsyncIterator[bytes], context: Context) -> AsyncIterator[bytes]:
        self._count(context)
        draining = asyncio.ensure_future(self._draining.wait())
        try:
            while not draining.done():
                request = asyncio.ensure_future(anext(requests, None))
                await asyncio.wait({request, draining}, return_when=asyncio.FIRST_COMPLETED)
                if not request.done():
                    request.cancel()
                    return
                data = request.result()
                if data is None:
                    return
                yield await _sent(self._process(data, _invocation(context)), context)
        finally:
            draining.cancel()

    async def _stream_doc(self, data: bytes, context: Context) -> AsyncIterator[bytes]:
        self._count(context)
        endpoints = await self._loaded(context)
        try:
            request = pb.SingleDocumentRequestProto.FromString(data)
        except DecodeError:
            await context.abort(InvalidInput.status.grpc, "the bytes are not a SingleDocumentRequestProto")
            return
        reply = pb.SingleDocumentRequestProto(header=request.header, routes=request.routes)
        reply.header.ClearField("status")
        reply.parameters.CopyFrom(request.parameters)
        try:
            endpoint = endpoints.find(request.header.exec_endpoint)
            parameters = self._parameters(endpoints, request)
            async for document in endpoint.stream(request.document, parameters):
                reply.document.CopyFrom(document)
                yield reply.SerializeToString()
        except (Exception, SystemExit) as error:
            self._set_error(reply, error)
            context.set_trailing_metadata((wire.IS_ERROR_METADATA,))
            reply.ClearField("document")
            yield reply.SerializeToString()

    async def _endpoint_discovery(self, data: bytes, context: Context) -> bytes:
        await self._loaded(context)
        context.set_trailing_metadata(self._traits.metadata())
        return self._discovery

    async def _status(self, data: bytes, context: Context) -> bytes:
        await self._loaded(context)
        return self._info

    async def _load(self, data: bytes, context: Context) -> bytes:
        endpoints = await self._loaded(context)
        restarts = os.environ.get(RESTARTS_VARIABLE, "")
        said = {
            "queue_ms": round(endpoints.queue_ms, 3),
            "in_flight": self.in_flight,
            "uptime_s": round(time.monotonic() - self._started, 1),
            "restarts": int(restarts) if restarts.isdecimal() else None,
            "versions": self._versions,
            "canary": self._canary.status() if self._canary is not None else None,
        }
        return json.dumps(said).encode()

    async def _loaded(self, context: Context) -> EndpointTable:
        try:
            return self._ready()
        except Refused as refused:
            await context.abort(refused.code, refused.details)
            raise AssertionError("abort raises") from None

    # ---- one request ----

    async def _process(self, data: bytes, invocation: Invocation) -> _Answer:
        try:
            request = pb.DataRequestProto.FromString(data)
        except DecodeError:
            return self._undecodable(data)
        return await self._answer([request], invocation)

    async def _answer(self, requests: Sequence[pb.DataRequestProto], invocation: Invocation) -> _Answer:
        endpoints = self._endpoints or self._ready()
        request = requests[0]
        request.header.ClearField("status")  # what a caller says of itself must not pass for our verdict
        remaining = invocation.remaining
        if remaining is not None and remaining <= 0:
            raise Refused(DeadlineExceeded.status.grpc, "the deadline passed before the executor was called")
        failed = ""
        notes: dict[str, float] = {}
        started = time.time_ns()
        about(request.header.request_id, invocation.metadata)
        span = self._tracing.start(self._name, invocation.metadata) if self._tracing is not None else None
        try:
            endpoint = endpoints.find(request.header.exec_endpoint)
            call = Call(
                batches=[wire.documents_of(each) for each in requests],
                sources=[each.routes[-1].executor if each.routes else "" for each in requests],
                parameters=self._parameters(endpoints, request),
            )
            priority, trace = priority_in(invocation.metadata), onward(span, invocation.metadata)
            with caller_waits(remaining), asked_priority(priority), noting(notes), carrying(trace):
                outcome = await endpoint(call)
            if outcome.results is not None:
                self._set_results(request, outcome.results)
            # Serialised one by one and joined: a message of many documents costs protobuf twice as much in one go.
            documents = wire.serialize_data(outcome.documents)
        except (Exception, SystemExit) as error:  # the one place where unknown errors become incidents
            self._set_error(request, error)
            documents = b""
            failed = error.name if isinstance(error, FlowdexError) else type(error).__name__
        ended = time.time_ns()
        self._observe(request.header.exec_endpoint, (ended - started) / 1e9, failed)
        if span is not None:
            facts = {"flowdex.request_id": request.header.request_id, "flowdex.endpoint": request.header.exec_endpoint}
            span.end(error=failed, attributes={**facts, **{f"flowdex.{key}": value for key, value in notes.items()}})
        request.ClearField("data")
        route = request.routes.add(executor=self._name)
        if notes:
            route.status.description = json.dumps(notes)
        route.start_time.seconds, route.start_time.nanos = divmod(started, 1_000_000_000)
        route.end_time.seconds, route.end_time.nanos = divmod(ended, 1_000_000_000)
        return _Answer(request.SerializeToString() + documents, bool(failed))

    def _set_results(self, request: pb.DataRequestProto, results: Mapping[str, Any]) -> None:
        try:
            struct = wire.struct_from_dict(results)
        except InvalidInput as error:
            raise ExecutorError(f"the dictionary that was returned must hold JSON values: {error}") from None
        request.parameters.fields[wire.RESULTS_KEY].struct_value.fields[self._name].struct_value.CopyFrom(struct)

    def _parameters(
        self, endpoints: EndpointTable, request: pb.DataRequestProto | pb.SingleDocumentRequestProto
    ) -> dict[str, Any]:
        if not request.parameters.fields:
            return {}
        return parameters_for(endpoints.parameter_names, wire.dict_from_struct(request.parameters))

    # ---- errors ----

    def _ready(self) -> EndpointTable:
        if self._endpoints is None:
            raise Refused(Unavailable.status.grpc, f"the executor {self._name!r} is still loading")
        return self._endpoints

    def _undecodable(self, data: bytes) -> _Answer:
        """Answer a request whose documents cannot be parsed, which is most often text that is not valid UTF-8."""
        self._ready()
        error = InvalidInput("the documents could not be decoded: not a DocListProto, or a text is not valid UTF-8")
        try:
            head = pb.DataRequestProtoWoData.FromString(data)
        except DecodeError:
            raise Refused(
                error.status.grpc, "the bytes are not a DataRequestProto, or a name is not valid UTF-8"
            ) from None
        reply = pb.DataRequestProto(header=head.header, parameters=head.parameters, routes=head.routes)
        self._set_error(reply, error)
        return _Answer(reply.SerializeToString(), True)

    def _set_error(self, reply: Reply, error: BaseException) -> None:
        header = reply.header
        if not isinstance(error, FlowdexError):
            log.error(
                "request %s: %s raised in %s",
                shown(header.request_id),
                type(error).__name__,
                shown(header.exec_endpoint),
                exc_info=error,
            )
        elif log.isEnabledFor(logging.DEBUG):
            log.debug("request %s: %s: %s", shown(header.request_id), error.name, error.message)
        stacks = traceback.format_exception(error) if self._stacks else None
        wire.set_error(header, error, executor=self._name, stacks=stacks)


def _invocation(context: Context) -> Invocation:
    return Invocation(context.time_remaining(), tuple(context.invocation_metadata() or ()))


async def _sent(answer: Awaitable[_Answer], context: Context) -> bytes:
    """The reply of a call of its own, whose status and trailing metadata are the call's."""
    try:
        data, is_error = await answer
    except Refused as refused:
        await context.abort(refused.code, refused.details)
        raise AssertionError("abort raises") from None
    if is_error:
        context.set_trailing_metadata((wire.IS_ERROR_METADATA,))
    return data
