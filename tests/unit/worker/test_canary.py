"""When a canary counts as failed, and when not."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from flowdex.errors import Overloaded, Unavailable
from flowdex_orchestrator.worker import canary as module
from flowdex_orchestrator.worker.canary import Canary

PERIOD = 0.02


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LEAST_PATIENCE", PERIOD)


async def watched(
    answer: Callable[[int], Awaitable[float | None]], seconds: float, served: Callable[[], int] = lambda: 0
) -> tuple[list[str], int, Canary]:
    """What was said to have changed, how many were sent, and the canary at the end."""
    changes: list[str] = []
    sent = 0

    async def ask() -> float | None:
        nonlocal sent
        sent += 1
        return await answer(sent)

    canary = Canary(ask, PERIOD, served=served, changed=changes.append)
    await canary.start()
    await asyncio.sleep(seconds)
    await canary.stop()
    return changes, sent, canary


async def test_one_failure_is_bad_luck_and_two_in_a_row_are_a_fault() -> None:
    async def answer(number: int) -> float:
        if number in (3, 6, 7):
            raise Unavailable("the texts of a caller")
        return 1.0

    changes, _, canary = await watched(answer, 0.5)
    assert changes == ["its canary ends with Unavailable", ""]
    assert canary.status()["ok"]


async def test_another_vector_or_none_at_all_is_wrong() -> None:
    for cosine in (0.5, float("nan"), -1.0):
        changes, _, canary = await watched(lambda number, cosine=cosine: _later(1.0 if number == 1 else cosine), 0.15)
        assert changes == [f"its canary has another vector than at the start (cosine {cosine:.3f})"]
        assert not canary.status()["ok"]
    changes, _, _ = await watched(lambda number: _later(0.9999), 0.15)
    assert changes == []
    changes, _, _ = await watched(lambda number: _later(None), 0.15)
    assert changes == []


async def test_a_busy_executor_is_neither_late_nor_refusing() -> None:
    work = iter(range(10_000))

    async def slow(number: int) -> float:
        await asyncio.sleep(0 if number == 1 else 5 * PERIOD)
        return 1.0

    changes, _, _ = await watched(slow, 0.4, served=lambda: next(work))
    assert changes == []
    changes, _, _ = await watched(slow, 0.4)
    assert changes[0] == f"its canary has not come back within {PERIOD:g} s"

    async def refused(number: int) -> float:
        if number > 1:
            raise Overloaded("too many requests wait")
        return 1.0

    changes, _, _ = await watched(refused, 0.2)
    assert changes == []


async def test_requests_that_succeed_save_most_canaries_but_not_all() -> None:
    work = iter(range(10_000))
    _, busy, _ = await watched(lambda number: _later(1.0), 0.6, served=lambda: next(work))
    _, idle, _ = await watched(lambda number: _later(1.0), 0.6)
    assert 2 <= busy < idle / 3


async def test_an_executor_that_fails_at_once_does_not_start() -> None:
    async def fails(number: int) -> float:
        raise ValueError("no weights")

    with pytest.raises(ValueError, match="no weights"):
        await watched(fails, 0.0)


async def _later(cosine: float | None) -> float | None:
    await asyncio.sleep(0)
    return cosine
