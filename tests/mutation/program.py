"""The run: lanes side by side, a number for each request, outcomes counted, faults written down."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from random import Random
from typing import Any

import grpc.aio
import zmq.asyncio

from flowdex.timeouts import within
from mutation.surfaces import DEADLINE, ExchangeLane, HttpLane, JinaLane, Lane, MessageLane, ZeroMqLane, delete_all
from mutation.watch import Watch

__all__ = ["Result", "run"]

_LANES = {"http": 16, "grpc": 12, "websocket": 4, "zeromq": 4, "worker": 4, "exchange": 2}
_FAULTS = 50  # of which the run ends
_EMPTY_EVERY = 500  # batches
_LOOK_EVERY = 10.0  # seconds
# What may not be the answer to a request that is wrong: our own failure, or none.
_OURS = (
    "500",
    "501",
    "502",
    "503",
    "InternalError",
    "ExecutorError",
    "UNKNOWN",
    "INTERNAL",
    "Unavailable",
    "UNAVAILABLE",
    "code 2",
    "code 13",
    "code 14",
)
_GROWTH = 1.5  # times its memory, and 100 MiB more: a process that grows
_LOOKS = 10  # at least, over the run: the one that growth is counted from must see warm processes


@dataclass
class Result:
    """What became of the requests.

    Attributes:
        seed: With the number of a batch, what makes it.
        batches: How many batches of requests; with the seed and a lane's name, the number of one makes it again.
        requests: How many requests were sent and answered.
        seconds: That it took.
        slowest: Seconds of the slowest request, and which one it was.
        outcomes: How often each, by surface.
        faults: What must not be: surface, number, outcome.
        memory: MiB of each process, early and at the end.
    """

    seed: int
    batches: int = 0
    requests: int = 0
    seconds: float = 0.0
    slowest: tuple[float, str] = (0.0, "")
    outcomes: dict[str, Counter[str]] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    memory: dict[str, tuple[float, float]] = field(default_factory=dict)

    def count(self, surface: str, outcome: str) -> None:
        """Count an outcome."""
        self.outcomes.setdefault(surface, Counter())[outcome] += 1

    def save(self, path: Path) -> None:
        """Write it down, to be gone on with."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}  # asdict() makes pairs of a Counter
        path.write_text(json.dumps(values, indent=1))

    @classmethod
    def load(cls, path: Path) -> Result:
        """Read what `save` wrote."""
        values: dict[str, Any] = json.loads(path.read_text())
        values["slowest"] = tuple(values["slowest"])
        values["outcomes"] = {name: Counter(each) for name, each in values["outcomes"].items()}
        return cls(**values)


def is_fault(outcome: str) -> bool:
    """Whether a client's mistake may not be answered so."""
    if outcome.startswith("closed with") and outcome not in ("closed with 1007", "closed with 1000"):
        return True
    return (
        outcome in _OURS
        or outcome.startswith("no ")
        or any(each in outcome for each in ("without an answer", " replies to "))
    )


async def run(
    flow_file: Path, result: Result, *, requests: int, seconds: float, only: Sequence[str] = (), quiet: bool = False
) -> Result:
    """Send requests until there were enough, or the time is over.

    Args:
        flow_file: Of a flow that runs, with the protocols grpc, http and bert.
        result: Added to; its number of batches is where the numbers go on.
        requests: All in all.
        seconds: Time limit.
        only: Surfaces; all if empty.
        quiet: Whether to print nothing.
    """
    grpc.aio.init_grpc_aio()  # for ever: at the last channel's end this loop would wait for a thread that waits for it
    watch = Watch(flow_file)
    result.faults += watch.look()
    state = watch.state()
    ports = {name: int(url.rpartition(":")[2].partition("/")[0]) for name, url in state["endpoints"].items()}
    workers = [f"127.0.0.1:{row['port']}" for row in state["processes"] if row["name"] != "gateway"]
    context = zmq.asyncio.Context()
    lanes = [lane for lane in _lanes(ports, workers, context) if not only or lane.name in only]
    began, spent = time.monotonic(), result.seconds
    numbers = itertools.count(result.batches)
    gateway = f"127.0.0.1:{ports['grpc']}"

    def over() -> bool:
        late = time.monotonic() - began > seconds
        return late or result.requests >= requests or len(result.faults) >= _FAULTS

    async def drive(lane: Lane) -> None:
        while not over():
            number = next(numbers)
            batch = lane.make(Random(f"{result.seed} {lane.name} {number}"))
            sent = time.monotonic()
            try:
                outcomes = await within(lane.send(batch), DEADLINE + 5)
            except (TimeoutError, asyncio.TimeoutError):
                outcomes = ["no answer in time"]
            except Exception as error:  # whatever it is, it is what became of the batch
                outcomes = [f"no answer: {error!r}"]
            result.slowest = max(result.slowest, (round(time.monotonic() - sent, 2), f"{lane.name} {number}"))
            result.batches += 1
            result.requests += len(outcomes)
            for outcome in outcomes:
                result.count(lane.name, outcome)
                if is_fault(outcome):
                    result.faults.append(f"{lane.name} {number} {outcome}: {lane.detail:.300}: {batch!r:.300}")
            if number % _EMPTY_EVERY == 0 and (error := await delete_all(gateway)):
                result.faults.append(f"the index cannot be emptied: {error}")

    async def look() -> None:
        step = (requests - result.requests) / _LOOKS
        while True:
            end, count = time.monotonic() + _LOOK_EVERY, result.requests + step
            while time.monotonic() < end and result.requests < count:  # noqa: ASYNC110 - two things to wait for
                await asyncio.sleep(0.1)
            result.faults += await asyncio.to_thread(watch.look)
            if not quiet:
                rate = result.requests / (spent + time.monotonic() - began)
                print(f"{result.requests} requests, {rate:.0f} a second, {len(result.faults)} faults", flush=True)

    looking = asyncio.create_task(look())
    try:
        await asyncio.gather(*map(drive, lanes))
    finally:
        looking.cancel()
        await asyncio.wait([looking])
        for lane in lanes:
            await lane.close()
        context.destroy(linger=0)
        result.seconds = spent + time.monotonic() - began
    result.faults += await asyncio.to_thread(watch.look)
    result.memory = watch.growth()
    for name, (early, late) in result.memory.items():
        if late > _GROWTH * early + 100:
            result.faults.append(f"{name} grew from {early} to {late} MiB")
    return result


def _lanes(ports: dict[str, int], workers: Sequence[str], context: zmq.asyncio.Context) -> list[Lane]:
    lanes: list[Lane] = [HttpLane(ports["http"]) for _ in range(_LANES["http"])]
    lanes += [MessageLane(f"127.0.0.1:{ports['grpc']}", "grpc") for _ in range(_LANES["grpc"])]
    lanes += [JinaLane(ports["http"], as_json=bool(number % 2)) for number in range(_LANES["websocket"])]
    bert = (ports["bert"], ports["bert-out"])
    lanes += [ZeroMqLane(context, bert, b"lane %02d" % number) for number in range(_LANES["zeromq"])]
    lanes += [MessageLane(address, "worker") for address in workers]
    lanes += [ExchangeLane(address) for address in workers]
    return lanes
