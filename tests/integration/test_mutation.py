"""The short form of `python -m mutation` (see tests/mutation): mutated requests of every surface, no fault."""

from __future__ import annotations

import subprocess
import sys
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


@pytest.mark.parametrize("outcome", ["500", "INTERNAL", "InternalError", "3 replies to 4 requests", "code 13", "no x"])
def test_what_is_a_fault(outcome: str) -> None:
    assert is_fault(outcome)


@pytest.mark.parametrize("outcome", ["200", "422", "InvalidInput", "INVALID_ARGUMENT", "closed", "code 3"])
def test_what_is_none(outcome: str) -> None:
    assert not is_fault(outcome)


def test_a_number_makes_the_same_request_again() -> None:
    for number in range(100):
        assert mutate_message(GRPC[3], Random(number)) == mutate_message(GRPC[3], Random(number))
        assert mutate_json(HTTP[4].body, Random(number)) == mutate_json(HTTP[4].body, Random(number))


@pytest.mark.timeout(240)
def test_what_the_openapi_document_says_is_so(flow_file: Path) -> None:
    """schemathesis: requests made from the document, valid and not, and the answers compared with it.

    Left out is the check that every request that fits the schema is taken: that a text is not blank, an encoder has
    token vectors or a passage exists is no matter of a schema, and answered 422. The long form is the same command
    with `--max-examples 200`.
    """
    address = f"http://127.0.0.1:{Watch(flow_file).state()['endpoints']['http'].rpartition(':')[2]}"
    command = [
        *("schemathesis", "run", f"{address}/openapi.json", "--seed", "1", "--max-examples", "5", "--no-color"),
        *("--phases", "examples,coverage,fuzzing", "--generation-database", "none", "--request-timeout", "30"),
        *("--exclude-path-regex", "^/admin", "--exclude-checks", "positive_data_acceptance"),
    ]
    # In a query `true` is a text like any other, not the boolean that the generator meant to break the schema with.
    (flow_file.parent / "schemathesis.toml").write_text(
        "".join(
            f'[[operations]]\ninclude-name = "{method} /documents"\nchecks.negative_data_rejection.enabled = false\n'
            for method in ("GET", "DELETE")
        )
    )
    done = subprocess.run(
        [str(Path(sys.executable).with_name(command[0])), *command[1:]],
        capture_output=True,
        text=True,
        cwd=flow_file.parent,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:]
