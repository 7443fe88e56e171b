"""Refusing a request before its body is read: under overload most requests are refused, and each should cost little.

    head: path, Content-Length, X-Priority, X-Request-Timeout-Ms --admit--> read on | Overloaded

What the head does not tell, such as the executor that a body names, the router judges when it has the request.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from fastapi import Request

from flowdex.errors import InvalidInput
from flowdex.priority import PRIORITY_KEY, Priority, parse_priority

if TYPE_CHECKING:
    from flowdex_orchestrator.gateway.server import Gateway

__all__ = ["admit", "deadline_of", "priority_of"]


class _Aim(NamedTuple):
    """What a path asks the flow for, and whether its body may name one of several executors."""

    endpoint: str
    any_executor: bool = False


_AIMS: Mapping[str, _Aim] = {
    **{path: _Aim(path) for path in ("/encode", "/index", "/search", "/rank", "/attention", "/get", "/scroll")},
    **{path: _Aim("/encode", True) for path in ("/", "/v1/embeddings", "/embed", "/embed_all", "/similarity")},
    **{path: _Aim("/rank", True) for path in ("/rerank", "/v1/rerank", "/v2/rerank")},
    "/embed_sparse": _Aim("/embed_sparse", True),
}


def admit(request: Request) -> None:
    """Let a request of a route in, or not; one whose path says nothing of its way is let in.

    Raises:
        Overloaded: It would wait too long, or there is no place for it.
        InvalidInput: One of the two headers is wrong.
    """
    aim = _AIMS.get(request.scope["path"])
    if aim is None or request.method != "POST":
        return
    gateway: Gateway = request.app.state.gateway
    declared = request.headers.get("content-length", "")
    gateway.router.admit_unread(
        aim.endpoint,
        int(declared) if declared.isdecimal() else 0,
        asked=priority_of(request),
        deadline=deadline_of(request),
        any_executor=aim.any_executor,
    )


def priority_of(request: Request) -> Priority | None:
    """What `X-Priority` says; None where it is absent. Raises `InvalidInput`."""
    header = request.headers.get(PRIORITY_KEY)
    return None if header is None else parse_priority(header)


def deadline_of(request: Request) -> float | None:
    """What `X-Request-Timeout-Ms` says, in `time.monotonic()` seconds; None without it. Raises `InvalidInput`."""
    header = request.headers.get("x-request-timeout-ms")
    if header is None:
        return None
    try:
        milliseconds = float(header)
    except ValueError:
        milliseconds = math.nan
    if not 0 < milliseconds < math.inf:
        raise InvalidInput(f"the header X-Request-Timeout-Ms must be a positive number, got {header!r}")
    return time.monotonic() + milliseconds / 1000
