"""Whether a person waits for the answer: what a request says of its priority, for code deep inside an executor.

    X-Priority: bulk | interactive  -->  gateway (which lane)  -->  worker: with asked_priority(...)  -->  asked()

A request that says nothing is judged by its size, by the gateway in bytes and by an encoder in tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal, TypeAlias

from flowdex.errors import InvalidInput

__all__ = ["PRIORITY_KEY", "Priority", "asked", "asked_priority", "parse_priority", "priority_in"]

Priority: TypeAlias = Literal["interactive", "bulk"]
PRIORITY_KEY = "x-priority"
"""The name of the HTTP header, and of the gRPC metadata."""

_asked: ContextVar[Priority | None] = ContextVar("flowdex_priority", default=None)


def parse_priority(value: str | bytes) -> Priority:
    """What the header or the metadata says.

    Raises:
        InvalidInput: It is neither `interactive` nor `bulk`.
    """
    text = value.decode("ascii", "replace") if isinstance(value, bytes) else value
    if text == "interactive":
        return "interactive"
    if text == "bulk":
        return "bulk"
    raise InvalidInput(f"{PRIORITY_KEY} must be interactive or bulk, got {text[:32]!r}")


def priority_in(metadata: Iterable[tuple[str, str | bytes]]) -> Priority | None:
    """What a call's metadata says of its priority; None where they say nothing. Raises as `parse_priority`."""
    for key, value in metadata:
        if key == PRIORITY_KEY:
            return parse_priority(value)
    return None


@contextmanager
def asked_priority(priority: Priority | None) -> Iterator[None]:
    """Set what the request at hand says, for the code in the block and the tasks that it starts."""
    token = _asked.set(priority)
    try:
        yield
    finally:
        _asked.reset(token)


def asked() -> Priority | None:
    """What the request at hand says of its priority; None where it says nothing."""
    return _asked.get()
