"""Replicas that serve, but not what they are asked for: registered in the gateway by address, beside two sound ones."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from chaos.faults import Row, Setting, fault
from chaos.flow import ChaosFlow, flow_yaml
from chaos.load import Load
from flowdex import wire
from flowdex.documents import DocumentBatch
from flowdex.proto import flowdex_pb2 as pb
from flowdex_orchestrator.control import ask
from flowdex_orchestrator.health import HealthService
from flowdex_orchestrator.traits import Traits

LARGEST = 4 * 2**20  # bytes that the gateway takes
TIMEOUT = 2.0  # seconds for a call of an executor
LOAD_SECONDS = 5.0


async def garbage(request: bytes, chance: random.Random) -> bytes:
    """Bytes of no meaning."""
    return chance.randbytes(chance.randrange(1, 2000))


async def cut_off(request: bytes, chance: random.Random) -> bytes:
    """The request itself, without its end."""
    return request[: chance.randrange(1, len(request))]


async def anothers(request: bytes, chance: random.Random) -> bytes:
    """An answer to something else."""
    return wire.build_request("/encode", DocumentBatch.from_columns(texts=["a", "b", "c"]))


async def oversized(request: bytes, chance: random.Random) -> bytes:
    """Far more than anyone asked for."""
    return wire.build_request("/encode", DocumentBatch.from_columns(texts=["x" * (4 * LARGEST)]))


async def late(request: bytes, chance: random.Random) -> bytes:
    """Nothing, until nobody waits any more."""
    await asyncio.sleep(60)
    return b""


KINDS = (garbage, cut_off, anothers, oversized, late)


@asynccontextmanager
async def bad_replica(answer: Any, chance: random.Random) -> AsyncIterator[str]:
    """A server that looks like an encoder, on a free port; gives its address."""
    health = HealthService()

    async def process(request: bytes, context: Any) -> bytes:
        found: bytes = await answer(request, chance)
        return found

    async def endpoints(request: bytes, context: Any) -> bytes:
        context.set_trailing_metadata(Traits(splittable=frozenset({"/encode"})).metadata())
        return pb.EndpointsProto(endpoints=["/encode", "/index", "/search"]).SerializeToString()

    methods = {wire.PROCESS_SINGLE_DATA: process, wire.ENDPOINT_DISCOVERY: endpoints}
    server = grpc.aio.server(options=(("grpc.max_send_message_length", -1),))
    for path, method in methods.items():
        service, name = path.strip("/").split("/")
        handlers: dict[str, Any] = {name: grpc.unary_unary_rpc_method_handler(method)}
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service, handlers)])
    server.add_generic_rpc_handlers([health.handler()])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    health.set(True)
    try:
        yield f"127.0.0.1:{port}"
    finally:
        health.close()
        await server.stop(None)


async def set_encoders(flow: ChaosFlow, extra: tuple[str, ...]) -> None:
    """Make these, beside its own, the gateway's replicas of the encoder."""
    (pid,) = flow.pids("gateway")
    command = await asyncio.to_thread(Path(f"/proc/{pid}/cmdline").read_text)
    arguments = command.split("\0")
    control = f"127.0.0.1:{arguments[arguments.index('--control-port') + 1]}"
    own = [f"{each.host}:{each.port}" for each in flow.processes("encoder")]
    body = {"revision": int(time.monotonic() * 1000), "addresses": {"encoder": [*own, *extra]}, "drain": 0.0}
    await ask(control, flow.token(), "set_addresses", body, timeout=30)


@fault("replica", most=10)
async def replica(setting: Setting) -> list[Row]:
    """A third replica of the encoder that answers nonsense, too much, or too late."""
    rows = [Row(f"a replica answers: {kind.__doc__}", setting.rounds) for kind in KINDS]
    chance = random.Random(10 + 100 * setting.seed)
    text = flow_yaml(
        encoder_more=f"    timeout_send: {TIMEOUT * 1000:.0f}\n",
        gateway=f"  uses_with: {{max_reply_bytes: {LARGEST}}}\n",
    )
    async with ChaosFlow.started(setting.folder, text) as flow:
        load = Load(flow, rows[0].tally, clients=4)
        async with load.running():
            for row, kind in zip(rows, KINDS, strict=True):
                load.tally = row.tally
                for _ in range(setting.rounds):
                    async with bad_replica(kind, chance) as address:
                        fault = time.monotonic()
                        await set_encoders(flow, (address,))
                        await asyncio.sleep(LOAD_SECONDS)
                        await set_encoders(flow, ())
                    row.tally.recoveries.append(max(0.0, load.failed_at - fault))
                    await load.all_well(time.monotonic())
                row.note = "the time is that until the last request that failed"
        for row in rows:
            load.tally = row.tally
            await load.verify()
    return rows
