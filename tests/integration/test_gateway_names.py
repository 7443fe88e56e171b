"""Replicas behind one name: found, lost and found again as the name's addresses change."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import grpc
import pytest
from gateway_fakes import FakeExecutor, append, eventually

from flowdex import wire
from flowdex.documents import DocumentBatch
from flowdex.errors import ConfigurationError
from flowdex_orchestrator.gateway.names import NameWatch, parse, resolve
from flowdex_orchestrator.gateway.replicas import ReplicaPool
from flowdex_orchestrator.gateway.server import Gateway
from flowdex_orchestrator.gateway.settings import ExecutorTarget


class Names:
    """A name server of one name."""

    def __init__(self, *addresses: str) -> None:
        self.addresses: Sequence[str] = addresses
        self.error: OSError | None = None
        self.asked = 0

    async def __call__(self, name: str, port: int) -> Sequence[str]:
        self.asked += 1
        assert (name, port) == ("encoder", 52000)
        if self.error is not None:
            raise self.error
        return self.addresses


@asynccontextmanager
async def replicas(count: int) -> AsyncIterator[list[FakeExecutor]]:
    started = [await FakeExecutor("encoder", {"/encode": append("!")}).start() for _ in range(count)]
    try:
        yield started
    finally:
        for each in started:
            await each.stop()


@asynccontextmanager
async def watched(names: Names, every: float = 0.05) -> AsyncIterator[ReplicaPool]:
    watches: list[NameWatch] = []

    def changed() -> None:
        for each in watches:
            each.look_again()

    pool = ReplicaPool("encoder", [], wait=2.0, on_change=changed)
    watches.append(NameWatch(pool, "dns:///encoder:52000", resolve=names, every=every))
    try:
        yield pool
    finally:
        await watches[0].close()
        await pool.close()


async def encode(pool: ReplicaPool, times: int) -> None:
    request = wire.build_request("/encode", DocumentBatch.from_columns(texts=["a"]))
    for reply in await asyncio.gather(*(pool.call(request, idempotent=True) for _ in range(times))):
        assert wire.documents_of(wire.read_reply(reply.data)).texts == ["a!"]


async def test_replicas_come_and_go_with_the_addresses_of_the_name() -> None:
    async with replicas(3) as servers:
        names = Names(servers[0].address)
        async with watched(names) as pool:
            await encode(pool, 4)
            names.addresses = [each.address for each in servers]
            await eventually(lambda: pool.ready_count == 3)
            await encode(pool, 60)
            assert [len(each.seen) >= 10 for each in servers] == [True] * 3
            names.addresses = [servers[2].address]
            await eventually(lambda: [each.address for each in pool.replicas] == [servers[2].address])
            before = [len(each.seen) for each in servers]
            await encode(pool, 10)
            assert [len(each.seen) for each in servers] == [before[0], before[1], before[2] + 10]


async def test_only_those_that_serve_take_calls() -> None:
    async with replicas(1) as servers:
        loading = await FakeExecutor("encoder", {"/encode": append("!")}).start(serving=False)
        async with watched(Names(servers[0].address, loading.address)) as pool:
            await eventually(lambda: len(pool.replicas) == 2)
            await encode(pool, 20)
            assert not loading.seen
            loading.health.set(True)
            await eventually(lambda: pool.ready_count == 2)
        await loading.stop()


async def test_a_name_server_that_fails_changes_nothing() -> None:
    async with replicas(2) as servers:
        names = Names(*(each.address for each in servers))
        async with watched(names) as pool:
            await eventually(lambda: pool.ready_count == 2)
            for error in (socket.gaierror(socket.EAI_AGAIN, "again"), socket.gaierror(socket.EAI_NONAME, "no name")):
                names.error, asked = error, names.asked
                await eventually(lambda asked=asked: names.asked > asked + 3)
                assert pool.ready_count == 2
            await servers[0].stop()  # there is no such name, and this one does not serve: it goes
            await eventually(lambda: [each.address for each in pool.replicas] == [servers[1].address])
            names.error = None
            await encode(pool, 3)


async def test_a_failure_is_a_reason_to_look_at_once() -> None:
    async with replicas(2) as servers:
        names = Names(servers[0].address)
        async with watched(names, every=60.0) as pool:
            await eventually(lambda: pool.ready_count == 1)
            names.addresses = [servers[1].address]
            began = time.monotonic()
            await servers[0].stop()
            await encode(pool, 1)
            assert time.monotonic() - began < 5
            assert len(servers[1].seen) == 1


async def test_a_gateway_resolves_names_of_the_system() -> None:
    async with replicas(1) as servers:
        target = ExecutorTarget("encoder", addresses=(f"dns:///localhost:{servers[0].port}",))
        async with Gateway([target]) as gateway:
            ports = await gateway.serve("127.0.0.1", grpc_port=0)
            await asyncio.wait_for(gateway.wait_ready(), 10)
            assert [each.address for each in gateway.pools["encoder"].replicas] == [servers[0].address]
            async with grpc.aio.insecure_channel(f"127.0.0.1:{ports['grpc']}") as channel:
                request = wire.build_request("/encode", DocumentBatch.from_columns(texts=["a"]))
                reply = await channel.unary_unary(wire.PROCESS_SINGLE_DATA)(request, timeout=10)
    assert wire.documents_of(wire.read_reply(reply)).texts == ["a!"]


async def test_of_two_families_the_first_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    def both(name: str, port: int, *rest: object, **more: object) -> list[tuple[object, ...]]:
        four = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (f"10.0.0.{last}", port)) for last in (2, 1, 1)]
        six = [(socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("fd00::1", port, 0, 0))]
        return [*six, *four] if name == "both" else six

    monkeypatch.setattr(socket, "getaddrinfo", both)
    assert await resolve("both", 52000) == ["10.0.0.1:52000", "10.0.0.2:52000"]
    assert await resolve("six", 52000) == ["[fd00::1]:52000"]


@pytest.mark.parametrize("target", ["dns:///encoder", "dns:///:1", "dns://8.8.8.8/encoder:1", "dns:///a:b", "a:1"])
def test_wrong_names(target: str) -> None:
    with pytest.raises(ConfigurationError, match="dns:///encoder:52000"):
        parse(target)
