"""Starts and ends the processes that a benchmark measures, each on free loopback ports.

They end with the benchmark: by the context manager on an error, Ctrl-C or SIGTERM, and flowdex's own by themselves when
it is killed.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
START_SECONDS = 120
FLOWDEX = ["-m", "flowdex"]
_PYTHONPATH = [path for path in [os.environ.get("PYTHONPATH")] if path]


def free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


class Servers:
    """Processes of one system under test; a context manager that ends them all, children included."""

    def __init__(self) -> None:
        self._processes: list[subprocess.Popen[bytes]] = []
        signal.signal(signal.SIGTERM, _exit)
        self.log = tempfile.NamedTemporaryFile(prefix="benchmark-", suffix=".log", delete=False)  # noqa: SIM115

    def start(self, command: Sequence[str], **environment: str) -> subprocess.Popen[bytes]:
        """Start one process in a group of its own; what it prints goes to the log."""
        parent = ["--parent-pid", str(os.getpid())] if list(command[:2]) == FLOWDEX else []
        process = subprocess.Popen(
            [sys.executable, *command, *parent],
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join((str(HERE), *_PYTHONPATH)), **environment},
        )
        self._processes.append(process)
        return process

    def wait_for(self, *ports: int) -> None:
        """Wait until something listens on every port."""
        deadline = time.monotonic() + START_SECONDS
        for port in ports:
            while True:
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                if any(process.poll() is not None for process in self._processes) or time.monotonic() > deadline:
                    raise SystemExit(f"a server did not start:\n{Path(self.log.name).read_text()[-3000:]}")
                time.sleep(0.1)

    def wait_for_line(self, line: str) -> None:
        """Wait until a process has printed `line`."""
        deadline = time.monotonic() + START_SECONDS
        while line not in Path(self.log.name).read_text(errors="replace"):
            if any(process.poll() is not None for process in self._processes) or time.monotonic() > deadline:
                raise SystemExit(f"a server did not start:\n{Path(self.log.name).read_text()[-3000:]}")
            time.sleep(0.1)

    @property
    def pids(self) -> list[int]:
        """The process ids of all processes and their descendants."""
        found = [process.pid for process in self._processes]
        for pid in found:
            for children in Path(f"/proc/{pid}/task").glob("*/children"):
                found.extend(int(child) for child in children.read_text().split())
        return found

    def __enter__(self) -> Servers:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
        for process in self._processes:
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(5)
        self.log.close()
        Path(self.log.name).unlink(missing_ok=True)


def _exit(number: int, _: object) -> None:
    """End as after an error, so that the servers are ended too."""
    raise SystemExit(128 + number)
