"""Jina 3 over WebSocket: frames of `jina.Client(protocol="websocket")`, and those of JSON.

frames: DataRequestProtos (subprotocol `bytes`) or objects (`json`) --ws://HOST:PORT/--> as many replies, the end
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from flowdex import wire
from flowdex.conformance import jina_messages as messages
from flowdex.conformance.coded import CodedCase, coded, unless
from flowdex.conformance.jina_messages import NoReply
from flowdex.conformance.model import Absent, Check, Contract, Problem, Server
from flowdex.conformance.patterns import mismatches
from flowdex.conformance.relations import different_vectors, equal, same_vectors
from flowdex.errors import Unauthenticated, Unavailable
from flowdex.proto import flowdex_pb2 as pb
from flowdex.transport.target import Target

__all__ = ["JinaWebSocketContract"]

_END = b"\0"  # how Jina's client says that there are no more requests
_LARGEST = 64 << 20  # bytes of a frame


class _Sockets:
    """Opens connections to the server."""

    def __init__(self, target: Target, seconds: float) -> None:
        self._target = target
        self._seconds = seconds

    @contextmanager
    def open(self, kind: str, path: str = "/") -> Iterator[_Socket]:
        """A connection with this subprotocol."""
        from websockets.exceptions import WebSocketException
        from websockets.sync.client import connect

        from flowdex.transport.http import client_context

        scheme = "wss" if self._target.secure else "ws"
        try:
            connection = connect(
                f"{scheme}://{self._target.authority}{self._target.path}{path}",
                subprotocols=[kind],  # type: ignore[list-item]
                additional_headers=dict(self._target.headers),
                open_timeout=self._seconds,
                close_timeout=self._seconds,
                max_size=_LARGEST,
                proxy=None if self._target.loopback else True,
                ssl=client_context(self._target),
            )
        except (OSError, WebSocketException, TimeoutError) as error:
            raise NoReply(f"no connection at {path}: {error}") from error
        with connection:
            yield _Socket(connection, self._seconds)

    def ask(self, requests: Sequence[bytes]) -> list[pb.DataRequestProto]:
        """Send requests over one connection, and then that there are no more."""
        with self.open("bytes") as socket:
            for data in (*requests, _END):
                socket.send(data)
            replies = [messages.reply(socket.receive()) for _ in requests]
            socket.expect_end()
            return replies


class _Socket:
    def __init__(self, connection: Any, seconds: float) -> None:
        self._connection = connection
        self._seconds = seconds

    def send(self, frame: bytes | str) -> None:
        from websockets.exceptions import ConnectionClosed

        try:
            self._connection.send(frame)
        except ConnectionClosed as error:
            raise NoReply(f"the server closed the connection: {error}") from None

    def receive(self) -> Any:
        """The content of the next frame."""
        from websockets.exceptions import ConnectionClosed

        try:
            return self._connection.recv(timeout=self._seconds)
        except TimeoutError:
            raise NoReply("no frame in time") from None
        except ConnectionClosed as error:
            raise NoReply(f"the server closed the connection: {error}") from None

    def expect_end(self) -> None:
        """Wait until the server closes."""
        from websockets.exceptions import ConnectionClosed

        try:
            self._connection.recv(timeout=self._seconds)
        except TimeoutError:
            raise NoReply("the connection stays open after the end of the requests") from None
        except ConnectionClosed:
            return
        raise NoReply("more frames than requests")


class JinaWebSocketContract(Contract):
    """What Jina's clients ask of a gateway with an endpoint /encode."""

    name = "jina-websocket"
    title = "Jina 3 over WebSocket"
    probes = 1

    @property
    def cases(self) -> Sequence[CodedCase[_Sockets]]:
        """Those below."""
        return _CASES

    @contextmanager
    def session(self, server: Server) -> Iterator[Check]:
        """See `Contract`."""
        target = server.http
        if target is None:
            raise Absent("needs an address with http://")
        try:
            from websockets.exceptions import InvalidStatus
            from websockets.sync import client  # noqa: F401 - whether it is there
        except ImportError:
            raise Absent("needs websockets 15 or later: pip install 'websockets>=15'") from None
        sockets = _Sockets(target, server.timeout)
        try:
            with sockets.open("bytes"):
                pass
        except NoReply as error:
            cause = error.__cause__
            status = cause.response.status_code if isinstance(cause, InvalidStatus) else None
            if status in (401, 403):
                raise Unauthenticated(f"{target} refuses a WebSocket; name a key with --api-key") from None
            if isinstance(cause, OSError):
                raise Unavailable(target.unreachable(str(cause))) from None
            raise Absent(str(error)) from None
        yield lambda case: _run(case, sockets)


def _run(case: CodedCase[_Sockets], sockets: _Sockets) -> list[Problem]:
    try:
        return list(case.check(sockets))
    except NoReply as error:
        return [Problem(case.name, "an answer that can be read", str(error))]


def _request(texts: Sequence[str], name: str = "a-request") -> bytes:
    return messages.request(messages.documents(texts), name)


@coded("documents", "bytes: a frame is a DataRequestProto, its reply another, each document with its embedding")
def _documents(server: _Sockets) -> Iterator[Problem]:
    (reply,) = server.ask([_request(messages.TEXTS)])
    batch = wire.documents_of(reply)
    yield from unless(equal(batch.texts, messages.TEXTS), "texts")
    yield from unless(equal(reply.header.request_id, "a-request"), "header.request_id")
    yield from unless(different_vectors(messages.vectors(batch)), "the vectors")


@coded("the order of the documents", "encode: results keep the order of the input", 2)
def _order(server: _Sockets) -> Iterator[Problem]:
    first, second = server.ask([_request(messages.TEXTS, "1"), _request(messages.TEXTS[::-1], "2")])
    if first.header.request_id == "2":
        first, second = second, first
    forth, back = (messages.vectors(wire.documents_of(reply)) for reply in (first, second))
    yield from unless(same_vectors(back, forth[::-1]), "the documents the other way round")


@coded(
    "requests at once", "bytes: a reply to each request, known by its request id; the server closes after the last", 5
)
def _many(server: _Sockets) -> Iterator[Problem]:
    names = [f"request-{index}" for index in range(5)]
    replies = server.ask([_request([name], name) for name in names])
    yield from unless(equal(sorted(reply.header.request_id for reply in replies), names), "request ids")
    for reply in replies:
        texts = wire.documents_of(reply).texts
        yield from unless(equal(texts, [reply.header.request_id]), f"texts of {reply.header.request_id}")


@coded("JSON", "json: a frame is the object of POST /post, its reply one too; {} is the end")
def _json(server: _Sockets) -> Iterator[Problem]:
    with server.open("json") as socket:
        data = [{"id": "a", "text": messages.TEXTS[0]}]
        socket.send(json.dumps({"execEndpoint": messages.ENCODE, "data": data}))
        frame = socket.receive()
        socket.send("{}")
        socket.expect_end()
    try:
        content = json.loads(frame)
    except ValueError:
        raise NoReply("a frame that is no JSON") from None
    vector = {"<each>": "<number>", "<length>": "<integer 1..>"}
    yield from mismatches({"header": "<object>", "data": [{"id": "a", "embedding": vector}]}, content)


@coded("dry run", "/dry_run: SUCCESS where all of the flow is ready")
def _dry_run(server: _Sockets) -> Iterator[Problem]:
    with server.open("bytes", "/dry_run") as socket:
        socket.send(b"")
        frame = socket.receive()
    if not isinstance(frame, bytes):
        raise NoReply("a text frame")
    status = messages.parsed(pb.StatusProto, frame)
    if status.code != wire.SUCCESS:
        yield Problem("status", "SUCCESS", status.description or "ERROR")


_CASES: tuple[CodedCase[_Sockets], ...] = (_documents, _order, _many, _json, _dry_run)
