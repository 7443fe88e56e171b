"""Reading a request's body: no more of it than allowed, as JSON, without holding up the event loop.

    body --JsonRequest--> JSON --the model of the endpoint's `body`--> endpoint(body, call) --> response
     +--> answered as Jina does, if it is one of Jina's

What FastAPI does between a request and an endpoint costs more than the rest of the gateway together, and most of our
endpoints ask for nothing but their body and the call: those are called here, the others by FastAPI.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar, get_type_hints

import orjson
from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from flowdex.errors import TooLarge
from flowdex_orchestrator.gateway.http.problems import Failure, shape_errors

__all__ = ["LARGE", "JsonRequest", "JsonRoute"]

LARGE = 256 * 1024
"""Bytes from which JSON is read and written in a thread."""
# A body too large is read to its end, and dropped, up to so many times the limit: most clients look for an answer only
# when they have sent everything, and a connection closed before that is all they would see.
_PATIENCE = 4


class JsonRequest(Request):
    """A request whose body must be JSON of bounded size."""

    async def body(self) -> bytes:
        """Read the body.

        Raises:
            HTTPException: 413 as soon as it is too large, 415 if it is compressed or does not claim to be JSON.
        """
        if not hasattr(self, "_body"):
            if (coding := self.headers.get("content-encoding", "identity").strip().lower()) != "identity":
                # Some bytes of it may stand for gigabytes.
                raise HTTPException(415, f"send the body as it is, without Content-Encoding: {coding}")
            limit: int = self.app.state.max_message_bytes
            declared = self.headers.get("content-length", "")
            size = int(declared) if declared.isdecimal() else 0
            if size > _PATIENCE * limit or (size > limit and "expect" in self.headers):
                raise _too_large(limit)
            body = bytearray()
            async for chunk in self.stream():
                size += len(chunk) if not declared else 0
                if size <= limit:
                    body += chunk
                elif size > _PATIENCE * limit:
                    raise _too_large(limit)
            if size > limit:
                raise _too_large(limit)
            kind = self.headers.get("content-type", "").partition(";")[0].strip().lower()
            # Insisting on the type also keeps web pages of other origins from posting here without a preflight.
            if body and not (kind == "application/json" or kind.endswith("+json")):
                sent = f"not {kind}" if kind else "which is missing"
                raise HTTPException(415, f"send JSON with the header Content-Type: application/json, {sent}")
            self._body = bytes(body)
        return self._body

    async def json(self) -> Any:
        """Parse the body.

        Raises:
            orjson.JSONDecodeError: It is not JSON in UTF-8; FastAPI makes a validation error of it.
        """
        body = await self.body()
        return await asyncio.to_thread(orjson.loads, body) if len(body) > LARGE else orjson.loads(body)


class JsonRoute(APIRoute):
    """A route that reads its body through `JsonRequest`, and answers Jina's bodies in Jina's shape.

    Attributes:
        shape: Writes its errors down; None for problem documents.
    """

    shape: ClassVar[staticmethod[[Failure], Response] | None] = None

    @property
    def is_plain(self) -> bool:
        """Whether its handler needs nothing of FastAPI's."""
        return _plain_handler(self.endpoint) is not None

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request that FastAPI has found to be for this route."""
        shape_errors(scope, type(self).shape)
        await super().handle(scope, receive, send)

    def get_route_handler(self) -> Callable[[Request], Awaitable[Response]]:  # type: ignore[override]
        """The usual handler, given our kind of request."""
        from flowdex_orchestrator.gateway.http.jina.route import answer_jina, jina_body

        handle = _plain_handler(self.endpoint) or super().get_route_handler()

        async def handler(request: Request) -> Response:
            read = request if isinstance(request, JsonRequest) else JsonRequest(request.scope, request.receive)
            if read.method == "POST" and (body := await jina_body(read)) is not None:
                return await answer_jina(read, body)
            return await handle(read)

        return handler


def _plain_handler(endpoint: Callable[..., Any]) -> Callable[[Request], Awaitable[Response]] | None:
    """The handler of an endpoint whose parameters are `body`, a model, and `call`; None for any other."""
    from flowdex_orchestrator.gateway.http.call import Call, FlowCall

    hints = get_type_hints(endpoint, include_extras=True)
    model = hints.pop("body", None)
    if hints.keys() - {"return"} != {"call"} or hints["call"] != Call:
        return None
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        return None

    async def handler(request: Request) -> Response:
        response: Response = await endpoint(body=await _validated(request, model), call=FlowCall(request))
        return response

    return handler


async def _validated(request: Request, model: type[BaseModel]) -> BaseModel:
    """The body as a model; the errors are FastAPI's."""
    try:
        value = await request.json() if await request.body() else None
    except orjson.JSONDecodeError as error:
        found = {"type": "json_invalid", "loc": ("body", error.pos), "msg": "", "ctx": {"error": error.msg}}
        raise RequestValidationError([found]) from None
    if value is None:
        raise RequestValidationError([{"type": "missing", "loc": ("body",), "msg": "Field required"}])
    try:
        return model.model_validate(value)
    except ValidationError as error:
        errors = error.errors(include_url=False)
        raise RequestValidationError([{**each, "loc": ("body", *each["loc"])} for each in errors]) from None


def _too_large(limit: int) -> HTTPException:
    return HTTPException(
        TooLarge.status.http,
        f"the body is larger than the {limit} bytes allowed (gateway.uses_with.max_message_bytes); "
        "send fewer documents in one request",
        headers={"Connection": "close"},
    )
