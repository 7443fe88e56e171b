"""examples/flowdex.ipynb: its cells run from top to bottom, say what its texts promise, and are kept without outputs.

The cells run in one plain Python process, in their order: all that they need of Jupyter is that order, and its packages
(some forty) are not worth installing for it.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from typing import Any

import pytest
from flow_support import ROOT, RunningFlow

NOTEBOOK = json.loads((ROOT / "examples/flowdex.ipynb").read_text(encoding="utf-8"))
SEPARATOR = "=== cell {} ==="


def cells(kind: str) -> list[dict[str, Any]]:
    return [cell for cell in NOTEBOOK["cells"] if cell["cell_type"] == kind]


def test_it_is_a_notebook_without_outputs() -> None:
    assert (NOTEBOOK["nbformat"], NOTEBOOK["nbformat_minor"]) == (4, 5)
    assert len({cell["id"] for cell in NOTEBOOK["cells"]}) == len(NOTEBOOK["cells"])
    for cell in cells("code"):
        assert cell["outputs"] == [] and cell["execution_count"] is None, "clear the outputs before it is committed"
        assert not re.search(r"^\s*[%!]", "".join(cell["source"]), re.MULTILINE), "plain Python, for the test below"
    prose = sum(len("".join(cell["source"]).split()) for cell in cells("markdown"))
    assert prose > 300, "a tour has text worth reading"
    for target in re.findall(r"`(docs/[^`]+)`", json.dumps(NOTEBOOK)):
        assert (ROOT / target).exists(), target


@pytest.fixture(scope="module")
def outputs(default_flow: RunningFlow) -> list[str]:
    """What each cell prints."""
    script = "\n".join(
        f"print({SEPARATOR.format(number)!r}, flush=True)\n{''.join(cell['source'])}"
        for number, cell in enumerate(cells("code"))
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
        cwd=default_flow.folder,
        env={**os.environ, "FLOWDEX_URL": default_flow.grpc_url},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return re.split(r"^=== cell \d+ ===\n", done.stdout, flags=re.MULTILINE)[1:]


def test_its_cells_say_what_its_texts_promise(outputs: list[str]) -> None:
    said = dict(zip(("connect", "encode", "tokens", "index", "modes"), outputs, strict=False))
    assert re.search(r"^encoder +all-MiniLM-L6-v2$", said["connect"], re.MULTILINE)
    assert said["encode"].startswith("(4, 384) float32\n")
    similar = [[float(value) for value in re.findall(r"-?\d\.?\d*", line)] for line in said["encode"].splitlines()[1:]]
    pairs = {(i, j): similar[i][j] for i in range(4) for j in range(i)}
    assert max(pairs, key=pairs.__getitem__) == (1, 0), "the first two are the closest pair"
    assert float(said["tokens"].split()[-1]) < 0.9, "context moves a word"
    assert said["index"] == "10 documents, 10 passages\n"
    first, second = (
        dict(re.findall(r"(dense|sparse|hybrid) +\['(\w+)'", part)) for part in said["modes"].split("E-1042\n")
    )
    assert first == {"dense": "apollo", "hybrid": "apollo"}, "no word in common: the words find nothing"
    assert second["sparse"] == second["hybrid"] == "router"


def test_later_cells(outputs: list[str]) -> None:
    everything = "\n".join(outputs)
    assert re.search(r"\$lt': 1970}} \[\('\w+', 19[56]\d\), \('\w+', 19[56]\d\)]", everything), "both before 1970"
    assert re.search(r"late_interaction \[\('backup'", everything)
    assert re.search(r"^apollo\n(    .*\n)*    rerank  rank 1  score ", everything, re.MULTILINE)
    assert "E-1042" in outputs[-2], "rank, without an index"
    assert outputs[-1] == "10 documents removed\n"
