"""How much one key may ask: a token bucket (requests a second) and a number of requests in flight.

enter() --bucket empty, or too many in flight--> Overloaded(retry_after)
        --otherwise--> counted, until leave()
"""

from __future__ import annotations

import time
from collections.abc import Callable

from flowdex.errors import Overloaded

__all__ = ["Allowance"]

_RETRY_BUSY = 1.0  # seconds; nobody knows when one of the requests in flight ends


class Allowance:
    """What is left of a key's limits.

    Args:
        rate: Requests a second; None for no limit.
        burst: Size of the bucket; twice the rate, and at least 1, where not given.
        concurrent: Most requests in flight; None for no limit.
        clock: Seconds that only grow.
    """

    __slots__ = ("_burst", "_clock", "_concurrent", "_filled", "_left", "_rate", "in_flight")

    def __init__(
        self,
        rate: float | None,
        burst: int | None,
        concurrent: int | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rate = rate
        self._burst = float(burst) if burst is not None else max(1.0, 2.0 * (rate or 0.0))
        self._concurrent = concurrent
        self._clock = clock
        self._left = self._burst
        self._filled = clock()
        self.in_flight = 0

    def enter(self) -> None:
        """Count one request; `leave` must follow.

        Raises:
            Overloaded: A limit of the key is reached; the message names it.
        """
        if self._concurrent is not None and self.in_flight >= self._concurrent:
            raise Overloaded(
                f"this key has {self.in_flight} requests in flight, the most it may have (concurrent of its key)",
                retry_after=_RETRY_BUSY,
            )
        if self._rate is not None:
            now = self._clock()
            self._left = min(self._burst, self._left + (now - self._filled) * self._rate)
            self._filled = now
            if self._left < 1.0:
                raise Overloaded(
                    f"this key may ask {self._rate:g} times a second (rate of its key)",
                    retry_after=(1.0 - self._left) / self._rate,
                )
            self._left -= 1.0
        self.in_flight += 1

    def leave(self) -> None:
        """The request has been answered."""
        self.in_flight -= 1
