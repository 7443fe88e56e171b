"""The limit on waiting: results, limits, and cancellations that are never lost."""

from __future__ import annotations

import asyncio

import pytest

from flowdex.timeouts import within


async def value_after(seconds: float) -> str:
    await asyncio.sleep(seconds)
    return "value"


async def test_a_result_in_time() -> None:
    assert await within(value_after(0), 5) == "value"
    assert await within(value_after(0.01), None) == "value"


async def test_what_is_raised_comes_through() -> None:
    async def fails() -> None:
        raise KeyError("a")

    with pytest.raises(KeyError):
        await within(fails(), 5)


async def test_past_the_limit_it_is_cancelled() -> None:
    task = asyncio.ensure_future(asyncio.sleep(30))
    with pytest.raises(asyncio.TimeoutError):
        await within(task, 0.01)
    assert task.cancelled()


async def test_cancelled_it_cancels() -> None:
    inner = asyncio.ensure_future(asyncio.sleep(30))
    outer = asyncio.ensure_future(within(inner, 60))
    await asyncio.sleep(0)
    outer.cancel()
    with pytest.raises(asyncio.CancelledError):
        await outer
    assert inner.cancelled()


@pytest.mark.parametrize("error", [None, OSError("gone")])
async def test_a_cancellation_in_the_turn_of_the_result_is_not_lost(error: Exception | None) -> None:
    result = asyncio.get_running_loop().create_future()
    task = asyncio.ensure_future(within(result, 60))
    await asyncio.sleep(0)  # it waits
    if error is None:
        result.set_result("value")
    else:
        result.set_exception(error)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
