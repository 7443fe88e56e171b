"""How long a request would wait in an executor if it were let in now, and who is let in.

    call begins --enter--> Backlog: work in flight ---+
    call ends ---leave---> Backlog: work a second ----+--> expected wait = work ahead / work a second

Work is counted in bytes, as those are known without reading them, and its rate is measured where it shows: over the
time in which an executor has several calls at once. So nothing has to be configured: a faster machine, more replicas or
longer texts show in the rate after about a second. An executor that is not busy makes nobody wait.

Requests are in one of two lanes. Executors compute *interactive* ones first, so that those wait for their like only;
*bulk* waits for all. Bulk may fill three quarters of the gateway's places, interactive requests may take all.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from flowdex.errors import Overloaded
from flowdex_orchestrator.gateway.settings import GatewaySettings

if TYPE_CHECKING:
    from flowdex.priority import Priority
    from flowdex_orchestrator.gateway.topology import Plan

__all__ = ["Admission", "Backlog"]

_CALL_WORK = 128  # bytes: what a call costs besides its documents is about what so much text does
_BUSY_CALLS = 4  # a replica: with fewer, its cores may be idle, and its rate says nothing of what it could do
_WINDOW = 2.0  # seconds of being busy over which the rate is a mean
_MEASURED = 0.2  # seconds of being busy until it is believed
_INTERACTIVE_SHARE = 0.8  # of an encoder's batches go to interactive requests first, the others to bulk
_BULK_PLACES = 0.75
_SAID_INTERACTIVE = 16  # times `small_request`: the largest request that may say that it is interactive


class Backlog:
    """The calls of one executor that are in flight, and how fast they are worked off.

    Args:
        replicas: How many of it take calls.
        clock: Seconds that only grow.

    Attributes:
        calls: How many are in flight.
    """

    __slots__ = ("_bulk", "_busy", "_clock", "_done", "_interactive", "_replicas", "_since", "calls")

    def __init__(self, replicas: Callable[[], int], clock: Callable[[], float] = time.monotonic) -> None:
        self.calls = 0
        self._replicas = replicas
        self._clock = clock
        self._interactive = 0  # work in flight
        self._bulk = 0
        self._done = 0.0  # work, and seconds in which it was done; older ones count less
        self._busy = 0.0
        self._since = 0.0  # when it became busy, or the two above were brought up to date; 0 while it is not busy

    def enter(self, size: int, bulk: bool) -> None:
        """A call of so many bytes begins."""
        if bulk:
            self._bulk += size + _CALL_WORK
        else:
            self._interactive += size + _CALL_WORK
        self.calls += 1
        if not self._since and self.calls >= self._many:
            self._since = self._clock()

    def leave(self, size: int, bulk: bool, done: bool) -> None:
        """It ends; `done` says whether the executor has worked it off, rather than failed or lost it."""
        work = size + _CALL_WORK
        if bulk:
            self._bulk -= work
        else:
            self._interactive -= work
        if self._since:
            self._advance()
            if done:
                self._done += work
        self.calls -= 1
        if self._since and self.calls < self._many:
            self._since = 0.0

    def wait(self, bulk: bool) -> float:
        """Seconds that a call would wait that began now; 0 where the executor is not busy, or is not known yet."""
        if not self._since:
            return 0.0
        self._advance()
        if self._busy < _MEASURED:
            return 0.0
        ahead = (self._interactive + self._bulk) if bulk else self._interactive / _INTERACTIVE_SHARE
        return ahead * self._busy / self._done if self._done else self._busy

    @property
    def _many(self) -> int:
        return _BUSY_CALLS * max(1, self._replicas())

    def _advance(self) -> None:
        now = self._clock()
        passed = now - self._since
        kept = math.exp(-passed / _WINDOW)
        self._done *= kept
        self._busy = self._busy * kept + passed
        self._since = now


class Admission:
    """Who is let in.

    Args:
        settings: The limits.
        backlogs: One for each executor.

    Attributes:
        refused: How many were not, by reason: `in_flight`, `wait`, `deadline`.
        bulk_places: Requests in flight from which on no bulk is let in.
    """

    def __init__(self, settings: GatewaySettings, backlogs: Mapping[str, Backlog]) -> None:
        self._backlogs = backlogs
        self.refused: Counter[str] = Counter()
        self.configure(settings)

    def configure(self, settings: GatewaySettings) -> None:
        """Go by other limits from the next request on; see `Gateway.configure`."""
        self._settings = settings
        self.bulk_places = max(1, math.ceil(_BULK_PLACES * settings.max_in_flight))

    def is_bulk(self, size: int, asked: Priority | None) -> bool:
        """The lane of a request.

        Args:
            size: Bytes.
            asked: What it says itself; nothing large is interactive, whatever it says.
        """
        if asked is None:
            return size > self._settings.small_request
        return asked == "bulk" or size > _SAID_INTERACTIVE * self._settings.small_request

    def check_places(self, in_flight: int, bulk: bool) -> None:
        """Refuse a request for which there is no place.

        Raises:
            Overloaded: `in_flight` requests are as many as may be.
        """
        most = self.bulk_places if bulk else self._settings.max_in_flight
        if in_flight >= most:
            self.refused["in_flight"] += 1
            raise Overloaded(
                f"{in_flight} requests are in flight, the most this gateway takes{' with bulk ones' if bulk else ''} "
                "(gateway.uses_with.max_in_flight); try again shortly",
                retry_after=1.0,
            )

    def full(self, in_flight: int) -> bool:
        """Whether bulk requests are refused, all or some: who can wait had better."""
        if in_flight >= self.bulk_places:
            return True
        longest = self._settings.longest_wait
        return bool(longest) and any(
            backlog.calls >= self._settings.least_queue and backlog.wait(True) > longest
            for backlog in self._backlogs.values()
        )

    def check_wait(self, plan: Plan, bulk: bool, deadline: float | None) -> None:
        """Refuse a request that would wait too long.

        Args:
            plan: Its way.
            bulk: Its lane.
            deadline: In `time.monotonic()` seconds.

        Raises:
            Overloaded: The wait would be over `longest_wait`, or end after the deadline.
        """
        for step in plan.steps:
            if self._backlogs[step.executor].calls >= _BUSY_CALLS:
                break
        else:
            return  # the usual case: nobody waits
        self._check(self._wait_on(plan, bulk), [step.executor for step in plan.steps], deadline)

    def check_any(self, executors: Sequence[str], bulk: bool, deadline: float | None) -> None:
        """Refuse a request for one of several executors, which is not known yet; raises as `check_wait`."""
        waits = [self._backlogs[executor].wait(bulk) for executor in executors]
        if waits:
            self._check(min(waits), executors, deadline)

    def waits(self) -> dict[str, dict[str, float]]:
        """Expected seconds by executor and lane."""
        return {
            name: {"interactive": backlog.wait(False), "bulk": backlog.wait(True)}
            for name, backlog in self._backlogs.items()
        }

    def _wait_on(self, plan: Plan, bulk: bool) -> float:
        ends: list[float] = []
        for step in plan.steps:
            begin = max((ends[source] for source in step.sources), default=0.0)
            ends.append(begin + (self._backlogs[step.executor].wait(bulk) if step.awaited else 0.0))
        return max(ends)

    def _check(self, wait: float, executors: Sequence[str], deadline: float | None) -> None:
        longest = self._settings.longest_wait
        left = math.inf if deadline is None else deadline - time.monotonic()
        if wait <= left and (wait <= longest or not longest or self._has_room(executors)):
            return
        if wait > left:
            reason, limit = "deadline", f"more than the {max(left, 0):.1f} s that the request has left"
        else:
            reason, limit = "wait", f"more than the {longest:g} s allowed (gateway.uses_with.longest_wait)"
        self.refused[reason] += 1
        raise Overloaded(
            f"the request would wait {wait:.1f} s, {limit}; try again later",
            retry_after=max(1.0, wait - longest / 2),
        )

    def _has_room(self, executors: Sequence[str]) -> bool:
        """Whether so little is in flight that a slow executor's only caller must not be sent away."""
        return all(self._backlogs[executor].calls < self._settings.least_queue for executor in executors)
