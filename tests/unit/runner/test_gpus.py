"""Which replica gets which GPU: Jina's notation, against Jina's own dealing."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowdex.errors import ConfigurationError
from flowdex_orchestrator import gpus
from flowdex_orchestrator.gpus import count_gpus, deal_gpus
from flowdex_orchestrator.runner.environment import THREAD_VARIABLES, child_environment


def dealt(visible: str, replicas: int, total: int = 4) -> list[str]:
    return [deal_gpus(visible, replica, lambda: total) for replica in range(replicas)]


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        ("RR", ["0", "1", "2", "3", "0", "1"]),
        ("RR0:2", ["0", "1", "0", "1", "0", "1"]),
        ("RR1:", ["1", "2", "3", "1", "2", "3"]),
        ("RR::2", ["0", "2", "0", "2", "0", "2"]),
        ("RR[1:3]", ["1", "2", "1", "2", "1", "2"]),
        ("RR-2:", ["2", "3", "2", "3", "2", "3"]),
        ("RR0:99", ["0", "1", "2", "3", "0", "1"]),
        ("RR3", ["3"] * 6),
        ("RR1,3", ["1", "3", "1", "3", "1", "3"]),
        ("RRGPU-aa,GPU-bb", ["GPU-aa", "GPU-bb"] * 3),
        ("RRGPU-aa", ["GPU-aa"] * 6),
        ("0,1", ["0,1"] * 6),
        ("", [""] * 6),
        ("-1", ["-1"] * 6),
    ],
)
def test_dealing(visible: str, expected: list[str]) -> None:
    assert dealt(visible, 6) == expected


@given(st.integers(1, 9), st.integers(1, 9), st.sampled_from(["RR", "RR0:4", "RR1:", "RR:2", "RR0", "RR0,0", "RR::2"]))
def test_it_is_jinas(total: int, replicas: int, visible: str) -> None:
    from jina.orchestrate.deployments import Deployment

    chosen = Deployment._parse_devices(visible[2:], total) if visible[2:] else range(total)
    if not list(chosen):
        with pytest.raises(ConfigurationError, match="names none of the"):
            dealt(visible, replicas, total)
        return
    assert dealt(visible, replicas, total) == [str(chosen[replica % len(chosen)]) for replica in range(replicas)]


def test_a_machine_without_gpus_computes_on_its_cores() -> None:
    assert dealt("RR", 2, total=0) == ["", ""]


@pytest.mark.parametrize("visible", ["RR4:8", "RR9", "RR5,6"])
def test_gpus_that_there_are_not(visible: str) -> None:
    with pytest.raises(ConfigurationError, match="names none of the 4 GPUs"):
        dealt(visible, 1)


@pytest.mark.parametrize("visible", ["RRx", "RR0:1:2:3", "RR0:4:0"])
def test_what_cannot_be_read(visible: str) -> None:
    with pytest.raises(ConfigurationError, match="write RR"):
        dealt(visible, 1)


def test_counting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listing = "GPU 0: NVIDIA A (UUID: GPU-1)\n  MIG 1g (UUID: MIG-1)\nGPU 1: NVIDIA A (UUID: GPU-2)\n"
    done: Any = subprocess.CompletedProcess([], 0, stdout=listing)
    monkeypatch.setattr(gpus.shutil, "which", lambda name: "/bin/nvidia-smi")
    monkeypatch.setattr(gpus.subprocess, "run", lambda *args, **kwargs: done)
    assert count_gpus() == 2
    monkeypatch.setattr(gpus.shutil, "which", lambda name: None)
    monkeypatch.setenv("CUDA_TOTAL_DEVICES", "3")
    assert count_gpus() == 3
    monkeypatch.setenv("CUDA_TOTAL_DEVICES", "many")
    assert count_gpus() == 0


def test_replicas_get_theirs_from_the_flow_or_the_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flowdex_orchestrator.runner.environment.deal_gpus", lambda v, r: deal_gpus(v, r, lambda: 2))
    visible = [
        child_environment(env, replicas=3, replica=replica, base=base)["CUDA_VISIBLE_DEVICES"]
        for env, base in [({"CUDA_VISIBLE_DEVICES": "RR"}, {}), ({}, {"CUDA_VISIBLE_DEVICES": "RR1:"})]
        for replica in range(3)
    ]
    assert visible == ["0", "1", "0", "1", "1", "1"]
    assert "CUDA_VISIBLE_DEVICES" not in child_environment({}, base={})


@given(st.integers(1, 64), st.integers(1, 64))
def test_replicas_times_threads_fit_the_cores(cores: int, replicas: int) -> None:
    variables = child_environment({}, replicas=replicas, base={}, cores=cores)
    (threads,) = {int(variables[name]) for name in THREAD_VARIABLES}
    assert threads * replicas <= max(cores, replicas), "more than one thread a replica only where there is room"
