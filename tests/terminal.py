"""A command on a pseudo terminal, for tests of what people see and type."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

_QUIET = ("NO_COLOR", "FORCE_COLOR", "COLUMNS")


class Terminal:
    """Runs a command whose standard streams are a terminal.

    Args:
        command: The command.
        cwd: Where.
        streams: Which of its streams are the terminal; standard output goes into `piped` where it is not among them.
        columns: Width of the terminal.
        environment: Variables beside those of this process; NO_COLOR and FORCE_COLOR are taken from here alone.

    Attributes:
        shown: All that has been shown.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        cwd: Path | None = None,
        streams: Sequence[str] = ("stdin", "stdout", "stderr"),
        columns: int = 100,
        **environment: str,
    ) -> None:
        import pty

        self._mine, theirs = pty.openpty()
        variables: Mapping[str, str] = {name: value for name, value in os.environ.items() if name not in _QUIET}
        chosen = {name: theirs if name in streams else subprocess.PIPE for name in ("stdin", "stdout", "stderr")}
        self._process = subprocess.Popen(
            command,
            cwd=cwd,
            env={**variables, "TERM": "xterm-256color", "COLUMNS": str(columns), **environment},
            **chosen,
        )
        os.close(theirs)
        self.shown = ""
        self._seen = 0

    def answer(self, question: str, text: str, *, timeout: float = 60) -> None:
        """Wait for a question, and type an answer to it."""
        self._wait_for(question, timeout)
        os.write(self._mine, f"{text}\n".encode())

    def rest(self, *, timeout: float = 120) -> str:
        """What is shown until the command ends."""
        before = len(self.shown)
        deadline = time.monotonic() + timeout
        while self._read(deadline):
            pass
        self._process.wait(max(1.0, deadline - time.monotonic()))
        with contextlib.suppress(OSError):
            os.close(self._mine)
        return self.shown[before:]

    @property
    def code(self) -> int | None:
        """The exit code, once it has ended."""
        return self._process.poll()

    @property
    def piped(self) -> str:
        """What went to standard output, where that is no terminal."""
        assert self._process.stdout is not None
        return self._process.stdout.read().decode()

    def _wait_for(self, text: str, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while text not in self.shown[self._seen :]:
            assert self._read(deadline), f"waited for {text!r}, saw {self.shown!r}"
        self._seen += self.shown[self._seen :].index(text) + len(text)

    def _read(self, deadline: float) -> bool:
        """Take in what comes next; False at the end."""
        ready, _, _ = select.select([self._mine], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            self._process.kill()
            raise AssertionError(f"nothing more came in time, saw {self.shown!r}")
        try:
            more = os.read(self._mine, 65_536)
        except OSError:  # the other side is closed
            return False
        self.shown += more.decode(errors="replace")
        return bool(more)
