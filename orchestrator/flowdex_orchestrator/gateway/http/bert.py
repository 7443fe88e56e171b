"""bert-as-service's HTTP API beside our own: a body of POST /encode with `id` is one of its, and gets its answer.

{id, texts, is_tokenized?}  --> BertService --> {id, result, status: 200} | 400 {description, type, status}
GET /status/server, /status/client                           (the flags, as `gateway: bert:` of the flow file says)
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import orjson
from fastapi import APIRouter, Request, Response

from flowdex.errors import FlowdexError, InternalError, InvalidInput
from flowdex_orchestrator.gateway.bert.frames import check_texts
from flowdex_orchestrator.gateway.bert.service import PROTOCOL_VERSION, BertService
from flowdex_orchestrator.gateway.http.body import LARGE, JsonRequest, JsonRoute
from flowdex_orchestrator.gateway.http.replies import dump

if TYPE_CHECKING:
    from flowdex_orchestrator.gateway.server import Gateway

__all__ = ["EncodeRoute", "add_bert_routes"]

logger = logging.getLogger(__name__)


class EncodeRoute(JsonRoute):
    """The route of POST /encode: bodies of bert-as-service's are answered here, all others as usual."""

    def get_route_handler(self) -> Callable[[Request], Awaitable[Response]]:  # type: ignore[override]
        """The usual handler, after a look at the body."""
        handle = super().get_route_handler()

        async def handler(request: Request) -> Response:
            read = JsonRequest(request.scope, request.receive)
            body = await _bert_body(read)
            if body is None:
                return await handle(read)
            return await _encode(request, body)

        return handler


async def _bert_body(request: JsonRequest) -> dict[str, Any] | None:
    """The body, if it is one of bert-as-service's."""
    data = await request.body()
    if b'"id"' not in data:
        return None
    try:
        body = await request.json()
    except orjson.JSONDecodeError:
        return None
    return body if isinstance(body, dict) and "id" in body and "texts" in body else None


async def _encode(request: Request, body: dict[str, Any]) -> Response:
    gateway: Gateway = request.app.state.gateway
    try:
        if isinstance(body["id"], (dict, list)):  # it is written back, which a value of any depth cannot be
            raise InvalidInput("id: expected a string or a number")
        texts = check_texts(body["texts"])
        nested = [isinstance(text, list) for text in texts]
        if any(nested) and not (all(nested) and body.get("is_tokenized")):
            raise InvalidInput("texts: lists of tokens go with is_tokenized, and then all texts must be such lists")
        gateway.bert.statistic.add(_identity(request), len(texts))
        encoded = await gateway.bert.encode(texts)
        content = {"id": body["id"], "result": encoded.vectors, "status": 200}
        large = encoded.vectors.nbytes > LARGE
        answer = await asyncio.to_thread(dump, content) if large else dump(content)
        return Response(answer, media_type="application/json")
    except FlowdexError as error:
        return _refusal(error)
    except Exception:  # as over ZeroMQ: an incident, in the shape that its clients read
        logger.exception("a request of bert-as-service failed in the gateway")
        return _refusal(InternalError("the gateway failed on this request; its log says why"))


def _refusal(error: FlowdexError) -> Response:
    body = {"description": error.message, "type": error.name, "status": 400}
    return Response(orjson.dumps(body), status_code=400, media_type="application/json")


def _identity(request: Request) -> bytes:
    return f"http {request.client.host if request.client else ''}".encode()


def add_bert_routes(router: APIRouter) -> None:
    """Add the routes of its status."""

    @router.get("/status/server", tags=["bert-as-service"], name="bert_server_status")
    async def server(request: Request) -> Response:
        """Show what bert-as-service's `server_status` shows: flags, versions, counts of requests."""
        service: BertService = request.app.state.gateway.bert
        return Response(dump(service.status()), media_type="application/json")

    @router.get("/status/client", tags=["bert-as-service"], name="bert_client_status")
    async def client(request: Request) -> Response:
        """Show what bert-as-service's HTTP server says of its own clients; here requests go straight to the flow."""
        gateway: Gateway = request.app.state.gateway
        content = {
            "identity": "",
            "num_request": gateway.bert.statistic.values()["num_total_request"],
            "num_pending_request": gateway.router.in_flight,
            "pending_request": [],
            "output_fmt": "list",
            "port": gateway.ports.get("bert"),
            "port_out": gateway.ports.get("bert-out"),
            "server_ip": "localhost",
            "client_version": PROTOCOL_VERSION,
            "timeout": -1,
        }
        return Response(dump(content), media_type="application/json")
