"""Memory that a batch has freed stays with the process, in every thread: the next batch takes no page faults."""

from __future__ import annotations

import subprocess
import sys

import pytest

_PROGRAM = """
import resource, sys, threading
import numpy as np
from flowdex_executors.encoder.memory import keep_freed_memory

kept = keep_freed_memory() if sys.argv[1] == "keep" else None

def batch():
    return [np.ones(size * 2**18, dtype=np.float32) for size in (8,) * 20]  # MiB

def work():
    for _ in range(3):
        batch()
    before = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
    for _ in range(10):
        batch()
    print(kept, resource.getrusage(resource.RUSAGE_THREAD).ru_minflt - before)

thread = threading.Thread(target=work)
thread.start()
thread.join()
"""


def _faults(mode: str) -> tuple[str, int]:
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, mode], capture_output=True, text=True, timeout=60, check=True
    )
    kept, faults = done.stdout.split()
    return kept, int(faults)


def test_freed_memory_is_kept() -> None:
    kept, faults = _faults("keep")
    if kept != "True":
        pytest.skip("this C library has no such setting")
    _, faults_before = _faults("default")
    assert faults < 5_000  # a batch is of 40,960 pages
    assert faults_before > 20_000
