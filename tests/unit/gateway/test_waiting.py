"""How long a request would wait, and who is let in: the arithmetic, on a clock of its own."""

from __future__ import annotations

import time

import pytest

from flowdex.errors import InvalidInput, Overloaded
from flowdex.priority import parse_priority, priority_in
from flowdex_orchestrator.gateway.settings import GatewaySettings
from flowdex_orchestrator.gateway.topology import Plan, Step
from flowdex_orchestrator.gateway.waiting import Admission, Backlog

SIZE = 872  # with what a call counts besides: 1000


class Executor:
    """Works off one call after the other, in a time that goes with its bytes."""

    def __init__(self, per_second: float, replicas: int = 1) -> None:
        self.now = 100.0
        self.backlog = Backlog(lambda: replicas, lambda: self.now)
        self.per_second = per_second

    def fill(self, calls: int, bulk: bool = True) -> None:
        for _ in range(calls):
            self.backlog.enter(SIZE, bulk)

    def work(self, calls: int, bulk: bool = True, refill: bool = True) -> None:
        for _ in range(calls):
            self.now += 1 / self.per_second
            self.backlog.leave(SIZE, bulk, True)
            if refill:
                self.backlog.enter(SIZE, bulk)


def test_the_wait_is_the_work_ahead_by_the_rate() -> None:
    executor = Executor(per_second=20)
    executor.fill(100)
    executor.work(40)
    assert executor.backlog.wait(bulk=True) == pytest.approx(100 / 20, rel=0.02)
    executor.work(60, refill=False)
    assert executor.backlog.wait(bulk=True) == pytest.approx(40 / 20, rel=0.02)


def test_nobody_waits_where_little_is_in_flight_or_nothing_is_known() -> None:
    executor = Executor(per_second=20)
    assert executor.backlog.wait(bulk=True) == 0
    executor.fill(1000)
    assert executor.backlog.wait(bulk=True) == 0, "the first ones come before anything is measured"
    executor.work(997, refill=False)
    assert executor.backlog.calls == 3
    assert executor.backlog.wait(bulk=True) == 0


def test_interactive_requests_wait_for_their_like_only() -> None:
    executor = Executor(per_second=20)
    executor.fill(100)
    executor.work(40)
    executor.fill(4, bulk=False)
    assert executor.backlog.wait(bulk=False) == pytest.approx(4 / 20 / 0.8, rel=0.02)
    assert executor.backlog.wait(bulk=True) == pytest.approx(104 / 20, rel=0.02)


def test_a_slower_executor_is_noticed_and_so_is_one_that_hangs() -> None:
    executor = Executor(per_second=100)
    executor.fill(100)
    executor.work(300)
    assert executor.backlog.wait(bulk=True) == pytest.approx(1, rel=0.05)
    executor.per_second = 10
    executor.work(120)
    assert executor.backlog.wait(bulk=True) == pytest.approx(10, rel=0.1)
    waits = []
    for _ in range(5):
        executor.now += 4
        waits.append(executor.backlog.wait(bulk=True))
    assert waits == sorted(waits) and waits[-1] > 1000


def test_what_failed_is_no_work_done() -> None:
    executor = Executor(per_second=20)
    executor.fill(100)
    executor.work(40)
    for _ in range(50):
        executor.backlog.leave(SIZE, True, False)
    assert executor.backlog.wait(bulk=True) == pytest.approx(50 / 20, rel=0.02)


def test_time_without_work_does_not_count() -> None:
    executor = Executor(per_second=20)
    executor.fill(40)
    executor.work(40, refill=False)
    executor.now += 1000
    executor.fill(40)
    executor.now += 0.05
    assert executor.backlog.wait(bulk=True) == pytest.approx(40 / 20, rel=0.2)


def chain(*names: str) -> Plan:
    steps = tuple(Step(name, (index - 1,) if index else ()) for index, name in enumerate(names))
    return Plan(steps, (len(names) - 1,))


def busy(wait: float) -> Backlog:
    """A backlog of 100 calls, which take so many seconds together."""
    executor = Executor(per_second=100 / wait)
    executor.fill(100)
    executor.work(200)
    return executor.backlog


def test_who_would_wait_too_long_is_told_when_to_come_again() -> None:
    admission = Admission(GatewaySettings(longest_wait=5), {"a": busy(4), "b": busy(3)})
    admission.check_wait(chain("a"), True, None)
    with pytest.raises(Overloaded, match=r"7\.\d s, more than the 5 s allowed .*longest_wait") as caught:
        admission.check_wait(chain("a", "b"), True, None)
    assert caught.value.retry_after == pytest.approx(7 - 2.5, rel=0.1)
    branches = Plan((Step("a"), Step("b"), Step("b", (), False)), (0, 1))
    admission.check_wait(branches, True, None)  # at the same time: the longer of the two
    admission.check_wait(chain("a", "b"), False, None)  # none of those ahead is interactive
    assert admission.refused == {"wait": 1}


def test_who_would_be_late_is_told_at_once() -> None:
    admission = Admission(GatewaySettings(), {"a": busy(4)})
    admission.check_wait(chain("a"), True, time.monotonic() + 6)
    with pytest.raises(Overloaded, match="left"):
        admission.check_wait(chain("a"), True, time.monotonic() + 2)
    assert admission.refused == {"deadline": 1}


def test_the_only_caller_of_a_slow_executor_is_not_sent_away() -> None:
    slow = Executor(per_second=0.2)
    slow.fill(10)
    slow.work(10)
    assert slow.backlog.wait(bulk=True) > 40
    Admission(GatewaySettings(), {"a": slow.backlog}).check_wait(chain("a"), True, None)
    with pytest.raises(Overloaded):
        Admission(GatewaySettings(least_queue=10), {"a": slow.backlog}).check_wait(chain("a"), True, None)


def test_no_limit_on_the_wait() -> None:
    Admission(GatewaySettings(longest_wait=0), {"a": busy(400)}).check_wait(chain("a"), True, None)


def test_one_of_several_executors_may_have_time() -> None:
    admission = Admission(GatewaySettings(), {"a": busy(40), "b": busy(1)})
    admission.check_any(["a", "b"], True, None)
    with pytest.raises(Overloaded):
        admission.check_any(["a"], True, None)
    admission.check_any([], True, None)


def test_bulk_leaves_places_for_interactive_requests() -> None:
    admission = Admission(GatewaySettings(max_in_flight=100), {})
    admission.check_places(74, bulk=True)
    with pytest.raises(Overloaded, match="bulk"):
        admission.check_places(75, bulk=True)
    admission.check_places(99, bulk=False)
    with pytest.raises(Overloaded, match="max_in_flight"):
        admission.check_places(100, bulk=False)
    assert admission.refused == {"in_flight": 2}


def test_the_lane_is_that_of_its_size_or_what_it_says_within_bounds() -> None:
    admission = Admission(GatewaySettings(small_request=1000), {})
    assert not admission.is_bulk(1000, None)
    assert admission.is_bulk(1001, None)
    assert admission.is_bulk(10, "bulk")
    assert not admission.is_bulk(16_000, "interactive")
    assert admission.is_bulk(16_001, "interactive")


def test_priorities_are_read_and_wrong_ones_are_named() -> None:
    assert priority_in((("a", "b"), ("x-priority", b"bulk"))) == "bulk"
    assert priority_in((("a", "b"),)) is None
    assert parse_priority("interactive") == "interactive"
    with pytest.raises(InvalidInput, match="x-priority must be interactive or bulk, got 'urgent'"):
        parse_priority("urgent")
