"""A million requests, or an hour: do memory, descriptors and threads of any process grow?

    streams, calls and HTTP requests, many in flight --> gateway --> executors that do nothing, or the flow's own
    each second: RSS, PSS, descriptors, threads of every process --> FILE.csv --> trend after the warm-up, plot

    python benchmarks/soak.py [--requests 1000000] [--csv soak.csv] [--plot docs/images/soak.png]
    python benchmarks/soak.py --flow flow.yml --seconds 3600 --endpoint /encode --text "a sentence"

With `--flow`, the flow must be running (`flowdex up --detach`): it is attached to, and left as it is. So a long run can
be done in parts: with the same `--csv` each part goes on where the one before ended. Without it, a gateway and an
executor that does nothing are started for this run.

Some requests are made to fail, some are cancelled and some connections are opened anew, as leaks are often there.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import grpc.aio
import httpx
from load import CHANNEL_OPTIONS
from process_watch import Sample, Watch, plot, print_growth
from servers import HERE, Servers, free_ports

from flowdex import wire
from flowdex.documents import DocumentBatch

STREAMS, STREAM_WINDOW = 2, 48
STREAM_REQUESTS = 5000  # of a stream; then it is opened anew
CALLERS = 4  # that make calls of their own
HTTP_PAUSE = 0.02  # seconds between two requests over HTTP, so that the client does not take all CPU time
FAILING_PAUSE = 0.1
LIVES = 30.0  # seconds of a channel
PROGRESS_SECONDS = 10


@dataclass
class Counts:
    """What has been answered, by protocol, and what went wrong, by what it was.

    Attributes:
        before: Requests of earlier parts.
        answered: By protocol.
        failed: By what it was.
    """

    before: int = 0
    answered: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)

    @property
    def total(self) -> int:
        """All that were answered."""
        return self.before + sum(self.answered.values())


class Soak:
    """Drives a flow until it has had enough.

    Args:
        ports: The gateway's, of gRPC and HTTP.
        endpoint: Which.
        text: Of each request's one document.
        counts: Where answers are counted.
        enough: Whether to stop.
    """

    def __init__(
        self, ports: tuple[int, int], endpoint: str, text: str, counts: Counts, enough: Callable[[], bool]
    ) -> None:
        self._target, self._url = f"127.0.0.1:{ports[0]}", f"http://127.0.0.1:{ports[1]}"
        self._endpoint = endpoint
        self._request = wire.build_request(endpoint, DocumentBatch.from_columns(texts=[text]))
        self._text = text
        self._counts = counts
        self._enough = enough

    async def run(self) -> None:
        """Return when it is enough."""
        async with asyncio.TaskGroup() if sys.version_info >= (3, 11) else _Group() as group:
            for _ in range(STREAMS):
                group.create_task(self._stream())
            for number in range(CALLERS):
                group.create_task(self._calls(cancelling=number == 0))
            group.create_task(self._http())
            group.create_task(self._failing())

    async def _stream(self) -> None:
        """Requests on streams, a window of them at a time."""
        while not self._enough():
            async with grpc.aio.insecure_channel(self._target, options=CHANNEL_OPTIONS) as channel:
                call = channel.stream_stream(wire.CALL)(
                    self._requests(), metadata=(("__prefetch__", str(STREAM_WINDOW)),)
                )
                async for reply in call:
                    self._note("stream", reply)

    async def _requests(self) -> AsyncIterator[bytes]:
        for _ in range(STREAM_REQUESTS):
            if self._enough():
                return
            yield self._request

    async def _calls(self, cancelling: bool) -> None:
        """Calls of their own; of a canceller one in ten is given up."""
        while not self._enough():
            end = time.monotonic() + LIVES
            async with grpc.aio.insecure_channel(self._target, options=CHANNEL_OPTIONS) as channel:
                method, number = channel.unary_unary(wire.PROCESS_SINGLE_DATA), 0
                while time.monotonic() < end and not self._enough():
                    number += 1
                    call = method(self._request, timeout=60)
                    if cancelling and number % 10 == 0:
                        await asyncio.sleep(0.001)
                        call.cancel()
                    try:
                        self._note("call", await call)
                    except asyncio.CancelledError:
                        if not call.cancelled():
                            raise
                    except grpc.aio.AioRpcError as error:
                        self._counts.failed[f"call: {error.code().name}"] += 1

    async def _http(self) -> None:
        """Requests over HTTP, each tenth on a connection of its own."""
        body = {"documents": [{"text": self._text}]} if self._endpoint == "/index" else {"texts": [self._text]}
        is_jina = self._endpoint not in ("/encode", "/index")
        path = "/post" if is_jina else self._endpoint
        if is_jina:
            body = {"data": [{"text": self._text}], "execEndpoint": self._endpoint}
        number = 0
        while not self._enough():
            async with httpx.AsyncClient(base_url=self._url, trust_env=False, timeout=60) as client:
                for _ in range(10):
                    number += 1
                    reply = await client.post(path, json=body)
                    if reply.status_code == 200:
                        self._counts.answered["HTTP"] += 1
                    else:
                        self._counts.failed[f"HTTP {reply.status_code}"] += 1
                    await asyncio.sleep(HTTP_PAUSE)

    async def _failing(self) -> None:
        """Requests that are wrong, which must be answered with an error."""
        async with (
            grpc.aio.insecure_channel(self._target, options=CHANNEL_OPTIONS) as channel,
            httpx.AsyncClient(base_url=self._url, trust_env=False, timeout=60) as client,
        ):
            method = channel.unary_unary(wire.PROCESS_SINGLE_DATA)
            while not self._enough():
                for wrong in (b"\xff" * 50, wire.build_request("/nowhere")):
                    try:
                        await method(wrong, timeout=60)
                        self._counts.failed["a wrong request was answered"] += 1
                    except grpc.aio.AioRpcError:
                        self._counts.answered["wrong"] += 1
                reply = await client.post("/encode", content=b"{", headers={"content-type": "application/json"})
                self._counts.answered["wrong"] += reply.status_code == 400
                await asyncio.sleep(FAILING_PAUSE)

    def _note(self, protocol: str, reply: bytes) -> None:
        error = wire.error_of(wire.read_head(reply).header)
        if error is None:
            self._counts.answered[protocol] += 1
        else:
            self._counts.failed[f"{protocol}: {error.name}"] += 1


class _Group:
    """As `asyncio.TaskGroup`, for Python 3.10: the first failure ends all."""

    def __init__(self) -> None:
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> _Group:
        return self

    def create_task(self, work: object) -> None:
        self._tasks.append(asyncio.ensure_future(work))  # type: ignore[arg-type]

    async def __aexit__(self, *_: object) -> None:
        try:
            await asyncio.gather(*self._tasks)
        finally:
            for task in self._tasks:
                task.cancel()


def start_noop(servers: Servers, folder: Path) -> tuple[int, int, dict[str, int]]:
    """Start a gateway and an executor that does nothing; ports of gRPC and HTTP, process ids."""
    grpc_port, http_port, executor_port = free_ports(3)
    flow = folder / "flow.yml"
    flow.write_text(
        f"jtype: Flow\nwith: {{protocol: [grpc, http], port: [{grpc_port}, {http_port}]}}\n"
        f"executors:\n  - name: executor\n    port: {executor_port}\n    uses: ColumnarNoOp\n"
        f"    py_modules: [{HERE / 'noop_executors.py'}]\n"
    )
    executor = servers.start(
        ["-m", "flowdex", "executor", "executor", "--flow", str(flow), "--port", str(executor_port)]
    )
    servers.wait_for(executor_port)
    gateway = servers.start(["-m", "flowdex", "gateway", "--flow", str(flow)])
    servers.wait_for(grpc_port, http_port)
    return grpc_port, http_port, {"gateway": gateway.pid, "executor": executor.pid}


def running(flow: Path) -> tuple[int, int, dict[str, int]]:
    """Ports of gRPC and HTTP, and process ids, of a flow that runs."""
    done = subprocess.run(
        [sys.executable, "-m", "flowdex", "ps", str(flow), "--json"], capture_output=True, text=True, check=True
    )
    state = json.loads(done.stdout)
    port = {name: int(state["endpoints"][name].rpartition(":")[2]) for name in ("grpc", "http")}
    pids = {
        row["name"] if row["replica"] is None else f"{row['name']}-{row['replica']}": row["pid"]
        for row in state["processes"]
        if row["pid"]
    }
    return port["grpc"], port["http"], pids


async def soak(
    grpc_port: int,
    http_port: int,
    pids: dict[str, int],
    *,
    requests: int | None,
    seconds: float | None,
    endpoint: str = "/encode",
    text: str = "hello",
    earlier: Sequence[Sample] = (),
    on_samples: Callable[[list[Sample]], None] = lambda samples: None,
) -> tuple[Counts, list[Sample]]:
    """Drive a flow.

    Args:
        grpc_port: The gateway's.
        http_port: The gateway's.
        pids: Of the processes to watch, by name.
        requests: How many, those of earlier parts included; None for any number.
        seconds: How long this part may take; None for any time.
        endpoint: Which.
        text: Of each request's one document.
        earlier: What earlier parts saw.
        on_samples: Called with the samples of each second.

    Returns:
        What was answered, and all samples.
    """
    counts = Counts(before=earlier[-1].requests if earlier else 0)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{http_port}", trust_env=False) as http:
        while (await http.get("/health/ready")).status_code != 200:  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.2)
    end = time.monotonic() + (seconds if seconds is not None else 1e9)
    most = requests if requests is not None else 10**15
    work = Soak((grpc_port, http_port), endpoint, text, counts, lambda: counts.total >= most or time.monotonic() >= end)
    start = earlier[-1].seconds + 1 if earlier else 0.0
    async with Watch(pids, lambda: counts.total, on_samples, start) as watch:
        await work.run()
    return counts, [*earlier, *watch.samples]


def read_csv(path: Path) -> list[Sample]:
    """What earlier parts saw."""
    with path.open(newline="") as file:
        return [
            Sample(
                float(row["seconds"]),
                int(row["requests"]),
                row["process"],
                float(row["rss"]),
                float(row["pss"]),
                int(row["descriptors"]),
                int(row["threads"]),
            )
            for row in csv.DictReader(file)
        ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, help="in all (default: 1000000, or any number with --seconds)")
    parser.add_argument("--seconds", type=float, help="of this part (default: as long as it takes)")
    parser.add_argument("--flow", type=Path, help="a flow that runs (default: one that does nothing is started)")
    parser.add_argument("--endpoint", default="/encode", help="default: %(default)s")
    parser.add_argument("--text", default="hello", help="of each document (default: %(default)s)")
    parser.add_argument("--csv", type=Path, help="where samples go, and where earlier parts' are")
    parser.add_argument("--plot", type=Path, help="draw all samples to this file")
    settings = parser.parse_args()
    requests = settings.requests or (None if settings.seconds else 1_000_000)
    earlier = read_csv(settings.csv) if settings.csv and settings.csv.exists() else []
    if earlier and settings.flow is None:
        raise SystemExit(f"{settings.csv} is of an earlier run, whose processes have ended: remove it, or use --flow")

    file = settings.csv.open("a", newline="") if settings.csv else None
    writer = csv.writer(file) if file else None
    if writer and not earlier:
        writer.writerow(Sample._fields)
    last = 0.0

    def note(samples: list[Sample]) -> None:
        nonlocal last
        if writer and file:
            writer.writerows([(round(s.seconds, 2), *s[1:3], *(round(v, 2) for v in s[3:5]), *s[5:]) for s in samples])
            file.flush()
        if samples and samples[0].seconds - last >= PROGRESS_SECONDS:
            last = samples[0].seconds
            held = ", ".join(f"{each.process} {each.rss:.0f} MiB" for each in samples)
            print(f"{last:7.0f} s {samples[0].requests:>10,} requests; {held}", file=sys.stderr, flush=True)

    with Servers() as servers, tempfile.TemporaryDirectory(prefix="benchmark-soak-") as folder:
        found = start_noop(servers, Path(folder)) if settings.flow is None else running(settings.flow)
        started = time.monotonic()
        counts, samples = asyncio.run(
            soak(
                *found,
                requests=requests,
                seconds=settings.seconds,
                endpoint=settings.endpoint,
                text=settings.text,
                earlier=earlier,
                on_samples=note,
            )
        )
        took = time.monotonic() - started
    if file:
        file.close()
    answered = counts.total - counts.before
    print(f"{counts.total:,} requests in all; {answered:,} in {took:.0f} s, {answered / took:.0f} a second: ", end="")
    print(f"{dict(counts.answered)}; failed: {dict(counts.failed) or 'none'}")
    print_growth(samples)
    if settings.plot:
        plot(samples, settings.plot, f"{counts.total:,} requests")


if __name__ == "__main__":
    main()
