"""`flowdex encode --flow FILE`: the flow runs for the time of the command, or goes on if it ran before."""

from __future__ import annotations

import json
import re
from pathlib import Path

from flow_support import ROOT, free_ports, run_flowdex


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
