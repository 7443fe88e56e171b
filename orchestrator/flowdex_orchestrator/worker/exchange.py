"""The worker's end of an exchange: calls come in over one stream, and each is answered when it is done.

    stream --read--> a task for each call --answer--> unsent --write--> stream, several replies in a message

A gateway that goes away ends all its calls, one that gives up a call ends that. When the worker drains, or the stream
is old, reading stops at once and what has been read is answered; then the stream ends in good order, from which the
gateway knows that all else has not been begun (gateway/exchange.py).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from flowdex.errors import InternalError, InvalidInput
from flowdex.proto import exchange_pb2 as pb
from flowdex_orchestrator.local_socket import Connection

__all__ = ["Exchange", "InFlight", "Invocation", "Refused"]

log = logging.getLogger(__name__)

_MESSAGE_BYTES = 256 * 1024
_FRAME_BYTES = 1024  # more than a reply's number and the like take beside it

Metadata = tuple[tuple[str, str | bytes], ...]


class Invocation(NamedTuple):
    """What comes with a call beside its request.

    Attributes:
        remaining: Seconds that the caller still waits, None for no limit.
        metadata: gRPC's, of this call.
    """

    remaining: float | None
    metadata: Metadata


class Refused(Exception):
    """A call that ends with a gRPC status, as there is no reply to put an error into.

    Args:
        code: The status.
        details: Its text.
    """

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        super().__init__(details)
        self.code = code
        self.details = details


class InFlight:
    """How many requests are being answered, until their replies have been sent."""

    def __init__(self) -> None:
        self.count = 0
        self._none = asyncio.Event()

    def enter(self) -> None:
        """One more."""
        self.count += 1

    def leave(self, count: int = 1) -> None:
        """So many less."""
        self.count -= count
        if not self.count:
            self._none.set()

    async def wait_for_none(self) -> None:
        """Return when there is none."""
        self._none.clear()
        if self.count:
            await self._none.wait()


@dataclass(frozen=True)
class Exchange:
    """The gRPC method: `serve`; and the same over a local socket: `serve_local`.

    Attributes:
        answer: Answers one request; raises `Refused`.
        in_flight: Counts them.
        draining: Set when no more are to be begun.
        largest: Bytes of the largest reply.
        age: Seconds after which a stream ends in good order, None for never.
    """

    answer: Callable[[bytes, Invocation], Awaitable[bytes]]
    in_flight: InFlight
    draining: asyncio.Event
    largest: int
    age: float | None = None

    async def serve(self, messages: AsyncIterator[bytes], context: grpc.aio.ServicerContext[Any, Any]) -> None:
        """Answer what comes over one stream, until it ends, or is to end."""
        try:
            await _Stream(self, context.write).run(messages)
        except DecodeError as error:
            await context.abort(InvalidInput.status.grpc, f"the exchange ends: {error}")

    async def serve_local(self, connection: Connection) -> None:
        """Answer what comes over one connection, until it ends, or is to end."""
        try:
            await _Stream(self, connection.write).run(_messages(connection))
            await connection.end()
        except (ConnectionError, DecodeError) as error:
            log.debug("an exchange ends: %s", error)


async def _messages(connection: Connection) -> AsyncIterator[bytes]:
    while (message := await connection.read()) is not None:
        yield message


class _Write(Protocol):
    def __call__(self, message: bytes, /) -> Awaitable[None]: ...


@dataclass
class _Stream:
    exchange: Exchange
    write: _Write
    answering: dict[int, asyncio.Task[None]] = field(default_factory=dict)
    unsent: list[pb.ExchangeReplyProto] = field(default_factory=list)
    to_send: asyncio.Event = field(default_factory=asyncio.Event)
    complete: bool = False
    closed: bool = False

    async def run(self, messages: AsyncIterator[bytes]) -> None:
        reading = asyncio.ensure_future(self._read(messages))
        writing = asyncio.ensure_future(self._write())
        draining = asyncio.ensure_future(self.exchange.draining.wait())
        try:
            await asyncio.wait(
                {reading, writing, draining}, timeout=self.exchange.age, return_when=asyncio.FIRST_COMPLETED
            )
            failure = reading.exception() if reading.done() else None
            if isinstance(failure, ConnectionError):
                raise failure  # nobody is there to be answered; gRPC cancels this method then
            reading.cancel()
            if self.answering and not writing.done():
                await asyncio.wait(self.answering.values())
            self.complete = True
            self.to_send.set()
            await writing
            if isinstance(failure, DecodeError):
                raise failure
        finally:
            for task in (reading, writing, draining, *self.answering.values()):
                task.cancel()
            if reading.done() and not reading.cancelled():
                reading.exception()  # retrieved: where the stream has broken too, nobody is there to be told
            self.closed = True
            self.exchange.in_flight.leave(len(self.unsent))
            self.unsent.clear()

    async def _read(self, messages: AsyncIterator[bytes]) -> None:
        async for message in messages:
            for request in pb.ExchangeRequestsProto.FromString(message).requests:
                running = self.answering.get(request.number)
                if not request.request:
                    if running is not None:
                        running.cancel()
                elif running is not None:
                    raise DecodeError(f"the number {request.number} is in use")
                else:
                    self._begin(request)

    def _begin(self, request: pb.ExchangeRequestProto) -> None:
        self.exchange.in_flight.enter()
        task = asyncio.ensure_future(self._answer(request))
        self.answering[request.number] = task
        task.add_done_callback(lambda done: self._ended(request.number, done))

    def _ended(self, number: int, task: asyncio.Task[None]) -> None:
        del self.answering[number]
        if task.cancelled():
            self.exchange.in_flight.leave()

    async def _answer(self, request: pb.ExchangeRequestProto) -> None:
        reply = pb.ExchangeReplyProto(number=request.number)
        invocation = Invocation(request.timeout or None, tuple(map(_metadata, request.metadata)))
        try:
            reply.reply = await self.exchange.answer(request.request, invocation)
            if (size := len(reply.reply) + _FRAME_BYTES) > self.exchange.largest:
                largest = self.exchange.largest
                raise Refused(  # the words of gRPC's own limit, which ends a call of its own
                    grpc.StatusCode.RESOURCE_EXHAUSTED, f"Sent message larger than max ({size} vs. {largest})"
                )
        except Refused as refused:
            reply = pb.ExchangeReplyProto(number=request.number, code=refused.code.value[0], details=refused.details)
        except Exception:  # a caller without a reply would wait for ever
            log.exception("a request failed in the worker")
            error = InternalError("the executor failed on this request; its log says why")
            reply = pb.ExchangeReplyProto(number=request.number, code=error.status.grpc.value[0], details=error.message)
        if self.closed:  # an executor that takes no notice of being cancelled
            self.exchange.in_flight.leave()
            return
        self.unsent.append(reply)
        self.to_send.set()

    async def _write(self) -> None:
        while not (self.complete and not self.unsent):
            await self.to_send.wait()
            self.to_send.clear()
            while self.unsent:
                taken = self._take()
                message = pb.ExchangeRepliesProto(replies=taken)
                try:
                    await self.write(message.SerializeToString())
                finally:
                    self.exchange.in_flight.leave(len(taken))

    def _take(self) -> list[pb.ExchangeReplyProto]:
        """The next message's replies: one at least, and no more than fit beside it."""
        most = min(_MESSAGE_BYTES, self.exchange.largest)
        size = count = 0
        for reply in self.unsent:
            size += len(reply.reply) + _FRAME_BYTES
            if count and size > most:
                break
            count += 1
        taken, self.unsent[:count] = self.unsent[:count], []
        return taken


def _metadata(entry: pb.ExchangeMetadataProto) -> tuple[str, str | bytes]:
    """As gRPC gives it: bytes only under keys that end in -bin."""
    return entry.key, entry.value if entry.key.endswith("-bin") else entry.value.decode(errors="replace")
