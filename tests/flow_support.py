"""What tests of several areas use: free ports, the command line, and flows that run for real."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SHARED_DATA = ROOT.parent / "shared" / "data"


def free_ports(count: int) -> list[int]:
    """Loopback ports that were free a moment ago."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def run_flowdex(
    *arguments: str, cwd: Path | None = None, timeout: float = 120, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the command line as a person would, in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "flowdex", *arguments],
        cwd=cwd or ROOT,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        stdin=subprocess.DEVNULL,
        env={**os.environ, **environment},
    )


@dataclass(frozen=True)
class RunningFlow:
    """A flow that `flowdex up` started."""

    flow_file: Path
    grpc_port: int
    http_port: int

    @property
    def folder(self) -> Path:
        return self.flow_file.parent

    @property
    def grpc_url(self) -> str:
        return f"grpc://127.0.0.1:{self.grpc_port}"

    @property
    def http_url(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"

    def flowdex(self, *arguments: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """Run a client command against this flow."""
        return run_flowdex(*arguments, cwd=self.folder, timeout=timeout, FLOWDEX_URL=self.grpc_url)


def start_flow(folder: Path, text: str, *arguments: str) -> RunningFlow:
    """Start a flow in `folder` from YAML whose `port: [...]` line is given two free ports."""
    grpc_port, http_port = free_ports(2)
    flow_file = folder / "flow.yml"
    flow_file.write_text(re.sub(r"port: \[51000, 8080\]", f"port: [{grpc_port}, {http_port}]", text))
    done = run_flowdex("up", str(flow_file), "--detach", *arguments)
    assert done.returncode == 0, f"flowdex up failed:\n{done.stdout}\n{done.stderr}"
    return RunningFlow(flow_file, grpc_port, http_port)


def stop_flow(flow: RunningFlow) -> None:
    """Stop a flow that `start_flow` started."""
    done = run_flowdex("down", str(flow.flow_file))
    assert done.returncode == 0, f"flowdex down failed:\n{done.stdout}\n{done.stderr}"
