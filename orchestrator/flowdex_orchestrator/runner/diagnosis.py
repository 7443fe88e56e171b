"""Why a process ended, in one sentence, and what to do about it.

    exit code + what it printed  -->  Diagnosis(cause="FileNotFoundError: no model at ...", remedy="...")

An executor that cannot start prints `<ExceptionClass>: <message>` as its last line; that is the cause. For a process
that died without a word the exit code or signal is.
"""

from __future__ import annotations

import re
import signal
import sys
from dataclasses import dataclass

__all__ = ["Diagnosis", "diagnose"]

_EXCEPTION = re.compile(r"^(?:[a-z_]\w*\.)*(?P<name>[A-Z]\w*): (?P<message>\S.*)$")
_BARE_EXCEPTION = re.compile(r"^(?:[a-z_]\w*\.)*[A-Z]\w*(?:Error|Exception|Interrupt|Exit)$")
_LIKELY_NAME = re.compile(r"(?:Error|Exception|Interrupt|Exit|Failure|Iteration)$")
_OF_FLOWDEX = frozenset(
    {"Conflict", "InvalidInput", "NotFound", "Overloaded", "PermissionDenied", "TooLarge", "Unauthenticated"}
    | {"Unavailable", "DeadlineExceeded", "Cancelled"}
)
_LOOK_BACK = 40  # lines
_LONGEST = 500  # characters of a cause

_MISSING_MODULE = re.compile(r"ModuleNotFoundError: No module named '([\w.]+)'")
_MEMORY_REMEDY = "there is not enough memory: use a smaller model, fewer replicas, or a larger machine"
_REMEDIES: tuple[tuple[re.Pattern[str], str], ...] = (
    (
        re.compile(r"address already in use|failed to bind|port \d+ .*(taken|in use)", re.IGNORECASE),
        "another program listens there: stop it, or change `port:` in the flow file (executors need none)",
    ),
    (re.compile(r"^MemoryError|OutOfMemoryError|out of memory", re.IGNORECASE), _MEMORY_REMEDY),
    (re.compile(r"unexpected keyword argument"), "compare `uses_with:` with the arguments of the class's __init__"),
    (re.compile(r"missing \d+ required"), "give the missing arguments under `uses_with:`"),
    (re.compile(r"^ImportError: cannot import name"), "compare `uses:` with the names that the module defines"),
    (re.compile(r"^SystemExit"), "an executor must not call sys.exit()"),
    (re.compile(r"No space left on device"), "free some disk space"),
    (re.compile(r"Too many open files"), "raise the limit: `ulimit -n 65536`"),
)
_SIGNAL_REMEDIES: dict[int, str] = {
    signal.SIGKILL: "if nobody did it by hand, the system did for want of memory (`dmesg` tells): use fewer replicas "
    "or a smaller model",
    signal.SIGSEGV: "a native library crashed: compare the versions of the executor's packages",
    signal.SIGILL: "a native library needs instructions that this processor lacks: install a build for it",
    signal.SIGBUS: "shared memory or the disk is full",
}


@dataclass(frozen=True)
class Diagnosis:
    """Cause and remedy; the remedy is empty where none is known."""

    cause: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.cause} ({self.remedy})" if self.remedy else self.cause


def diagnose(code: int | None, output: str) -> Diagnosis:
    """Say why a process ended.

    Args:
        code: Its exit code; negative is the signal that ended it, None if it did not end by itself.
        output: What it printed, or the end of it.
    """
    if code is not None and code < 0:
        return Diagnosis(f"killed by {_signal_name(-code)}", _SIGNAL_REMEDIES.get(-code, ""))
    if said := _exception(_last_lines(output)):
        return Diagnosis(said, remedy_for(said))
    said = last_words(output)
    cause = f"it ended with exit code {code}" + (f"; the last it said: {said}" if said else " and printed nothing")
    return Diagnosis(cause, remedy_for(said) or ("an executor must not end by itself" if code == 0 else ""))


def remedy_for(cause: str) -> str:
    """What to do about a cause; empty where unknown."""
    if found := _MISSING_MODULE.search(cause):
        module = found[1]
        return (
            f"install it: `{sys.executable} -m pip install {module.split('.')[0]}`; or name its file in `py_modules:`"
        )
    for pattern, remedy in _REMEDIES:
        if pattern.search(cause):
            return remedy
    return ""


def last_words(output: str) -> str:
    """The line that names the exception, else the last line that is not blank."""
    lines = _last_lines(output)
    return _exception(lines) or (_cut(lines[-1].strip()) if lines else "")


def _last_lines(output: str) -> list[str]:
    return [line.rstrip() for line in output.splitlines() if line.strip()][-_LOOK_BACK:]


def _exception(lines: list[str]) -> str:
    """The last line that reads `<ExceptionClass>: <message>`; empty if there is none."""
    for line in reversed(lines):
        found = _EXCEPTION.match(line)
        if found and (_LIKELY_NAME.search(found["name"]) or found["name"] in _OF_FLOWDEX):
            return _cut(line)
        if _BARE_EXCEPTION.match(line):
            return _cut(line)
    return ""


def _cut(line: str) -> str:
    line = line.removeprefix("Error: ")  # as the command line puts it
    return line if len(line) <= _LONGEST else line[: _LONGEST - 3] + "..."


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
