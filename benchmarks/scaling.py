"""What replicas bring, and what it costs to change their number under load.

    an encoder that waits 20 ms a batch (fixed_cost_executor.py) <-- gateway <-- load
    1, 2, 4, 8 replicas by `flowdex scale`: requests/s; one call of 4,096 texts; p99 while scaling up and down

``python benchmarks/scaling.py`` prints the tables of docs/benchmarks.md. The encoder does not compute, so that a
machine of few cores shows what gateway, runner and balancing do, and not how many cores it has.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import grpc.aio
import numpy as np
from load import CHANNEL_OPTIONS, drive

from flowdex import wire
from flowdex.documents import DocumentBatch
from flowdex_orchestrator.runner.ports import free_ports

HERE = Path(__file__).parent
IN_FLIGHT = 4  # requests for each replica
FLOW = """\
jtype: Flow
with: {{port: [{port}], protocol: [grpc]}}
executors:
  - {{name: encoder, uses: fixed_cost_executor.FixedCostEncoder, py_modules: [{module}]}}
"""


class RunningFlow:
    """The flow, and the commands typed to change it."""

    def __init__(self, folder: Path) -> None:
        (port,) = free_ports(1)
        self.target = f"127.0.0.1:{port}"
        self._file = folder / "flow.yml"
        self._file.write_text(FLOW.format(port=port, module=HERE / "fixed_cost_executor.py"))
        self.flowdex("up", str(self._file), "--detach", "--no-check")

    def flowdex(self, *arguments: str) -> str:
        """Type a command; ends the program when it fails."""
        command = [sys.executable, "-m", "flowdex", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        if done.returncode:
            raise SystemExit(f"{' '.join(arguments)}: {done.stderr}")
        return done.stdout

    def scale(self, replicas: int) -> None:
        """Change the number of replicas."""
        self.flowdex("scale", f"encoder={replicas}", "--flow", str(self._file))

    def pids(self) -> list[int]:
        """Processes of the flow."""
        return [row["pid"] for row in json.loads(self.flowdex("ps", str(self._file), "--json"))["processes"]]

    def down(self) -> None:
        """Stop it."""
        self.flowdex("down", str(self._file))


def request_of(count: int) -> bytes:
    return wire.build_request("/encode", DocumentBatch.from_columns(texts=["a sentence as long as most"] * count))


async def throughput(flow: RunningFlow, replicas: Sequence[int], seconds: float) -> None:
    print("| replicas | requests/s | of linear | p50 ms | p99 ms | one call of 4,096 texts, s | parts |")
    print("|---|---|---|---|---|---|---|")
    first = 0.0
    small = request_of(1)
    for count in replicas:
        await asyncio.to_thread(flow.scale, count)
        await asyncio.sleep(1)
        load = await drive(
            flow.target, wire.PROCESS_SINGLE_DATA, small, in_flight=IN_FLIGHT * count, seconds=seconds, pids=flow.pids()
        )
        first = first or load.rate / count
        took, parts = await large_call(flow)
        print(
            f"| {count} | {load.rate:.0f} | {load.rate / (first * count):.2f} | {load.percentile(50):.1f} "
            f"| {load.percentile(99):.1f} | {took:.2f} | {parts} |",
            flush=True,
        )


async def large_call(flow: RunningFlow) -> tuple[float, int]:
    """Seconds of one call of 4,096 texts (the best of three), and into how many parts it was divided."""
    request, best, parts = request_of(4096), float("inf"), 0
    async with grpc.aio.insecure_channel(flow.target, options=CHANNEL_OPTIONS) as channel:
        call = channel.unary_unary(wire.PROCESS_SINGLE_DATA)
        for _ in range(3):
            began = time.perf_counter()
            reply = await call(request, timeout=60)
            best = min(best, time.perf_counter() - began)
            parts = sum(route.executor == "encoder" for route in wire.read_reply(reply).routes)
    return best, parts


async def while_scaling(flow: RunningFlow, rate: float, seconds: float) -> None:
    """Constant load, first on two replicas that stay, then while they become four, one, three and two."""
    await asyncio.to_thread(flow.scale, 2)
    async with SteadyLoad(flow.target, rate) as load:
        await asyncio.sleep(seconds)
        steady = load.take()
        for count in (4, 1, 3, 2):
            await asyncio.to_thread(flow.scale, count)
            await asyncio.sleep(1)
        changing = load.take()
    print(f"\n{rate:g} requests/s all the time:\n\n| | requests | errors | p50 ms | p99 ms |\n|---|---|---|---|---|")
    for name, (latencies, errors) in (("two replicas", steady), ("4, 1, 3, 2 replicas", changing)):
        p50, p99 = np.percentile(latencies, [50, 99])
        print(f"| {name} | {len(latencies)} | {errors} | {p50:.1f} | {p99:.1f} |")
    print(f"\np99 while scaling: {np.percentile(changing[0], 99) / np.percentile(steady[0], 99):.2f} of the steady one")


class SteadyLoad:
    """Calls at a constant rate, whatever the answers take; nothing is retried."""

    def __init__(self, target: str, rate: float) -> None:
        self._target, self._pause = target, 1 / rate
        self._latencies: list[float] = []
        self._errors = 0

    def take(self) -> tuple[np.ndarray, int]:
        """Latencies in ms and errors since the last time."""
        taken = np.asarray(self._latencies), self._errors
        self._latencies, self._errors = [], 0
        return taken

    async def __aenter__(self) -> SteadyLoad:
        self._channel = grpc.aio.insecure_channel(self._target, options=[*CHANNEL_OPTIONS, ("grpc.enable_retries", 0)])
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self._channel.close()

    async def _run(self) -> None:
        call, request, calls = self._channel.unary_unary(wire.PROCESS_SINGLE_DATA), request_of(1), set()
        due = time.perf_counter()
        while True:
            due += self._pause
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            task = asyncio.create_task(self._one(call, request, due))  # from when it was due: waiting counts
            calls.add(task)
            task.add_done_callback(calls.discard)

    async def _one(self, call, request: bytes, due: float) -> None:
        try:
            reply = await call(request, timeout=30)
            if wire.error_of(wire.read_head(reply).header) is not None:
                raise AssertionError("an error in the reply")
            self._latencies.append(1e3 * (time.perf_counter() - due))
        except Exception as error:
            print(f"error: {error!r}", file=sys.stderr)
            self._errors += 1


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--replicas", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement")
    parser.add_argument("--rate", type=float, default=20.0, help="requests/s while scaling")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        flow = RunningFlow(Path(folder))
        try:
            await throughput(flow, options.replicas, options.seconds)
            await while_scaling(flow, options.rate, options.seconds)
        finally:
            flow.down()


if __name__ == "__main__":
    asyncio.run(main())
