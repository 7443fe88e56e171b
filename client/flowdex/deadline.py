"""How long the caller of the request at hand still waits, for code deep inside an executor.

    worker: with caller_waits(seconds): endpoint(...)  ->  ... ->  seconds_left(): as many of them as are left

What an executor asks others for on the way must not take longer than that. It is known where flowdex's own worker runs
the executor and the endpoint is asynchronous; elsewhere (`def` endpoints, stock Jina) there is no limit to be known.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["caller_waits", "seconds_left"]

_end: ContextVar[float | None] = ContextVar("flowdex_deadline", default=None)  # in time.monotonic() seconds


@contextmanager
def caller_waits(seconds: float | None) -> Iterator[None]:
    """Set the deadline for the code in the block and the tasks that it starts; None for no limit."""
    token = _end.set(None if seconds is None else time.monotonic() + seconds)
    try:
        yield
    finally:
        _end.reset(token)


def seconds_left() -> float | None:
    """Seconds until the deadline, at least 0; None where none is known."""
    end = _end.get()
    return None if end is None else max(0.0, end - time.monotonic())
