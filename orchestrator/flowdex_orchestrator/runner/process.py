"""One child process: started in a group of its own, its output in a log file, stopped with a bound on the time.

    Launch --start()--> running --wait()--> exit code
                           |
                           +--stop(grace)--> SIGTERM ... SIGKILL to the whole group

A group of its own means that Ctrl-C in the terminal reaches only the runner, which stops the flow in order, and that
what the child itself started goes down with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from flowdex.timeouts import within
from flowdex_orchestrator.runner.logs import read_from
from flowdex_orchestrator.runner.state import ProcessId

__all__ = ["ChildProcess", "Launch"]

_LEFTOVERS_END_WITHIN = 2.0  # seconds
_LOOK_SECONDS = 0.02


@dataclass(frozen=True)
class Launch:
    """What to start, and how."""

    command: tuple[str, ...]
    env: Mapping[str, str]
    cwd: Path
    log: Path


class ChildProcess:
    """A process that was started from a `Launch`.

    Attributes:
        identity: Process id and start time; None when it ended before that could be read.
    """

    def __init__(self, launch: Launch, process: asyncio.subprocess.Process, log_start: int) -> None:
        self._launch = launch
        self._process = process
        self._log_start = log_start
        self._killed = False
        self._swept = False
        self.identity = ProcessId.of(process.pid)

    @classmethod
    async def start(cls, launch: Launch) -> ChildProcess:
        """Start the process.

        Raises:
            OSError: The program or the folder does not exist, or the system has no room for another process.
        """
        launch.log.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(launch.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            os.write(descriptor, f"---- started {time.strftime('%Y-%m-%d %H:%M:%S')} ----\n".encode())
            log_start = os.lseek(descriptor, 0, os.SEEK_END)
            process = await asyncio.create_subprocess_exec(
                *launch.command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=descriptor,
                stderr=descriptor,
                cwd=launch.cwd,
                env=dict(launch.env),
                start_new_session=True,
            )
        finally:
            os.close(descriptor)
        return cls(launch, process, log_start)

    @property
    def pid(self) -> int:
        """The process id, which is also the id of its group."""
        return self._process.pid

    @property
    def output(self) -> str:
        """What it printed (the end of it)."""
        return read_from(self._launch.log, self._log_start)

    async def wait(self) -> int:
        """Wait for the end of the process and of what it left running in its group; returns the exit code."""
        code = await self._process.wait()
        deadline = time.monotonic() + _LEFTOVERS_END_WITHIN
        # What it started sees that it is gone, and may have something to finish.
        while not self._killed and self._signal_group(0) and time.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(_LOOK_SECONDS)
        self.kill()
        self._swept = True  # from here on the id may be another's
        return code

    def terminate(self) -> None:
        """Ask it to end."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()

    def kill(self) -> None:
        """End the whole group at once."""
        self._killed = True
        self._signal_group(signal.SIGKILL)

    def _signal_group(self, number: int) -> bool:
        """Send a signal to the whole group; says whether there is one."""
        if self._swept:
            return False
        try:
            os.killpg(self.pid, number)
        except (ProcessLookupError, PermissionError):
            return False
        return True

    async def stop(self, grace: float) -> int:
        """Ask it to end, and end it after `grace` seconds; returns the exit code."""
        self.terminate()
        try:
            return await within(self.wait(), grace)
        except asyncio.TimeoutError:
            self.kill()
            return await self.wait()
