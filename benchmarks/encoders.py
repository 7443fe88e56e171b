"""Encoders in a flow and by themselves: texts and tokens a second through the gateway, against the same in process.

    texts --requests, some in flight--> gateway -> executor process      served
                     `-----------------> encoder in this process         in process, with as many compute threads

    python benchmarks/encoders.py [--families minilm,glove] [--seconds 2] [--rounds 7] [--threads N]

Both are up at the same time and take turns, so that each round compares them under the same noise; the table gives
medians over the rounds, and ratios round by round. In process, the executor's own method is called with the same
requests, so that what is compared is the gateway, the worker and the network. The ratio of CPU time is that of what a
text costs the processes, the client left out: it holds where others use the machine too and the other ratio is noise.
The texts are those of ../shared/harness/workload.jsonl where that is there, else docstrings of this machine's standard
library; the queries are short texts, one at a time.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import statistics
import sys
import sysconfig
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import grpc.aio
import yaml
from encoder_models import CASES, Case
from load import CHANNEL_OPTIONS, cpu_seconds
from servers import HERE, Servers, free_ports

from flowdex import wire
from flowdex.documents import DocumentBatch
from flowdex.errors import FlowdexError

sys.path.insert(0, str(HERE.parent / "examples"))

from stdlib_docs import documents

WORKLOAD = HERE.parents[1] / "shared" / "harness" / "workload.jsonl"
IN_FLIGHT = 4
REQUEST = (32, 128)  # texts, least and most; the client's own are of up to 256
LEAST_REQUESTS = IN_FLIGHT + 2
TRIAL = 96  # texts, to find out how many take the wanted time
QUERIES = 25
QUERY_CHARACTERS = 60
READY_SECONDS = 120


class Numbers(NamedTuple):
    """What one way of running an encoder did in one round."""

    texts_a_second: float
    cpu_ms: float
    query_ms: float


Call = Callable[[Any], Awaitable[Any]]


async def measure(
    call: Call,
    requests: Sequence[Any],
    queries: Sequence[Any],
    texts: int,
    cpu: Callable[[], float] = time.process_time,
) -> Numbers:
    """Send all requests, `IN_FLIGHT` at a time, then the queries one by one; `cpu` gives the CPU seconds so far."""
    waiting = iter(requests)

    async def caller() -> None:
        for request in waiting:
            await call(request)

    used, start = cpu(), time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(IN_FLIGHT)))
    seconds = time.perf_counter() - start
    used = cpu() - used
    latencies = []
    for query in queries:
        begin = time.perf_counter()
        await call(query)
        latencies.append(time.perf_counter() - begin)
    return Numbers(texts / seconds, used * 1e3 / texts, statistics.median(latencies or [float("nan")]) * 1e3)


def batch_of(texts: Sequence[str]) -> DocumentBatch:
    return DocumentBatch.from_columns(texts=list(texts))


def start_served(servers: Servers, case: Case, options: dict[str, Any], folder: Path) -> int:
    """Start a gateway and the encoder; return the gateway's port."""
    port, encoder_port = free_ports(2)
    encoder = {
        "name": "encoder",
        "uses": f"flowdex_executors.{case.uses}",
        "port": encoder_port,
        "uses_with": options,
    }
    flow = {"jtype": "Flow", "with": {"protocol": ["grpc"], "port": [port]}, "executors": [encoder]}
    path = folder / "flow.yml"
    path.write_text(yaml.safe_dump(flow))
    servers.start(["-m", "flowdex", "executor", "encoder", "--flow", str(path), "--port", str(encoder_port)])
    servers.wait_for(encoder_port)
    servers.start(["-m", "flowdex", "gateway", "--flow", str(path)])
    servers.wait_for(port)
    return port


async def wait_until_ready(call: Call, request: bytes) -> None:
    """Call until there is an answer without an error."""
    deadline = time.monotonic() + READY_SECONDS
    while True:
        try:
            error: Exception | None = wire.error_of(wire.read_head(await call(request)).header)
        except (FlowdexError, grpc.aio.AioRpcError) as failure:
            error = failure
        if error is None:
            return
        if time.monotonic() > deadline:
            raise SystemExit(f"the encoder does not answer: {error}")
        await asyncio.sleep(0.5)


async def run_case(case: Case, texts: Sequence[str], queries: Sequence[str], settings: argparse.Namespace) -> str:
    """Measure one encoder; a row of the table."""
    import flowdex_executors
    from flowdex_executors import DocumentColumns

    with tempfile.TemporaryDirectory() as name, Servers() as servers:
        folder = Path(name)
        options = {**case.options(folder, texts), "threads": settings.threads}
        port = start_served(servers, case, options, folder)
        encoder = getattr(flowdex_executors, case.uses)(**options)
        encoder.warm_up()

        async def in_process(batch: Sequence[str]) -> None:
            await encoder.encode(docs=DocumentColumns(batch_of(batch)))

        trial = await measure(in_process, [texts[start : start + 8] for start in range(0, TRIAL, 8)], [], TRIAL)
        count = int(max(TRIAL, trial.texts_a_second * settings.seconds))
        size = min(max(count // (2 * IN_FLIGHT), REQUEST[0]), REQUEST[1])
        chosen = list(itertools.islice(itertools.cycle(texts), max(count // size, LEAST_REQUESTS) * size))
        requests = [chosen[start : start + size] for start in range(0, len(chosen), size)]
        tokens = sum(len(sequence) for sequence in encoder.tokenise(chosen)) / len(chosen)

        bodies = [wire.build_request("/encode", batch_of(batch)) for batch in requests]
        short = [wire.build_request("/encode", batch_of([query])) for query in queries]
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=CHANNEL_OPTIONS) as channel:
            served = channel.unary_unary(wire.PROCESS_SINGLE_DATA)
            await wait_until_ready(served, short[0])
            await measure(served, bodies[: 2 * IN_FLIGHT], [], 1)
            rounds = []
            alone = [[query] for query in queries]
            sides = [
                lambda: measure(in_process, requests, alone, len(chosen)),
                lambda: measure(served, bodies, short, len(chosen), lambda: cpu_seconds(servers.pids)),
            ]
            for number in range(settings.rounds):
                order = (0, 1) if number % 2 == 0 else (1, 0)  # a machine that gets busier must not favour one
                found = {side: await sides[side]() for side in order}
                rounds.append((found[0], found[1]))
            await wait_until_ready(served, bodies[-1])  # what was measured were answers
        dimensions = encoder.dimensions
        encoder.close()
    columns = list(zip(*rounds, strict=True))
    rates = [statistics.median(each.texts_a_second for each in side) for side in columns]
    latencies = [statistics.median(each.query_ms for each in side) for side in columns]
    cpu = statistics.median(a.cpu_ms / b.cpu_ms for a, b in rounds)
    ratio = statistics.median(b.texts_a_second / a.texts_a_second for a, b in rounds)
    return (
        f"| {case.family} | {case.variant} | {dimensions} | {rates[0]:,.0f} | {rates[1]:,.0f} | {ratio:.2f} "
        f"| {cpu:.2f} | {rates[1] * tokens:,.0f} | {latencies[0]:.1f} | {latencies[1]:.1f} |"
    )


def some_texts() -> tuple[list[str], list[str]]:
    """Texts of mixed lengths, and short queries."""
    if WORKLOAD.is_file():
        lines = [json.loads(line) for line in WORKLOAD.read_text(encoding="utf-8").splitlines()]
        texts = [line["text"] for line in lines]
        queries = [line["text"] for line in lines if line["kind"] == "query"]
    else:
        texts = [each["text"] for each in itertools.islice(documents(Path(sysconfig.get_path("stdlib"))), 4000)]
        queries = [text.splitlines()[0] for text in texts if len(text.splitlines()[0]) < QUERY_CHARACTERS]
    return texts, queries[:QUERIES]


def main() -> None:
    from flowdex_executors.encoder.base import available_cores

    families = list(dict.fromkeys(case.family for case in CASES))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", default=",".join(families), help="default: %(default)s")
    parser.add_argument("--variant", default="", help="only variants that contain this, such as a backend's name")
    parser.add_argument("--seconds", type=float, default=2, help="length of one measurement (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=7, help="how often the two take turns (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=available_cores(), help="compute threads (default: %(default)s)")
    settings = parser.parse_args()
    wanted = settings.families.split(",")
    if unknown := set(wanted) - set(families):
        parser.error(f"unknown families: {', '.join(sorted(unknown))}; choose from {', '.join(families)}")
    texts, queries = some_texts()
    print(f"{settings.threads} compute threads, medians of {settings.rounds} rounds:\n")
    print(
        "| family | variant | dimensions | texts/s in process | served | ratio | of CPU time | tokens/s served "
        "| query ms in process | served |"
    )
    print("|---|---|---:|---:|---:|---:|---:|---:|---:|---:|")
    for case in CASES:
        if case.family in wanted and settings.variant in case.variant:
            print(asyncio.run(run_case(case, texts, queries, settings)), flush=True)


if __name__ == "__main__":
    main()
