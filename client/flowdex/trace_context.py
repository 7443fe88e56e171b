"""The trace that the request at hand belongs to, for calls that an executor makes of its own.

    worker: with carrying(headers): endpoint(...)  ->  ... ->  a client's call: carried() goes with it

W3C's trace context (https://www.w3.org/TR/trace-context/), as headers of HTTP and metadata of gRPC. The names are read
nowhere here: who carries them on needs no library for traces.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["carried", "carrying"]

Headers = tuple[tuple[str, str], ...]

_headers: ContextVar[Headers] = ContextVar("flowdex_trace", default=())


@contextmanager
def carrying(headers: Headers) -> Iterator[None]:
    """Let calls of the block, and of the tasks that it starts, carry these headers."""
    token = _headers.set(headers)
    try:
        yield
    finally:
        _headers.reset(token)


def carried() -> Headers:
    """The headers that a call made now carries; none outside of a request."""
    return _headers.get()
