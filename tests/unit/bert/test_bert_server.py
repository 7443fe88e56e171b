"""The sockets of bert-as-service's protocol, with a service that answers at once: nothing crashes or hangs them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flowdex.errors import ConfigurationError, Unavailable
from flowdex_orchestrator.flow.bert import Bert
from flowdex_orchestrator.gateway.bert.service import BertService, Encoded
from flowdex_orchestrator.gateway.server import Gateway
from flowdex_orchestrator.gateway.settings import GatewaySettings

zmq = pytest.importorskip("zmq")
zmq_asyncio = pytest.importorskip("zmq.asyncio")


class Service(BertService):
    """Answers the lengths of texts, and fails on request."""

    async def encode(self, texts: Sequence[Any]) -> Encoded:
        if texts[0] == "unavailable":
            raise Unavailable("nobody is there")
        if texts[0] == "bug":
            raise ZeroDivisionError("an internal")
        if texts[0] == "slow":
            await asyncio.sleep(30)
        return Encoded(np.array([[len(text)] for text in texts], dtype=np.float32), None)


class Client:
    """The frames of a BertClient."""

    def __init__(self, context: Any, ports: dict[str, int], identity: bytes = b"me", listen: bool = True) -> None:
        self.identity = identity
        self.sender = context.socket(zmq.PUSH)
        self.sender.connect(f"tcp://127.0.0.1:{ports['bert']}")
        self.receiver = context.socket(zmq.SUB)
        self.receiver.setsockopt(zmq.SUBSCRIBE, identity)
        if listen:
            self.listen(ports)

    def listen(self, ports: dict[str, int]) -> None:
        self.receiver.connect(f"tcp://127.0.0.1:{ports['bert-out']}")

    async def ask(self, payload: bytes, number: int = 1) -> None:
        await self.sender.send_multipart([self.identity, payload, b"%d" % number, b"1"])

    async def answer(self, seconds: float = 10) -> tuple[dict[str, Any], bytes, int]:
        _, info, data, number = await asyncio.wait_for(self.receiver.recv_multipart(), seconds)
        return json.loads(info), data, int(number)


@asynccontextmanager
async def running(limits: GatewaySettings | None = None) -> AsyncIterator[tuple[Any, dict[str, int], Any]]:
    from flowdex_orchestrator.gateway.bert.server import BertServer

    limits = limits or GatewaySettings(drain=0.2)
    server = BertServer(Service(Gateway([], limits), Bert()), limits)
    context = zmq_asyncio.Context()
    try:
        yield context, await server.start("127.0.0.1", 0, 0), server
    finally:
        context.destroy(linger=0)
        await asyncio.wait_for(server.stop(), 10)


async def test_vectors_and_status() -> None:
    async with running() as (context, ports, _):
        client = Client(context, ports)
        await client.ask(b'["abc", "de"]')
        info, data, number = await client.answer()
        assert (info["shape"], np.frombuffer(data, info["dtype"]).tolist(), number) == ([2, 1], [3, 2], 1)
        await client.ask(b"SHOW_CONFIG", 2)
        info, data, number = await client.answer()
        assert (info["server_version"], info["max_seq_len"], data, number) == ("1.10.0", 25, b"", 2)
        await client.ask(b"SHOW_STATUS", 3)
        info, _, _ = await client.answer()
        assert info["client"] == "me"
        assert info["statistic"]["num_data_request"] == 1


@pytest.mark.parametrize(
    ("payload", "name", "message"),
    [
        (b'["unavailable"]', "Unavailable", "nobody is there"),
        (b'["bug"]', "InternalError", "its log says why"),
        (b"[", "InvalidInput", "not JSON"),
        (b"[]", "InvalidInput", "at least one"),
        (b'["' + b"x" * 3000 + b'"]', "TooLarge", "max_message_bytes"),
    ],
)
async def test_errors_are_answered_and_the_next_request_works(payload: bytes, name: str, message: str) -> None:
    async with running(GatewaySettings(max_message_bytes=2000)) as (context, ports, _):
        client = Client(context, ports)
        await client.ask(payload, 5)
        info, _, number = await client.answer()
        assert (info["error"]["name"], number) == (name, 5)
        assert message in info["error"]["message"]
        assert "internal" not in info["error"]["message"].replace("InternalError", "")
        await client.ask(b'["abc"]', 6)
        assert (await client.answer())[2] == 6


async def test_who_does_not_listen_keeps_nobody_waiting() -> None:
    async with running(GatewaySettings(drain=0.0, stream_window=1, max_in_flight=4)) as (context, ports, server):
        deaf, client = Client(context, ports, b"deaf", listen=False), Client(context, ports)
        await client.ask(b'["abc"]', 98)
        assert (await client.answer())[2] == 98
        for number in range(20):
            await deaf.ask(b'["abc"]', number)
        await client.ask(b'["abc"]', 99)
        assert (await client.answer(3))[2] == 99
        await asyncio.sleep(0.3)
        assert len(server._work) <= 4


async def test_nobody_stops_it_from_the_network() -> None:
    async with running() as (context, ports, _):
        client = Client(context, ports)
        await client.ask(b"TERMINATION")
        await client.ask(b'["abc"]', 2)
        assert (await client.answer())[2] == 2


async def test_a_reply_waits_for_a_client_that_subscribes_late() -> None:
    async with running() as (context, ports, _):
        client = Client(context, ports, listen=False)
        await client.ask(b'["abc"]')
        await asyncio.sleep(0.5)
        client.listen(ports)
        assert (await client.answer())[2] == 1


async def test_work_for_a_client_that_has_gone_is_not_done(monkeypatch: pytest.MonkeyPatch) -> None:
    from flowdex_orchestrator.gateway.bert import server as module

    monkeypatch.setattr(module, "_PATIENCE", 0.2)
    async with running() as (context, ports, server):
        client = Client(context, ports)
        await client.ask(b'["slow"]')
        for _ in range(100):
            await asyncio.sleep(0.02)
            if server._work:
                break
        assert server._work
        client.receiver.close(linger=0)
        for _ in range(200):
            await asyncio.sleep(0.02)
            if not server._work:
                break
        assert not server._work


async def test_a_taken_port_is_an_error_of_the_configuration() -> None:
    async with running() as (_, ports, _):
        with pytest.raises(ConfigurationError, match="--port-bert"):
            async with _on(ports["bert"]):
                pass


@asynccontextmanager
async def _on(port: int) -> AsyncIterator[None]:
    from flowdex_orchestrator.gateway.bert.server import BertServer

    server = BertServer(Service(Gateway([]), Bert()), GatewaySettings())
    await server.start("127.0.0.1", port, 0)
    try:
        yield
    finally:
        await server.stop()


@settings(max_examples=5, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.lists(st.binary(max_size=30), min_size=1, max_size=6), min_size=20, max_size=60))
def test_no_frames_crash_it_or_hang_it(messages: list[list[bytes]]) -> None:
    async def run() -> None:
        limits = GatewaySettings(drain=0.0, stream_window=2)  # who does not listen takes no turn
        async with running(limits) as (context, ports, _):
            client = Client(context, ports)
            for message in messages:
                await client.sender.send_multipart(message)
                await client.sender.send_multipart([b"me", *message[1:]])
            await client.ask(b'["abc"]', 987654321)
            while (await client.answer())[2] != 987654321:
                pass

    asyncio.run(run())
