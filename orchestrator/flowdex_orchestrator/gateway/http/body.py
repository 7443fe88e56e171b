"""Reading a request's body: no more of it than allowed, as JSON, without holding up the event loop.

FastAPI reads the body through `JsonRequest`, the request class of every route, and validates what `json` returns.
A body of Jina's is taken out of its hands first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from flowdex.errors import TooLarge

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
            HTTPException: 413 as soon as it is too large, 415 if it does not claim to be JSON.
        """
        if not hasattr(self, "_body"):
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
    """A route that reads its body through `JsonRequest`, and answers Jina's bodies in Jina's shape."""

    def get_route_handler(self) -> Callable[[Request], Awaitable[Response]]:  # type: ignore[override]
        """The usual handler, given our kind of request."""
        from flowdex_orchestrator.gateway.http.jina.route import answer_jina, jina_body

        handle = super().get_route_handler()

        async def handler(request: Request) -> Response:
            read = request if isinstance(request, JsonRequest) else JsonRequest(request.scope, request.receive)
            if read.method == "POST" and (body := await jina_body(read)) is not None:
                return await answer_jina(read, body)
            return await handle(read)

        return handler


def _too_large(limit: int) -> HTTPException:
    return HTTPException(
        TooLarge.status.http,
        f"the body is larger than the {limit} bytes allowed (gateway.uses_with.max_message_bytes); "
        "send fewer documents in one request",
        headers={"Connection": "close"},
    )
