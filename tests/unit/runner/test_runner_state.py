"""state.json, the lock, and telling a process from a later one with its id."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from flowdex.errors import ConfigurationError, Conflict, PermissionDenied
from flowdex_orchestrator.runner import state as module
from flowdex_orchestrator.runner.control import stop_flow
from flowdex_orchestrator.runner.memory import memory_of_groups
from flowdex_orchestrator.runner.state import FlowState, ProcessId, ProcessState, RunFolder, State, Status


def me() -> ProcessId:
    identity = ProcessId.of(os.getpid())
    assert identity is not None
    return identity


def a_state() -> FlowState:
    return FlowState(
        flow="/x/flow.yml",
        name="x",
        runner=me(),
        status=Status.READY,
        endpoints={"grpc": "grpc://127.0.0.1:1"},
        processes=[
            ProcessState("encoder", 1, "127.0.0.1", 2, state=State.READY, process=me(), started_at=1.5, ready_at=2.5),
            ProcessState("gateway", None, "127.0.0.1", 3, cause="dünn"),
        ],
    )


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    monkeypatch.delenv("FLOWDEX_HOME", raising=False)
    return RunFolder(tmp_path / "flow.yml", tmp_path)


def test_state_survives_the_file(folder: RunFolder) -> None:
    assert folder.read() is None
    folder.write(a_state())
    read = folder.read()
    assert read is not None
    assert read.to_json() == a_state().to_json() | {"started_at": read.started_at}
    assert read.running
    assert read.survivors() == [me()]
    assert [process.label for process in read.processes] == ["encoder-1", "gateway"]
    assert sorted(path.name for path in folder.path.iterdir()) == ["state.json"]  # no temporary file is left


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"version": 1, "processes": []}', "null"])
def test_a_state_of_another_version_counts_as_none(folder: RunFolder, text: str) -> None:
    folder.write(a_state())
    (folder.path / "state.json").write_text(text)
    assert folder.read() is None


def test_the_state_of_a_newer_version_is_refused(folder: RunFolder) -> None:
    newer = a_state().to_json() | {"version": 99, "flowdex": "9.9.9", "unknown": 1}
    folder.write(a_state())
    (folder.path / "state.json").write_text(json.dumps(newer))
    with pytest.raises(ConfigurationError, match=r"of format 99, written by flowdex 9\.9\.9; this is .* up to 1"):
        folder.read()
    assert folder.former() is None  # a start may replace it: the lock says that nothing runs
    process = newer["processes"][0] | {"unknown": 2}
    (folder.path / "state.json").write_text(json.dumps(newer | {"version": 1, "processes": [process]}))
    read = folder.read()  # a key more is no other version
    assert read is not None
    assert read.processes[0].label == "encoder-1"


@pytest.mark.parametrize("reader", ["proc", "ps"])
def test_identity_needs_pid_and_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, reader: str) -> None:
    if reader == "ps":
        monkeypatch.setattr(module, "_PROC", tmp_path)
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        identity = ProcessId.of(child.pid)
        assert identity is not None
        assert identity.alive
        assert not ProcessId(child.pid, identity.start + "0").alive
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # a zombie from here on
        assert not identity.alive
    finally:
        child.kill()
        child.communicate()
    assert ProcessId.of(child.pid) is None


def test_two_runners_of_one_flow_exclude_each_other(folder: RunFolder, tmp_path: Path) -> None:
    script = """
import sys
from pathlib import Path
from flowdex_orchestrator.runner.state import RunFolder
with RunFolder(Path(sys.argv[1]) / "flow.yml", Path(sys.argv[1])).locked():
    print("locked", flush=True)
    input()
"""
    command = [sys.executable, "-c", script, str(tmp_path)]
    other = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    try:
        assert other.stdout.readline() == "locked\n"
        with pytest.raises(Conflict, match=rf"process {other.pid}\b.*flowdex down"), folder.locked():
            pass
        with RunFolder(tmp_path / "other.yml", tmp_path).locked():
            pass  # another flow of the same folder
        other.kill()
        other.wait(10)
        with folder.locked():
            pass  # the lock goes with its holder
    finally:
        other.kill()
        other.communicate()


def test_home_overrides_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWDEX_HOME", str(tmp_path / "home"))
    assert RunFolder(Path("/x/flow.yml"), Path("/x")).path == tmp_path / "home" / "run" / "flow"


def test_the_file_is_json_for_others(folder: RunFolder) -> None:
    folder.write(a_state())
    data = json.loads((folder.path / "state.json").read_text())
    assert data["status"] == "ready"
    assert data["processes"][0]["process"]["pid"] == os.getpid()


@pytest.mark.parametrize("reader", ["proc", "ps"])
def test_memory_counts_the_whole_group(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, reader: str) -> None:
    if reader == "ps":
        monkeypatch.setattr("flowdex_orchestrator.runner.memory._PROC", tmp_path)
    child = "x = bytearray(40_000_000); print('ok', flush=True); input()"
    script = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "ok\n"
        assert memory_of_groups([process.pid])[process.pid] > 40_000_000
        assert memory_of_groups([2**22 + 1]) == {}
    finally:
        process.communicate("\n", timeout=10)


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("FLOWDEX_HOME", str(tmp_path / "file"))  # no folder can be made below a file
    with pytest.raises(ConfigurationError, match="set FLOWDEX_HOME"), RunFolder(Path("flow.yml"), tmp_path).locked():
        pass


def test_another_users_flow_is_left_alone(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def kill(pid: int, number: int) -> None:
        raise PermissionError

    folder.write(a_state())
    monkeypatch.setattr("flowdex_orchestrator.runner.control.os.kill", kill)
    with pytest.raises(PermissionDenied, match="another user"):
        stop_flow(folder)
