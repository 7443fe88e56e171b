"""Parameters for one executor alone: Jina's own function is the reference."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from flowdex.wire import dict_from_struct, struct_from_dict
from flowdex_orchestrator.gateway.parameters import is_specific, specific_to

CASES: list[dict[str, Any]] = [
    {},
    {"limit": 10.0},
    {"limit": 10.0, "ranker": {"limit": 5.0}},
    {"limit": 10.0, "indexer__mode": "sparse", "ranker__limit": 1.0},
    {"ranker__limit": 1.0, "ranker": {"limit": 2.0}},
    {"__results__": {"a": 1.0}, "__x": 1.0, "x__": 2.0, "plain": [1.0, "a", None, True]},
    {"ranker": {"nested": {"deep": [1.0]}}, "nested": "general"},
    {"nobody__x": 1.0},
]


@pytest.mark.parametrize("parameters", CASES, ids=json.dumps)
@pytest.mark.parametrize("executor", ["ranker", "indexer"])
def test_as_jina_does_it(parameters: dict[str, Any], executor: str) -> None:
    assert dict_from_struct(specific_to(executor, struct_from_dict(parameters))) == reference(parameters, executor)


def reference(parameters: dict[str, Any], executor: str) -> dict[str, Any]:
    """What jina 3.34's `_parse_specific_params` returns (see the test below, which checks this table against it)."""
    parsed = dict(parameters)
    for key, value in parameters.items():
        if "__" in key and not key.startswith("__") and not key.endswith("__"):
            name, last = key.split("__")
            if name == executor:
                parsed[last] = value
            del parsed[key]
    return {**parsed, **parameters.get(executor, {})}


@pytest.mark.slow
def test_the_reference_is_jinas() -> None:
    pytest.importorskip("jina")
    program = (
        "import json, sys; from jina.serve.runtimes.helper import _parse_specific_params as parse;"
        "cases = json.loads(sys.argv[1]);"
        "print('ANSWER' + json.dumps([parse(case, name) for case in cases for name in ('ranker', 'indexer')]))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program, json.dumps(CASES)],
        capture_output=True,
        text=True,
        timeout=90,
        check=True,
    )
    found = json.loads(done.stdout.split("ANSWER")[1])
    assert found == [reference(case, name) for case in CASES for name in ("ranker", "indexer")]


def test_only_what_is_addressed_counts() -> None:
    executors = {"ranker": None, "indexer": None}
    assert not is_specific(struct_from_dict({"limit": 1, "__results__": {}, "x__": 1}), executors)
    assert is_specific(struct_from_dict({"ranker": {"limit": 1}}), executors)
    assert is_specific(struct_from_dict({"nobody__x": 1}), executors)
