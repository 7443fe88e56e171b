"""The process of a replica has the GPU that is dealt to it, not what the file says of all replicas."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from flowdex_orchestrator.worker import cli


@pytest.fixture(autouse=True)
def undo() -> Iterator[None]:
    variables, path = dict(os.environ), list(sys.path)
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    os.environ.clear()
    os.environ.update(variables)
    sys.path[:] = path
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.mark.parametrize(("replica", "total", "seen"), [(0, 2, "0"), (1, 2, "1"), (2, 2, "0"), (0, 1, "0"), (0, 0, "")])
def test_gpus_are_dealt(replica: int, total: int, seen: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("flowdex_orchestrator.gpus.shutil.which", lambda _: None)
    monkeypatch.setenv("CUDA_TOTAL_DEVICES", str(total))
    cli._configure_process("INFO", tmp_path, {"CUDA_VISIBLE_DEVICES": "RR", "OTHER": "1"}, replica)
    assert (os.environ["CUDA_VISIBLE_DEVICES"], os.environ["OTHER"]) == (seen, "1")


def test_what_nobody_says_stays(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")  # the runner's choice
    cli._configure_process("INFO", tmp_path, {}, 1)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "3"
