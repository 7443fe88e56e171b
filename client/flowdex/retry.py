"""When to try again, and when to stop: back-off with jitter under one deadline.

    attempt --retryable error--> pause --> attempt ... until it works, or the retries or the deadline are used up

Only errors whose class says `retryable` (`Overloaded`, `Unavailable`) are tried again: such a call has not run, or, as
all calls of the client are idempotent, may run twice without harm.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from flowdex.errors import DeadlineExceeded, FlowdexError

__all__ = ["Deadline", "RetryBudget", "RetryPolicy", "with_retries"]

T = TypeVar("T")


class Deadline:
    """A moment by which an answer must be there.

    Args:
        seconds: From now on; None for never.
    """

    def __init__(self, seconds: float | None) -> None:
        self.seconds = seconds
        self._end = None if seconds is None else time.monotonic() + seconds

    def remaining(self) -> float | None:
        """Seconds that are left, at least 0; None for ever."""
        return None if self._end is None else max(0.0, self._end - time.monotonic())

    def error(self, last: FlowdexError | None = None) -> DeadlineExceeded:
        """The error to raise once the moment has passed."""
        reason = f"; the last attempt failed: {last.message}" if last is not None else ""
        return DeadlineExceeded(
            f"no answer within {self.seconds:g} s{reason or '; send less at once (batch_size) or allow more (timeout)'}"
        )


@dataclass(frozen=True)
class RetryPolicy:
    """How often and how patiently to try again.

    Attributes:
        retries: Attempts after the first.
        first: Seconds before the second attempt; doubled before each further one.
        longest: Longest pause in seconds, unless the service asks for more.
    """

    retries: int = 6
    first: float = 0.1
    longest: float = 4.0

    def delay(self, attempt: int, error: FlowdexError) -> float:
        """Seconds to wait after attempt number `attempt` (from 0): half fixed, half random; no less than asked for."""
        pause = min(self.longest, self.first * 2.0**attempt)
        return max(pause * random.uniform(0.5, 1.0), (error.retry_after or 0.0) * random.uniform(1.0, 1.1))  # nosec B311 # spreads load, hides nothing


class RetryBudget:
    """How many attempts may be repeats nobody asked for, so that a service in trouble is not asked twice as much.

    A call that succeeds earns a part of a retry, and a retry spends a whole one. One for which the service has named a
    time (`Retry-After`) spends nothing: there the service decides. One budget is for all calls of one client.

    Args:
        most: Retries that can be saved up; there are as many in the beginning.
        earned: By each call that succeeds.
    """

    def __init__(self, most: float = 100.0, earned: float = 0.2) -> None:
        self._most = most
        self._earned = earned
        self._left = most

    def succeeded(self) -> None:
        """A call was answered."""
        self._left = min(self._most, self._left + self._earned)

    def spend(self, error: FlowdexError) -> bool:
        """Whether there may be another attempt after this error."""
        if error.retry_after is not None:
            return True
        if self._left < 1:
            return False
        self._left -= 1
        return True


async def with_retries(
    attempt: Callable[[float | None], Awaitable[T]],
    policy: RetryPolicy,
    deadline: Deadline,
    *,
    reachable: Callable[[], bool] = lambda: True,
    budget: RetryBudget | None = None,
) -> T:
    """Call `attempt(seconds left)` until it succeeds.

    Args:
        attempt: Makes one attempt; gets the time it may take.
        policy: How often to try.
        deadline: When to stop for good.
        reachable: Whether the service has ever answered; one that has not is tried only once more, since a wrong
            address is likelier than an outage that began just now.
        budget: What all calls of the caller may spend on retries; None for no limit.

    Raises:
        DeadlineExceeded: The time is up, or would be during the next pause.
        FlowdexError: What the last attempt raised.
    """
    number = 0
    last: FlowdexError | None = None
    while True:
        left = deadline.remaining()
        if left == 0.0:
            raise deadline.error(last)
        try:
            answer = await attempt(left)
            if budget is not None:
                budget.succeeded()
            return answer
        except DeadlineExceeded:
            if deadline.remaining() == 0.0:
                raise deadline.error(last) from None
            raise
        except FlowdexError as error:
            if not error.status.retryable or number >= (policy.retries if reachable() else min(1, policy.retries)):
                raise
            if budget is not None and not budget.spend(error):
                raise
            last = error
        pause = policy.delay(number, last)
        left = deadline.remaining()
        if left is not None and pause >= left:
            raise deadline.error(last)
        await asyncio.sleep(pause)
        number += 1
