"""A Qdrant server that goes away and comes back: the double of the tests, as a process."""

from __future__ import annotations

import asyncio
import sys
import time
from asyncio.subprocess import PIPE, Process
from pathlib import Path

from flow_support import ROOT, free_ports

from chaos.faults import Row, Setting, fault
from chaos.flow import ChaosFlow, flow_yaml
from chaos.load import Load

AWAY_SECONDS = 3.0


async def qdrant(directory: Path, port: int) -> Process:
    """Start it, and wait until it serves."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(ROOT / "tests" / "qdrant_double.py"), str(directory), str(port), "grpc", stdout=PIPE
    )
    assert process.stdout is not None
    assert await process.stdout.readline(), "the double does not start"
    return process


async def end(process: Process) -> None:
    """Kill it."""
    process.kill()
    await process.wait()


@fault("qdrant", most=10)
async def away(setting: Setting) -> list[Row]:
    """Qdrant is killed and started again."""
    row = Row(f"Qdrant killed, and back after {AWAY_SECONDS:g} s", setting.rounds)
    (port,) = free_ports(1)
    server = await qdrant(setting.folder / "server", port)
    try:
        text = flow_yaml(index=f"grpc://127.0.0.1:{port}")
        async with ChaosFlow.started(setting.folder / "flow", text) as flow:
            load = Load(flow, row.tally)
            async with load.running():
                for _ in range(setting.rounds):
                    await asyncio.sleep(1)
                    await end(server)
                    await asyncio.sleep(AWAY_SECONDS)
                    server = await qdrant(setting.folder / "server", port)
                    await load.recovered(time.monotonic())
            await load.verify()
    finally:
        await end(server)
    row.note = "the time is that from when it is back"
    return [row]
