"""The routes: a model in, one request through the router, JSON out.

Each request carries its name (`X-Request-Id`, made up if absent) and, if the caller says so, its deadline
(`X-Request-Timeout-Ms`). When the caller hangs up, the work behind stops.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response

from flowdex import wire
from flowdex.documents import DocumentBatch, new_id
from flowdex.errors import Cancelled, InvalidInput, TooLarge, Unavailable
from flowdex.proto import flowdex_pb2 as pb
from flowdex_orchestrator.gateway.http import models, replies
from flowdex_orchestrator.gateway.http.body import LARGE, JsonRoute
from flowdex_orchestrator.gateway.http.encoded import encode_content, text_documents
from flowdex_orchestrator.gateway.status import flow_status

if TYPE_CHECKING:
    from flowdex_orchestrator.gateway.router import Reply
    from flowdex_orchestrator.gateway.server import Gateway

__all__ = ["make_router"]

_ERRORS: dict[int | str, dict[str, Any]] = {
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


class _Call:
    """One HTTP request on its way through the flow."""

    def __init__(self, request: Request) -> None:
        self.started = time.perf_counter()
        self._request = request
        self._gateway: Gateway = request.app.state.gateway
        self._deadline = _deadline(request)

    @property
    def gateway(self) -> Gateway:
        return self._gateway

    def check_count(self, count: int, what: str) -> None:
        """Refuse more texts than allowed."""
        limit = self._gateway.settings.max_texts
        if count > limit:
            raise TooLarge(
                f"{count} {what} in one request are more than the {limit} allowed (gateway.uses_with.max_texts)"
            )

    async def post(
        self,
        endpoint: str,
        documents: Callable[[], DocumentBatch],
        parameters: Mapping[str, Any],
        content: Callable[[pb.DataRequestProto], dict[str, Any]],
    ) -> Response:
        """Send documents to an endpoint of the flow, and answer with what `content` makes of the reply."""
        request_id: str = self._request.state.request_id

        def encode() -> bytes:
            return wire.build_request(endpoint, documents(), parameters=parameters, request_id=request_id)

        large = len(await self._request.body()) > LARGE
        data = await asyncio.to_thread(encode) if large else encode()
        reply = await self._handle(data, request_id)

        def decode() -> bytes:
            return replies.dump({**content(wire.read_reply(reply.data)), "took_ms": self.took_ms()})

        body = await asyncio.to_thread(decode) if len(reply.data) > LARGE else decode()
        return Response(body, media_type="application/json")

    def took_ms(self) -> float:
        """Milliseconds since the request came in."""
        return round(1000 * (time.perf_counter() - self.started), 3)

    async def _handle(self, data: bytes, request_id: str) -> Reply:
        """Route the request, and stop when the caller hangs up."""
        work = asyncio.ensure_future(
            self._gateway.router.handle(data, deadline=self._deadline, metadata=(("x-request-id", request_id),))
        )
        gone = asyncio.ensure_future(_disconnected(self._request))
        try:
            await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                raise Cancelled("the caller hung up")
            return work.result()
        finally:
            work.cancel()
            gone.cancel()


async def _call(request: Request) -> _Call:  # FastAPI runs what is not async in a thread
    return _Call(request)


Call = Annotated[_Call, Depends(_call)]


def make_router() -> APIRouter:
    """All routes of the API, but for its documentation."""
    router = APIRouter(route_class=JsonRoute)

    @router.post("/encode", tags=["flow"], response_model=models.EncodeResponse, responses=_ERRORS)
    async def encode(body: models.EncodeRequest, call: Call) -> Response:
        """Turn texts into vectors."""
        call.check_count(len(body.texts), "texts")
        count, as_base64 = len(body.texts), body.encoding == "base64"
        return await call.post(
            "/encode",
            lambda: text_documents(body.texts),
            {**body.parameters, **body.model_dump(include=models.ENCODE_CHOICES, exclude_none=True)},
            lambda reply: encode_content(reply, count, as_base64),
        )

    @router.post("/index", tags=["flow"], response_model=models.IndexResponse, responses=_ERRORS)
    async def index(body: models.IndexRequest, call: Call) -> Response:
        """Add documents to the index; a document whose id is there already is replaced."""
        call.check_count(len(body.documents), "documents")

        def documents() -> DocumentBatch:
            return DocumentBatch.from_columns(
                ids=[document.id or new_id() for document in body.documents],
                texts=[document.text for document in body.documents],
                tags=[document.tags for document in body.documents],
            )

        return await call.post("/index", documents, body.parameters, replies.index_content)

    @router.post("/search", tags=["flow"], response_model=models.SearchResponse, responses=_ERRORS)
    async def search(body: models.SearchRequest, call: Call) -> Response:
        """Find the documents that answer a query."""
        call.check_count(len(body.query), "queries")
        fields = body.model_dump(include={"limit", "offset", "filter", "mode"}, exclude_none=True)
        return await call.post(
            "/search",
            lambda: DocumentBatch.from_columns(texts=body.query),
            {**body.parameters, **fields},
            lambda reply: replies.search_content(reply, body.query),
        )

    @router.delete("/documents", tags=["flow"], response_model=models.DeleteResponse, responses=_ERRORS)
    async def delete(
        call: Call,
        body: models.DeleteRequest | None = None,
        id: Annotated[list[str] | None, Query(description="An id; may be repeated. Instead of a body.")] = None,
    ) -> Response:
        """Remove documents from the index: by ids in the body or in the query string, or all that a filter finds."""
        body = body or models.DeleteRequest()
        ids = [*body.ids, *(id or ())]
        if not all(ids) or not (ids or body.filter):
            raise InvalidInput(
                'name the documents to delete: {"ids": [...]} or {"filter": {...}} as the body, or ?id=...&id=...'
            )
        call.check_count(len(ids), "ids")
        return await call.post(
            "/delete",
            lambda: DocumentBatch.from_columns(ids=ids),
            {**body.parameters, **body.model_dump(include={"filter"}, exclude_none=True)},
            lambda reply: {"deleted": replies.deleted_count(reply)},
        )

    @router.get("/status", tags=["service"], response_model=models.Status)
    async def status(call: Call) -> Response:
        """Show the flow: its endpoints, executors, replicas, and what the executors say of themselves."""
        return Response(replies.dump(await flow_status(call.gateway)), media_type="application/json")

    @router.get("/health/live", tags=["service"])
    async def live() -> models.Health:
        """Whether the process answers."""
        return models.Health()

    @router.get("/health/ready", tags=["service"], responses={503: _ERRORS[503]})
    async def ready(request: Request) -> models.Health:
        """Whether every executor has a replica that takes requests."""
        gateway: Gateway = request.app.state.gateway
        if not gateway.ready:
            missing = gateway.missing()
            reason = f"no replica is ready of executor {', '.join(missing)}" if missing else "the gateway is stopping"
            raise Unavailable(reason, retry_after=1.0)
        return models.Health()

    return router


def _deadline(request: Request) -> float | None:
    header = request.headers.get("x-request-timeout-ms")
    if header is None:
        return None
    try:
        milliseconds = float(header)
    except ValueError:
        milliseconds = math.nan
    if not 0 < milliseconds < math.inf:
        raise InvalidInput(f"the header X-Request-Timeout-Ms must be a positive number, got {header!r}")
    return time.monotonic() + milliseconds / 1000


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
