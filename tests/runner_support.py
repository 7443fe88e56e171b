"""A folder with a flow in it and the commands typed there, for the tests of the runner."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from flowdex_orchestrator.runner.ports import free_ports
from flowdex_orchestrator.runner.state import FlowState, RunFolder

FAKE = Path(__file__).with_name("runner_fake.py")
FLOW = """\
jtype: Flow
with: {{name: testflow, port: [{port}], protocol: [grpc]}}
executors:
  - {{name: a, uses: x.Y, env: {{FAKE: "{a}"}}}}
  - {{name: b, uses: x.Y, replicas: 2, env: {{FAKE: "{b}"}}}}
"""


class Folder:
    """A folder with a flow file, and the commands typed in it."""

    def __init__(self, path: Path, *, real: bool = False, program: Path = FAKE) -> None:
        self.path = path
        self._command = [sys.executable, "-m", "flowdex"] if real else [sys.executable, str(program)]
        self._env = {**os.environ, "NO_COLOR": "1"}
        self._env.pop("FLOWDEX_HOME", None)
        self.started: list[subprocess.Popen[str]] = []
        self.run_folder = RunFolder(path / "flow.yml", path)
        self.write()

    def write(self, a: str = "serve", b: str = "serve") -> None:
        (self.path / "flow.yml").write_text(FLOW.format(port=free_ports(1)[0], a=a, b=b))

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        """Start a command in a process group of its own, as a shell does."""
        process = subprocess.Popen(
            [*self._command, *arguments],
            cwd=self.path,
            text=True,
            start_new_session=True,
            env=self._env,
            **{
                "stdin": subprocess.DEVNULL,
                "stdout": subprocess.PIPE,
                "stderr": subprocess.PIPE,
                **options,
            },
        )
        self.started.append(process)
        return process

    def run(self, *arguments: str, timeout: float = 30) -> subprocess.CompletedProcess[str]:
        process = self.start(*arguments)
        out, err = process.communicate(timeout=timeout)
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    def up(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.run("up", "--no-check", *arguments)

    def ps(self) -> dict[str, Any]:
        done = self.run("ps", "--json")
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def state(self) -> FlowState:
        state = self.run_folder.read()
        assert state is not None
        return state

    def wait_for(self, condition: Callable[[FlowState], object], seconds: float = 15) -> FlowState:
        deadline = time.monotonic() + seconds
        while True:
            state = self.run_folder.read()
            if state is not None and condition(state):
                return state
            assert time.monotonic() < deadline, f"waited too long: {state}"
            time.sleep(0.02)


def wait_until(condition: Callable[[], object], seconds: float) -> None:
    """Wait for a condition, with a bound."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.02)


@contextlib.contextmanager
def open_folder(path: Path, make: type[Folder] = Folder, **options: Any) -> Iterator[Folder]:
    """A folder whose flow is stopped at the end; nothing that it started may outlive that."""
    folder = make(path, **options)
    try:
        yield folder
    finally:
        try:
            folder.run("down")
        finally:
            for process in folder.started:
                if process.poll() is None:
                    process.kill()
                    process.communicate()
    state = folder.run_folder.read()
    assert state is None or not state.survivors()
