"""The ASGI application: routes, names of requests, errors, documentation.

CORS --> RequestId --> Protection --> Incident --> ExactRoutes --> endpoint (or problems)
                                         +--> FastAPI --> any other endpoint (or problems)
"""

from __future__ import annotations

from importlib.metadata import version
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import HTMLResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from flowdex.documents import new_id
from flowdex_orchestrator.access.network import is_loopback
from flowdex_orchestrator.access.roles import route_role
from flowdex_orchestrator.gateway.http.compat import compat_routers
from flowdex_orchestrator.gateway.http.compat.served import Directory
from flowdex_orchestrator.gateway.http.exact import ExactRoutes
from flowdex_orchestrator.gateway.http.page import make_page_router
from flowdex_orchestrator.gateway.http.problems import PROBLEM_JSON, IncidentMiddleware, install_handlers
from flowdex_orchestrator.gateway.http.protection import Protection, inline_policy
from flowdex_orchestrator.gateway.http.routes import make_routers

if TYPE_CHECKING:
    from flowdex_orchestrator.gateway.server import Gateway

__all__ = ["make_app"]

_DESCRIPTION = """Turn texts into vectors, index documents and search them.

Every answer carries `X-Request-Id`: the one you sent, or one made up. `X-Request-Timeout-Ms` sets a deadline that every
executor honours. Errors are problem documents (RFC 9457)."""
_LONGEST_REQUEST_ID = 128


def make_app(gateway: Gateway) -> FastAPI:
    """Make the application in front of a gateway."""
    settings = gateway.settings
    app = FastAPI(
        title=settings.title or gateway.name,
        description=settings.description or _DESCRIPTION,
        version=version("flowdex"),
        docs_url=None,  # FastAPI's page loads its script from a CDN; ours is in the package
        redoc_url=None,
        openapi_url="/openapi.json",
        generate_unique_id_function=lambda route: route.name,
    )
    app.state.gateway = gateway
    app.state.directory = Directory(gateway)
    app.state.max_message_bytes = settings.max_message_bytes
    routers = (*make_routers(), *compat_routers(), make_page_router())
    for router in routers:
        app.include_router(router)
    page = (files(__package__) / "docs.html").read_text(encoding="utf-8")
    policy = {"Content-Security-Policy": inline_policy(page)}

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(page, headers=policy)

    install_handlers(app)
    routes = app.state.own_routes = [route for router in routers for route in router.routes]
    app.add_middleware(ExactRoutes, routes=routes)
    app.add_middleware(IncidentMiddleware)
    # On loopback, names other than our own are a trick (DNS rebinding); elsewhere nobody knows them but the operator.
    hosts = settings.hosts if settings.hosts or is_loopback(gateway.host) else None
    app.add_middleware(
        Protection,
        routes=routes,
        guard=gateway.guard,
        denied=gateway.router.metrics.deny,
        hosts=hosts,
        shared=bool(settings.cors),
    )
    app.add_middleware(RequestIdMiddleware)
    if settings.cors:
        from starlette.middleware.cors import CORSMiddleware

        origins = sorted(settings.cors)
        app.add_middleware(CORSMiddleware, allow_origins=origins, allow_methods=["*"], allow_headers=["*"])
    setattr(app, "openapi", lambda: _openapi(app))  # noqa: B010 - FastAPI's way of replacing the document
    return app


class RequestIdMiddleware:
    """Gives each request its name and repeats it in the response."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = Headers(scope=scope).get("x-request-id", "")
        if not (request_id.isascii() and request_id.isprintable() and 0 < len(request_id) <= _LONGEST_REQUEST_ID):
            request_id = new_id()
        scope.setdefault("state", {})["request_id"] = request_id

        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["X-Request-Id"] = request_id
            await send(message)

        await self._app(scope, receive, named)


_KEYS = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "An API key (`flowdex keys`)."},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "The same, by itself."},
}
"""How a request carries its key, where the gateway asks for one (OpenAPI 3.1, Security Scheme Object)."""


def _openapi(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI 3.1 document; errors are declared as the problem documents they are, keys where they are needed."""
    if app.openapi_schema is None:
        schema = get_openapi(
            title=app.title,
            version=app.version,
            description=app.description,
            routes=app.routes,
            openapi_version="3.1.0",
        )
        gateway: Gateway = app.state.gateway
        ways: list[dict[str, list[str]]] = [{name: []} for name in _KEYS]
        schema.setdefault("components", {})["securitySchemes"] = _KEYS
        for path, operations in schema["paths"].items():
            for method, operation in operations.items():
                if route_role(method.upper(), path) is not None:  # {}: without one is right, too
                    operation["security"] = ways if gateway.guard is not None else [*ways, {}]
                responses = operation["responses"]
                for status, response in list(responses.items()):
                    content = response.get("content", {}).get("application/json", {})
                    schema_name = content.get("schema", {}).get("$ref", "").rpartition("/")[2]
                    if schema_name == "Problem":
                        response["content"] = {PROBLEM_JSON: content}
                    elif schema_name == "HTTPValidationError":  # FastAPI's own shape, which no route answers with
                        del responses[status]
        app.openapi_schema = schema
    return app.openapi_schema
