"""How requests are sent, one lane at a time, and what became of each.

A lane is one connection, with a few requests in flight that are sent at once; one that may break the framing of its
connection (a head, a cut body) comes last, and may be answered by the connection's end. An outcome is a status: `200`,
`INVALID_ARGUMENT`, `closed`. Requests that a connection's end left unanswered are not counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from random import Random
from typing import Any, Protocol

import grpc.aio
import zmq
import zmq.asyncio
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from flowdex import wire
from flowdex.proto import exchange_pb2
from mutation.mutate import mutate_bytes, mutate_json, mutate_message, mutate_path
from mutation.requests import BERT_TEXTS, DELETE_ALL, GRPC, HTTP, JINA, STREAM_DOCS

__all__ = ["DEADLINE", "ExchangeLane", "HttpLane", "JinaLane", "Lane", "MessageLane", "ZeroMqLane"]

DEADLINE = 30.0
"""Seconds without an answer that count as a hang."""

_OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),
)
_AT_ONCE = 9  # most requests that a lane sends before it reads, and one more
_UNCHANGED = 0.05  # of the requests stay valid, so that the flow goes on having work and documents


class Lane(Protocol):
    """One connection; `detail` is what the last answer said."""

    name: str
    detail: str

    def make(self, random: Random) -> Any:
        """Some requests."""

    async def send(self, requests: Any) -> list[str]:
        """Send them; what became of each."""

    async def close(self) -> None:
        """Hang up."""


class HttpLane:
    """HTTP/1.1, kept alive."""

    name = "http"
    detail = ""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    def make(self, random: Random) -> list[tuple[bytes, bool]]:
        """Requests to pipeline: the bytes, and whether the server may close without an answer."""
        found = []
        for _ in range(random.randrange(1, _AT_ONCE)):
            found.append(self._request(random))
            if found[-1][1]:
                break
        return found

    def _request(self, random: Random) -> tuple[bytes, bool]:
        method, path, value = random.choice(HTTP)
        body = b"" if value is None else json.dumps(value).encode()
        unchanged = random.random() < _UNCHANGED
        if not unchanged and value is not None:
            body = mutate_json(value, random)
        elif not unchanged:
            path = mutate_path(path, random)
        headers = {"host": "127.0.0.1", "content-type": "application/json", "content-length": str(len(body))}
        if not unchanged and random.random() < 0.1:
            name, found = random.choice(
                (
                    *(("x-request-timeout-ms", each) for each in ("nan", "-1", "1e400", "", "0.001", "é")),
                    *(("x-request-id", each) for each in ("", "a" * 500, "\x7f", "é", "a b")),
                    *(
                        ("content-type", each)
                        for each in ("text/plain", "", "application/json; charset=utf-16", "\xff")
                    ),
                    *(("content-encoding", "gzip"), ("accept", "x" * 3000), ("range", "bytes=0-1"), ("origin", "null")),
                )
            )
            headers[name] = found
        if method not in ("GET", "POST", "DELETE") or (not unchanged and random.random() < 0.02):
            method = random.choice(("PUT", "HEAD", "OPTIONS", "PATCH", "TRACE", "GET", "POST", "DELETE"))
        head = f"{method} {path} HTTP/1.1\r\n" + "".join(f"{name}: {found}\r\n" for name, found in headers.items())
        data = head.encode("latin-1") + b"\r\n" + body
        if not unchanged and random.random() < 0.05:
            return mutate_bytes(data, random), True
        return data, False

    async def send(self, requests: list[tuple[bytes, bool]]) -> list[str]:
        """The statuses."""
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        found: list[str] = []
        writer.write(b"".join(data for data, lenient in requests if not lenient))
        for data, lenient in requests:
            if lenient:  # the last one, by itself: its end may end the connection
                writer.write(data)
                with contextlib.suppress(OSError):
                    writer.write_eof()
            try:
                status, keep, body = await _answer(reader, data.startswith(b"HEAD "))
            except asyncio.CancelledError:  # no answer in time: whatever comes still is no other request's
                await self.close()
                raise
            except (asyncio.IncompleteReadError, ConnectionError, ValueError):
                found.append("closed" if lenient else "closed without an answer")
                await self.close()
                break
            found.append(status)
            if status >= "500":
                self.detail = body[:500].decode(errors="replace")
            if lenient or not keep:
                await self.close()
                break
        return found

    async def close(self) -> None:
        """Hang up."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


async def _answer(reader: asyncio.StreamReader, is_head: bool) -> tuple[str, bool, bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    status = head[9:12].decode()
    body = b""
    if status == "100":
        return await _answer(reader, is_head)
    if b"\r\ntransfer-encoding: chunked" in head:
        while size := int((await reader.readline()).strip() or b"0", 16):
            await reader.readexactly(size + 2)
        await reader.readline()
    elif b"\r\ncontent-length: " in head and not is_head:
        body = await reader.readexactly(int(head.partition(b"\r\ncontent-length: ")[2].partition(b"\r\n")[0]))
    return status, b"\r\nconnection: close" not in head, body


def _outcome(lane: Lane, reply: bytes) -> str:
    """The error that a reply carries, by name."""
    error = wire.error_of(wire.read_head(reply).header)
    if error is None:
        return "ok"
    if error.status.http >= 500:
        lane.detail = f"{error.executor}: {error.message}"
    return error.name


async def _write(call: Any, messages: Sequence[bytes]) -> None:
    """Send the messages of a stream; the server may end it before it has read them all."""
    with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
        for message in messages:
            await call.write(message)
        await call.done_writing()


async def _read(call: Any) -> AsyncIterator[bytes]:
    """The replies of a stream; how it ended is the call's to say."""
    with contextlib.suppress(grpc.aio.AioRpcError):
        while (reply := await call.read()) is not grpc.aio.EOF:
            yield reply


async def _end(lane: Lane, call: Any) -> str:
    """How a stream ended; empty where it did in good order."""
    code, details = await call.code(), str(await call.details())
    if code is grpc.StatusCode.OK:
        return ""
    lane.detail = details
    # grpcio's words, on this side, for a stream that the server ended while a message was written to it.
    return "ended early" if details == "Internal error from Core" else str(code.name)


class MessageLane:
    """gRPC messages as raw bytes: single calls, streams, streamed documents, questions.

    Args:
        address: Of a gateway, or of a worker.
        name: What to count it under.
    """

    detail = ""

    def __init__(self, address: str, name: str) -> None:
        self.name = name
        self._channel = grpc.aio.insecure_channel(address, options=_OPTIONS)

    def make(self, random: Random) -> tuple[str, tuple[bytes, ...]]:
        """The method, and its messages."""
        choice = random.random()
        if choice < 0.40:
            return wire.PROCESS_SINGLE_DATA, (self._message(random),)
        if choice < 0.90:
            return wire.CALL, tuple(self._message(random) for _ in range(random.randrange(1, 2 * _AT_ONCE)))
        if choice < 0.97:
            return wire.STREAM_DOC, (mutate_bytes(random.choice(STREAM_DOCS), random),)
        method = random.choice((wire.ENDPOINT_DISCOVERY, wire.DRY_RUN, wire.INFO_STATUS, wire.LOAD))
        return method, (random.randbytes(random.randrange(30)),)

    def _message(self, random: Random) -> bytes:
        data = random.choice(GRPC)
        return data if random.random() < _UNCHANGED else mutate_message(data, random, random.choice(GRPC))

    async def send(self, requests: tuple[str, tuple[bytes, ...]]) -> list[str]:
        """The names of the errors."""
        method, messages = requests
        timeout = DEADLINE
        if method == wire.CALL:
            stream = self._channel.stream_stream(method)(timeout=timeout)
            await _write(stream, messages)
            return await self._read(stream, len(messages))
        if method == wire.STREAM_DOC:
            return await self._read(self._channel.unary_stream(method)(messages[0], timeout=timeout), None)
        call = self._channel.unary_unary(method)(messages[0], timeout=timeout)
        try:
            reply = await call
        except grpc.aio.AioRpcError as error:
            self.detail = str(error.details())
            return [error.code().name]
        return [_outcome(self, reply) if method == wire.PROCESS_SINGLE_DATA else "ok"]

    async def _read(self, call: Any, count: int | None) -> list[str]:
        found = [_outcome(self, reply) async for reply in _read(call)]
        if ended := await _end(self, call):
            return [*found, ended]
        if count is not None and len(found) != count:
            return [*found, f"{len(found)} replies to {count} requests"]
        return found

    async def close(self) -> None:
        """Hang up."""
        await self._channel.close()


class ExchangeLane:
    """The stream between a gateway and a worker, at the worker's end."""

    name = "exchange"
    detail = ""

    def __init__(self, address: str) -> None:
        self._channel = grpc.aio.insecure_channel(address, options=_OPTIONS)

    def make(self, random: Random) -> tuple[bytes, ...]:
        """Messages of one stream."""
        messages = []
        for _ in range(random.randrange(1, _AT_ONCE)):
            exchange = exchange_pb2.ExchangeRequestsProto()
            for number in range(random.randrange(1, 6)):
                data = random.choice(GRPC)
                request = exchange.requests.add(number=number if random.random() < 0.9 else 2**32 - 1, timeout=5)
                request.request = data if random.random() < 0.3 else mutate_message(data, random)
                request.metadata.add(key=random.choice(("x-request-id", "a-bin", "é", "")), value=b"\xff")
                request.timeout = random.choice((0.0, 5.0, 5.0, 5.0, -1.0, 1e300, float("nan"), float("inf")))
            data = exchange.SerializeToString()
            messages.append(data if random.random() < 0.9 else mutate_bytes(data, random))
        return tuple(messages)

    async def send(self, requests: tuple[bytes, ...]) -> list[str]:
        """The names of the errors."""
        found: list[str] = []
        call = self._channel.stream_stream(wire.EXCHANGE)(timeout=DEADLINE)
        await _write(call, requests)
        async for data in _read(call):
            for reply in exchange_pb2.ExchangeRepliesProto.FromString(data).replies:
                self.detail = reply.details or self.detail
                found.append(f"code {reply.code}" if reply.code else _outcome(self, reply.reply))
        if ended := await _end(self, call):
            found.append(ended)
        return found

    async def close(self) -> None:
        """Hang up."""
        await self._channel.close()


class JinaLane:
    """Jina's WebSocket, with frames of bytes or of JSON."""

    name = "websocket"
    detail = ""

    def __init__(self, port: int, *, as_json: bool) -> None:
        self._url = f"ws://127.0.0.1:{port}/"
        self._as_json = as_json
        self._socket: ClientConnection | None = None

    def make(self, random: Random) -> list[str | bytes]:
        """Frames."""
        return [self._frame(random) for _ in range(random.randrange(1, _AT_ONCE))]

    def _frame(self, random: Random) -> str | bytes:
        if self._as_json:
            data = mutate_json(random.choice(JINA), random)
            return data.decode(errors="replace") if random.random() < 0.95 else data
        data = random.choice(GRPC)
        return data if random.random() < _UNCHANGED else mutate_message(data, random, random.choice(GRPC))

    async def send(self, requests: list[str | bytes]) -> list[str]:
        """The names of the errors in the answers."""
        if self._socket is None:
            subprotocols: Any = ["json" if self._as_json else "bytes"]
            self._socket = await connect(self._url, subprotocols=subprotocols, max_size=None, ping_interval=None)
        found: list[str] = []
        try:
            for frame in requests:
                await self._socket.send(frame)
            for _ in requests:
                answer = await self._socket.recv()
                found.append(_outcome(self, answer) if isinstance(answer, bytes) else _json_outcome(answer))
        except asyncio.CancelledError:
            await self.close()
            raise
        except ConnectionClosed as closed:
            self._socket = None
            # Jina's end of a stream: an empty object, or a byte 0
            ended = any(each == b"\0" or (isinstance(each, str) and each.strip() == "{}") for each in requests)
            found.append("closed" if ended else f"closed with {closed.rcvd.code if closed.rcvd else 'nothing'}")
        return found

    async def close(self) -> None:
        """Hang up."""
        if self._socket is not None:
            socket, self._socket = self._socket, None
            with contextlib.suppress(WebSocketException):
                await socket.close()


def _json_outcome(answer: str) -> str:
    status = json.loads(answer)["header"].get("status", {})
    return str(status.get("exception", {}).get("name", "error")) if status.get("code") else "ok"


class ZeroMqLane:
    """bert-as-service's frames."""

    name = "zeromq"
    detail = ""

    def __init__(self, context: zmq.asyncio.Context, ports: tuple[int, int], identity: bytes) -> None:
        self._identity = identity
        self._number = 0
        self._sender = context.socket(zmq.PUSH)
        self._sender.connect(f"tcp://127.0.0.1:{ports[0]}")
        self._receiver = context.socket(zmq.SUB)
        self._receiver.setsockopt(zmq.SUBSCRIBE, identity)
        self._receiver.connect(f"tcp://127.0.0.1:{ports[1]}")

    def make(self, random: Random) -> list[tuple[list[bytes], bool]]:
        """Messages: the frames after the identity (a number's place is empty), and whether there may be no answer."""
        return [self._message(random) for _ in range(random.randrange(1, _AT_ONCE))]

    def _message(self, random: Random) -> tuple[list[bytes], bool]:
        texts = mutate_json(random.choice(BERT_TEXTS), random)
        if random.random() < 0.1:
            texts = random.choice((b"SHOW_CONFIG", b"SHOW_STATUS", b"TERMINATION", b""))
        frames = [texts, b"", b"1" if random.random() < 0.9 else random.randbytes(random.randrange(5))]
        if random.random() < 0.15:
            for _ in range(random.randrange(1, 3)):
                choice = random.randrange(3)
                if choice == 0 and frames:
                    del frames[random.randrange(len(frames))]
                elif choice == 1:
                    frames.insert(random.randrange(len(frames) + 1), random.randbytes(random.randrange(10)))
                else:
                    frames = [mutate_bytes(frame, random) for frame in frames]
            return frames, True
        return frames, False

    async def send(self, requests: list[tuple[list[bytes], bool]]) -> list[str]:
        """The names of the errors; "sent" where no answer can be."""
        found: list[str] = []
        waiting: set[bytes] = set()
        for frames, lenient in requests:
            self._number += 1
            number = b"%d" % self._number
            if lenient or frames[0] == b"TERMINATION":
                found.append("sent")
            else:
                waiting.add(number)
            await self._sender.send_multipart(
                [self._identity, *frames] if lenient else [self._identity, frames[0], number, frames[2]]
            )
        while waiting:
            answer = await self._receiver.recv_multipart()
            if answer[-1] in waiting:
                waiting.remove(answer[-1])
                error = json.loads(answer[1]).get("error")
                found.append(str(error["name"]) if error else "ok")
        return found

    async def close(self) -> None:
        """Hang up."""
        self._sender.close(linger=0)
        self._receiver.close(linger=0)


async def delete_all(address: str) -> str:
    """Empty the index; what went wrong, if anything."""
    async with grpc.aio.insecure_channel(address, options=_OPTIONS) as channel:
        try:
            reply = await channel.unary_unary(wire.PROCESS_SINGLE_DATA)(DELETE_ALL, timeout=DEADLINE)
        except grpc.aio.AioRpcError as failure:
            return f"{failure.code().name}: {failure.details()}"
        error = wire.error_of(wire.read_head(reply).header)
        return "" if error is None else str(error)
