"""`flowdex encode --flow FILE`: the flow runs for the time of the command, or goes on if it ran before."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from flow_support import ROOT, free_ports, run_flowdex

SLOW_EXECUTOR = """
import pathlib, time
from jina import Executor, requests

class Slow(Executor):
    @requests(on="/encode")
    def encode(self, docs, **kwargs):
        pathlib.Path(__file__).with_name("busy").touch()
        time.sleep(60)
"""


def test_a_flow_for_one_command(tmp_path: Path) -> None:
    flow = tmp_path / "flow.yml"
    ports = "port: [{}, {}]".format(*free_ports(2))
    flow.write_text(re.sub(r"port: \[51000, 8080\]", ports, (ROOT / "flows/encode.yml").read_text()))

    done = run_flowdex("encode", "--flow", str(flow), "one", "two", "--json")
    assert done.returncode == 0, done.stderr
    first, second = (json.loads(line) for line in done.stdout.splitlines())
    assert (first["text"], len(first["embedding"])) == ("one", 384)
    assert first["embedding"] != second["embedding"]
    assert json.loads(run_flowdex("ps", str(flow), "--json").stdout)["status"] == "stopped"

    assert run_flowdex("up", str(flow), "--detach").returncode == 0
    try:
        again = run_flowdex("encode", "--flow", str(flow), "one", "--json")
        assert json.loads(again.stdout)["embedding"] == first["embedding"]
        assert json.loads(run_flowdex("ps", str(flow), "--json").stdout)["status"] == "ready"
    finally:
        run_flowdex("down", str(flow))


def test_a_flow_that_cannot_start_says_why(tmp_path: Path) -> None:
    flow = tmp_path / "flow.yml"
    flow.write_text("jtype: Flow\nexecutors:\n  - name: encoder\n    uses: flowdex_executors.BertEncodr\n")
    done = run_flowdex("encode", "--flow", str(flow), "one")
    assert done.returncode == 1
    assert "flow.yml:4" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("moment", ["while it starts", "at work"])
def test_a_flow_ends_with_a_command_that_is_terminated(tmp_path: Path, moment: str) -> None:
    flow = tmp_path / "flow.yml"
    (tmp_path / "slow.py").write_text(SLOW_EXECUTOR)
    flow.write_text(
        "jtype: Flow\nwith: {{protocol: [grpc], port: [{}]}}\nexecutors:\n"
        "  - {{name: encoder, uses: Slow, py_modules: [slow.py], port: {}}}\n".format(*free_ports(2))
    )
    command = [sys.executable, "-m", "flowdex", "encode", "--flow", str(flow), "one"]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 60
        while not (started(flow) if moment == "while it starts" else (tmp_path / "busy").exists()):
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 128 + signal.SIGTERM, said
    assert not started(flow)


def started(flow: Path) -> bool:
    return bool(json.loads(run_flowdex("ps", str(flow), "--json").stdout)["status"] != "stopped")
