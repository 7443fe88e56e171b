"""What an executor notes down about the request at hand: how long it waited, how long it was computed.

    worker: with noting(notes): endpoint(...)  ->  ... ->  note(queue_ms=3.1, tokens=12)
    notes --> the executor's span, and the reply's route: the gateway's log of slow requests

Where nobody collects them, notes are lost.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["note", "noting"]

_notes: ContextVar[dict[str, float] | None] = ContextVar("flowdex_notes", default=None)


@contextmanager
def noting(notes: dict[str, float]) -> Iterator[None]:
    """Collect in `notes` what is noted in the block and in the tasks that it starts."""
    token = _notes.set(notes)
    try:
        yield
    finally:
        _notes.reset(token)


def note(**values: float) -> None:
    """Note values down; those of the same name replace what was noted before."""
    notes = _notes.get()
    if notes is not None:
        notes.update(values)
