"""An event loop in a thread of its own, for code that is not asynchronous.

    caller's thread --coroutine--> loop thread
          ^                            |
          +------ what it pulls -------+      see `flowdex.pipeline.PULL_EXECUTOR`

While a caller waits for its coroutine, its own thread runs the iterables that the coroutine reads.
"""

from __future__ import annotations

import asyncio
import os
import queue
import threading
import weakref
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor, Future
from typing import Any, TypeVar

from flowdex.errors import InvalidInput
from flowdex.pipeline import PULL_EXECUTOR

__all__ = ["LoopThread"]

T = TypeVar("T")


class LoopThread:
    """An event loop in a daemon thread, started with the first call and ended with its owner."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pid = 0
        self._end: weakref.finalize[..., LoopThread] | None = None

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine there and wait for it; what it pulls runs in this thread, and Ctrl-C here cancels it."""
        try:
            loop = self._running()
        except BaseException:
            coroutine.close()
            raise
        calls = _CallerThread()
        done = asyncio.run_coroutine_threadsafe(_pulling_from(calls, coroutine), loop)
        done.add_done_callback(lambda _: calls.finish())
        try:
            calls.serve()
            return done.result()
        except BaseException:
            done.cancel()
            raise

    def stop(self) -> None:
        """End the loop and its thread."""
        if self._end is not None:
            self._end()

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop, self._pid = asyncio.new_event_loop(), os.getpid()
                thread = threading.Thread(target=_serve, args=(self._loop,), name="flowdex-client", daemon=True)
                thread.start()
                self._end = weakref.finalize(self, _stop, self._loop, thread)
            elif self._pid != os.getpid():
                raise InvalidInput(
                    "this client was used before the process was forked, and its connection did not come along: "
                    "make a client in each process"
                )
            return self._loop


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


def _stop(loop: asyncio.AbstractEventLoop, thread: threading.Thread) -> None:
    if thread.is_alive():
        loop.call_soon_threadsafe(loop.stop)
        if thread is not threading.current_thread():
            thread.join(timeout=5)


async def _pulling_from(calls: _CallerThread, coroutine: Coroutine[Any, Any, T]) -> T:
    PULL_EXECUTOR.set(calls)
    return await coroutine


class _CallerThread(Executor):
    """Runs what is submitted in the thread that calls `serve`."""

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = queue.SimpleQueue()

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Queue a call for the serving thread."""
        future: Future[T] = Future()
        self._calls.put((future, lambda: fn(*args, **kwargs)))
        return future

    def finish(self) -> None:
        """Let `serve` return."""
        self._calls.put(None)

    def serve(self) -> None:
        """Run calls until `finish`."""
        while (call := self._calls.get()) is not None:
            future, run = call
            if not future.set_running_or_notify_cancel():
                continue
            try:
                value = run()
            except Exception as error:  # the caller's own iterable failed: it travels through the loop and back
                future.set_exception(error)
            else:
                future.set_result(value)
