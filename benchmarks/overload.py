"""Five times more than an encoder can do, for minutes: what is answered, who waits how long, what a refusal costs.

    1. interactive requests alone      -> their latency on an idle service
    2. bulk requests, closed loop      -> the most that the service can do
    3. bulk requests, open loop at `--times` that rate, over gRPC and HTTP, and interactive ones beside them
                                       -> goodput, waits, refusals; memory each second

    python benchmarks/overload.py [--seconds 60] [--times 5] [--model] [--plot FILE.png]

The encoder is one whose device has a known speed (`timed_encoder.py`), so that it is the service that is measured and
not who else uses the cores; `--model` takes the model that `flow.yml` has. Goodput is measured by the clock, and as
texts for a second of CPU time of the executor: where this program shares the cores with a model, only the latter is
the service's own. No request is tried again.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import grpc.aio
import httpx
import numpy as np
from load import CHANNEL_OPTIONS, cpu_seconds
from process_watch import Sample, Watch, growth, plot, processes_of, series
from servers import HERE, Servers, free_ports

from flowdex import wire
from flowdex.documents import DocumentBatch

TEXTS = 16  # in a bulk request
TEXT = "The boundary layer on a flat plate in a supersonic stream is computed by the method of finite differences. " * 3
QUERY = "boundary layer of a flat plate"
CLOSED = 8  # requests in flight: fewer than `least_queue`, so that none is refused, and the encoder is never idle
INTERACTIVE_RATE = 10.0
HTTP_SHARE = 0.25


@dataclass
class Outcome:
    """What became of the requests of one phase.

    Attributes:
        seconds: How long it was.
        texts: Answered, of bulk requests.
        answered: Milliseconds of each bulk request that was answered.
        refused: Of each that was refused.
        interactive: Of each interactive request that was answered.
        failed: Anything else, by what it was.
        hints: Seconds after which refused callers were told to come back.
        executor_cpu: Seconds of CPU time.
        gateway_cpu: Seconds of CPU time.
    """

    seconds: float = 0.0
    texts: int = 0
    answered: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    interactive: list[float] = field(default_factory=list)
    failed: Counter[str] = field(default_factory=Counter)
    hints: list[float] = field(default_factory=list)
    executor_cpu: float = 0.0
    gateway_cpu: float = 0.0

    @property
    def rate(self) -> float:
        """Texts a second."""
        return self.texts / self.seconds

    @property
    def texts_a_cpu_second(self) -> float:
        """Texts for a second of the executor's CPU time."""
        return self.texts / self.executor_cpu


@dataclass(frozen=True)
class Result:
    """All phases of one run.

    Attributes:
        idle: Interactive requests alone.
        closed: The most that the service can do.
        overload: More than that.
        arrivals: Bulk requests a second in the overload.
        samples: Of the processes, during the overload.
    """

    idle: Outcome
    closed: Outcome
    overload: Outcome
    arrivals: float
    samples: Sequence[Sample]

    @property
    def goodput(self) -> float:
        """Of the overload, as a share of the most."""
        return self.overload.rate / self.closed.rate

    @property
    def goodput_by_cpu(self) -> float:
        """The same by texts for a second of the executor's CPU time."""
        return self.overload.texts_a_cpu_second / self.closed.texts_a_cpu_second

    @property
    def refusal_cpu_ms(self) -> float:
        """CPU milliseconds of the gateway for one refusal: what it used beyond its share for the answers."""
        an_answer = self.closed.gateway_cpu / len(self.closed.answered)
        beyond = self.overload.gateway_cpu - an_answer * (len(self.overload.answered) + len(self.overload.interactive))
        return 1000 * max(0.0, beyond) / max(1, len(self.overload.refused))


class Caller:
    """Sends requests over both protocols and notes what becomes of them."""

    def __init__(self, channel: grpc.aio.Channel, http: httpx.AsyncClient) -> None:
        self._call = channel.unary_unary(wire.PROCESS_SINGLE_DATA)
        self._http = http
        self._bulk = wire.build_request("/encode", DocumentBatch.from_columns(texts=[TEXT] * TEXTS))
        self._query = wire.build_request("/encode", DocumentBatch.from_columns(texts=[QUERY]))
        self.outcome = Outcome()

    async def bulk(self) -> bool:
        """One bulk request; whether it was answered."""
        started = time.perf_counter()
        hint = await (self._over_http() if random.random() < HTTP_SHARE else self._over_grpc(self._bulk))  # nosec B311 # the same load every time
        took, outcome = 1000 * (time.perf_counter() - started), self.outcome  # of the phase in which it ends
        if isinstance(hint, str):
            outcome.failed[hint] += 1
        elif hint is not None:
            outcome.refused.append(took)
            outcome.hints.append(hint)
        else:
            outcome.answered.append(took)
            outcome.texts += TEXTS
            return True
        return False

    async def interactive(self) -> None:
        """One interactive request."""
        started = time.perf_counter()
        hint = await self._over_grpc(self._query)
        outcome = self.outcome
        if hint is None:
            outcome.interactive.append(1000 * (time.perf_counter() - started))
        else:
            outcome.failed[f"interactive: {hint}"] += 1

    async def _over_grpc(self, request: bytes) -> float | str | None:
        """None for an answer, seconds for a refusal, a name for anything else."""
        try:
            error = wire.error_of(wire.read_head(await self._call(request, timeout=120)).header)
            return None if error is None else error.name
        except grpc.aio.AioRpcError as error:
            hints = [value for key, value in error.trailing_metadata() or () if key == "retry-after-ms"]
            if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED and hints:
                return float(hints[0]) / 1000
            return f"gRPC {error.code().name}"

    async def _over_http(self) -> float | str | None:
        reply = await self._http.post("/encode", json={"texts": [TEXT] * TEXTS}, timeout=120)
        if reply.status_code == 200:
            return None
        hint = reply.headers.get("retry-after")
        return float(hint) if reply.status_code == 429 and hint else f"HTTP {reply.status_code}"


async def in_open_loop(work: Sequence[tuple[float, object]], seconds: float) -> None:
    """Begin calls at random moments, `rate` a second of each kind, whatever becomes of them; return when all ended."""
    tasks: set[asyncio.Task[object]] = set()
    end = time.perf_counter() + seconds

    async def begin(rate: float, make: object) -> None:
        due = time.perf_counter()
        while True:
            due += random.expovariate(rate)
            if due > end:
                return
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            task: asyncio.Task[object] = asyncio.ensure_future(make())  # type: ignore[operator]
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    await asyncio.gather(*(begin(rate, make) for rate, make in work))
    for task in list(tasks):  # what is in flight at the end is nobody's
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def in_closed_loop(caller: Caller, seconds: float) -> None:
    """Keep `CLOSED` bulk requests in flight."""
    end = time.perf_counter() + seconds

    async def one() -> None:
        while time.perf_counter() < end:
            await caller.bulk()

    tasks = [asyncio.ensure_future(one()) for _ in range(CLOSED)]
    await asyncio.sleep(seconds)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def measure(
    ports: tuple[int, int],
    pids: dict[str, int],
    *,
    seconds: float,
    closed_seconds: float,
    times: float,
    filling: float,
) -> Result:
    """Run the phases.

    Args:
        ports: Of gRPC and HTTP.
        pids: Of `encoder` and `gateway`.
        seconds: Of the overload, after its queue has filled.
        closed_seconds: Of the closed loop.
        times: The overload, as a multiple of the most.
        filling: Seconds before the overload is measured.
    """
    async with (
        grpc.aio.insecure_channel(f"127.0.0.1:{ports[0]}", options=CHANNEL_OPTIONS) as channel,
        httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{ports[1]}", trust_env=False, limits=httpx.Limits(max_connections=256)
        ) as http,
    ):
        caller = Caller(channel, http)

        async def phase(work: object, length: float) -> Outcome:
            outcome = caller.outcome = Outcome()
            cpu = {name: cpu_seconds([pid]) for name, pid in pids.items()}
            started = time.perf_counter()
            await asyncio.sleep(length) if work is None else await work  # type: ignore[misc]
            outcome.seconds = time.perf_counter() - started
            caller.outcome = Outcome()  # of what ends between phases
            outcome.executor_cpu = cpu_seconds([pids["encoder"]]) - cpu["encoder"]
            outcome.gateway_cpu = cpu_seconds([pids["gateway"]]) - cpu["gateway"]
            return outcome

        while (await http.get("/health/ready")).status_code != 200:  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.2)
        await in_closed_loop(caller, 1.0)
        idle = await phase(in_open_loop([(INTERACTIVE_RATE, caller.interactive)], closed_seconds / 2), 0)
        closed = await phase(in_closed_loop(caller, closed_seconds), 0)
        arrivals = times * closed.rate / TEXTS
        work = [(arrivals, caller.bulk), (INTERACTIVE_RATE, caller.interactive)]
        load = asyncio.ensure_future(in_open_loop(work, filling + seconds))
        await asyncio.sleep(filling)
        async with Watch(pids) as watch:
            overload = await phase(None, seconds)
        await load
    return Result(idle, closed, overload, arrivals, watch.samples)


def start(
    servers: Servers, folder: Path, *, longest_wait: float, model: bool
) -> tuple[tuple[int, int], dict[str, int]]:
    """Start an encoder and a gateway; their ports (gRPC, HTTP) and process ids."""
    grpc_port, http_port, encoder_port = free_ports(3)
    uses = "flowdex_executors.BertEncoder" if model else f"TimedEncoder\n    py_modules: [{HERE / 'timed_encoder.py'}]"
    flow = folder / "flow.yml"
    flow.write_text(
        f"jtype: Flow\nwith: {{protocol: [grpc, http], port: [{grpc_port}, {http_port}]}}\n"
        f"gateway:\n  uses_with: {{longest_wait: {longest_wait}}}\n"
        f"executors:\n  - name: encoder\n    port: {encoder_port}\n    uses: {uses}\n"
    )
    encoder = servers.start(["-m", "flowdex", "executor", "encoder", "--flow", str(flow), "--port", str(encoder_port)])
    servers.wait_for(encoder_port)
    gateway = servers.start(["-m", "flowdex", "gateway", "--flow", str(flow)])
    servers.wait_for(grpc_port, http_port)
    return (grpc_port, http_port), {"encoder": encoder.pid, "gateway": gateway.pid}


def report(result: Result, longest_wait: float) -> None:
    """Print what was measured."""
    idle, closed, over = result.idle, result.closed, result.overload
    arrived = len(over.answered) + len(over.refused)
    print("| | texts/s | of the most | of the most, by CPU time | bulk p50, p99 ms | interactive p50, p99 ms |")
    print("|---|---:|---:|---:|---:|---:|")
    print(f"| interactive alone | | | | | {_latency(idle.interactive)} |")
    print(f"| closed loop, {CLOSED} in flight | {closed.rate:.0f} | 1 | 1 | {_latency(closed.answered)} | |")
    print(
        f"| {result.arrivals:.0f} requests/s offered | {over.rate:.0f} | {result.goodput:.2f} "
        f"| {result.goodput_by_cpu:.2f} | {_latency(over.answered)} | {_latency(over.interactive)} |"
    )
    print(
        f"\nOf {arrived} bulk requests in {over.seconds:.0f} s, {len(over.refused)} were refused, in "
        f"{_latency(over.refused)} ms (p50, p99), told to come back after {np.median(over.hints or [0]):.1f} s; "
        f"a refusal costs {result.refusal_cpu_ms:.2f} ms of the gateway's CPU. longest_wait is {longest_wait:g} s. "
        f"Other failures: {dict(over.failed) or 'none'}."
    )
    print("\n| process | RSS after the queue had filled | at the end | trend |\n|---|---:|---:|---:|")
    for process in processes_of(result.samples):
        first, last, grown = growth(*series(result.samples, process, "rss"), warm_up=0)
        print(f"| {process} | {first:.0f} MiB | {last:.0f} MiB | {grown:+.1f} MiB |")


def _latency(values: Sequence[float]) -> str:
    return f"{np.percentile(values, 50):.0f}, {np.percentile(values, 99):.0f}" if values else "-"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60, help="of overload (default: %(default)s)")
    parser.add_argument("--times", type=float, default=5, help="how much too much (default: %(default)s)")
    parser.add_argument("--longest-wait", type=float, default=10, help="the flow's setting (default: %(default)s)")
    parser.add_argument("--model", action="store_true", help="encode with the default model")
    parser.add_argument("--plot", type=Path, help="draw the processes' memory to this file")
    settings = parser.parse_args()
    with Servers() as servers, tempfile.TemporaryDirectory(prefix="benchmark-overload-") as folder:
        ports, pids = start(servers, Path(folder), longest_wait=settings.longest_wait, model=settings.model)
        result = asyncio.run(
            measure(
                ports,
                pids,
                seconds=settings.seconds,
                closed_seconds=min(20.0, max(5.0, settings.seconds / 3)),
                times=settings.times,
                filling=1.5 * settings.longest_wait,
            )
        )
    report(result, settings.longest_wait)
    if settings.plot:
        plot(result.samples, settings.plot, f"{settings.times:g} times too much for {settings.seconds:g} s")


if __name__ == "__main__":
    main()
