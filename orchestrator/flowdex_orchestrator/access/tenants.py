"""The tenant of a key, on its way to the executors: one parameter that no caller can write.

    parameters of the request --pin("acme")--> the same, without `__tenant__` wherever it was, + {__tenant__: acme}

What it means is the executor's business (`flowdex_executors.indexer.tenants`). A request of a tenant goes to executors
alone that say that they keep tenants apart (the trait `tenants`); one that knows nothing of them would show everything.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from google.protobuf.struct_pb2 import Struct

from flowdex.errors import PermissionDenied
from flowdex_orchestrator.access.guard import CALLER

__all__ = ["TENANT_PARAMETER", "check_executors", "current_tenant", "pin"]

TENANT_PARAMETER = "__tenant__"


def pin(parameters: Struct, tenant: str) -> None:
    """Make a tenant the one of these parameters, for every executor.

    Parameters may be addressed to one executor, as `{"indexer": {...}}` or `indexer__name`; neither may hold another
    tenant.

    Args:
        parameters: Changed in place.
        tenant: Its name.
    """
    _remove(parameters)
    for value in parameters.fields.values():
        if value.HasField("struct_value"):
            _remove(value.struct_value)
    parameters.fields[TENANT_PARAMETER].string_value = tenant


def _remove(parameters: Struct) -> None:
    for key in [key for key in parameters.fields if TENANT_PARAMETER in key]:
        del parameters.fields[key]


def check_executors(keeping_apart: Mapping[str, bool], called: Iterable[str]) -> None:
    """Refuse to call executors that would not keep tenants apart.

    Args:
        keeping_apart: Of each executor, whether it does.
        called: Those that the request would go to.

    Raises:
        PermissionDenied: Naming the first that does not.
    """
    for name in called:
        if not keeping_apart[name]:
            raise PermissionDenied(
                f"the executor {name!r} does not say that it keeps tenants apart (class attribute tenants = True), so "
                "the key of a tenant cannot call it"
            )


def current_tenant() -> str | None:
    """The tenant of the caller whose request this is; None without one."""
    caller = CALLER.get()
    return None if caller is None else caller.tenant
