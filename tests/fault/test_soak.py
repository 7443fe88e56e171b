"""Thousands of requests in a short time, wrong and abandoned ones among them: what processes hold does not grow."""

from __future__ import annotations

import asyncio
import random
import sys
from pathlib import Path

import pytest
from flow_support import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))

from process_watch import growth, plot, print_growth, series
from servers import Servers
from soak import soak, start_noop

LEAST_REQUESTS = 3000
REQUEST_BYTES = 2048  # a leak of so much a request would show


@pytest.mark.timeout(150)
def test_what_processes_hold_does_not_grow(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Servers() as servers:
        counts, samples = asyncio.run(soak(*start_noop(servers, tmp_path), requests=None, seconds=22))
    assert counts.total > LEAST_REQUESTS
    assert not counts.failed
    assert set(counts.answered) == {"stream", "call", "HTTP", "wrong"}
    measured = counts.total / 2  # what came after the warm-up
    for process in ("gateway", "executor"):
        for quantity, most in (
            ("rss", max(4.0, REQUEST_BYTES * measured / 2**20)),
            ("descriptors", 10),
            ("threads", 2),
        ):
            assert growth(*series(samples, process, quantity), warm_up=0.5).grown < most, (process, quantity)
    print_growth(samples)
    assert "| gateway | RSS |" in capsys.readouterr().out
    plot(samples, tmp_path / "soak.png", "soak")
    assert (tmp_path / "soak.png").stat().st_size > 10_000


def test_a_leak_is_seen_and_a_burst_is_not() -> None:
    noise = random.Random(1)
    times = [float(second) for second in range(600)]
    level = [200 + noise.uniform(-3, 3) for _ in times]
    burst = [value + (80 if 300 < second < 330 else 0) for second, value in zip(times, level, strict=True)]
    leak = [value + 0.02 * second for second, value in zip(times, level, strict=True)]
    warming = [value - max(0, 100 - second) for second, value in zip(times, level, strict=True)]
    assert abs(growth(times, level).grown) < 1
    assert abs(growth(times, burst).grown) < 1
    assert abs(growth(times, warming).grown) < 1
    assert growth(times, leak).grown == pytest.approx(0.02 * 450, abs=1)
