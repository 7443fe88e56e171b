"""A limit on how long something is waited for.

within(awaitable, seconds) --> its result, or asyncio.TimeoutError
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

__all__ = ["within"]

T = TypeVar("T")


async def within(awaitable: Awaitable[T], seconds: float | None) -> T:
    """Wait for `awaitable`, at most `seconds` (None for no limit); it is cancelled where it has not ended by then.

    It stands for `asyncio.wait_for`, which before Python 3.12 loses a cancellation that comes in the same turn of the
    loop as the result (https://github.com/python/cpython/issues/86296): a task that waits in a loop then never ends.

    Returns:
        Its result.

    Raises:
        asyncio.TimeoutError: It had not ended.
        BaseException: What it raised itself.
    """
    future = asyncio.ensure_future(awaitable)
    try:
        await asyncio.wait({future}, timeout=seconds)
        if future.done():
            return future.result()
        raise asyncio.TimeoutError
    finally:
        if not future.done():
            future.cancel()
            await asyncio.wait({future})
        if not future.cancelled():
            future.exception()  # retrieved: what comes after a cancellation is nobody's to see
