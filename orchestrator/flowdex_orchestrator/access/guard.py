"""Who is calling, and whether they may: what every protocol of the gateway asks, and the router.

    credentials --Guard.identify--> Caller --(context variable)--> Router: Guard.enter(endpoint) --> Grant --> leave
                     Unauthenticated                               PermissionDenied, Overloaded

The protocol's front says who calls, in the context of the request; the router asks whether this endpoint is theirs.
A request that comes to the router without a caller is refused, so a front that forgets to ask fails closed.
"""

from __future__ import annotations

import contextlib
import hmac
import os
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from flowdex.errors import PermissionDenied, Unauthenticated
from flowdex_orchestrator.access.keys import Key, KeyFile
from flowdex_orchestrator.access.limits import Allowance
from flowdex_orchestrator.access.roles import TENANT_ENDPOINTS, Role, allows, endpoint_role

if TYPE_CHECKING:
    from flowdex_orchestrator.flow import Flow

__all__ = ["CALLER", "FLOW_KEY_VARIABLE", "FREE", "KEYS_VARIABLE", "Caller", "Grant", "Guard", "guard_of", "keys_path"]

KEYS_VARIABLE = "FLOWDEX_KEYS"
"""Environment variable with the path of the key file, for containers; `gateway: keys:` of the flow file goes first."""
FLOW_KEY_VARIABLE = "FLOWDEX_FLOW_KEY"
"""Environment variable in which a runner hands the gateway the key that the flow's own executors call it with."""

_MISSING = "send an API key: Authorization: Bearer KEY (flowdex --api-key, Client(api_key=), FLOWDEX_API_KEY)"
_UNKNOWN = "this API key is not known here, or not any more"


@dataclass(frozen=True)
class Caller:
    """Who is calling.

    Attributes:
        name: Of the key.
        id: Of the key; empty for keys that no file holds.
        roles: What it may do.
        tenant: Whose documents it sees; None for all.
        counted: Whether the front has counted the request already.
    """

    name: str
    id: str
    roles: frozenset[Role]
    tenant: str | None = None
    counted: bool = False


@dataclass
class Grant:
    """Leave for one request; `leave` gives it back.

    Attributes:
        tenant: Whose documents it may see; None for all.
    """

    tenant: str | None = None
    _allowance: Allowance | None = None

    def leave(self) -> None:
        """The request has been answered."""
        if self._allowance is not None:
            self._allowance.leave()


CALLER: ContextVar[Caller | None] = ContextVar("flowdex_caller", default=None)
"""The caller of the request that this context belongs to."""

FREE = Grant()
"""Leave without limits."""


@dataclass
class Guard:
    """Decides by keys.

    Attributes:
        file: The keys.
        custom: Roles of endpoints that are not flowdex's.
        internal: Callers by their token, that no file holds: the runner, and the flow's own executors.
    """

    file: KeyFile
    custom: Mapping[str, Role] = field(default_factory=dict)
    internal: dict[str, Caller] = field(default_factory=dict)
    _allowances: dict[str, tuple[Key, Allowance]] = field(default_factory=dict)

    def identify(self, token: str | None) -> Caller:
        """The caller with this token.

        Raises:
            Unauthenticated: There is no token, or no key that it belongs to.
        """
        if not token:
            raise Unauthenticated(_MISSING)
        key = self.file.find(token)
        if key is None:
            for secret, caller in self.internal.items():
                if hmac.compare_digest(secret.encode(), token.encode()):
                    return caller
            raise Unauthenticated(_UNKNOWN)
        _check_time(key)
        return Caller(key.name, key.id, key.roles, key.tenant)

    def enter(self, endpoint: str, *, writes_copies: bool = False) -> Grant:
        """Let the request of this context go to an endpoint of the flow.

        Args:
            endpoint: The endpoint.
            writes_copies: Whether it is a step of reindexing, whatever the endpoint.

        Raises:
            Unauthenticated: Nobody has said who calls, or the key has ended since.
            PermissionDenied: The key has not the role for it.
            Overloaded: The key's rate or its number of requests in flight is reached.
        """
        caller = self._current(CALLER.get())
        role = Role.ADMIN if writes_copies else endpoint_role(endpoint, self.custom)
        check_role(caller, role, f"the endpoint {endpoint}")
        if caller.tenant is not None and endpoint not in TENANT_ENDPOINTS:
            raise PermissionDenied(f"the endpoint {endpoint} is not for the key of a tenant")
        grant = FREE if caller.counted else self._count(caller)
        return Grant(caller.tenant, grant._allowance) if caller.tenant is not None else grant

    @contextlib.contextmanager
    def counting(self, caller: Caller) -> Iterator[None]:
        """Count one request of a protocol, whatever number of endpoints it calls, and say who calls.

        Raises:
            Overloaded: As `enter`.
        """
        grant = self._count(caller)
        mark = CALLER.set(Caller(caller.name, caller.id, caller.roles, caller.tenant, counted=True))
        try:
            yield
        finally:
            CALLER.reset(mark)
            grant.leave()

    def _current(self, caller: Caller | None) -> Caller:
        """The caller, whose key may have changed or ended on a connection that goes on."""
        if caller is None:
            raise Unauthenticated(_MISSING)
        if not caller.id or caller.counted:
            return caller
        key = self.file.keys().get(caller.id)
        if key is None:
            raise Unauthenticated(_UNKNOWN)
        _check_time(key)
        return Caller(key.name, key.id, key.roles, key.tenant)

    def _count(self, caller: Caller) -> Grant:
        key = self.file.keys().get(caller.id)
        if key is None or (key.rate is None and key.concurrent is None):
            return FREE
        known, allowance = self._allowances.get(key.id, (None, None))
        if allowance is None or (known is not key and known != key):
            allowance = Allowance(key.rate, key.burst, key.concurrent)
        if known is not key:
            self._allowances[key.id] = key, allowance
        allowance.enter()
        return Grant(None, allowance)


def check_role(caller: Caller, role: Role, what: str) -> None:
    """Refuse a caller without the role.

    Raises:
        PermissionDenied: It has not.
    """
    if not allows(caller.roles, role):
        has = ", ".join(sorted(each.value for each in caller.roles))
        raise PermissionDenied(f"{what} needs a key with the role {role.value}; this one has {has}")


def _check_time(key: Key) -> None:
    if key.expired:
        raise Unauthenticated(f"this API key has expired on {key.expires:%Y-%m-%d}; ask for a new one")


def keys_path(flow: Flow, environment: Mapping[str, str] | None = None) -> Path | None:
    """Where a flow's keys are: `gateway: keys:`, beside the flow file, else FLOWDEX_KEYS; None where it has none."""
    if flow.gateway.keys is not None:
        return flow.folder / Path(flow.gateway.keys).expanduser()
    named = (os.environ if environment is None else environment).get(KEYS_VARIABLE)
    return Path(named).expanduser() if named else None


def guard_of(path: Path | None, custom: Mapping[str, Role] | None = None) -> Guard | None:
    """The guard of a key file, None without one.

    Raises:
        ConfigurationError: The file cannot be read.
    """
    if path is None:
        return None
    guard = Guard(KeyFile(path), custom or {})
    if token := os.environ.get(FLOW_KEY_VARIABLE):
        guard.internal[token] = Caller("the flow", "", frozenset({Role.SEARCH}))
    return guard
