"""A process that hosts only flowdex's own executors imports jina without torch, and nobody else's does."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import sys
from flowdex_orchestrator.flow.model import Executor
from flowdex_orchestrator.worker.light_import import import_jina_for

import_jina_for(*(Executor.model_validate(each) for each in {entries!r}))
print("jina" in sys.modules, sys.modules.get("torch") is not None)
if {also_torch}:
    import torch
    from flowdex_executors.schema import DocumentColumns
    print(torch.ones(2).sum().item())
"""


@pytest.mark.parametrize(
    ("entries", "imported"),
    [
        ([{"uses": "flowdex_executors.Ranker"}], "True False"),
        ([{"uses": "flowdex_executors.Ranker"}, {"uses": "my_package.Mine"}], "False False"),
        ([{"uses": "flowdex_executors.Ranker", "py_modules": ["mine.py"]}], "False False"),
        ([{"uses": {"jtype": "Mine"}}], "False False"),
    ],
)
def test_only_for_our_own_executors(entries: list[dict[str, object]], imported: str) -> None:
    pytest.importorskip("jina")
    pytest.importorskip("torch")
    ours = imported.startswith("True")
    script = SCRIPT.format(entries=entries, also_torch=ours)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.split("\n")
    assert lines[0] == imported
    assert not ours or lines[1] == "2.0"  # torch comes when somebody asks for it
