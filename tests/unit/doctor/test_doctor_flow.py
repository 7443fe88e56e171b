"""Each check of a flow, where all is well and where it is not; and the command as a whole."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from flowdex.cli.main import main
from flowdex_orchestrator.doctor import flow as of_flow
from flowdex_orchestrator.doctor.listeners import Listener, listener_on
from flowdex_orchestrator.doctor.report import Check, Verdict
from flowdex_orchestrator.flow import Finding, Flow, parse_flow
from flowdex_orchestrator.flow.check import bind_error
from flowdex_orchestrator.runner.state import FlowState, ProcessId, ProcessState, RunFolder, Status

OK, WARNING, ERROR = Verdict.OK, Verdict.WARNING, Verdict.ERROR
MIB = 2**20


def flow(executors: str, head: str = "") -> Flow:
    return parse_flow(f"jtype: Flow\n{head}executors: {executors}\n")


DEFAULT = """
  - {name: segmenter, uses: flowdex_executors.Segmenter}
  - {name: encoder, uses: flowdex_executors.BertEncoder, replicas: 2}
  - {name: indexer, uses: flowdex_executors.QdrantIndexer, uses_with: {uri: 'edge://data/index'}}
  - {name: ranker, uses: flowdex_executors.Ranker}"""


def expect(check: Check, verdict: Verdict, *said: str, remedy: str = "") -> None:
    assert check.verdict is verdict, check
    for text in said:
        assert text in check.detail, check
    assert remedy in check.remedy, check


# ---- what a flow needs ----


def test_needed_extras() -> None:
    assert set(of_flow.needed_extras(flow(DEFAULT))) == {
        "gateway",
        "executor",
        "segmenter",
        "models",
        "bert",
        "indexer",
    }
    assert of_flow.needed_extras(flow("[{name: e, uses: my.Own}, {name: far, external: true, port: 5}]")) == {
        "gateway": "the gateway",
        "executor": "e",
    }
    head = "with: {protocol: [grpc, bert], port: [51000, 5555]}\n"
    options = "{name: e, uses: flowdex_executors.BertEncoder, uses_with: {model: x/y, backend: onnx}}"
    assert set(of_flow.needed_extras(flow(f"[{options}]", head))) == {"gateway", "executor", "bert", "zeromq", "onnx"}
    elmo = flow("[{name: words, uses: flowdex_executors.ElmoEncoder}]")
    assert of_flow.needed_extras(elmo)["elmo"] == "words"


def test_memory_of_a_flow_grows_with_its_replicas() -> None:
    one = of_flow.memory_of(flow(DEFAULT.replace("replicas: 2", "replicas: 1")))
    two = of_flow.memory_of(flow(DEFAULT))
    assert 500 * MIB < one < 2000 * MIB
    assert 400 * MIB < two - one < 500 * MIB
    assert of_flow.memory_of(flow("[{name: a, uses: my.Own}]")) > 0


# ---- the file and its models ----


def test_file() -> None:
    expect(of_flow.check_file(Path("flow.yml"), [])[0], OK, "flow.yml: no problems")
    found = of_flow.check_file(Path("f"), [Finding("odd", "key", severity="warning"), Finding("wrong")])
    assert [(each.verdict, each.detail) for each in found] == [(ERROR, "<flow>: wrong"), (WARNING, "<flow>: key: odd")]


def test_models(tmp_path: Path) -> None:
    two = flow("[{name: a, uses: x.A}, {name: b, uses: x.B}]")
    cache = tmp_path / "hub"

    def models(facts: dict[int, dict[str, object]], *, offline: bool = False, cache: Path = cache) -> list[Check]:
        return of_flow.check_models(two, facts, offline=offline, cache=cache)

    assert models({}) == []
    (known,) = models({0: {"model": "mini", "dimensions": 384}, 1: {"dimensions": 384}})
    expect(known, OK, "a: mini, 384 dimensions")
    (absent,) = models({1: {"model": "org/model"}})
    expect(absent, WARNING, "b: org/model is not in", str(cache), remedy="hf download org/model")
    (offline,) = models({1: {"model": "org/model"}}, offline=True)
    expect(offline, ERROR, "offline", remedy="HF_HUB_OFFLINE")
    (tmp_path / "file").touch()
    (unwritable,) = models({1: {"model": "org/model"}}, cache=tmp_path / "file")
    expect(unwritable, ERROR, "cannot be written to", remedy="HF_HOME")


# ---- ports ----


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that this process listens on."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server.getsockname()[1]


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="only Linux says who listens")
def test_who_listens(taken: int) -> None:
    found = listener_on(taken)
    assert found is not None
    assert found.pid == os.getpid()
    assert "python" in found.command or "pytest" in found.command
    assert len(found.command) <= 60


def test_nobody_listens(taken: int) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        assert listener_on(free.getsockname()[1]) is None


def with_ports(*ports: int) -> Flow:
    return flow("[{name: a, uses: x.A}]", f"with: {{protocol: [grpc, http], port: {list(ports)}}}\n")


def test_ports(taken: int) -> None:
    one = with_ports(taken, 0)
    held = of_flow.check_ports(one, None, reason=bind_error, holder=lambda port: Listener(4711, "nginx"))
    expect(held, ERROR, f"port {taken} is held by process 4711 (nginx)", remedy="kill 4711, or give `port:`")
    hidden = of_flow.check_ports(one, None, reason=bind_error, holder=lambda port: None)
    expect(hidden, ERROR, f"port {taken} is taken", remedy="--free-ports")
    free = of_flow.check_ports(with_ports(0, 0), None, reason=bind_error)
    expect(free, OK, "free")


def test_ports_that_the_flow_itself_has(taken: int) -> None:
    runner = ProcessId.of(os.getpid())
    assert runner is not None
    gateway = ProcessState("gateway", None, "127.0.0.1", taken, process=runner)
    state = FlowState("flow.yml", "flow", runner, processes=[gateway])

    def check(pid: int) -> Check:
        return of_flow.check_ports(
            with_ports(taken, 0), state, reason=bind_error, holder=lambda port: Listener(pid, "gateway")
        )

    expect(check(runner.pid), OK, "this flow has them")
    expect(check(runner.pid + 1), ERROR, "held by process")


# ---- index and disk ----


def test_folders_and_servers(tmp_path: Path) -> None:
    state = tmp_path / "state"
    assert of_flow.flow_folders(flow(DEFAULT), state, tmp_path) == {
        "state and logs": state,
        "indexer": tmp_path / "data/index",
    }
    assert of_flow.index_servers(flow(DEFAULT)) == {}
    remote = flow("[{name: i, uses: flowdex_executors.QdrantIndexer, uses_with: {uri: 'grpcs://q.example.org'}}]")
    assert of_flow.flow_folders(remote, state, tmp_path) == {"state and logs": state}
    assert of_flow.index_servers(remote) == {"i": ("q.example.org", 6334)}


def test_disk(tmp_path: Path) -> None:
    def disk(folder: Path, free: int) -> Check:
        (check,) = of_flow.check_disk({"index": folder}, lambda path: free)
        return check

    expect(disk(tmp_path / "not/there/yet", 50 * 2**30), OK, "50.0 GiB free")
    expect(disk(tmp_path, 2**30), WARNING, "1.0 GiB free", remedy="make room")
    expect(disk(tmp_path, 10 * MIB), ERROR, remedy="make room")
    (tmp_path / "file").touch()
    expect(disk(tmp_path / "file" / "index", 50 * 2**30), ERROR, "cannot be written to", remedy="another folder")


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read-only for root")
def test_a_folder_of_somebody_else(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    (check,) = of_flow.check_disk({"index": tmp_path / "index"}, lambda path: 50 * 2**30)
    expect(check, ERROR, "cannot be written to", remedy="chown")


def test_index_server(taken: int) -> None:
    expect(of_flow.check_index_server("indexer", "127.0.0.1", taken), OK, f"127.0.0.1:{taken} answers")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        expect(
            of_flow.check_index_server("indexer", "127.0.0.1", port), ERROR, "nothing answers", "refused", remedy="uri"
        )


# ---- an earlier run ----


def test_state(tmp_path: Path) -> None:
    folder, file = RunFolder(tmp_path / "flow.yml", tmp_path, tmp_path / ".flowdex"), tmp_path / "flow.yml"
    alive, dead = ProcessId.of(os.getpid()), ProcessId(2**22 + 1, "1")
    assert alive is not None
    expect(of_flow.check_state(folder, file), OK, "not started yet")

    folder.write(FlowState(str(file), "flow", alive, Status.READY))
    expect(of_flow.check_state(folder, file), OK, f"ready, runner is process {alive.pid}")

    left = ProcessState("encoder", 0, "127.0.0.1", 1, process=alive)
    folder.write(FlowState(str(file), "flow", dead, Status.READY, processes=[left]))
    found = of_flow.check_state(folder, file)
    expect(found, WARNING, f"process {alive.pid} went on", remedy=f"flowdex down {file}")

    folder.write(FlowState(str(file), "flow", dead, Status.FAILED, error="encoder-0 did not load"))
    expect(of_flow.check_state(folder, file), WARNING, "encoder-0 did not load", remedy="flowdex logs")

    folder.write(FlowState(str(file), "flow", dead, Status.STOPPED))
    expect(of_flow.check_state(folder, file), OK, "stopped")

    (folder.path / "state.json").write_text('{"version": 99}')
    expect(of_flow.check_state(folder, file), WARNING, "another version", remedy=f"rm -r {folder.path}")
    (folder.path / "state.json").write_text("not even JSON")
    expect(of_flow.check_state(folder, file), WARNING, "no state", remedy=f"rm -r {folder.path}")


# ---- the command ----


def doctor(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["doctor", "--no-classes", *arguments])


def test_a_file_that_cannot_be_read_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("flow.yml").write_text("jtype: Flow\nexecutors: [{name: a, usess: x.A}]\n")
    result = doctor("--json")
    assert result.exit_code == 1
    told = json.loads(result.stdout)
    assert told["flow"] == "flow.yml" and told["verdict"] == "error"
    by_name = {each["name"]: each for each in told["checks"]}
    assert "usess" in by_name["flow file"]["detail"]
    assert {"python", "extras", "versions", "torch", "gpu", "cores", "files", "clock", "proxies", "locale"} <= set(
        by_name
    )


def test_the_exit_code_is_1_where_something_stops_the_flow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, taken: int
) -> None:
    monkeypatch.chdir(tmp_path)
    text = "jtype: Flow\nwith: {protocol: grpc, port: %d}\nexecutors: [{name: a, uses: x.A}]\n"
    Path("flow.yml").write_text(text % 0)
    fine = doctor()
    assert "error " not in fine.stdout
    assert fine.exit_code == 0, fine.stdout
    Path("flow.yml").write_text(text % taken)
    stopped = doctor()
    assert stopped.exit_code == 1
    assert f"port {taken} is held by process {os.getpid()}" in stopped.stdout
    assert stopped.stdout.splitlines()[-1].endswith("keeps the flow from starting.")
    assert "\x1b" not in stopped.stdout


def test_the_client_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where pydantic is not installed, doctor says so instead of failing."""
    import sys

    monkeypatch.chdir(tmp_path)
    for name in [name for name in sys.modules if name.startswith("flowdex_orchestrator.flow")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pydantic", None)
    result = doctor("--json")
    assert result.exit_code == 1
    found = next(each for each in json.loads(result.stdout)["checks"] if each["name"] == "flow file")
    assert found["detail"] == "flow files cannot be read without pydantic"
    assert found["remedy"].startswith("pip install")
