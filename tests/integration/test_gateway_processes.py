"""A child notices that the process it watches is gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

CHILD = """
import os, sys, time
from pathlib import Path
from flowdex_orchestrator import processes

if sys.argv[1] == "poll":
    processes._open_pidfd = lambda pid: None

def died():
    Path(sys.argv[3]).write_text("noticed")
    if sys.argv[4] == "exit":
        os._exit(0)

processes.watch_parent(int(sys.argv[2]), died, grace=0.5)
Path(sys.argv[3] + ".ready").touch()
time.sleep(30)
"""

PARENT = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", sys.argv[1], sys.argv[2], str(os.getpid()), sys.argv[3], sys.argv[4]])
print(child.pid, flush=True)
time.sleep(30)
"""


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until(condition, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
@pytest.mark.parametrize(("how", "then"), [("pidfd", "exit"), ("poll", "exit"), ("pidfd", "hang")])
def test_child_ends_with_the_parent(tmp_path: Path, how: str, then: str) -> None:
    note = tmp_path / "note"
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, CHILD, how, str(note), then], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    try:
        wait_until(lambda: Path(f"{note}.ready").exists())
        time.sleep(0.2)
        assert alive(child)
        assert not note.exists()
        parent.kill()
        parent.wait(10)
        wait_until(note.exists)
        wait_until(lambda: not alive(child))  # also when the callback does nothing ("hang"): ended after the grace
    finally:
        parent.kill()
        parent.wait(10)
        parent.stdout.close()
        if alive(child):
            os.kill(child, signal.SIGKILL)


def test_a_parent_that_is_gone_already(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait(10)
    note = tmp_path / "note"
    command = [sys.executable, "-c", CHILD, "pidfd", str(gone.pid), str(note), "exit"]
    child = subprocess.run(command, check=False, timeout=20)
    assert child.returncode == 0
    assert note.read_text() == "noticed"
