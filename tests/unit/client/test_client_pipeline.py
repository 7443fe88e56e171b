"""Order, bounds and errors of the pipeline; back-off and deadlines of retries."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowdex.errors import DeadlineExceeded, InvalidInput, Overloaded, Unavailable
from flowdex.pipeline import batches, ordered
from flowdex.retry import Deadline, RetryBudget, RetryPolicy, with_retries


async def source(count: int) -> AsyncIterator[int]:
    for number in range(count):
        yield number


@pytest.mark.parametrize("prefetch", [1, 2, 7, 100])
async def test_order_and_bound(prefetch: int) -> None:
    rng, at_work, most = random.Random(0), 0, 0

    async def work(number: int) -> int:
        nonlocal at_work, most
        at_work += 1
        most = max(most, at_work)
        await asyncio.sleep(rng.uniform(0, 0.01))
        at_work -= 1
        return number

    assert [each async for each in ordered(source(50), work, prefetch)] == list(range(50))
    assert most == min(prefetch, 50)


async def test_an_error_cancels_what_is_at_work() -> None:
    cancelled = []

    async def work(number: int) -> int:
        if number == 1:
            raise InvalidInput("no")
        try:
            await asyncio.sleep(0 if number == 0 else 30)
        except asyncio.CancelledError:
            cancelled.append(number)
            raise
        return number

    with pytest.raises(InvalidInput):
        [each async for each in ordered(source(10), work, 4)]
    assert cancelled == [2, 3]  # and 4 never began


async def test_an_error_of_the_source_comes_out() -> None:
    async def broken() -> AsyncIterator[int]:
        yield 1
        raise LookupError("mine")

    async def work(number: int) -> int:
        return number

    with pytest.raises(LookupError):
        [each async for each in ordered(broken(), work, 4)]


@given(st.lists(st.integers(0, 100), max_size=40), st.integers(1, 9), st.booleans())
def test_batches_of_lists_streams_and_async_streams(numbers: list[int], count: int, keep_even: bool) -> None:
    def convert(number: int, position: int) -> tuple[tuple[int, int], int] | None:
        return None if keep_even and number % 2 else ((position, number), 1)

    expected = [(p, n) for p, n in enumerate(numbers) if not (keep_even and n % 2)]

    async def stream() -> AsyncIterator[int]:
        for number in numbers:
            yield number

    async def collect(items: object) -> list[list[tuple[int, int]]]:
        return [batch async for batch in batches(items, convert, count=count, size=10**6)]

    for items in (numbers, iter(numbers), stream()):
        found = asyncio.run(collect(items))
        assert [each for batch in found for each in batch] == expected
        assert all(0 < len(batch) <= count for batch in found)


# ---- retries ----


def test_pauses_grow_are_random_and_end_somewhere() -> None:
    policy, error = RetryPolicy(first=0.1, longest=4.0), Unavailable("x")
    for attempt in range(12):
        pauses = [policy.delay(attempt, error) for _ in range(50)]
        most = min(4.0, 0.1 * 2**attempt)
        assert most / 2 <= min(pauses) < max(pauses) <= most
    assert policy.delay(0, Overloaded("x", retry_after=7)) >= 7


async def attempts(
    errors: list[Exception], policy: RetryPolicy, deadline: Deadline, **options: object
) -> tuple[str, int]:
    calls = 0

    async def attempt(left: float | None) -> str:
        nonlocal calls
        calls += 1
        if errors:
            raise errors.pop(0)
        return "done"

    return await with_retries(attempt, policy, deadline, **options), calls


FAST = RetryPolicy(retries=3, first=0.001)


async def test_retried_until_it_works() -> None:
    assert await attempts([Unavailable("a"), Overloaded("b")], FAST, Deadline(None)) == ("done", 3)


async def test_the_last_error_comes_out() -> None:
    with pytest.raises(Unavailable, match="3"):
        await attempts([Unavailable(str(i)) for i in range(9)], FAST, Deadline(None))


async def test_errors_of_the_caller_are_not_retried() -> None:
    errors = [InvalidInput("a"), InvalidInput("b")]
    with pytest.raises(InvalidInput, match="a"):
        await attempts(errors, FAST, Deadline(None))
    assert len(errors) == 1


async def test_a_service_never_reached_is_tried_twice() -> None:
    errors = [Unavailable(str(i)) for i in range(9)]
    with pytest.raises(Unavailable, match="1"):
        await attempts(errors, FAST, Deadline(None), reachable=lambda: False)


async def test_no_attempt_after_the_deadline() -> None:
    with pytest.raises(DeadlineExceeded):
        await attempts([], FAST, Deadline(0))
    started = time.monotonic()
    with pytest.raises(DeadlineExceeded, match="the last attempt failed: busy"):
        await attempts([Overloaded("busy", retry_after=30)], FAST, Deadline(20))
    assert time.monotonic() - started < 15, "a pause beyond the deadline is not begun"


async def test_retries_that_nobody_asked_for_are_bounded_over_all_calls() -> None:
    budget = RetryBudget(most=3, earned=0.5)
    for _ in range(2):
        assert (await attempts([Unavailable("a")], FAST, Deadline(None), budget=budget))[1] == 2
    with pytest.raises(Unavailable, match="b"):  # 3 - 2 retries + 2 * 0.5 earned: two more
        await attempts([Unavailable("a"), Unavailable("a"), Unavailable("b")], FAST, Deadline(None), budget=budget)
    with pytest.raises(Unavailable, match="c"):
        await attempts([Unavailable("c")], FAST, Deadline(None), budget=budget)
    asked_for = [Overloaded("come back", retry_after=0.001) for _ in range(3)]
    assert (await attempts(list(asked_for), FAST, Deadline(None), budget=budget))[1] == 4
    await attempts([], FAST, Deadline(None), budget=budget)
    assert (await attempts([Unavailable("a")], FAST, Deadline(None), budget=budget))[1] == 2


async def test_an_attempt_is_told_what_is_left() -> None:
    told = []

    async def attempt(left: float | None) -> None:
        told.append(left)
        await asyncio.sleep(0.05)
        raise Unavailable("x")

    with pytest.raises(Unavailable):
        await with_retries(attempt, FAST, Deadline(10))
    assert told == sorted(told, reverse=True)
    assert 9.5 < told[0] <= 10
    assert told[3] < told[0] - 0.15


async def test_a_failure_does_not_wait_for_what_was_sent_before() -> None:
    async def work(number: int) -> int:
        if number == 2:
            raise InvalidInput("no")
        await asyncio.sleep(60 if number == 0 else 0)
        return number

    async def collect() -> None:
        async for _ in ordered(source(10), work, 4):
            pass

    with pytest.raises(InvalidInput, match="no"):
        await asyncio.wait_for(collect(), 10)
