"""Five times more than an encoder can do: it goes on doing what it can, the rest is refused at once."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import numpy as np
import pytest
from flow_support import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))

from overload import Result, measure, start
from process_watch import growth, series
from servers import Servers

LONGEST_WAIT = 1.0


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Result:
    with Servers() as servers:
        ports, pids = start(servers, tmp_path_factory.mktemp("overload"), longest_wait=LONGEST_WAIT, model=False)
        return asyncio.run(measure(ports, pids, seconds=9, closed_seconds=4, times=5, filling=2))


@pytest.mark.timeout(120)
def test_it_goes_on_doing_what_it_can(result: Result) -> None:
    assert result.goodput >= 0.9
    assert len(result.overload.answered) > 50


def test_what_is_too_much_is_refused_at_once_and_told_when_to_come_back(result: Result) -> None:
    over = result.overload
    assert len(over.refused) > 2 * len(over.answered), "five times too much"
    assert not over.failed, "a refusal is the only failure"
    assert min(over.hints) >= 1
    assert np.median(over.refused) < 100, "milliseconds"


def test_who_is_let_in_waits_no_longer_than_promised(result: Result) -> None:
    assert np.percentile(result.overload.answered, 95) < 2000 * LONGEST_WAIT


def test_interactive_requests_hardly_notice(result: Result) -> None:
    over = result.overload
    assert len(over.interactive) > 50
    assert np.median(over.interactive) < np.median(over.answered) / 5


def test_memory_is_bounded(result: Result) -> None:
    for process in ("encoder", "gateway"):
        assert growth(*series(result.samples, process, "rss"), warm_up=0).grown < 16, process


def test_a_refusal_is_cheap(result: Result) -> None:
    assert result.refusal_cpu_ms < 3


def test_the_program_prints_it(result: Result, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from overload import report
    from process_watch import plot

    report(result, LONGEST_WAIT)
    assert "of the most" in capsys.readouterr().out
    plot(result.samples, tmp_path / "overload.png", "overload")
    assert (tmp_path / "overload.png").stat().st_size > 10_000
