"""The flow that is harmed: every process real, started by the runner, with an encoder whose vectors are known.

async with ChaosFlow.started(folder, replicas=2) as flow:
    flow.pids("encoder")          [4711, 4712]
    flow.kill("encoder", chance)  one of them
    await flow.until_ready()
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import numpy as np
from flow_support import ROOT, RunningFlow, run_flowdex, start_flow

from flowdex_orchestrator.runner.state import FlowState, ProcessState, RunFolder, State, Status

__all__ = ["ENCODER", "ChaosFlow", "flow_yaml", "known_vectors"]

BUCKETS = 256
ENCODER = f"""\
  - name: encoder
    uses: NgramEncoder
    py_modules: [{ROOT}/examples/encoder/ngram_encoder.py]
    replicas: 2
    uses_with: {{buckets: {BUCKETS}}}
"""
MINILM = """\
  - name: encoder
    uses: flowdex_executors.BertEncoder
    replicas: 2
    uses_with: {threads: 1}
"""


def flow_yaml(
    *,
    encoder: str = ENCODER,
    index: str = "edge://.flowdex/index",
    gateway: str = "",
    common: str = "",
    encoder_more: str = "",
    indexer_more: str = "",
) -> str:
    """A flow file: the default flow with two replicas of an encoder.

    Args:
        encoder: Its section.
        index: URI of the index.
        gateway: Further lines of `gateway:`, indented.
        common: Further lines of `with:`, indented.
        encoder_more: Further lines of the encoder, indented.
        indexer_more: Further arguments of the indexer, such as ", retry_for: 1".
    """
    return f"""\
jtype: Flow
with:
  protocol: [grpc, http]
  port: [51000, 8080]
{common}gateway:
  uses: flowdex_orchestrator.jina_gateway.FlowdexGateway
{gateway}executors:
  - name: segmenter
    uses: flowdex_executors.Segmenter
{encoder}{encoder_more}  - name: indexer
    uses: flowdex_executors.QdrantIndexer
    uses_with: {{uri: "{index}"{indexer_more}}}
  - name: ranker
    uses: flowdex_executors.Ranker
"""


def known_vectors(texts: Sequence[str]) -> np.ndarray:
    """What the encoder must answer, computed here: (texts, BUCKETS), float32, of length 1."""
    sys.path.insert(0, str(ROOT / "examples" / "encoder"))
    try:
        from ngram_encoder import NgramEncoder
    finally:
        sys.path.pop(0)
    rows: np.ndarray = NgramEncoder(buckets=BUCKETS).encode_batch(list(texts))
    found: np.ndarray = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return found


class ChaosFlow:
    """A flow that runs, and the processes in it.

    Args:
        running: As `start_flow` started it.
    """

    def __init__(self, running: RunningFlow) -> None:
        self.running = running
        self._folder = RunFolder(running.flow_file, running.folder)

    @classmethod
    @asynccontextmanager
    async def started(cls, folder: Path, text: str | None = None, *arguments: str) -> AsyncIterator[ChaosFlow]:
        """Start a flow in a folder, and stop it in the end."""
        await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
        running = await asyncio.to_thread(start_flow, folder, text or flow_yaml(), "--no-check", *arguments)
        flow = cls(running)
        try:
            yield flow
        finally:
            for pid in flow.pids():  # what is stopped hears nothing
                _signal(pid, signal.SIGCONT)
            await asyncio.to_thread(run_flowdex, "down", str(running.flow_file))
            assert not flow.state().survivors(), "the flow has left processes behind"
            assert not (left := started_with(folder)), f"the flow has left processes behind: {left}"

    def state(self) -> FlowState:
        """What the runner says of its processes."""
        state = self._folder.read()
        assert state is not None
        return state

    def token(self) -> str:
        """Of its runner and gateway."""
        return self._folder.read_token()

    def processes(self, name: str | None = None) -> list[ProcessState]:
        """Those of one executor (or "gateway"), or all."""
        return [each for each in self.state().processes if name in (None, each.name)]

    def pids(self, name: str | None = None) -> list[int]:
        """Ids of the processes that run."""
        if name == "runner":
            return [self.state().runner.pid]
        return [each.process.pid for each in self.processes(name) if each.process is not None and each.process.alive]

    def kill(self, name: str, chance: random.Random, number: int = signal.SIGKILL) -> int:
        """Send a signal to one process of that name; its id."""
        pid = chance.choice(self.pids(name))
        _signal(pid, number)
        return pid

    async def until(self, condition: Callable[[FlowState], object], seconds: float = 90.0) -> None:
        """Wait until the state is such.

        Raises:
            AssertionError: It did not come about in time.
        """
        end = time.monotonic() + seconds
        while not condition(self.state()):
            assert time.monotonic() < end, f"not within {seconds:g} s: {self.state()}"
            await asyncio.sleep(0.05)

    async def until_replaced(self, gone: int, seconds: float = 90.0) -> None:
        """Wait until the flow is ready without that process."""

        def replaced(state: FlowState) -> bool:
            pids = [each.process.pid for each in state.processes if each.process is not None]
            ready = all(each.state is State.READY for each in state.processes)
            return gone not in pids and ready and state.status is Status.READY

        await self.until(replaced, seconds)

    async def up_again(self) -> None:
        """Start it again, as a service manager does whose runner has died."""
        end = time.monotonic() + 60
        while True:
            done = await asyncio.to_thread(run_flowdex, "up", str(self.running.flow_file), "--detach", "--no-check")
            if done.returncode == 0:
                return
            assert time.monotonic() < end, done.stderr
            await asyncio.sleep(0.2)


def started_with(folder: Path) -> list[str]:
    """The command lines of processes that name the folder: those of the runner, and the index's engines below them."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it has ended
            command = file.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if str(folder) in command:
                found.append(f"{file.parent.name}: {command}")
    return found


def _signal(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)
