"""What stands in front of every route: the Host header, the caller's key, and the headers that protect browsers.

request --host_allowed--> Guard.identify --route_role--> counted --> application --> response + HEADERS
             403              401            403           429

A web page whose name is made to resolve to 127.0.0.1 (DNS rebinding) is of the same origin as the gateway for a
browser, so the name it calls by is what tells it apart: on loopback the gateway answers to addresses, localhost and
the names of `gateway: hosts:`. An address as Host is always right: who attacks in this way has to use a name.
"""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import re
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

from starlette.requests import HTTPConnection
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from flowdex.errors import FlowdexError, PermissionDenied
from flowdex_orchestrator.access.guard import CALLER, check_role
from flowdex_orchestrator.access.network import is_loopback
from flowdex_orchestrator.access.roles import NOT_FOR_TENANTS, route_role
from flowdex_orchestrator.gateway.http.body import JsonRoute
from flowdex_orchestrator.gateway.http.problems import problem, shape_errors

if TYPE_CHECKING:
    from flowdex_orchestrator.access import Caller, Guard

__all__ = ["HEADERS", "Protection", "inline_policy", "token_in"]

HEADERS: Sequence[tuple[bytes, bytes]] = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
)
"""On every response that does not have them already. A response of the API is data: nothing in it may run or load."""

_CORP = b"cross-origin-resource-policy"
_KNOWN_HOSTS = 1024  # Host headers found to be right; callers can name as many as they like
_BEARER = b"bearer "
_DENIAL = "websocket.http.response"  # what a server can do that answers a refused WebSocket at length


class Protection:
    """Middleware in front of the routes.

    Args:
        app: The application.
        routes: All routes, for the shape of refusals.
        guard: Who may call; everybody where None.
        denied: Told of each request that is refused here: its path, and why.
        hosts: Names that may be in the Host header, besides addresses and localhost; None for any name.
        shared: Whether pages of other origins may load responses (CORS is on).
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        routes: Sequence[BaseRoute],
        guard: Guard | None,
        denied: Callable[[str, FlowdexError], None],
        hosts: Collection[str] | None,
        shared: bool = False,
    ) -> None:
        self._app = app
        self._routes = routes
        self._guard = guard
        self._denied = denied
        self._hosts = None if hosts is None else frozenset(host.lower() for host in hosts)
        self._right: set[bytes] = set()
        self._headers = [pair for pair in HEADERS if not (shared and pair[0] == _CORP)]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in, or refuse it."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return

        async def protected(message: Message) -> None:
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                headers = message["headers"] = list(message.get("headers", ()))
                present = {name for name, _ in headers}
                headers += [pair for pair in self._headers if pair[0] not in present]
            await send(message)

        try:
            if self._hosts is not None:
                self._check_host(scope)
            caller = None if self._guard is None else self._identify(self._guard, scope)
            if self._guard is None or caller is None:
                await self._app(scope, receive, protected)
            elif scope["type"] == "websocket":  # its messages are counted one by one
                CALLER.set(caller)
                await self._app(scope, receive, protected)
            else:
                with self._guard.counting(caller):
                    await self._app(scope, receive, protected)
        except FlowdexError as error:  # the application answers its own
            self._denied(scope["path"], error)
            if scope["type"] == "websocket" and _DENIAL not in (scope.get("extensions") or ()):
                await send({"type": "websocket.close", "code": 1008, "reason": error.message})  # answered 403
                return
            self._shape(scope)
            await problem(error, HTTPConnection(scope))(scope, receive, protected)

    def _identify(self, guard: Guard, scope: Scope) -> Caller | None:
        """The caller; None where the route is open to all."""
        path = scope["path"]
        role = route_role(scope.get("method", "GET"), path) if scope["type"] == "http" else _SOCKETS.get(path, _SEARCH)
        if role is None:
            return None
        caller = guard.identify(token_in(scope))
        check_role(caller, role, path)
        if caller.tenant is not None and path in NOT_FOR_TENANTS:
            raise PermissionDenied(f"{path} is not for the key of a tenant")
        return caller

    def _check_host(self, scope: Scope) -> None:
        host = next((value for name, value in scope["headers"] if name == b"host"), b"")
        if host in self._right:
            return
        name = _name_of(host)
        if not (_is_address(name) or is_loopback(name) or name in (self._hosts or ())):
            raise PermissionDenied(
                f"this gateway does not answer to the name {name[:100]!r}; where that is meant, add it to "
                "`gateway: hosts:` of the flow file"
            )
        if len(self._right) < _KNOWN_HOSTS:
            self._right.add(host)

    def _shape(self, scope: Scope) -> None:
        """Have a refusal written down as the route's contract does it."""
        for route in self._routes:
            if isinstance(route, JsonRoute) and route.matches(scope)[0] is Match.FULL:
                shape_errors(scope, type(route).shape)
                return


_SEARCH = route_role("POST", "/")
_SOCKETS = {"/dry_run": None}


def inline_policy(page: str) -> str:
    """The policy of a page whose script and style are inside of it: these alone run, known by their hashes."""

    def hashes(tag: str) -> str:
        blocks = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digests = (base64.b64encode(hashlib.sha256(block.encode()).digest()).decode() for block in blocks)
        return " ".join(f"'sha256-{digest}'" for digest in digests) or "'none'"

    return (
        f"default-src 'none'; script-src {hashes('script')}; style-src {hashes('style')}; img-src data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def token_in(scope: Scope) -> str | None:
    """The key that a request carries: `Authorization: Bearer`, `X-API-Key`, or `api-key` as clients of Azure do."""
    for name, value in scope["headers"]:
        if name == b"authorization":
            if value[:7].lower() == _BEARER:
                return str(value[7:].strip().decode("latin-1"))
        elif name in (b"x-api-key", b"api-key"):
            return str(value.strip().decode("latin-1"))
    return None


def _name_of(host: bytes) -> str:
    """The name in a Host header, without the port."""
    text = host.decode("latin-1").strip().lower()
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.rpartition(":")[0] if text.count(":") == 1 else text


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
