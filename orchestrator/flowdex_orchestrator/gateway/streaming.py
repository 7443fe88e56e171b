"""Many requests on one connection: a window of them at a time through the router, errors as replies of their own.

    bytes, bytes, ... --answer_stream--> up to `window` at a time through the router --> bytes, bytes, ...

What gRPC's bidirectional `Call` and the WebSocket of Jina's clients have in common.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

from flowdex.errors import FlowdexError, InternalError
from flowdex.proto import flowdex_pb2 as pb
from flowdex.wire import set_error
from flowdex_orchestrator.gateway.exchange import Metadata
from flowdex_orchestrator.gateway.frame import split
from flowdex_orchestrator.gateway.router import Router

__all__ = ["answer_stream", "error_reply", "incident"]

logger = logging.getLogger(__name__)


async def answer_stream(
    router: Router,
    requests: AsyncIterator[bytes],
    *,
    window: int,
    in_order: bool = False,
    deadline: float | None = None,
    metadata: Metadata = (),
) -> AsyncIterator[bytes]:
    """Answer the requests of one connection; an error is the reply to its request, and the stream goes on.

    Args:
        router: Answers each.
        requests: Serialised `DataRequestProto`s.
        window: Most requests begun and not yet taken by the caller.
        in_order: Whether replies come in the order of the requests, rather than as they are done.
        deadline: Of all of them, in `time.monotonic()` seconds.
        metadata: Passed on to every executor.
    """

    async def answer(request: bytes, let_in: bool) -> bytes:
        try:
            reply = await router.handle(request, deadline=deadline, metadata=metadata, let_in=let_in)
            return reply.data
        except FlowdexError as error:
            return error_reply(request, error)
        except Exception:
            return error_reply(request, incident())

    async for reply in _map_concurrently(answer, requests, window, in_order, lambda: router.full):
        yield reply


async def _map_concurrently(
    function: Callable[[bytes, bool], Any],
    requests: AsyncIterator[bytes],
    window: int,
    in_order: bool,
    full: Callable[[], bool],
) -> AsyncIterator[bytes]:
    """Yield `function(request, let_in)` of each request, at most `window` of them begun and not yet taken by a caller.

    While `full()`, requests wait for an earlier one of this stream rather than being refused: a stream is slowed down
    by not being read. Only one that has nothing to wait for is not let in yet.
    """
    done: asyncio.Queue[asyncio.Task[bytes] | None] = asyncio.Queue()
    tasks: set[asyncio.Task[bytes]] = set()
    space = asyncio.Event()

    async def read() -> None:
        async for request in requests:
            while len(tasks) >= window or (tasks and full()):
                space.clear()
                await space.wait()
            task = asyncio.create_task(function(request, bool(tasks)))
            tasks.add(task)
            if in_order:
                done.put_nowait(task)
            else:
                task.add_done_callback(done.put_nowait)
        if not in_order and tasks:
            await asyncio.wait(tasks)
        done.put_nowait(None)

    reader = asyncio.create_task(read())
    reader.add_done_callback(lambda task: done.put_nowait(None) if task.cancelled() or task.exception() else None)
    try:
        while (task := await done.get()) is not None:
            reply = await task
            tasks.discard(task)
            space.set()
            yield reply
        await reader
    finally:
        for each in (reader, *tasks):
            each.cancel()


def incident() -> InternalError:
    """Log the exception being handled; the caller learns that there is something in the log."""
    logger.exception("a request failed in the gateway")
    return InternalError("the gateway failed on this request; its log says why")


def error_reply(request: bytes, error: FlowdexError) -> bytes:
    """The reply to one request of a stream: its own header, with the error in it."""
    reply = pb.DataRequestProtoWoData()
    with contextlib.suppress(FlowdexError):  # the request may not be readable: then that is the error
        reply.header.CopyFrom(split(request).head().header)
    set_error(reply.header, error)
    return reply.SerializeToString()
