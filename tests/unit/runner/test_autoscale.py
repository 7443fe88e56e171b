"""The rule of autoscaling, and the measure it goes by."""

from __future__ import annotations

import asyncio
import math

from hypothesis import assume, given
from hypothesis import strategies as st

from flowdex.errors import Conflict, Unavailable
from flowdex.queue_clock import QueueClock
from flowdex_orchestrator.flow import parse_flow
from flowdex_orchestrator.runner.autoscale import Autoscaler, Pace, Rule, Stabiliser, desired_replicas
from flowdex_orchestrator.runner.commands import rules_of

RULES = st.builds(
    lambda least, more, target: Rule(least, least + more, target),
    st.integers(1, 8),
    st.integers(0, 30),
    st.floats(1, 500),
)
MEASURES = st.floats(0, 60_000)


@given(st.integers(1, 40), MEASURES, RULES)
def test_never_beyond_the_bounds(current: int, measured: float, rule: Rule) -> None:
    assert rule.least <= desired_replicas(current, measured, rule) <= rule.most


@given(st.integers(1, 40), MEASURES, MEASURES, RULES)
def test_more_queue_never_means_fewer_replicas(current: int, first: float, second: float, rule: Rule) -> None:
    low, high = sorted((first, second))
    assert desired_replicas(current, low, rule) <= desired_replicas(current, high, rule)


@given(st.integers(1, 40), st.floats(0.91, 1.09), st.floats(1, 500))
def test_near_the_target_nothing_changes(current: int, ratio: float, target: float) -> None:
    assert desired_replicas(current, ratio * target, Rule(1, 50, target)) == current


@given(st.integers(1, 40), st.floats(0, 30), st.floats(1, 500))
def test_the_formula(current: int, ratio: float, target: float) -> None:
    assume(abs(ratio - 1) > 0.11)
    exact = current * ratio
    assume(abs(exact - round(exact)) > 1e-6)
    assert desired_replicas(current, ratio * target, Rule(1, 10_000, target)) == max(1, math.ceil(exact))


@given(st.lists(st.tuples(st.floats(0.1, 30), st.integers(1, 9)), min_size=1, max_size=40))
def test_up_at_once_down_only_to_the_most_of_the_window(steps: list[tuple[float, int]]) -> None:
    stabiliser, now, current, past = Stabiliser(60.0), 0.0, 3, [(0.0, 3)]
    for pause, desired in steps:
        now += pause
        if len(past) == 1:
            past[0] = (now, current)
        past.append((now, desired))
        settled = stabiliser.settle(now, current, desired)
        within = [number for at, number in past if at >= now - 60.0]
        assert settled == (desired if desired >= current else min(current, max(within)))
        current = settled


class FakeScaler:
    def __init__(self, count: int) -> None:
        self.now = count
        self.asked: list[int] = []
        self.error: Exception | None = None

    def busy(self, name: str) -> bool:
        return False

    def count(self, name: str) -> int:
        return self.now

    async def scale(self, targets: dict[str, int]) -> None:
        self.asked.append(targets["encoder"])
        if self.error is not None:
            raise self.error
        self.now = targets["encoder"]


async def follow(scaler: FakeScaler, load: list[float | None], seconds: float, window: float = 0.2) -> None:
    """Run an autoscaler whose executor has a queue of `load` ms (at one replica), the last for ever."""

    async def measure(name: str) -> float | None:
        value = load.pop(0) if len(load) > 1 else load[0]
        return None if value is None else value / scaler.now

    pace = Pace(every=0.01, down_window=window, after_failure=0.05)
    task = asyncio.create_task(Autoscaler(scaler, {"encoder": Rule(1, 6, 50.0)}, measure, pace).run())  # type: ignore[arg-type]
    await asyncio.wait((task,), timeout=seconds)
    ended = task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert not ended or isinstance(scaler.error, Conflict)


async def test_it_grows_with_the_load_and_shrinks_after_it() -> None:
    scaler = FakeScaler(1)
    await follow(scaler, [None, 200.0, 200.0, 200.0, 0.0], 1.0)
    assert scaler.asked == [4, 1]


async def test_what_failed_is_tried_again_later_and_what_is_refused_is_not() -> None:
    scaler = FakeScaler(1)
    scaler.error = Unavailable("no memory")
    await follow(scaler, [500.0], 0.3)
    assert 2 <= len(scaler.asked) <= 7
    scaler = FakeScaler(1)
    scaler.error = Conflict("an embedded index")
    await follow(scaler, [500.0], 0.3)
    assert scaler.asked == [6]


def test_rules_of_a_flow() -> None:
    flow = parse_flow(
        """
jtype: Flow
executors:
  - {name: a, uses: x.A, autoscale: {min: 2, max: 5, target_queue_ms: 30}}
  - {name: b, uses: x.B, autoscale: {target_cpu: 0.7}}
  - {name: c, uses: x.C}
  - {name: d, uses: x.D, external: true, host: h, port: 1, autoscale: {}}
  - {name: e, uses: x.E, autoscale: {}}
"""
    )
    assert rules_of(flow) == {"a": Rule(2, 5, 30), "e": Rule(1, 4, 50)}


# ---- the measure ----


def test_waiting_counts_until_work_begins_and_is_forgotten_after_the_window() -> None:
    now = 100.0
    clock = QueueClock(window=5.0, clock=lambda: now)
    assert clock.mean_ms() == 0.0
    first, second, third = clock.enter(), clock.enter(), clock.enter()
    now = 100.2
    clock.start(first)
    clock.start(first)
    now = 100.4
    clock.leave(third)
    assert clock.waiting == 1
    assert round(clock.mean_ms()) == 300  # 200 of the first, 400 so far of the second
    clock.start(second)
    now = 105.3
    assert round(clock.mean_ms()) == 400
    now = 106.0
    assert clock.mean_ms() == 0.0
