"""up, down, ps and logs in processes of their own, with stand-ins for executors and gateway (see runner_fake.py)."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from runner_support import Folder, open_folder

from flowdex_orchestrator.runner.state import ProcessId


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    with open_folder(tmp_path) as folder:
        yield folder


def test_detach_ps_logs_down(folder: Folder) -> None:
    up = folder.up("--detach")
    assert up.returncode == 0, up.stderr
    assert re.match(r"testflow is ready after \d+\.\d s\. `flowdex down` stops it\.\n  grpc  grpc://127", up.stdout)
    assert re.search(r"^b-1: loading \(process \d+, port \d+\)$", up.stderr, re.MULTILINE)
    assert re.search(r"^b-1: ready after \d+\.\d s$", up.stderr, re.MULTILINE)

    found = folder.ps()
    assert found["status"] == "ready"
    assert [(row["name"], row["replica"], row["state"]) for row in found["processes"]] == [
        ("a", 0, "ready"),
        ("b", 0, "ready"),
        ("b", 1, "ready"),
        ("gateway", None, "ready"),
    ]
    assert all(row["uptime"] > 0 and row["memory"] > 2**20 and row["restarts"] == 0 for row in found["processes"])
    table = folder.run("ps").stdout.splitlines()
    assert table[1].split() == ["NAME", "REPLICA", "PID", "PORT", "STATE", "RESTARTS", "UPTIME", "MEMORY"]
    assert table[4].split()[:2] == ["b", "1"]

    assert "fake executor serve with 1 threads" in folder.run("logs", "b-1").stdout  # two replicas on two cores or more
    replicas = folder.run("logs", "b", "-n", "1").stdout.splitlines()
    assert [line.split(" | ")[0] for line in replicas] == ["b-0", "b-1"]
    assert "--address b=127.0.0.1:" in folder.run("logs", "gateway").stdout
    assert "runner | " in folder.run("logs").stdout
    unknown = folder.run("logs", "gatewai")
    assert (unknown.returncode, unknown.stderr) == (1, "Error: there is no log of 'gatewai'; did you mean 'gateway'?\n")

    pids = folder.state().survivors()
    assert len(pids) == 4
    down = folder.run("down")
    assert (down.returncode, down.stdout.splitlines()[-1]) == (0, "Stopped.")
    assert not any(process.alive for process in pids)
    assert folder.ps()["status"] == "stopped"
    again = folder.run("down")
    assert (again.returncode, again.stdout) == (0, f"Nothing is running of {folder.path / 'flow.yml'}.\n")


def test_replicas_from_the_command_line(folder: Folder) -> None:
    assert folder.up("-d", "--replicas", "a=2", "--replicas", "b=1").returncode == 0
    assert [(row["name"], row["replica"]) for row in folder.ps()["processes"]] == [
        ("a", 0),
        ("a", 1),
        ("b", 0),
        ("gateway", None),
    ]
    wrong = folder.run("up", "--replicas", "a=zero")
    assert wrong.returncode == 2
    assert "expected NAME=N" in wrong.stderr
    unknown = folder.run("up", "--replicas", "aa=2")
    assert unknown.returncode == 1
    assert "'aa'" in unknown.stderr
    assert "Traceback" not in unknown.stderr


def test_the_same_flow_twice_says_so(folder: Folder) -> None:
    assert folder.up("-d").returncode == 0
    runner = folder.state().runner.pid
    for arguments in ((), ("-d",)):
        second = folder.up(*arguments)
        assert second.returncode == 1
        assert second.stderr.startswith(f"Error: {folder.path / 'flow.yml'} is running already (process {runner},")
    assert folder.ps()["status"] == "ready"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_a_ready_flow(folder: Folder, number: signal.Signals) -> None:
    up = folder.start("up", "--no-check")
    state = folder.wait_for(lambda state: state.ready_at)
    # To the whole group, as a terminal does it: the children are in groups of their own.
    os.killpg(up.pid, number)
    out, err = up.communicate(timeout=15)
    assert up.returncode == 0
    assert "Ctrl-C stops it" in out
    assert "Stopping the flow ..." in err
    assert "Traceback" not in out + err
    assert not state.survivors()
    assert folder.state().status.value == "stopped"
    for log in (folder.path / ".flowdex/run/flow/logs").glob("*.log"):
        assert "Traceback" not in log.read_text()


def test_ctrl_c_while_loading(folder: Folder) -> None:
    folder.write(a="hang", b="slow 30")
    up = folder.start("up", "--no-check")
    state = folder.wait_for(lambda state: len(state.survivors()) == 4)
    began = time.monotonic()
    os.killpg(up.pid, signal.SIGINT)
    out, err = up.communicate(timeout=15)
    assert up.returncode == 130
    assert "Traceback" not in out + err
    assert time.monotonic() - began < 6
    assert not state.survivors()


def test_ctrl_c_while_a_detached_flow_loads(folder: Folder) -> None:
    folder.write(a="hang")
    up = folder.start("up", "--no-check", "--detach")
    state = folder.wait_for(lambda state: len(state.survivors()) == 4)
    os.killpg(up.pid, signal.SIGINT)
    out, err = up.communicate(timeout=15)
    assert up.returncode == 130
    assert "Traceback" not in out + err
    assert not state.running
    assert not state.survivors()


def test_down_while_a_detached_flow_loads(folder: Folder) -> None:
    folder.write(a="hang")
    up = folder.start("up", "--no-check", "--detach")
    state = folder.wait_for(lambda state: len(state.survivors()) == 4)
    assert folder.run("down").stdout.endswith("Stopped.\n")
    _, err = up.communicate(timeout=15)
    assert up.returncode == 1
    assert err.endswith("Error: it was stopped before it was ready\n")
    assert not state.survivors()


def test_a_reader_that_goes_away_does_not_stop_the_flow(folder: Folder) -> None:
    up = folder.start("up", "--no-check")
    assert up.stdout is not None
    assert up.stderr is not None
    up.stdout.close()
    up.stderr.close()
    state = folder.wait_for(lambda state: state.ready_at)
    assert up.poll() is None
    os.killpg(up.pid, signal.SIGINT)
    up.wait(15)
    assert not state.survivors()
    assert folder.state().status.value == "stopped"


def test_a_second_ctrl_c_does_not_wait(folder: Folder) -> None:
    folder.write(a="deaf", b="drain 30")
    up = folder.start("up", "--no-check")
    state = folder.wait_for(lambda state: state.ready_at)
    os.killpg(up.pid, signal.SIGINT)
    folder.wait_for(lambda state: "stopping" in [process.state.value for process in state.processes])
    time.sleep(0.3)
    assert up.poll() is None
    os.killpg(up.pid, signal.SIGINT)
    out, err = up.communicate(timeout=5)
    assert up.returncode == 0
    assert "Traceback" not in out + err
    assert not state.survivors()


@pytest.mark.parametrize("detach", [(), ("--detach",)], ids=["foreground", "detached"])
@pytest.mark.parametrize(
    ("behaviour", "arguments", "message"),
    [
        ("raise", (), r"Error: a-0 failed: ValueError: no model in this folder; its log: flowdex logs a-0\n"),
        (
            "exit 0",
            (),
            r"Error: a-0 failed: it ended with exit code 0; the last it said: fake .* \(an executor must not",
        ),
        ("exit 7", (), r"Error: a-0 failed: it ended with exit code 7; the last it said: fake executor .*\n"),
        (
            "hang",
            ("--timeout", "1.5"),
            r"Error: the flow was not ready within 1.5 s; still loading:\n  a-0 \(1\.\d s\), the last it said: fake",
        ),
    ],
)
def test_a_failing_executor_is_reported(
    folder: Folder, detach: tuple[str, ...], behaviour: str, arguments: tuple[str, ...], message: str
) -> None:
    folder.write(a=behaviour)
    began = time.monotonic()
    up = folder.up(*detach, *arguments)
    assert up.returncode == 1
    assert time.monotonic() - began < 8
    assert re.search(message, up.stderr)
    assert "Traceback" not in up.stderr
    assert not folder.state().survivors()
    assert folder.ps()["status"] == "failed"
    assert "The last start failed: " in folder.run("ps").stdout


def test_the_flows_port_is_taken(folder: Folder) -> None:
    port = int(re.findall(r"port: \[(\d+)\]", (folder.path / "flow.yml").read_text())[0])
    import socket

    with socket.socket() as server:
        server.bind(("127.0.0.1", port))
        server.listen()
        up = folder.up("-d")
    assert up.returncode == 1
    assert f"gateway failed: port {port} on 127.0.0.1 is taken (another program listens there" in up.stderr


def test_a_crash_is_told_and_mended(folder: Folder) -> None:
    folder.write(a="crash now")
    up = folder.start("up", "--no-check")
    folder.wait_for(lambda state: state.ready_at)
    (folder.path / "now").touch()
    folder.wait_for(lambda state: state.processes[0].restarts == 1 and state.status.value == "ready")
    os.killpg(up.pid, signal.SIGINT)
    _, err = up.communicate(timeout=15)
    assert re.search(r"^a-0: waiting: RuntimeError: crashed while serving$", err, re.MULTILINE)
    log = (folder.path / ".flowdex/run/flow/logs/a-0.log").read_text()
    assert log.count("---- started") == 2  # one file for both lives


def test_logs_are_followed_until_the_flow_ends(folder: Folder) -> None:
    folder.write(a="crash now")
    assert folder.up("-d").returncode == 0
    follow = folder.start("logs", "-f", "a")
    (folder.path / "now").touch()
    folder.wait_for(lambda state: state.processes[0].restarts == 1 and state.status.value == "ready")
    assert folder.run("down").returncode == 0
    out, err = follow.communicate(timeout=10)
    assert (follow.returncode, err) == (0, "")
    assert "RuntimeError: crashed while serving" in out
    assert out.count("---- started") >= 2

    assert folder.up("-d").returncode == 0
    follow = folder.start("logs", "-f")
    assert follow.stdout is not None
    follow.stdout.readline()
    os.killpg(follow.pid, signal.SIGINT)
    _, err = follow.communicate(timeout=10)
    assert (follow.returncode, err) == (0, "")


def test_the_log_of_the_run_before_is_kept(folder: Folder) -> None:
    for _ in range(2):
        assert folder.up("-d").returncode == 0
        assert folder.run("down").returncode == 0
    logs = folder.path / ".flowdex/run/flow/logs"
    assert (logs / "a-0.log").read_text().count("---- started") == 1
    assert (logs / "a-0.log.1").read_text().count("---- started") == 1
    assert "testflow is ready" in (logs / "runner.log.1").read_text()


def test_a_terminal_gets_a_table(folder: Folder) -> None:
    master, slave = pty.openpty()
    up = folder.start("up", "--no-check", stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    text = b""
    deadline = time.monotonic() + 20
    while b"Ctrl-C stops it" not in text:
        assert time.monotonic() < deadline, text
        if select.select([master], [], [], 0.1)[0]:
            text += os.read(master, 4096)
    folder.wait_for(lambda state: state.ready_at)
    os.killpg(up.pid, signal.SIGINT)
    while True:
        try:
            chunk = os.read(master, 4096)
        except OSError:
            break
        if not chunk:
            break
        text += chunk
    os.close(master)
    assert up.wait(15) == 0
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text.decode())
    assert "NAME" in shown
    assert re.search(r"b-1\s+ready\s+\d+\.\d", shown)
    assert "a-0: ready" not in shown  # lines are for files
    assert "Traceback" not in shown


def test_no_flow_file(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    missing = folder.up("absent.yml")
    assert missing.returncode == 1
    assert re.fullmatch(r"Error: \S+/absent.yml: there is no such file\n", missing.stderr)
    assert folder.run("ps", "absent.yml").returncode == 0
    logs = folder.run("logs", "--flow", "absent.yml")
    assert logs.returncode == 1
    assert "has not been started" in logs.stderr
    assert not (tmp_path / ".flowdex").exists()


def test_processes_see_their_folder_and_no_terminal(folder: Folder) -> None:
    assert folder.up("-d").returncode == 0
    for process in folder.state().processes:
        assert process.process is not None
        proc = Path(f"/proc/{process.process.pid}")
        if not proc.exists():
            pytest.skip("reads /proc")
        assert (proc / "cwd").resolve() == folder.path
        assert (proc / "fd/0").resolve() == Path("/dev/null")
        assert os.getpgid(process.process.pid) == process.process.pid
    runner = ProcessId.of(folder.state().runner.pid)
    assert runner == folder.state().runner
