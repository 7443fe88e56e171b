"""From an HTTP error answer back to the error that was raised.

    status, problem document (RFC 9457) --name of the error, or else the status--> FlowdexError

An answer of a proxy, which knows no problem documents, is judged by its status alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flowdex import errors
from flowdex.errors import ExecutorError, FlowdexError, InternalError, InvalidInput, TooLarge, Unavailable

__all__ = ["error_from_problem"]

# In the order of preference where two classes share a status.
_CLASSES: tuple[type[FlowdexError], ...] = (
    InvalidInput,
    TooLarge,
    errors.NotFound,
    errors.Conflict,
    errors.Unauthenticated,
    errors.PermissionDenied,
    errors.Cancelled,
    errors.Overloaded,
    Unavailable,
    errors.DeadlineExceeded,
    InternalError,
    ExecutorError,
)


def error_from_problem(
    status: int, problem: Mapping[str, Any] | None, *, retry_after: float | None = None
) -> FlowdexError:
    """Rebuild an error.

    Args:
        status: The HTTP status.
        problem: The problem document, or None for any other answer (a proxy's page, say).
        retry_after: Seconds of the Retry-After header.
    """
    problem = problem or {}
    message = str(problem.get("detail") or problem.get("title") or f"the service answered with HTTP status {status}")
    executor = problem.get("executor")
    cls = _class_of(status, str(problem.get("type") or ""))
    return cls(message, retry_after=retry_after, executor=str(executor) if executor else None)


def _class_of(status: int, kind: str) -> type[FlowdexError]:
    name = kind.rpartition(":")[2]  # of "urn:flowdex:error:InvalidInput"
    for cls in _CLASSES:
        if cls.__name__ == name:
            return cls
    for cls in _CLASSES:
        if cls.status.http == status:
            return cls
    if status == 502:  # a proxy that cannot reach the gateway
        return Unavailable
    return InvalidInput if 400 <= status < 500 else InternalError
