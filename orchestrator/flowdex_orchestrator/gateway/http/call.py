"""One HTTP request on its way through the flow, which every route shares.

Each request carries its name (`X-Request-Id`, made up if absent) and, if the caller says so, its deadline
(`X-Request-Timeout-Ms`) and its priority (`X-Priority`). When the caller hangs up, the work behind stops.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from fastapi import Depends, Request, Response

from flowdex import wire
from flowdex.documents import DocumentBatch
from flowdex.errors import Cancelled
from flowdex.priority import PRIORITY_KEY
from flowdex.proto import flowdex_pb2 as pb
from flowdex_orchestrator.gateway.exchange import Metadata
from flowdex_orchestrator.gateway.http import models, replies
from flowdex_orchestrator.gateway.http.admission import deadline_of, priority_of
from flowdex_orchestrator.gateway.http.body import LARGE
from flowdex_orchestrator.gateway.limits import check_count

if TYPE_CHECKING:
    from flowdex_orchestrator.gateway.http.compat.served import Directory
    from flowdex_orchestrator.gateway.router import Reply
    from flowdex_orchestrator.gateway.server import Gateway

__all__ = ["ERRORS", "Call", "FlowCall"]

TRACE_CONTEXT = ("traceparent", "tracestate", "baggage")
"""Headers that executors see too, as metadata of gRPC (W3C)."""

T = TypeVar("T")

ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"model": models.Problem, "description": "The body is not JSON in UTF-8"},
    404: {"model": models.Problem, "description": "No executor of the flow serves this"},
    413: {"model": models.Problem, "description": "More than the limits allow"},
    415: {"model": models.Problem, "description": "The body does not claim to be JSON"},
    422: {"model": models.Problem, "description": "The body is JSON, but not what is expected"},
    429: {"model": models.Problem, "description": "Too many requests in flight; see Retry-After"},
    500: {"model": models.Problem, "description": "An executor or the gateway failed"},
    503: {"model": models.Problem, "description": "No replica of an executor is ready"},
    504: {"model": models.Problem, "description": "The deadline passed"},
}


class FlowCall:
    """One HTTP request on its way through the flow."""

    def __init__(self, request: Request) -> None:
        self.started = time.perf_counter()
        self._request = request
        self._gateway: Gateway = request.app.state.gateway
        self._deadline = deadline_of(request)
        self._priority = priority_of(request)

    @property
    def gateway(self) -> Gateway:
        """The gateway it came to."""
        return self._gateway

    @property
    def directory(self) -> Directory:
        """The models of the flow."""
        directory: Directory = self._request.app.state.directory
        return directory

    def check_count(self, count: int, what: str) -> None:
        """Refuse more texts than allowed."""
        check_count(count, what, self._gateway.settings)

    async def post(
        self,
        endpoint: str,
        documents: Callable[[], DocumentBatch],
        parameters: Mapping[str, Any],
        content: Callable[[pb.DataRequestProto], dict[str, Any]],
    ) -> Response:
        """Send documents to an endpoint of the flow, and answer with what `content` makes of the reply."""

        def respond(reply: pb.DataRequestProto) -> Response:
            body = replies.dump({**content(reply), "took_ms": self.took_ms()})
            return Response(body, media_type="application/json")

        return await self.ask(endpoint, documents, parameters, respond)

    async def ask(
        self,
        endpoint: str,
        documents: Callable[[], DocumentBatch],
        parameters: Mapping[str, Any],
        read: Callable[[pb.DataRequestProto], T],
        *,
        target: str | None = None,
        request_id: str | None = None,
    ) -> T:
        """Send documents to an endpoint of the flow.

        Args:
            endpoint: The endpoint.
            documents: Makes the documents; in a thread where the body is large.
            parameters: For the executors.
            read: Makes of the reply what is returned; in a thread where the reply is large.
            target: A regular expression; only executors whose name it matches are called.
            request_id: The name in the header of request and reply; by default that of the HTTP request.
        """
        named: str = self._request.state.request_id

        def encode() -> bytes:
            return wire.build_request(
                endpoint, documents(), parameters=parameters, request_id=request_id or named, target_executor=target
            )

        large = len(await self._request.body()) > LARGE
        data = await asyncio.to_thread(encode) if large else encode()
        reply = await self._handle(data, named)

        def decode() -> T:
            return read(wire.read_reply(reply.data))

        return await asyncio.to_thread(decode) if len(reply.data) > LARGE else decode()

    def took_ms(self) -> float:
        """Milliseconds since the request came in."""
        return round(1000 * (time.perf_counter() - self.started), 3)

    async def _handle(self, data: bytes, request_id: str) -> Reply:
        """Route the request, and stop when the caller hangs up."""
        metadata: Metadata = (("x-request-id", request_id),)
        if self._priority is not None:
            metadata = (*metadata, (PRIORITY_KEY, self._priority))
        headers = self._request.headers
        if "traceparent" in headers:
            metadata = (*metadata, *((key, headers[key]) for key in TRACE_CONTEXT if key in headers))
        work = asyncio.ensure_future(self._gateway.router.handle(data, deadline=self._deadline, metadata=metadata))
        gone = asyncio.ensure_future(_disconnected(self._request))
        try:
            await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                raise Cancelled("the caller hung up")
            return work.result()
        finally:
            work.cancel()
            gone.cancel()


async def _call(request: Request) -> FlowCall:  # FastAPI runs what is not async in a thread
    return FlowCall(request)


Call = Annotated[FlowCall, Depends(_call)]


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
