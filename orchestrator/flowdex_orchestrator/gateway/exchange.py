"""Calls of one replica over one stream that stays open, several in a message when several are there.

    call(request) --+                          +--> replica: worker/exchange.py
    call(request) --+--> unsent --write--> stream
    call(request) --+                          |
         ^                                     |
         +------- reply by its number <--read--+

A gRPC call by itself costs either side 0.35 ms of CPU; over a stream it is less than 0.1 ms, and 0.02 ms where calls
come together (docs/performance.md). There is no timer: what arrives while a message is being written makes the next.
The stream is one of gRPC; or, where the replica is on this machine and nothing is encrypted, a local socket.

What holds for a call of its own holds here: its time-out, its cancellation, its status, and whether it can have run. A
stream that its replica ended in good order has left nothing half done: what it did not answer, it did not begin.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from typing import Any, Protocol

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from flowdex import wire
from flowdex.proto import exchange_pb2 as pb
from flowdex_orchestrator import local_socket

__all__ = ["LARGEST_REQUEST", "Exchange", "Metadata", "NotBegun"]

LARGEST_REQUEST = 64 * 1024  # bytes; larger ones would keep the others waiting, and their call costs little beside them

Metadata = tuple[tuple[str, str | bytes], ...]

_MESSAGE_BYTES = 256 * 1024
_CODES = {code.value[0]: code for code in grpc.StatusCode}


class NotBegun(grpc.aio.AioRpcError):
    """A call that the replica has not begun: it ended the stream before, or never saw it."""

    def __init__(self) -> None:
        super().__init__(
            grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata(), "the replica ended the stream"
        )


class Exchange:
    """The stream of one replica; opened by the first call, and anew by the first one after it ended.

    Args:
        channel: The connection.
        largest: Bytes of the largest message that may come in; -1 for no limit.
    """

    def __init__(self, channel: grpc.aio.Channel, *, largest: int = -1) -> None:
        self._open: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(wire.EXCHANGE)
        self._largest = largest
        self._local = ""
        self._stream: _Stream | None = None
        self._opening = asyncio.Lock()

    def prefer_local(self, name: str) -> None:
        """Have the next stream over a local socket, if one of that name is there; empty for gRPC."""
        self._local = name

    async def __call__(self, request: bytes, *, timeout: float | None, metadata: Metadata) -> bytes:
        """Make one call.

        Args:
            request: A serialised `DataRequestProto` of at most `LARGEST_REQUEST` bytes.
            timeout: Seconds to wait for the reply, None for no limit.
            metadata: For the executor.

        Returns:
            The serialised reply, which may carry an error of the executor in its header.

        Raises:
            NotBegun: The replica has not begun it.
            grpc.aio.AioRpcError: Whatever else ended it without a reply.
        """
        stream = self._stream
        if stream is None or stream.ended:
            stream = await self._begin()
        return await stream.call(request, timeout, metadata)

    async def _begin(self) -> _Stream:
        async with self._opening:
            if self._stream is None or self._stream.ended:
                self._stream = _Stream(await self._connect())
            return self._stream

    async def _connect(self) -> _Link:
        if self._local:
            try:
                return _LocalLink(await local_socket.connect(self._local, self._largest))
            except (OSError, ValueError):  # it is on another machine, in another container, or not ours
                self._local = ""
        return _RpcLink(self._open())

    def lose(self, reason: str) -> None:
        """End the stream: the replica was found gone, of which a local socket to a stopped process says nothing."""
        if self._stream is not None:
            self._stream.lose(reason)

    async def retire(self, seconds: float) -> None:
        """End the stream once the calls on it are answered, or after that many seconds."""
        end = time.monotonic() + seconds
        while self._stream is not None and self._stream.busy and time.monotonic() < end:  # noqa: ASYNC110 - rare
            await asyncio.sleep(0.05)
        await self.close()

    async def close(self) -> None:
        """End the stream; calls still on it fail."""
        if self._stream is not None:
            await self._stream.close()


class _Link(Protocol):
    async def read(self) -> bytes | None:
        """The next message, None for the end in good order. Raises `grpc.aio.AioRpcError` for any other."""

    async def write(self, message: bytes) -> None:
        """Send a message; raises something if that cannot be done, of which `read` says more."""

    def cancel(self) -> object:
        """End it."""


class _RpcLink:
    def __init__(self, call: grpc.aio.StreamStreamCall[bytes, bytes]) -> None:
        self._call: Any = call
        self.write = call.write
        self.cancel = call.cancel

    async def read(self) -> bytes | None:
        message = await self._call.read()
        return None if message is grpc.aio.EOF else message


class _LocalLink:
    def __init__(self, connection: local_socket.Connection) -> None:
        self._connection = connection
        self.write = connection.write
        self.cancel = connection.abort

    async def read(self) -> bytes | None:
        try:
            message = await self._connection.read()
        except local_socket.MessageTooLarge as error:
            self.cancel()
            raise _error(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error)) from None
        except ConnectionError as error:
            raise _error(grpc.StatusCode.UNAVAILABLE, str(error)) from None
        if message is None:
            self._connection.close()
        return message


class _Stream:
    def __init__(self, link: _Link) -> None:
        self.ended = False
        self._link = link
        self._lost: grpc.aio.AioRpcError | None = None
        self._loop = asyncio.get_running_loop()
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[bytes]] = {}
        self._unsent: list[pb.ExchangeRequestProto] = []
        self._to_send = asyncio.Event()
        self._reader = self._loop.create_task(self._read())
        self._writer = self._loop.create_task(self._write())

    @property
    def busy(self) -> bool:
        """Whether calls wait for their replies."""
        return bool(self._waiting)

    async def call(self, request: bytes, timeout: float | None, metadata: Metadata) -> bytes:
        number = next(self._numbers)
        message = pb.ExchangeRequestProto(number=number, request=request)
        for key, value in metadata:
            message.metadata.add(key=key, value=value.encode() if isinstance(value, str) else value)
        future: asyncio.Future[bytes] = self._loop.create_future()
        timer = None
        if timeout is not None:
            message.timeout = timeout
            timer = self._loop.call_later(timeout, _expire, future)
        self._waiting[number] = future
        self._send(message)
        try:
            return await future
        finally:
            if timer is not None:
                timer.cancel()
            if self._waiting.pop(number, None) is not None:  # nobody waits for its reply any more
                self._send(pb.ExchangeRequestProto(number=number))

    async def close(self) -> None:
        self._link.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)

    def lose(self, reason: str) -> None:
        self._lost = _error(grpc.StatusCode.UNAVAILABLE, reason)
        self._link.cancel()

    def _send(self, message: pb.ExchangeRequestProto) -> None:
        self._unsent.append(message)
        self._to_send.set()

    async def _write(self) -> None:
        while True:
            await self._to_send.wait()
            self._to_send.clear()
            while self._unsent:
                message = pb.ExchangeRequestsProto(requests=self._take())
                try:
                    await self._link.write(message.SerializeToString())
                except (grpc.aio.AioRpcError, asyncio.InvalidStateError, ConnectionError):
                    return  # it has ended; the reader says how

    def _take(self) -> list[pb.ExchangeRequestProto]:
        size = count = 0
        while count < len(self._unsent) and size < _MESSAGE_BYTES:
            size += len(self._unsent[count].request)
            count += 1
        taken, self._unsent = self._unsent[:count], self._unsent[count:]
        return taken

    async def _read(self) -> None:
        # Unless it ends in good order, what has been sent may have run; also where this side ends it (CancelledError).
        failure: grpc.aio.AioRpcError | None = _error(grpc.StatusCode.CANCELLED, "the stream was closed")
        try:
            while (message := await self._link.read()) is not None:
                for reply in pb.ExchangeRepliesProto.FromString(message).replies:
                    self._answered(reply)
            failure = None
        except grpc.aio.AioRpcError as error:
            failure = error
        except DecodeError:
            failure = _error(grpc.StatusCode.DATA_LOSS, "it answered with bytes that are no exchange")
            self._link.cancel()
        finally:
            self._end(self._lost or failure)

    def _answered(self, reply: pb.ExchangeReplyProto) -> None:
        future = self._waiting.pop(reply.number, None)
        if future is None or future.done():  # it was cancelled, or its time is over
            return
        if reply.code:
            future.set_exception(_error(_CODES.get(reply.code, grpc.StatusCode.UNKNOWN), reply.details))
        else:
            future.set_result(reply.reply)

    def _end(self, failure: grpc.aio.AioRpcError | None) -> None:
        self.ended = True
        self._writer.cancel()
        unsent = {message.number for message in self._unsent}
        waiting, self._waiting = self._waiting, {}
        for number, future in waiting.items():
            if not future.done():
                future.set_exception(NotBegun() if failure is None or number in unsent else failure)


def _expire(future: asyncio.Future[bytes]) -> None:
    if not future.done():
        future.set_exception(_error(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded"))


def _error(code: grpc.StatusCode, details: str) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details)
