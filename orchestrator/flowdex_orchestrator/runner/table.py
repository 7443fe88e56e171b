"""What `flowdex up` shows while a flow starts and runs, and the table of `flowdex ps`.

FlowState --update()--> LiveTable   (a terminal: one table, redrawn)
                        PlainLines  (anything else: one line a change)
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Protocol

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from flowdex_orchestrator.runner.state import FlowState, ProcessId, ProcessState, State

__all__ = ["Display", "LiveTable", "PlainLines", "display_for", "process_rows", "process_table", "start_times"]

_STYLES = {
    State.LOADING: "yellow",
    State.READY: "green",
    State.UNREADY: "yellow",
    State.UNRESPONSIVE: "red",
    State.WAITING: "yellow",
    State.FAILED: "bold red",
    State.STOPPING: "dim",
    State.STOPPED: "dim",
}


class Display(Protocol):
    """Shows a flow's state as it changes."""

    def update(self, state: FlowState) -> None:
        """Show a new state."""
        ...

    def close(self) -> None:
        """Show nothing more; what is shown stays."""
        ...


def display_for(console: Console, expected: Mapping[str, float] | None = None) -> Display:
    """The display that fits the console.

    Args:
        console: Where to show it.
        expected: Seconds until a process is ready, by its label, as far as an earlier start tells; see `start_times`.
    """
    return LiveTable(console, expected) if console.file.isatty() else PlainLines(console)


class PlainLines:
    """One line for each change of a process's state."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._shown: dict[tuple[str, int], tuple[State, ProcessId | None]] = {}

    def update(self, state: FlowState) -> None:
        """Print a line for each process whose state has changed."""
        for process in state.processes:
            now = (process.state, process.process)
            key = (process.label, process.port)  # while one replaces the other, two have the same label
            if self._shown.get(key) != now:
                self._shown[key] = now
                if _worth_a_line(process):
                    self._console.print(_line(process), markup=False, highlight=False, soft_wrap=True)

    def skip(self, state: FlowState) -> None:
        """Take note of a state that is shown already."""
        self._shown = {(process.label, process.port): (process.state, process.process) for process in state.processes}

    def close(self) -> None:
        """Nothing is open."""


class LiveTable:
    """A table that is redrawn in place while the flow starts; afterwards one line a change."""

    def __init__(self, console: Console, expected: Mapping[str, float] | None = None) -> None:
        self._console = console
        self._expected = expected or {}
        self._state: FlowState | None = None
        self._live = Live(get_renderable=self._render, console=console, refresh_per_second=8)
        self._after: PlainLines | None = None

    def update(self, state: FlowState) -> None:
        """Take over the new state; it is drawn at the next refresh."""
        if self._after is not None:
            self._after.update(state)
            return
        self._state = state
        if not self._live.is_started:
            self._live.start()

    def close(self) -> None:
        """Leave the table as it is now; later changes are printed as lines."""
        if self._live.is_started:
            self._live.stop()
        if self._after is None:
            self._after = PlainLines(self._console)
            if self._state is not None:
                self._after.skip(self._state)

    def _render(self) -> Table:
        table = Table(box=None, pad_edge=False)
        for column in ("NAME", "STATE", "SECONDS", "LEFT", ""):
            table.add_column(column, justify="right" if column in ("SECONDS", "LEFT") else "left", overflow="fold")
        for process in self._state.processes if self._state is not None else ():
            table.add_row(
                process.label,
                Text(process.state.value, style=_STYLES[process.state]),
                f"{_elapsed(process):.1f}",
                self._left(process),
                process.cause,
            )
        return table

    def _left(self, process: ProcessState) -> str:
        """Seconds that remain, by the last start; empty where there was none, or it takes longer this time."""
        expected = self._expected.get(process.label)
        if expected is None or process.state is not State.LOADING or process.process is None:
            return ""
        left = expected - _elapsed(process)
        return f"about {left:.0f}" if left >= 0.5 else ""


def start_times(state: FlowState | None) -> dict[str, float]:
    """Seconds that each process took until it was ready, by its label."""
    processes = state.processes if state is not None else ()
    return {each.label: each.ready_at - each.started_at for each in processes if each.ready_at and each.started_at}


def process_rows(state: FlowState, memory: dict[int, int]) -> list[dict[str, object]]:
    """The rows of `flowdex ps`: one a process, times in seconds, memory in bytes (None where unknown)."""
    now = time.time()
    return [
        {
            "name": process.name,
            "replica": process.replica,
            "pid": process.process.pid if process.process is not None else None,
            "host": process.host,
            "port": process.port,
            "metrics_port": process.metrics_port,
            "state": process.state.value,
            "restarts": process.restarts,
            "uptime": round(now - process.started_at, 1) if process.process and process.started_at else None,
            "memory": memory.get(process.process.pid) if process.process is not None else None,
            "cause": process.cause,
            "log": process.log or None,
        }
        for process in state.processes
    ]


def process_table(rows: list[dict[str, object]]) -> Table:
    """The rows as a table for people."""
    table = Table(box=None, pad_edge=False)
    for column in ("NAME", "REPLICA", "PID", "PORT", "STATE", "RESTARTS", "UPTIME", "MEMORY"):
        table.add_column(column, justify="left" if column in ("NAME", "STATE") else "right", no_wrap=True)
    for row in rows:
        state = State(str(row["state"]))
        table.add_row(
            str(row["name"]),
            _text(row["replica"]),
            _text(row["pid"]) if row["log"] else "external",
            str(row["port"]),
            Text(state.value, style=_STYLES[state]),
            str(row["restarts"]),
            duration(row["uptime"]) if isinstance(row["uptime"], float) else "-",
            f"{row['memory'] / 2**20:,.0f} MiB" if isinstance(row["memory"], int) else "-",
        )
    return table


def duration(seconds: float) -> str:
    """`3.2 s`, `4 min 5 s`, `2 h 3 min`, `5 d 1 h`."""
    for unit, name, smaller, smaller_name in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if seconds >= unit:
            return f"{int(seconds // unit)} {name} {int(seconds % unit // smaller)} {smaller_name}"
    return f"{seconds:.1f} s"


def _worth_a_line(process: ProcessState) -> bool:
    if process.state is State.LOADING:
        return process.process is not None or not process.log  # it has been started, or is external
    return process.state not in (State.STOPPING, State.STOPPED)


def _line(process: ProcessState) -> str:
    line = f"{process.label}: {process.state.value}"
    if process.state is State.READY and process.started_at and process.ready_at:
        line += f" after {process.ready_at - process.started_at:.1f} s"
    elif process.state is State.LOADING and process.process is not None:
        line += f" (process {process.process.pid}, port {process.port})"
    if process.cause:
        line += f": {process.cause}"
    return line


def _elapsed(process: ProcessState) -> float:
    if process.started_at is None:
        return 0.0
    end = process.ready_at if process.ready_at is not None else time.time()
    return max(0.0, end - process.started_at)


def _text(value: object) -> str:
    return "-" if value is None else str(value)
