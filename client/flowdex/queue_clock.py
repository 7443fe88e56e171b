r"""How long requests wait before work on them begins: what autoscaling goes by.

enter() --> ticket --> start(ticket)        mean_ms = mean over those begun lately and those that wait now
                  \--> leave(ticket)
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable

__all__ = ["QueueClock"]

_WINDOW = 5.0


class QueueClock:
    """Times a queue; methods may be called in any thread.

    Args:
        window: Seconds for which a request that has begun counts.
        clock: Seconds that only grow.
    """

    def __init__(self, window: float = _WINDOW, clock: Callable[[], float] = time.monotonic) -> None:
        self._window = window
        self._clock = clock
        self._lock = threading.Lock()
        self._tickets = itertools.count()
        self._waiting: dict[int, float] = {}
        self._begun: deque[tuple[float, float]] = deque()  # when, after how many seconds

    def enter(self) -> int:
        """A request begins to wait; returns its ticket."""
        with self._lock:
            ticket = next(self._tickets)
            self._waiting[ticket] = self._clock()
            return ticket

    def start(self, ticket: int) -> float:
        """Its work begins; only the first call counts. Returns the seconds that it has waited."""
        with self._lock:
            entered = self._waiting.pop(ticket, None)
            if entered is None:
                return 0.0
            now = self._clock()
            self._begun.append((now, now - entered))
            self._prune(now)
            return now - entered

    def leave(self, ticket: int) -> None:
        """It waits no more, and nothing will be done for it."""
        with self._lock:
            self._waiting.pop(ticket, None)

    @property
    def waiting(self) -> int:
        """Requests that wait now."""
        return len(self._waiting)

    @property
    def oldest_seconds(self) -> float:
        """How long the request that has waited longest has been waiting; 0 where none waits."""
        with self._lock:
            entered = next(iter(self._waiting.values()), None)
            return 0.0 if entered is None else self._clock() - entered

    def mean_ms(self) -> float:
        """Mean milliseconds of waiting: until their begin for those begun within the window, until now for others."""
        with self._lock:
            now = self._clock()
            self._prune(now)
            total = sum(waited for _, waited in self._begun) + sum(now - entered for entered in self._waiting.values())
            count = len(self._begun) + len(self._waiting)
        return 1000 * total / count if count else 0.0

    def _prune(self, now: float) -> None:
        while self._begun and self._begun[0][0] < now - self._window:
            self._begun.popleft()
