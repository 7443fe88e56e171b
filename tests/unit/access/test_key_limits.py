"""A key's rate and its number of requests in flight."""

from __future__ import annotations

import pytest

from flowdex.errors import Overloaded
from flowdex_orchestrator.access.limits import Allowance


def test_the_bucket_fills_at_its_rate() -> None:
    now = [0.0]
    allowance = Allowance(2.0, 3, None, clock=lambda: now[0])
    for _ in range(3):
        allowance.enter()
        allowance.leave()
    with pytest.raises(Overloaded, match="2 times a second") as raised:
        allowance.enter()
    assert raised.value.retry_after == pytest.approx(0.5)
    now[0] += 0.5
    allowance.enter()
    with pytest.raises(Overloaded):
        allowance.enter()
    now[0] += 1000
    taken = 0
    with pytest.raises(Overloaded):
        for _ in range(10):
            allowance.enter()
            taken += 1
    assert taken == 3, "the bucket holds no more than its burst"


def test_requests_in_flight() -> None:
    allowance = Allowance(None, None, 2)
    allowance.enter()
    allowance.enter()
    with pytest.raises(Overloaded, match="2 requests in flight") as raised:
        allowance.enter()
    assert raised.value.retry_after
    allowance.leave()
    allowance.enter()
    assert allowance.in_flight == 2


def test_a_refusal_for_being_busy_costs_nothing_of_the_rate() -> None:
    allowance = Allowance(1.0, 1, 1, clock=lambda: 0.0)
    allowance.enter()
    for _ in range(5):
        with pytest.raises(Overloaded, match="in flight"):
            allowance.enter()
