"""The runner with real executors and a real gateway: serving, a replica killed, executors that cannot start."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from runner_support import Folder, open_folder, wait_until

from flowdex import wire
from flowdex.documents import DocumentBatch
from flowdex_orchestrator.runner.ports import free_ports

EXECUTORS = """
import time
from docarray import DocList
from docarray.documents import TextDoc
from jina import Executor, requests

class Upper(Executor):
    @requests(on="/encode")  # an endpoint that may run twice: the gateway tries it again elsewhere
    def upper(self, docs: DocList[TextDoc], **kwargs) -> DocList[TextDoc]:
        for doc in docs:
            doc.text = doc.text.upper()
        return docs

class Raises(Executor):
    def __init__(self, **kwargs):
        raise FileNotFoundError("no model at /nowhere")

class Exits(Executor):
    def __init__(self, **kwargs):
        raise SystemExit(0)

class Hangs(Executor):
    def __init__(self, **kwargs):
        time.sleep(100)
"""
FLOW = """\
jtype: Flow
with: {{port: [{port}], protocol: [grpc]}}
executors:
  - {{name: good, uses: tiny.Upper, py_modules: [tiny.py], replicas: 2}}
"""
BAD = "  - {{name: bad, uses: tiny.{cls}, py_modules: [tiny.py]{more}}}\n"


def write_flow(folder: Folder, bad: str = "") -> int:
    (folder.path / "tiny.py").write_text(EXECUTORS)
    port = free_ports(1)[0]
    (folder.path / "flow.yml").write_text((FLOW + bad).format(port=port))
    return port


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    with open_folder(tmp_path, real=True) as folder:
        yield folder


def upper(port: int, *texts: str) -> list[str | None]:
    request = wire.build_request("/encode", DocumentBatch.from_columns(texts=list(texts)))
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        reply = wire.read_request(channel.unary_unary(wire.PROCESS_SINGLE_DATA)(request, timeout=30))
    assert wire.error_of(reply.header) is None, reply.header
    return list(wire.documents_of(reply).texts)


@pytest.mark.slow
def test_serves_and_mends_itself(folder: Folder) -> None:
    port = write_flow(folder)
    up = folder.run("up", "--detach", timeout=120)
    assert up.returncode == 0, up.stderr
    assert upper(port, "a", "b") == ["A", "B"]

    first = folder.state().processes[0]
    assert first.process is not None
    os.kill(first.process.pid, signal.SIGKILL)
    assert upper(port, "c") == ["C"]  # the other replica is there
    state = folder.wait_for(lambda state: state.processes[0].restarts == 1 and state.status.value == "ready", 60)
    assert state.processes[0].port == first.port
    other = state.processes[1]
    assert other.process is not None
    os.kill(other.process.pid, signal.SIGKILL)
    assert upper(port, "d") == ["D"]  # by the one that came back: the gateway has found it again

    os.kill(state.runner.pid, signal.SIGKILL)
    wait_until(lambda: not state.survivors(), 2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cls", "message"),
    [
        ("Raises", r"Error: bad-0 failed: FileNotFoundError: no model at /nowhere; its log: flowdex logs bad-0\n"),
        ("Exits", r"Error: bad-0 failed: SystemExit: 0 \(an executor must not call sys.exit\(\)\)"),
    ],
)
def test_an_executor_that_cannot_start(folder: Folder, cls: str, message: str) -> None:
    write_flow(folder, BAD.replace("{cls}", cls).replace("{more}", ""))
    up = folder.run("up", timeout=90)
    assert up.returncode == 1
    assert re.search(message, up.stderr), up.stderr
    assert "Traceback" not in up.stdout + up.stderr
    assert not folder.state().survivors()


@pytest.mark.slow
def test_an_executor_that_never_gets_ready(folder: Folder) -> None:
    write_flow(folder, BAD.replace("{cls}", "Hangs").replace("{more}", ", timeout_ready: 4000"))
    up = folder.run("up", "--no-check", timeout=90)
    assert up.returncode == 1
    assert "bad-0 failed: it was not ready within 4 s" in up.stderr
    assert not folder.state().survivors()


@pytest.mark.slow
def test_killed_while_loading_leaves_no_orphans(folder: Folder) -> None:
    write_flow(folder, BAD.replace("{cls}", "Hangs").replace("{more}", ""))
    up = folder.start("up", "--no-check")
    state = folder.wait_for(lambda state: len(state.survivors()) == 4)
    time.sleep(1.5)  # amid the imports
    up.kill()
    up.communicate(timeout=10)
    wait_until(lambda: not state.survivors(), 4)


def test_mistakes_are_found_before_anything_starts(folder: Folder) -> None:
    write_flow(folder, "  - {{name: bad, uses: tiny.Uper, py_modules: [tiny.py]}}\n")
    up = folder.run("up", timeout=60)
    assert up.returncode == 1
    assert "did you mean Upper?" in up.stderr
    assert "flow.yml:5" in up.stderr
    state = folder.run_folder.read()
    assert state is None or not state.processes


@pytest.mark.slow
def test_only_the_encoder_pays_for_torch(tmp_path: Path) -> None:
    if not Path("/proc/self/maps").exists():
        pytest.skip("reads /proc")
    flow_file = Path(__file__).resolve().parents[2] / "flow.yml"
    with open_folder(tmp_path, real=True) as folder:
        ports = free_ports(2)
        (tmp_path / "flow.yml").write_text(flow_file.read_text().replace("[51000, 8080]", str(ports)))
        up = folder.run("up", "--detach", timeout=120)
        assert up.returncode == 0, up.stderr
        heavy = {
            process.name
            for process in folder.state().processes
            if process.process and "libtorch" in Path(f"/proc/{process.process.pid}/maps").read_text()
        }
        assert heavy == {"encoder"}
