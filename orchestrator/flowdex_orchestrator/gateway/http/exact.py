"""The short way to an endpoint: the path is looked up, where FastAPI would try one pattern after the other.

POST /encode --(method, path)--> JsonRoute --its handler--> response, or what the application makes of the error
GET /documents/7 --not there--> FastAPI
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable

from fastapi import Request, Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from flowdex_orchestrator.gateway.http.admission import admit
from flowdex_orchestrator.gateway.http.body import JsonRequest, JsonRoute
from flowdex_orchestrator.gateway.http.problems import Shape, shape_errors

__all__ = ["ExactRoutes"]

Handler = Callable[[Request], Awaitable[Response]]


class ExactRoutes:
    """Answers requests of plain routes without variables in their path; all others are the application's.

    Args:
        app: The application, whose routes and handlers of errors these are.
        routes: All routes, in its order: the first of several for the same requests counts.
    """

    def __init__(self, app: ASGIApp, routes: Iterable[BaseRoute]) -> None:
        self._app = app
        self._handlers: dict[tuple[str, str], tuple[Handler, Shape | None]] = {}
        for route in routes:
            if isinstance(route, JsonRoute) and route.is_plain and not route.param_convertors:
                for method in route.methods or ():
                    self._handlers.setdefault((method, route.path), (route.get_route_handler(), type(route).shape))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        found = self._handlers.get((scope["method"], scope["path"])) if scope["type"] == "http" else None
        if found is None:
            await self._app(scope, receive, send)
            return
        handler, shape = found
        shape_errors(scope, shape)
        request = JsonRequest(scope, receive)
        try:
            admit(request)
            response = await handler(request)
        except Exception as error:
            response = await _answer(request, error)
        await response(scope, receive, send)


async def _answer(request: JsonRequest, error: Exception) -> Response:
    """The response that the application has for a class of errors; what it has none for goes on up."""
    handlers = request.app.exception_handlers
    for kind in type(error).__mro__:
        if kind in handlers:
            response: Response = await handlers[kind](request, error)
            return response
    raise error
