"""What a key may do: the one table from endpoints of the flow, and from routes of the HTTP API, to roles.

    endpoint of a request --endpoint_role--> Role           (gRPC, WebSocket, every route that goes through the flow)
    method + path         --route_role-----> Role | None    (None: open to all)

The flow is guarded by endpoint, in the router, whatever protocol a request came by; the HTTP API by route besides,
because some routes never reach the flow.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from enum import Enum

__all__ = [
    "ENDPOINTS",
    "NOT_FOR_TENANTS",
    "OPEN",
    "ROUTES",
    "TENANT_ENDPOINTS",
    "Role",
    "allows",
    "endpoint_role",
    "route_role",
]


class Role(str, Enum):
    """What a key may do; a key has one or several."""

    SEARCH = "search"
    """Encode, search, rank, and read documents."""
    INDEX = "index"
    """Write and delete documents; reading them takes `search` besides."""
    METRICS = "metrics"
    """Read /metrics, for Prometheus."""
    ADMIN = "admin"
    """All of that; scale, restart, reindex, take and restore snapshots; call endpoints that flowdex does not know."""


_SEARCH, _INDEX, _ADMIN = Role.SEARCH, Role.INDEX, Role.ADMIN

ENDPOINTS: Mapping[str, Role] = {
    "/encode": _SEARCH,
    "/profile": _SEARCH,
    "/attention": _SEARCH,
    "/tokenize": _SEARCH,
    "/decode": _SEARCH,
    "/embed_sparse": _SEARCH,
    "/search": _SEARCH,
    "/rank": _SEARCH,
    "/get": _SEARCH,
    "/scroll": _SEARCH,
    "/count": _SEARCH,
    "/sample": _SEARCH,
    "/map": _SEARCH,
    "/status": _SEARCH,
    "/bert/status": _SEARCH,
    "/index": _INDEX,
    "/delete": _INDEX,
}
"""Endpoints of the flow. Any other needs `admin`, unless the flow file's `gateway: roles:` names it."""

TENANT_ENDPOINTS = frozenset(ENDPOINTS) - {"/bert/status"}
"""Endpoints that keep tenants apart. The others are not for keys of a tenant."""

NOT_FOR_TENANTS = frozenset({"/status/server", "/status/client"})
"""Routes that count everybody's requests."""

OPEN = frozenset({"/docs", "/openapi.json", "/health/live", "/health/ready", "/health", "/dry_run"})
"""Routes that need no key: they say whether the flow is ready, and what its API looks like."""

ROUTES: Mapping[str, Role] = {
    **dict.fromkeys(("/encode", "/search", "/rank", "/attention", "/interaction", "/map", "/compare"), _SEARCH),
    **dict.fromkeys(("/get", "/scroll", "/count"), _SEARCH),
    **dict.fromkeys(("/status", "/status/server", "/status/client"), _SEARCH),
    **dict.fromkeys(("/v1/embeddings", "/v1/models", "/v1/rerank", "/v2/rerank"), _SEARCH),
    **dict.fromkeys(("/embed", "/embed_all", "/embed_sparse", "/similarity", "/rerank", "/tokenize"), _SEARCH),
    **dict.fromkeys(("/decode", "/info"), _SEARCH),
    "/post": _SEARCH,  # names the flow's endpoint in its body: the router decides
    "/index": _INDEX,
    "/metrics": Role.METRICS,
    "/admin/scale": _ADMIN,
    "/admin/restart": _ADMIN,
}
"""Routes by their path, whatever the method."""

_PREFIXES: Mapping[str, Role] = {"/documents": _SEARCH, "/v1/models/": _SEARCH, "/admin": _ADMIN}


def allows(roles: Collection[Role], needed: Role) -> bool:
    """Whether a key with these roles may do what needs this one."""
    return needed in roles or _ADMIN in roles


def endpoint_role(endpoint: str, custom: Mapping[str, Role]) -> Role:
    """The role that an endpoint of the flow needs.

    Args:
        endpoint: Its name.
        custom: What the flow file says of endpoints that are not flowdex's.
    """
    return ENDPOINTS.get(endpoint) or custom.get(endpoint, _ADMIN)


def route_role(method: str, path: str) -> Role | None:
    """The role that a route of the HTTP API needs, None where none is; `search` for a path where there is nothing."""
    if path in OPEN or path.startswith("/page/"):
        return None
    if path == "/":  # the page; what is posted there is text-embeddings-inference's
        return None if method in ("GET", "HEAD") else _SEARCH
    role = ROUTES.get(path)
    if role is None:
        role = next((each for prefix, each in _PREFIXES.items() if path.startswith(prefix)), _SEARCH)
        return _INDEX if method == "DELETE" and role is _SEARCH else role
    return role
