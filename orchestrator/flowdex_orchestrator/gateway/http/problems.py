"""Errors as problem documents (RFC 9457): the one place that maps errors to HTTP.

FlowdexError | validation errors | 404, 405, 413, ... of the framework --> Failure --> application/problem+json
                                                                              or what the route's shape makes of it

A route that speaks another service's contract leaves its shape in the request's state (see `shape_errors`).
"""

from __future__ import annotations

import difflib
import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, HTTPConnection
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from flowdex.errors import FlowdexError, InternalError, InvalidInput, NotFound, Unauthenticated

__all__ = [
    "PROBLEM_JSON",
    "Failure",
    "IncidentMiddleware",
    "Shape",
    "install_handlers",
    "problem",
    "problem_document",
    "shape_errors",
]

logger = logging.getLogger(__name__)

PROBLEM_JSON = "application/problem+json"
_REPORTED_ERRORS = 20
_SHAPE = "error_shape"
_TITLES = {400: "Malformed request", 405: "Method not allowed", 413: "Too large", 415: "Not JSON"}


class Failure(NamedTuple):
    """What went wrong with a request, before it is written down.

    Attributes:
        status: The HTTP status that our own routes answer.
        name: The class of error, of `flowdex.errors`.
        title: The class of error, for people.
        detail: What is wrong here, and what to do.
        headers: Of the response.
        more: Further members of a problem document: `executor`, and `errors`, each with `pointer` and `detail`.
    """

    status: int
    name: str
    title: str
    detail: str
    headers: Mapping[str, str]
    more: Mapping[str, Any]


Shape: TypeAlias = Callable[[Failure], Response]


def shape_errors(scope: Scope, shape: Shape | None) -> None:
    """Have every error of this request written down by `shape`; None for problem documents."""
    scope.setdefault("state", {})[_SHAPE] = shape


def problem(error: FlowdexError, request: HTTPConnection, *, status: int | None = None, **more: Any) -> Response:
    """The response for an error of ours."""
    headers = {}
    if error.retry_after is not None:
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after)))
    if isinstance(error, Unauthenticated):
        headers["WWW-Authenticate"] = 'Bearer realm="flowdex"'  # RFC 6750, section 3
    if error.executor:
        more["executor"] = error.executor
    code = status or error.status.http
    title = _TITLES.get(code, error.status.title)
    return _respond(request, code, error.name, title=title, detail=error.message, headers=headers, more=more)


def install_handlers(app: FastAPI) -> None:
    """Answer every error of `app` with a problem document."""

    async def known(request: Request, error: Exception) -> Response:
        assert isinstance(error, FlowdexError)
        return problem(error, request)

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return _invalid(error.errors(), request)

    async def framework(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        if error.status_code == 404:
            return problem(NotFound(_no_such_path(request, app)), request)
        detail = error.detail
        if error.status_code == 405:
            allowed = ", ".join(sorted(_methods(request, app)))
            error.headers = {**(error.headers or {}), "Allow": allowed}
            detail = f"{request.url.path} does not take {request.method}; use {allowed}"
        name = "TooLarge" if error.status_code == 413 else "InvalidInput"
        title = _TITLES.get(error.status_code, "Request refused")
        return _respond(request, error.status_code, name, title=title, detail=detail, headers=error.headers)

    app.add_exception_handler(FlowdexError, known)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, framework)


class IncidentMiddleware:
    """Turns what nobody expected into a logged incident and a problem document that tells nothing of it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except ClientDisconnect:
            pass  # it went away before its request was there: nobody is left to answer
        except Exception:
            logger.exception("%s %s failed in the gateway", scope["method"], scope["path"])
            if started:
                raise
            error = InternalError("the gateway failed on this request; its log says why")
            await problem(error, Request(scope))(scope, receive, send)


def _respond(
    request: HTTPConnection,
    status: int,
    name: str,
    *,
    title: str,
    detail: str,
    headers: Mapping[str, str] | None = None,
    more: Mapping[str, Any] | None = None,
) -> Response:
    failure = Failure(status, name, title, detail, headers or {}, more or {})
    state = request.scope.get("state", {})
    shape: Shape | None = state.get(_SHAPE)
    return problem_document(failure, state.get("request_id")) if shape is None else shape(failure)


def problem_document(failure: Failure, request_id: str | None) -> Response:
    """The failure as a problem document."""
    status, name, title, detail, headers, more = failure
    body = {"type": f"urn:flowdex:error:{name}", "title": title, "status": status, "detail": detail}
    if request_id:
        body["request_id"] = request_id
    content = orjson.dumps({**body, **more})
    return Response(content, status_code=status, headers=dict(headers), media_type=PROBLEM_JSON)


def _invalid(errors: Sequence[Any], request: Request) -> Response:
    """For a body that is no JSON (400), or JSON of the wrong shape (422)."""
    first = errors[0]
    if first["type"] == "json_invalid":
        message = first.get("ctx", {}).get("error", first["msg"])
        return problem(InvalidInput(f"the body is not JSON in UTF-8: {message}"), request, status=400)
    parts = [{"pointer": _pointer(each["loc"]), "detail": _message(each)} for each in errors]
    shown = "; ".join(
        f"{part['pointer'].removeprefix('#').lstrip('/') or 'the body'}: {part['detail']}" for part in parts[:3]
    )
    if len(parts) > 3:
        shown += f"; and {len(parts) - 3} more"
    return problem(InvalidInput(shown), request, errors=parts[:_REPORTED_ERRORS])


def _message(error: Mapping[str, Any]) -> str:
    if error["type"] == "missing":
        return "is required"
    message = str(error["msg"])
    return message.replace("Input should", "should").replace("String should", "should").replace("List should", "should")


def _pointer(location: Iterable[Any]) -> str:
    where, *path = location
    if where != "body":
        path = [where, *path]
    return "/".join(["#", *(str(part).replace("~", "~0").replace("/", "~1") for part in path)])


def _methods(request: Request, app: FastAPI) -> set[str]:
    """All methods that a path takes: routes are of one method each, and the framework names those of the first."""
    scope = {**request.scope, "method": ""}
    routes = [route for route in app.state.own_routes if isinstance(route, Route)]
    return {method for route in routes if route.matches(scope)[0] is Match.PARTIAL for method in route.methods or ()}


def _no_such_path(request: Request, app: FastAPI) -> str:
    paths = [*app.openapi()["paths"], "/docs", "/openapi.json"]
    near = difflib.get_close_matches(request.url.path, paths, n=1)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(paths)}"
    return f"there is nothing at {request.url.path}; {hint}"
