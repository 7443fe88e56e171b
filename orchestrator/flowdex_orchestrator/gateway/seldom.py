"""What clients do wrong in the log: a line a minute at most, so that rubbish fills no disk."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from typing import Any

__all__ = ["SeldomLogger"]

_EVERY = 60.0  # seconds


class SeldomLogger(logging.Logger):
    """A logger whose warnings come once a minute, with the number of those left out; all of them at level debug.

    Args:
        logger: Where to, as a child of it that has its name and its level.
        clock: Seconds that only grow.
    """

    def __init__(self, logger: logging.Logger, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(logger.name, logger.getEffectiveLevel())
        self.parent = logger
        self._clock = clock
        self._next = -math.inf
        self._left_out = 0

    def warning(self, msg: object, *args: Any, **kwargs: Any) -> None:
        """Log it, or count it."""
        now = self._clock()
        if now < self._next:
            self._left_out += 1
            self.debug(msg, *args, **kwargs)
            return
        more = f" ({self._left_out} more of what clients sent wrong was left out)" if self._left_out else ""
        self._next, self._left_out = now + _EVERY, 0
        super().warning(f"{msg}{more}", *args, **kwargs)
