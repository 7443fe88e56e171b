"""Jina's HTTP contract: POST /post, its bodies at every other path, and the dry run.

    POST /post    {data, parameters, execEndpoint, targetExecutor?}       the flow's endpoint of that name
    POST /encode  {data, parameters, header}                              /encode, in Jina's shape
    GET /dry_run                                                          {"code": 0}, or 1 and why

A stock `jina.Client` reads /openapi.json and posts to the path that bears its endpoint's name if there is one, and to
/post if not; so the routes of our own API answer Jina's bodies too (`JsonRoute` asks `jina_body`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError
from google.protobuf.json_format import MessageToDict
from pydantic import ValidationError

from flowdex.errors import InvalidInput
from flowdex.proto import flowdex_pb2 as pb
from flowdex_orchestrator.gateway.http import replies
from flowdex_orchestrator.gateway.http.call import ERRORS, FlowCall
from flowdex_orchestrator.gateway.http.jina.messages import JinaReply, JinaRequest, documents_from_json, reply_json
from flowdex_orchestrator.gateway.http.problems import Failure, problem_document, shape_errors
from flowdex_orchestrator.gateway.status import flow_readiness

if TYPE_CHECKING:
    from flowdex_orchestrator.gateway.http.body import JsonRequest
    from flowdex_orchestrator.gateway.server import Gateway

__all__ = ["POST_PATH", "add_jina_routes", "answer_jina", "jina_body"]

POST_PATH = "/post"


async def jina_body(request: JsonRequest) -> dict[str, Any] | None:
    """The body, if it is one of Jina's: no other contract of the gateway has `data` or an endpoint in it."""
    data = await request.body()
    if b'"data"' not in data and b'"exec_endpoint"' not in data and b'"execEndpoint"' not in data:
        return None
    try:
        body = await request.json()
    except orjson.JSONDecodeError:
        return None
    if isinstance(body, dict) and ("data" in body or "exec_endpoint" in body or "execEndpoint" in body):
        return body
    return None


async def answer_jina(request: Request, body: dict[str, Any]) -> Response:
    """Take one of Jina's requests through the flow.

    Raises:
        RequestValidationError: The body is not what the contract says.
        FlowdexError: What became of the request.
    """
    shape_errors(request.scope, _with_header(body))
    try:
        asked = JinaRequest.model_validate(body)
    except ValidationError as error:
        raise RequestValidationError([{**each, "loc": ("body", *each["loc"])} for each in error.errors()]) from None
    endpoint = asked.endpoint or (request.url.path if request.url.path != POST_PATH else None)
    if endpoint is None:
        raise InvalidInput('name the endpoint of the flow: {"execEndpoint": "/search", "data": [...]}')
    call = FlowCall(request)
    call.check_count(len(asked.data), "documents")
    return await call.ask(
        endpoint,
        lambda: documents_from_json(asked.data),
        asked.parameters or {},
        lambda reply: Response(replies.dump(reply_json(reply, old=asked.old)), media_type="application/json"),
        target=asked.target,
        request_id=asked.request_id,
    )


def _with_header(body: dict[str, Any]) -> Any:
    """Problem documents that carry Jina's header too: its client reads the reason of a 503 or 504 there."""
    header = body.get("header")
    asked = header.get("request_id", header.get("requestId")) if isinstance(header, dict) else None
    request_id = asked if isinstance(asked, str) else None  # whatever else it is, is never written back

    def shape(failure: Failure) -> Response:
        exception = {"name": failure.name, "args": [failure.detail]}
        status = {"code": pb.StatusProto.ERROR, "description": failure.detail, "exception": exception}
        more = {**failure.more, "header": {"request_id": request_id or "", "status": status}}
        return problem_document(failure._replace(more=more), request_id)

    return shape


def add_jina_routes(router: APIRouter) -> None:
    """Add the routes that are Jina's alone."""

    @router.post(POST_PATH, tags=["jina"], response_model=JinaReply, responses=ERRORS, name="jina_post")
    async def post(request: Request, body: JinaRequest) -> Response:
        """Call any endpoint of the flow, as Jina's clients do.

        `{"data": [{"text": "..."}], "parameters": {}, "execEndpoint": "/search"}` is answered with
        `{"header", "parameters", "routes", "data"}`. The same body, without `execEndpoint`, is taken at the path of
        every endpoint.
        """
        return await answer_jina(request, body.model_dump(by_alias=True))

    @router.get("/dry_run", tags=["jina"], name="jina_dry_run")
    async def dry_run(request: Request) -> dict[str, Any]:
        """Whether every executor takes requests: `{"code": 0}` if so, otherwise code 1 and the reason."""
        gateway: Gateway = request.app.state.gateway
        status = flow_readiness(gateway.pools)
        return {"code": status.code, "description": status.description, **_exception(status)}


def _exception(status: pb.StatusProto) -> dict[str, Any]:
    return {"exception": MessageToDict(status.exception)} if status.HasField("exception") else {}
