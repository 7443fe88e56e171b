"""A flow whose executors are light servers (scaling_fake.py), and callers that miss no error, for tests under load."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
from runner_support import Folder

from flowdex import wire
from flowdex.documents import DocumentBatch
from flowdex_orchestrator.runner.ports import free_ports

PROGRAM = Path(__file__).with_name("scaling_fake.py")
FLOW = """\
jtype: Flow
with: {{port: {ports}, protocol: {protocols}}}
executors:
  - {{name: encoder, uses: x.Y{more}}}
  - {{name: other, uses: x.Y, needs: gateway, floating: true}}
"""


class ScalableFolder(Folder):
    port = 0

    def up_with(self, more: str = "", *arguments: str, protocols: str = "[grpc]") -> None:
        ports = free_ports(1 + protocols.count(","))
        self.port = ports[0]
        (self.path / "flow.yml").write_text(FLOW.format(ports=ports, protocols=protocols, more=more))
        up = self.up("--detach", *arguments)
        assert up.returncode == 0, up.stderr

    def pids(self, name: str = "encoder") -> list[int]:
        return [each.process.pid for each in self.state().processes if each.name == name and each.process]


class Load:
    """Callers that call again and again; every error counts, and nothing is retried."""

    def __init__(self) -> None:
        self.answered: Counter[int] = Counter()
        self.marks: Counter[str] = Counter()
        self.errors: list[str] = []

    async def served_by(self, *pids: int, seconds: float = 10.0) -> None:
        """Wait until these and no others answer."""
        end = time.monotonic() + seconds
        while True:
            self.answered.clear()
            await asyncio.sleep(0.4)
            if set(self.answered) == set(pids):
                return
            assert time.monotonic() < end, f"{dict(self.answered)} answer, not {pids}"


@asynccontextmanager
async def load(port: int, callers: int = 8) -> AsyncIterator[Load]:
    found, stop = Load(), asyncio.Event()
    request = wire.build_request("/encode", DocumentBatch.from_columns(texts=["a"]))
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.enable_retries", 0)]) as channel:
        call = channel.unary_unary(wire.PROCESS_SINGLE_DATA)

        async def caller() -> None:
            while not stop.is_set():
                try:
                    reply = wire.read_reply(await call(request, timeout=20))
                    _, pid, mark = str(wire.documents_of(reply).texts[0]).split(" ")
                    found.answered[int(pid)] += 1
                    found.marks[mark] += 1
                except Exception as error:
                    found.errors.append(repr(error))

        tasks = [asyncio.create_task(caller()) for _ in range(callers)]
        try:
            yield found
        finally:
            stop.set()
            await asyncio.gather(*tasks)
    assert not found.errors


async def typed(folder: Folder, *arguments: str) -> str:
    """Type a command while the load goes on; returns what it printed."""
    done = await asyncio.to_thread(folder.run, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout
