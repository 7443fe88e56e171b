"""As many replicas as keep an executor's queue at its target, by the rule of Kubernetes' HorizontalPodAutoscaler.

replicas --load--> mean queue time --desired_replicas--> Stabiliser --> Scaler.scale

desired = ceil(current * measured / target), between min and max; within 10 % of the target nothing changes.
Up at once; down only to the most that was desired in the last minutes.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from flowdex.errors import Conflict, FlowdexError
from flowdex_orchestrator.runner.scaling import Scaler

__all__ = ["Autoscaler", "Pace", "Rule", "Stabiliser", "desired_replicas"]

_TOLERANCE = 0.1
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Rule:
    """What an executor's `autoscale` asks for: between `least` and `most` replicas, `target_ms` of queue."""

    least: int
    most: int
    target_ms: float


@dataclass(frozen=True)
class Pace:
    """How quickly an autoscaler acts; seconds.

    Attributes:
        every: Between two measurements.
        down_window: For so long the most that was desired counts before replicas are removed.
        after_failure: Before a change that failed is tried again.
    """

    every: float = 2.0
    down_window: float = 300.0
    after_failure: float = 30.0


def desired_replicas(current: int, measured_ms: float, rule: Rule) -> int:
    """The number of replicas at which the measure would be at its target, if it is proportional to their load.

    Args:
        current: Replicas that the measure is the mean of.
        measured_ms: Milliseconds of queue, the mean over them.
        rule: Target and bounds.
    """
    ratio = measured_ms / rule.target_ms
    # The small subtraction keeps 3 * 1.3333... at 4 and not at 5.
    desired = current if abs(ratio - 1) <= _TOLERANCE else math.ceil(current * ratio - 1e-9)
    return min(max(desired, rule.least), rule.most)


class Stabiliser:
    """Lets a number grow at once, and shrink only to the largest that was recommended within a window.

    Args:
        window: Seconds.
    """

    def __init__(self, window: float) -> None:
        self._window = window
        self._recent: deque[tuple[float, int]] = deque()

    def settle(self, now: float, current: int, desired: int) -> int:
        """The number to go to, for a recommendation made at `now` (seconds that only grow)."""
        if not self._recent:
            self._recent.append((now, current))
        self._recent.append((now, desired))
        while self._recent[0][0] < now - self._window:
            self._recent.popleft()
        if desired >= current:
            return desired
        return min(current, max(number for _, number in self._recent))


class Autoscaler:
    """Scales executors of a flow that runs.

    Args:
        scaler: Does it.
        rules: By executor.
        measure: The mean milliseconds of queue of an executor's ready replicas; None while none can be asked.
        pace: How quickly.
    """

    def __init__(
        self,
        scaler: Scaler,
        rules: Mapping[str, Rule],
        measure: Callable[[str], Awaitable[float | None]],
        pace: Pace | None = None,
    ) -> None:
        self._scaler = scaler
        self._rules = rules
        self._measure = measure
        self._pace = pace or Pace()

    async def run(self) -> None:
        """Go on until cancelled, or until no executor can be scaled."""
        await asyncio.gather(*(self._follow(name, rule) for name, rule in self._rules.items()))

    async def _follow(self, name: str, rule: Rule) -> None:
        stabiliser = Stabiliser(self._pace.down_window)
        while True:
            await asyncio.sleep(self._pace.every)
            if self._scaler.busy(name):
                continue
            measured = await self._measure(name)
            current = self._scaler.count(name)
            if measured is None or not current:
                continue
            wanted = stabiliser.settle(time.monotonic(), current, desired_replicas(current, measured, rule))
            if wanted == current:
                continue
            _log.warning(
                "%s: %.0f ms of queue, target %.0f: %d -> %d replicas", name, measured, rule.target_ms, current, wanted
            )
            try:
                await self._scaler.scale({name: wanted})
            except Conflict as error:
                if not self._scaler.busy(name):
                    _log.warning("autoscale of %s ends: %s", name, error)
                    return
            except FlowdexError as error:
                _log.warning("autoscale of %s failed: %s", name, error)
                await asyncio.sleep(self._pace.after_failure)
