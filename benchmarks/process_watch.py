"""What processes hold: memory, descriptors, threads, each second, and whether it grows.

    pids --Watch--> a Sample a second and process --growth--> how much more at the end than after the warm-up

Linux only, as it reads /proc. RSS counts a page in each process that maps it, PSS shares it between them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

MOST_POINTS = 400  # of a series that the slope is computed from, each the median of its neighbours


class Sample(NamedTuple):
    """One process at one moment.

    Attributes:
        seconds: Since the watch began.
        requests: Answered until then.
        process: Its name.
        rss: MiB.
        pss: MiB.
        descriptors: Open files and sockets.
        threads: Of the process.
    """

    seconds: float
    requests: int
    process: str
    rss: float
    pss: float
    descriptors: int
    threads: int


QUANTITIES = ("rss", "pss", "descriptors", "threads")


def read_process(pid: int, name: str, seconds: float = 0.0, requests: int = 0) -> Sample:
    """What a process holds now."""
    folder = Path(f"/proc/{pid}")
    rollup = dict(_fields(folder / "smaps_rollup"))
    return Sample(
        seconds,
        requests,
        name,
        rollup["Rss"] / 1024,
        rollup["Pss"] / 1024,
        sum(1 for _ in (folder / "fd").iterdir()),
        int(dict(_fields(folder / "status"))["Threads"]),
    )


def _fields(path: Path) -> list[tuple[str, int]]:
    lines = (line.split(":") for line in path.read_text().splitlines() if line.count(":") == 1)
    return [(name, int(value.split()[0])) for name, value in lines if value.split() and value.split()[0].isdecimal()]


class Watch:
    """Samples processes each second, as an async context manager.

    Args:
        processes: Process ids by name.
        requests: How many have been answered so far.
        on_samples: Called with those of each second.
        start: Seconds that earlier watches took.
    """

    def __init__(
        self,
        processes: Mapping[str, int],
        requests: Callable[[], int] = lambda: 0,
        on_samples: Callable[[list[Sample]], None] = lambda samples: None,
        start: float = 0.0,
    ) -> None:
        self.samples: list[Sample] = []
        self._processes = processes
        self._requests = requests
        self._on_samples = on_samples
        self._zero = time.monotonic() - start
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Watch:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        (ended,) = await asyncio.gather(self._task, return_exceptions=True)
        if isinstance(ended, Exception):  # such as that of a process which has died
            raise ended

    async def _run(self) -> None:
        while True:
            seconds, requests = time.monotonic() - self._zero, self._requests()
            now = [read_process(pid, name, seconds, requests) for name, pid in self._processes.items()]
            self.samples += now
            self._on_samples(now)
            await asyncio.sleep(1)


class Growth(NamedTuple):
    """How a quantity developed after the warm-up.

    Attributes:
        first: Its median over the first tenth.
        last: Over the last tenth.
        grown: The Theil-Sen slope (the median of the slopes between all pairs of points, which a burst does not move),
            times the length: what the trend makes of it from beginning to end.
    """

    first: float
    last: float
    grown: float


def growth(times: Sequence[float], values: Sequence[float], warm_up: float = 0.25) -> Growth:
    """How a series grew.

    Args:
        times: Of the values, in any unit.
        values: At least ten.
        warm_up: Share of the series that does not count.
    """
    start = int(len(values) * warm_up)
    x, y = np.asarray(times[start:], float), np.asarray(values[start:], float)
    tenth = max(1, len(y) // 10)
    parts = min(len(y), MOST_POINTS)
    points = [
        (np.mean(a), np.median(b)) for a, b in zip(np.array_split(x, parts), np.array_split(y, parts), strict=True)
    ]
    px, py = np.array(points).T
    i, j = np.triu_indices(len(px), 1)
    slope = float(np.median((py[j] - py[i]) / (px[j] - px[i])))
    return Growth(float(np.median(y[:tenth])), float(np.median(y[-tenth:])), slope * float(x[-1] - x[0]))


def series(samples: Sequence[Sample], process: str, quantity: str) -> tuple[list[float], list[float]]:
    """Times and values of one quantity of one process."""
    own = [sample for sample in samples if sample.process == process]
    return [sample.seconds for sample in own], [float(getattr(sample, quantity)) for sample in own]


def processes_of(samples: Sequence[Sample]) -> list[str]:
    """Their names, in order."""
    return list(dict.fromkeys(sample.process for sample in samples))


def print_growth(samples: Sequence[Sample]) -> None:
    """Print a table: each process and quantity, at the beginning, at the end, and the trend."""
    print("\n| process | | after the warm-up | at the end | trend from then to the end |\n|---|---|---:|---:|---:|")
    for process in processes_of(samples):
        for quantity in QUANTITIES:
            first, last, grown = growth(*series(samples, process, quantity))
            unit = " MiB" if quantity in ("rss", "pss") else ""
            name = quantity.upper() if unit else quantity
            print(f"| {process} | {name} | {first:,.1f}{unit} | {last:,.1f}{unit} | {grown:+,.2f}{unit} |")


def plot(samples: Sequence[Sample], path: Path, title: str) -> None:
    """Draw memory, descriptors and threads of each process over time."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 8), layout="constrained")
    axes = figure.subplots(3, sharex=True)
    names = {"pss": "PSS, MiB", "descriptors": "descriptors", "threads": "threads"}
    for axis, (quantity, label) in zip(axes, names.items(), strict=True):
        for process in processes_of(samples):
            times, values = series(samples, process, quantity)
            axis.plot([each / 60 for each in times], values, label=process, linewidth=1.2)
        axis.set_ylabel(label)
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
    axes[0].legend(loc="upper left", fontsize="small")
    axes[0].set_title(title)
    axes[-1].set_xlabel("minutes")
    figure.savefig(path, dpi=110)
