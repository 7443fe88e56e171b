"""The short form of `python -m mutation` (see tests/mutation): mutated requests of every surface, no fault."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from flow_support import run_flowdex
from mutation.flow import flow_text
from mutation.mutate import mutate_json, mutate_message
from mutation.program import Result, is_fault, run
from mutation.requests import GRPC, HTTP
from mutation.watch import Watch

pytest.importorskip("zmq")

REQUESTS = 3000


@pytest.fixture(scope="module")
def flow_file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("mutation") / "flow.yml"
    path.write_text(flow_text(model=False))
    done = run_flowdex("up", str(path), "--detach")
    assert done.returncode == 0, done.stdout + done.stderr
    yield path
    assert run_flowdex("down", str(path)).returncode == 0


@pytest.mark.timeout(180)
async def test_no_mutated_request_is_our_failure(flow_file: Path) -> None:
    result = await run(flow_file, Result(seed=1), requests=REQUESTS, seconds=60, quiet=True)
    assert not result.faults, "\n".join(result.faults)
    assert set(result.outcomes) == {"http", "grpc", "websocket", "zeromq", "worker", "exchange"}
    assert result.outcomes["http"]["200"] > 10, "some are left as they are, and work"
    assert result.outcomes["grpc"]["ok"] > 10
    assert result.outcomes["http"]["422"] > 10


def test_a_restart_and_a_traceback_are_seen(flow_file: Path) -> None:
    watch = Watch(flow_file)
    assert not watch.look()
    (name, pid), *_ = watch.pids.items()
    watch.pids[name] = pid + 1
    with (flow_file.parent / ".flowdex/run/flow/logs/gateway.log").open("a") as log:
        log.write("Traceback (most recent call last):\n  of this test\n")
    found = watch.look()
    assert any("was restarted" in each for each in found)
    assert any("of this test" in each for each in found)


@pytest.mark.parametrize("outcome", ["500", "INTERNAL", "ok+InternalError", "3 replies to 4 requests", "code 13+ok"])
def test_what_is_a_fault(outcome: str) -> None:
    assert is_fault(outcome)


@pytest.mark.parametrize("outcome", ["200", "422", "InvalidInput+ok", "INVALID_ARGUMENT", "closed", "code 3+ok"])
def test_what_is_none(outcome: str) -> None:
    assert not is_fault(outcome)


def test_a_number_makes_the_same_request_again() -> None:
    for number in range(100):
        assert mutate_message(GRPC[3], Random(number)) == mutate_message(GRPC[3], Random(number))
        assert mutate_json(HTTP[4].body, Random(number)) == mutate_json(HTTP[4].body, Random(number))
