"""Many batches in flight, results in order, and never more of the input read than that needs.

    iterable --batches(): pull, convert, cut--> [batch] [batch] ... --ordered(): at most `prefetch` at work--> results

An ordinary iterable may block or belong to a thread (a file, a database cursor), so it is never advanced on the event
loop: a thread of the default pool does it, or, for the synchronous client, the caller's own (`PULL_EXECUTOR`).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator
from concurrent.futures import Executor
from contextvars import ContextVar
from typing import TypeVar

from flowdex.errors import InvalidInput
from flowdex.inputs import Batcher, length_of

__all__ = ["PULL_EXECUTOR", "batches", "check_all", "ordered"]

S = TypeVar("S")
T = TypeVar("T")
R = TypeVar("R")

# Where ordinary iterables are advanced; None is the event loop's default pool.
PULL_EXECUTOR: ContextVar[Executor | None] = ContextVar("PULL_EXECUTOR", default=None)


async def check_all(items: Iterable[S] | AsyncIterable[S], convert: Callable[[S, int], object], *, count: int) -> None:
    """Convert every item of a sized input once, so that a mistake at its end is found before anything is sent.

    Streams cannot be read twice and are left alone.
    """
    length = length_of(items)
    if length is None or isinstance(items, AsyncIterable):
        return

    def check() -> None:
        for position, item in enumerate(items):
            convert(item, position)

    if length <= count:
        check()
    else:
        await asyncio.get_running_loop().run_in_executor(PULL_EXECUTOR.get(), check)


async def batches(
    items: Iterable[S] | AsyncIterable[S],
    convert: Callable[[S, int], tuple[T, int] | None],
    *,
    count: int,
    size: int,
) -> AsyncIterator[list[T]]:
    """Convert items and cut them into batches.

    Args:
        items: The input, read lazily.
        convert: Turns (item, its position) into (converted item, bytes), or into None to leave it out.
        count: Most items in a batch.
        size: Most bytes in a batch; a single larger item is a batch of its own.
    """
    batcher: Batcher[T] = Batcher(count, size)
    if isinstance(items, AsyncIterable):
        position = 0
        async for item in items:
            converted = convert(item, position)
            position += 1
            full = batcher.add(*converted) if converted else None
            if full:
                yield full
        if rest := batcher.rest():
            yield rest
        return

    pulled = _cut(items, convert, batcher)
    length = length_of(items)
    if length is not None and length <= count:
        for batch in pulled:  # too little to be worth a thread
            yield batch
        return
    loop = asyncio.get_running_loop()
    executor = PULL_EXECUTOR.get()
    while (batch_ := await loop.run_in_executor(executor, next, pulled, None)) is not None:
        yield batch_


def _cut(
    items: Iterable[S], convert: Callable[[S, int], tuple[T, int] | None], batcher: Batcher[T]
) -> Iterator[list[T]]:
    for position, item in enumerate(items):
        converted = convert(item, position)
        full = batcher.add(*converted) if converted else None
        if full:
            yield full
    if rest := batcher.rest():
        yield rest


async def ordered(
    source: AsyncIterator[T], work: Callable[[T], Awaitable[R]], prefetch: int
) -> AsyncGenerator[R, None]:
    """Run `work` on each item of `source`, at most `prefetch` at a time, and yield the results in order.

    The first error ends it: what is still at work is cancelled. Close it (`contextlib.aclosing`) when leaving early.
    """
    if isinstance(prefetch, bool) or not isinstance(prefetch, int) or prefetch < 1:
        raise InvalidInput(f"prefetch must be a positive integer, got {prefetch!r}")
    at_work: deque[asyncio.Future[R]] = deque()
    try:
        async for item in source:
            at_work.append(asyncio.ensure_future(work(item)))
            if len(at_work) >= prefetch:
                yield await _first(at_work)
        while at_work:
            yield await _first(at_work)
    finally:
        for future in at_work:
            future.cancel()
        await asyncio.gather(*at_work, return_exceptions=True)


async def _first(at_work: deque[asyncio.Future[R]]) -> R:
    """The result of the first, taken out; a failure of any other meanwhile is raised at once."""
    while not at_work[0].done():
        done, _ = await asyncio.wait([each for each in at_work if not each.done()], return_when=asyncio.FIRST_COMPLETED)
        for each in done:
            each.result()
    return at_work.popleft().result()
