"""Clients that are slow, silent, too many or not what they say: each gets a defined answer, and others are served."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import socket
import time
from typing import Any

import grpc
import pytest
from gateway_fakes import FakeExecutor, Flow, append, eventually, serving
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from flowdex import wire
from flowdex.documents import DocumentBatch
from flowdex.proto import flowdex_pb2 as pb
from flowdex_orchestrator.gateway.settings import GatewaySettings

PATIENCE = 0.4
BODY = json.dumps({"data": [{"text": "a"}], "execEndpoint": "/mark"}).encode()
HEAD = b"POST /post HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
REQUEST = HEAD + b"content-length: %d\r\n\r\n%s" % (len(BODY), BODY)


def executor() -> FakeExecutor:
    return FakeExecutor("a", {"/mark": append("!")})


class Connection:
    """One HTTP connection, byte by byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def open(cls, flow: Flow) -> Connection:
        return cls(*await asyncio.open_connection("127.0.0.1", flow.ports["http"]))

    async def rest(self, seconds: float = 5) -> bytes:
        """What comes until the server closes."""
        try:
            return await asyncio.wait_for(self.reader.read(), seconds)
        except ConnectionResetError:
            return b""

    async def answer(self, request: bytes = REQUEST) -> bytes:
        """The head of the answer to a request; empty if there is none."""
        self.writer.write(request)
        try:
            head = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 5)
        except (asyncio.IncompleteReadError, ConnectionResetError) as error:
            return getattr(error, "partial", b"")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
        await self.reader.readexactly(length)
        return head


async def served(flow: Flow) -> None:
    """Another client is answered."""
    reply = await flow.http.post("/post", json={"data": [{"text": "a"}], "execEndpoint": "/mark"})
    assert reply.json()["data"][0]["text"] == "a!"


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"", b""),  # which is no request: there is nobody to answer
        (b"POST /post HT", b"408"),
        (HEAD, b"408"),
        (HEAD + b"content-length: 100\r\n\r\n{", b"408"),
        (HEAD + b"transfer-encoding: chunked\r\n\r\n5\r\n{", b"408"),
    ],
)
async def test_a_request_that_does_not_come_ends_the_connection(sent: bytes, status: bytes) -> None:
    async with serving(executor(), settings=GatewaySettings(client_timeout=PATIENCE)) as flow:
        connection, began = await Connection.open(flow), time.monotonic()
        connection.writer.write(sent)
        await served(flow)
        answer = await connection.rest()
        assert PATIENCE <= time.monotonic() - began < 10 * PATIENCE
        assert answer[9:12] == status
        if status:
            assert b"client_timeout" in answer
        await served(flow)


async def test_a_body_that_drips_is_no_progress() -> None:
    async with serving(executor(), settings=GatewaySettings(client_timeout=PATIENCE)) as flow:
        connection = await Connection.open(flow)
        connection.writer.write(HEAD + b"content-length: 100000\r\n\r\n")

        async def drip() -> None:
            while True:
                connection.writer.write(b" ")
                await asyncio.sleep(0.02)

        dripping = asyncio.ensure_future(drip())
        assert (await connection.rest())[9:12] == b"408"
        dripping.cancel()
        await served(flow)


async def test_a_slow_body_that_gets_on_and_an_idle_connection_are_left_alone() -> None:
    async with serving(executor(), settings=GatewaySettings(client_timeout=PATIENCE)) as flow:
        connection = await Connection.open(flow)
        assert b"200 OK" in await connection.answer()
        await asyncio.sleep(3 * PATIENCE)
        padding = b" " * 20_000
        connection.writer.write(HEAD + b"content-length: %d\r\n\r\n" % (4 * len(padding) + len(BODY)))
        for _ in range(4):
            connection.writer.write(padding)
            await asyncio.sleep(0.6 * PATIENCE)
        assert b"200 OK" in await connection.answer(BODY)
        await asyncio.sleep(2 * PATIENCE)
        assert b"200 OK" in await connection.answer()


async def test_a_slow_executor_is_not_the_clients_fault() -> None:
    async def slow(request: pb.DataRequestProto) -> None:
        await asyncio.sleep(4 * PATIENCE)

    settings = GatewaySettings(client_timeout=PATIENCE)
    async with serving(FakeExecutor("a", {"/mark": slow}), settings=settings) as flow:
        assert b"200 OK" in await (await Connection.open(flow)).answer()


async def test_who_does_not_take_the_answer_is_cut_off() -> None:
    async def grow(request: pb.DataRequestProto) -> None:
        request.data.docs.docs[0].data["text"].text = "x" * 30_000_000

    settings = GatewaySettings(client_timeout=PATIENCE)
    async with serving(FakeExecutor("a", {"/mark": grow}), settings=settings) as flow:
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(client, ("127.0.0.1", flow.ports["http"]))
        await loop.sock_sendall(client, REQUEST)
        (web,) = flow.gateway._web
        await eventually(lambda: len(web._connections.open) == 1)
        await eventually(lambda: not web._connections.open)
        client.close()


@pytest.mark.parametrize(
    ("request_", "limit"),
    [
        (HEAD + b"".join(b"x-%d: 1\r\n" % number for number in range(30)) + b"\r\n", b"max_headers"),
        (HEAD + b"x: " + b"a" * 5000 + b"\r\n\r\n", b"max_header_bytes"),
        (HEAD + b"x: " + b"a" * 1_000_000, b"max_header_bytes"),
        (b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\nhost: localhost\r\n\r\n", b"max_header_bytes"),
        (b"\r\n" * 400_000, b"max_header_bytes"),
    ],
)
async def test_a_head_is_bounded(request_: bytes, limit: bytes) -> None:
    async with serving(executor(), settings=GatewaySettings(max_headers=20, max_header_bytes=4000)) as flow:
        connection = await Connection.open(flow)
        connection.writer.write(request_)
        answer = await connection.rest()
        assert not answer or (answer[9:12] == b"431" and limit in answer)
        if len(request_) < 100_000:  # of more, the connection is reset before all of it is taken
            assert answer
        await served(flow)


async def test_the_idle_make_room_for_the_new() -> None:
    async with serving(executor(), settings=GatewaySettings(max_connections=20)) as flow:
        silent = [await Connection.open(flow) for _ in range(100)]
        used = await Connection.open(flow)
        assert b"200 OK" in await used.answer()
        for _ in range(10):
            silent.append(await Connection.open(flow))
            assert b"200 OK" in await used.answer(), "who asks is not the one who has been idle for longest"
        await served(flow)
        assert len(flow.gateway._web[0]._connections.open) <= 20
        assert await silent[0].rest() == b""


async def test_when_all_are_busy_a_new_one_is_refused() -> None:
    done = asyncio.Event()

    async def wait(request: pb.DataRequestProto) -> None:
        await done.wait()

    settings = GatewaySettings(max_connections=3)
    async with serving(FakeExecutor("a", {"/mark": wait}), settings=settings) as flow:
        busy = [await Connection.open(flow) for _ in range(3)]
        answers = [asyncio.ensure_future(each.answer()) for each in busy]
        await eventually(lambda: flow.gateway.router.in_flight == 3)
        refused = await (await Connection.open(flow)).rest()
        assert refused[9:12] == b"503"
        assert b"max_connections" in refused
        done.set()
        assert all(b"200 OK" in answer for answer in await asyncio.gather(*answers))
        assert b"200 OK" in await busy[0].answer()


@pytest.mark.parametrize(
    "request_",
    [
        HEAD + b"content-length: %d\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n%s" % (len(REQUEST), REQUEST),
        HEAD + b"content-length: 5\r\ncontent-length: 6\r\n\r\n" + BODY,
        HEAD + b"content-length: -1\r\n\r\n",
        HEAD + b"content-length: +5\r\n\r\nabcde",
        HEAD + b"transfer-encoding: chunked\r\n\r\nzz\r\n",
        HEAD + b"transfer-encoding : chunked\r\n\r\n0\r\n\r\n",
        HEAD + b"transfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
        HEAD + b"x: a\r\n folded\r\n\r\n",
        HEAD + b"x: a\0b\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
        b"GET http://[ HTTP/1.1\r\nhost: localhost\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nhost: localhost\r\n\r\n",
    ],
)
async def test_what_is_no_request_or_two_at_once_is_refused(request_: bytes) -> None:
    """A request whose length can be read in two ways (RFC 9112, 11.2), and other protocols."""
    fake = executor()
    async with serving(fake) as flow:
        connection = await Connection.open(flow)
        connection.writer.write(request_)
        connection.writer.write_eof()
        answer = await connection.rest()
        assert answer.count(b"HTTP/1.1 ") == 1
        assert answer[9:10] == b"4"
        assert not fake.seen, "nothing of it was taken for a request"
        await served(flow)


async def test_what_is_no_request_is_answered_after_those_before_it() -> None:
    async with serving(executor()) as flow:
        connection = await Connection.open(flow)
        connection.writer.write(REQUEST + REQUEST + b"\x01\x02 no request\r\n\r\n")
        answers = await connection.rest()
        assert [each[:3] for each in answers.split(b"HTTP/1.1 ")[1:]] == [b"200", b"200", b"400"]


async def test_rubbish_fills_no_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    upgrade = REQUEST.replace(
        b"\r\n", b"\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 1\r\n", 1
    )
    async with serving(executor()) as flow:
        for rubbish in (b"\x01\x02\r\n\r\n", upgrade) * 20:
            connection = await Connection.open(flow)
            connection.writer.write(rubbish)
            assert (await connection.rest()).startswith(b"HTTP/1.1 4")
    lines = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(lines) == 1, lines


async def test_an_upgrade_to_http2_is_ignored() -> None:
    """As RFC 9110, 7.8 allows: the request is answered in HTTP/1.1, or refused."""
    upgrade = b"connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n"
    async with serving(executor()) as flow:
        connection = await Connection.open(flow)
        answer = await connection.answer(HEAD + upgrade + b"content-length: %d\r\n\r\n%s" % (len(BODY), BODY))
        assert answer.startswith((b"HTTP/1.1 200", b"HTTP/1.1 4"))
        await served(flow)


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "gzip, gzip"])
async def test_compressed_bodies_are_not_read(coding: str) -> None:
    bomb = gzip.compress(b" " * 10_000_000)
    async with serving(executor()) as flow:
        headers = {"content-type": "application/json", "content-encoding": coding}
        reply = await flow.http.post("/post", content=bomb, headers=headers)
        assert reply.status_code == 415
        assert f"Content-Encoding: {coding}" in reply.json()["detail"]


@pytest.mark.parametrize("sent", [HEAD + b"content-length: 100\r\n\r\n{", HEAD + b"transfer-encoding: chunked\r\n\r\n"])
async def test_who_goes_away_in_the_middle_is_no_incident(sent: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async with serving(executor()) as flow:
        connection = await Connection.open(flow)
        connection.writer.write(sent)
        await asyncio.sleep(0.1)
        connection.writer.close()
        await asyncio.sleep(0.1)
        await served(flow)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_who_leaves_a_websocket_before_its_answers_is_no_incident(caplog: pytest.LogCaptureFixture) -> None:
    async with serving(executor()) as flow:
        for moment in range(100):  # some leave between the end of the connection and the sight of it
            async with connect(f"ws://127.0.0.1:{flow.ports['http']}/", subprotocols=["json"]) as websocket:
                for _ in range(4):
                    await websocket.send(BODY.decode())
                await asyncio.sleep(moment / 20_000)
        await eventually(lambda: flow.gateway.router.in_flight == 0)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_a_frame_too_large_ends_the_websocket_alone() -> None:
    async with serving(executor(), settings=GatewaySettings(max_message_bytes=1000)) as flow:
        async with connect(f"ws://127.0.0.1:{flow.ports['http']}/", subprotocols=["bytes"]) as client:  # type: ignore[list-item]
            await client.send(bytes(5000))
            with pytest.raises(ConnectionClosed) as caught:
                await client.recv()
            assert caught.value.rcvd is not None
            assert caught.value.rcvd.code == 1009  # message too big (RFC 6455, 7.4.1)
        await served(flow)


# ---- gRPC ----


def request(text: str = "a") -> bytes:
    return wire.build_request("/mark", DocumentBatch.from_columns(texts=[text]))


async def refused_with(call: Any) -> grpc.StatusCode:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    code: grpc.StatusCode = caught.value.code()
    return code


async def test_compressed_messages_and_large_metadata_are_refused_over_grpc() -> None:
    async with serving(executor()) as flow:
        method = flow.channel.unary_unary(wire.PROCESS_SINGLE_DATA)
        for compression in (grpc.Compression.Gzip, grpc.Compression.Deflate):
            code = await refused_with(method(request("a" * 100_000), compression=compression))
            assert code is grpc.StatusCode.UNIMPLEMENTED
        code = await refused_with(method(request(), metadata=(("baggage", "b" * 10_000),)))
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        await flow.send(request(), metadata=(("baggage", "b" * 1000),))


async def test_grpc_connections_are_bounded() -> None:
    async with serving(executor(), settings=GatewaySettings(max_connections=4)) as flow:
        await flow.send(request())
        silent = [socket.create_connection(("127.0.0.1", flow.ports["grpc"])) for _ in range(12)]
        await flow.send(request())
        await asyncio.sleep(0.5)
        ended = 0
        for each in silent:
            each.setblocking(False)
            try:
                ended += each.recv(1 << 16) == b"" or each.recv(1 << 16) == b""
            except BlockingIOError:
                pass
            except ConnectionResetError:
                ended += 1
            each.close()
        assert ended >= 8
        await flow.send(request())
