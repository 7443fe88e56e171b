"""The default flow, from start to end, calls nobody outside of this machine: counted by the kernel.

It runs in a network namespace of its own that has loopback and no route. Whatever any process there tries to send
elsewhere, a name server included, counts as `OutNoRoutes` (RFC 4293, ipIfStatsOutNoRoutes), whatever it is written in.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from flow_support import ROOT

SCRIPT = r"""
import fcntl, json, pathlib, socket, struct, subprocess, sys

def no_routes():
    lines = [line.split() for line in pathlib.Path("/proc/net/snmp").read_text().splitlines()]
    names, values = [line for line in lines if line[0] == "Ip:"]
    total = int(dict(zip(names, values))["OutNoRoutes"])
    six = pathlib.Path("/proc/net/snmp6").read_text().split()
    return total + int(six[six.index("Ip6OutNoRoutes") + 1])

with socket.socket() as control:  # loopback up: SIOCSIFFLAGS, IFF_UP | IFF_RUNNING
    fcntl.ioctl(control, 0x8914, struct.pack("16sh", b"lo", 0x41))

def flowdex(*arguments):
    done = subprocess.run([sys.executable, "-m", "flowdex", *arguments], capture_output=True, text=True, timeout=150)
    return {"code": done.returncode, "out": done.stdout, "err": done.stderr[-2000:]}

steps, before = {}, no_routes()
try:
    steps["up"] = flowdex("up", "flow.yml", "--detach", "--free-ports")
    state = json.loads(flowdex("ps", "flow.yml", "--json")["out"])
    url = ("--url", state["endpoints"]["grpc"])
    for name, arguments in {
        "index": (*url, "index", "text.txt"),
        "search": (*url, "search", "how are documents found?"),
        "encode": (*url, "encode", "text.txt"),
        "status": (*url, "status"),
    }.items():
        steps[name] = flowdex(*arguments)
finally:
    steps["down"] = flowdex("down", "flow.yml")
after = no_routes()
for address in ("192.0.2.1", "2001:db8::1"):  # what counts, counts
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as outside:
        outside.settimeout(1)
        try:
            outside.connect((address, 443))
        except OSError:
            pass
print("RESULT " + json.dumps({"steps": steps, "calls": after - before, "proof": no_routes() - after}))
"""


def _isolated() -> list[str] | None:
    """The command that runs another one without a network; None where that is not allowed."""
    found = shutil.which("unshare")
    if found is None:
        return None
    command = [found, "--net"] if os.geteuid() == 0 else [found, "--map-root-user", "--net"]
    return command if subprocess.run([*command, "true"], capture_output=True, check=False).returncode == 0 else None


def test_the_default_flow_calls_nobody(tmp_path: Path) -> None:
    command = _isolated()
    if command is None:
        pytest.skip("no network namespaces here")
    shutil.copy(ROOT / "flow.yml", tmp_path / "flow.yml")
    (tmp_path / "text.txt").write_text("Documents are found by what they mean.\n")
    (tmp_path / "script.py").write_text(SCRIPT)
    told = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "JINA_", "FLOWDEX_"))}
    done = subprocess.run(
        [*command, sys.executable, "script.py"],
        cwd=tmp_path,
        env=told,
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )
    (line,) = [each for each in done.stdout.splitlines() if each.startswith("RESULT ")] or [done.stderr]
    result = json.loads(line.removeprefix("RESULT "))
    failed = {name: step for name, step in result["steps"].items() if step["code"] != 0}
    assert not failed
    assert result["proof"] >= 1
    assert result["calls"] == 0
