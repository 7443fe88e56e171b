"""The runner is killed, its children refuse to stop, an executor crashes for ever: no orphans, no hang, clear words."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from runner_support import Folder, open_folder, wait_until

from flowdex_orchestrator.runner.state import ProcessId, State


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    with open_folder(tmp_path) as folder:
        yield folder


def test_no_orphans_when_the_runner_is_killed(folder: Folder) -> None:
    assert folder.up("-d").returncode == 0
    state = folder.state()
    os.kill(state.runner.pid, signal.SIGKILL)
    wait_until(lambda: not state.survivors(), 2)
    assert folder.ps()["status"] == "stopped"
    assert folder.ps()["processes"] == []
    assert folder.run("ps").stdout.startswith("Nothing is running")
    down = folder.run("down")
    assert (down.returncode, down.stdout.split()[0]) == (0, "Nothing")
    assert folder.up("-d").returncode == 0  # the lock went with its holder
    assert folder.ps()["status"] == "ready"


def test_what_a_killed_runner_leaves_is_seen_and_stopped(folder: Folder) -> None:
    folder.write(a="orphan", b="orphan")  # such a process ignores the death of its parent
    assert folder.up("-d").returncode == 0
    state = folder.state()
    os.kill(state.runner.pid, signal.SIGKILL)
    wait_until(lambda: len(state.survivors()) == 3, 5)
    seen = folder.run("ps")
    assert "The runner of this flow has died" in seen.stdout
    assert {row["name"] for row in folder.ps()["processes"]} == {"a", "b"}
    down = folder.run("down")
    assert down.returncode == 0
    assert "3 of its processes are not" in down.stdout
    assert not state.survivors()

    assert folder.up("-d").returncode == 0
    state = folder.state()
    os.kill(state.runner.pid, signal.SIGKILL)
    wait_until(lambda: not state.runner.alive, 5)
    again = folder.up("-d")
    assert again.returncode == 0, again.stderr
    assert not state.survivors()  # the ones of the former run
    assert folder.ps()["status"] == "ready"


def test_a_runner_that_does_not_answer_is_killed_in_the_end(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    from flowdex_orchestrator.runner import control

    assert folder.up("-d").returncode == 0
    state = folder.state()
    os.kill(state.runner.pid, signal.SIGSTOP)
    monkeypatch.setattr(control, "_AT_ONCE", 0.3)
    state.grace = 0.0
    folder.run_folder.write(state)
    assert control.stop_flow(folder.run_folder)
    assert not state.runner.alive
    assert not state.survivors()


def test_a_replica_that_is_killed_comes_back(folder: Folder) -> None:
    assert folder.up("-d").returncode == 0
    before = folder.state().processes[1]
    assert before.process is not None
    os.kill(before.process.pid, signal.SIGKILL)
    after = folder.wait_for(lambda state: state.status.value == "ready" and state.processes[1].restarts == 1)
    assert after.processes[1].port == before.port  # the gateway knows it by its address
    assert after.processes[1].process != before.process
    assert [process.restarts for process in after.processes] == [0, 1, 0, 0]


def test_a_gateway_that_is_killed_comes_back(folder: Folder) -> None:
    assert folder.up("-d").returncode == 0
    gateway = folder.state().processes[-1]
    assert gateway.process is not None
    os.kill(gateway.process.pid, signal.SIGKILL)
    folder.wait_for(lambda state: state.status.value == "ready" and state.processes[-1].restarts == 1)


@pytest.mark.slow
def test_a_crash_loop_is_told_and_the_rest_serves_on(folder: Folder) -> None:
    folder.write(a="broken it-is")
    up = folder.start("up", "--no-check")
    state = folder.wait_for(lambda state: state.ready_at)
    (folder.path / "it-is").touch()
    assert state.processes[0].process is not None
    os.kill(state.processes[0].process.pid, signal.SIGKILL)
    state = folder.wait_for(lambda state: state.processes[0].state is State.FAILED, 60)
    assert state.processes[0].restarts == 4
    assert state.processes[0].cause == "RuntimeError: broken"
    found = folder.ps()
    assert found["status"] == "degraded"
    assert [row["state"] for row in found["processes"]] == ["failed", "ready", "ready", "ready"]
    os.killpg(up.pid, signal.SIGINT)  # also in a pause it stops at once
    _, err = up.communicate(timeout=10)
    assert up.returncode == 0
    assert re.search(r"^a-0: waiting: killed by SIGKILL \(if nobody did it by hand", err, re.MULTILINE)
    assert re.search(r"^a-0: failed: RuntimeError: broken$", err, re.MULTILINE)


def test_a_wrong_state_file_is_no_obstacle(folder: Folder) -> None:
    folder.run_folder.path.mkdir(parents=True)
    (folder.run_folder.path / "state.json").write_text("{half a fi")
    assert folder.run("ps").stdout.startswith("Nothing is running")
    assert folder.run("down").returncode == 0
    assert folder.up("-d").returncode == 0


def test_a_stranger_with_the_runners_old_id_is_left_alone(folder: Folder) -> None:
    assert folder.up("-d").returncode == 0
    assert folder.run("down").returncode == 0
    state = folder.state()
    state.runner = state.processes[0].process = ProcessId(os.getpid(), state.runner.start)  # this process, by its id
    folder.run_folder.write(state)
    assert folder.run("down").stdout.startswith("Nothing is running")
