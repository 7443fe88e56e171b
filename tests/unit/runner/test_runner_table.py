"""What `flowdex up` and `flowdex ps` show."""

from __future__ import annotations

import io
import time

import pytest
from rich.console import Console

from flowdex_orchestrator.runner.state import FlowState, ProcessId, ProcessState, State
from flowdex_orchestrator.runner.table import (
    LiveTable,
    PlainLines,
    display_for,
    duration,
    process_rows,
    process_table,
    start_times,
)

ME = ProcessId(1, "1")


def flow(*processes: ProcessState) -> FlowState:
    return FlowState("flow.yml", "x", ME, processes=list(processes))


def process(name: str = "a", state: State = State.LOADING, **values: object) -> ProcessState:
    return ProcessState(name, 0, "127.0.0.1", 7, log="x", state=state, **values)  # type: ignore[arg-type]


class Watched(io.StringIO):
    """A terminal, as far as its file says."""

    def isatty(self) -> bool:
        return True


def printed(display: PlainLines, output: io.StringIO, state: FlowState) -> str:
    output.seek(0)
    output.truncate()
    display.update(state)
    return output.getvalue()


def test_one_line_a_change() -> None:
    output = io.StringIO()
    display = PlainLines(Console(file=output))
    now = time.time()
    assert printed(display, output, flow(process())) == ""  # not started yet
    loading = process(process=ME, started_at=now)
    assert printed(display, output, flow(loading)) == "a-0: loading (process 1, port 7)\n"
    assert printed(display, output, flow(loading)) == ""
    ready = process(state=State.READY, process=ME, started_at=now, ready_at=now + 1.25)
    assert printed(display, output, flow(ready)) == "a-0: ready after 1.2 s\n"
    cause = "ValueError: [red]not markup[/red] " + "long " * 100
    waiting = process(state=State.WAITING, process=ME, cause=cause)
    assert printed(display, output, flow(waiting)) == f"a-0: waiting: {cause}\n"
    assert printed(display, output, flow(process(state=State.STOPPED, process=ME))) == ""
    again = process(process=ProcessId(2, "2"), started_at=now, restarts=1)
    assert printed(display, output, flow(again)) == "a-0: loading (process 2, port 7)\n"


def test_a_table_on_a_terminal_then_lines() -> None:
    output = Watched()
    console = Console(file=output, force_terminal=True, width=100, color_system=None)
    display = display_for(console)
    assert isinstance(display, LiveTable)
    ready = process(state=State.READY, process=ME, started_at=1.0, ready_at=4.5)
    display.update(flow(ready, process("b", State.FAILED, cause="KeyError: 'x'")))
    display.close()
    display.close()
    table = output.getvalue()
    assert "a-0" in table
    assert "3.5" in table
    assert "KeyError: 'x'" in table
    output.truncate(0)
    display.update(flow(ready, process("b", State.FAILED, cause="KeyError: 'x'")))
    assert "a-0" not in output.getvalue()  # it stands in the table above
    display.update(flow(process(state=State.WAITING, process=ME, cause="killed by SIGKILL")))
    assert output.getvalue().endswith("a-0: waiting: killed by SIGKILL\n")


def test_lines_for_what_is_no_terminal() -> None:
    assert isinstance(display_for(Console(file=io.StringIO())), PlainLines)
    coloured = Console(file=io.StringIO(), force_terminal=True)  # FORCE_COLOR: colours, but nobody who watches
    assert isinstance(display_for(coloured), PlainLines)


def test_the_last_start_tells_what_is_left() -> None:
    now = time.time()
    before = flow(
        process(state=State.STOPPED, started_at=100.0, ready_at=110.0),
        process("b", State.STOPPED, started_at=100.0, ready_at=101.0),
        process("c", State.FAILED, started_at=100.0),
    )
    expected = start_times(before)
    assert expected == {"a-0": 10.0, "b-0": 1.0}
    assert start_times(None) == {}

    def left(**values: object) -> str:
        output = Watched()
        display = display_for(Console(file=output, force_terminal=True, width=100, color_system=None), expected)
        display.update(flow(process(process=ME, **values)))  # type: ignore[arg-type]
        display.close()
        return output.getvalue()

    assert "about 6" in left(started_at=now - 4)
    assert "about" not in left(started_at=now - 11), "it takes longer than last time"
    assert "about" not in left(started_at=now - 4, name="c"), "it has not been ready yet"
    assert "about" not in left(started_at=now - 4, ready_at=now, state=State.READY)


def test_rows_and_table() -> None:
    now = time.time()
    state = flow(
        process(state=State.READY, process=ME, started_at=now - 65, restarts=2, metrics_port=9),
        ProcessState("ext", 0, "10.0.0.1", 9, state=State.READY),
        ProcessState("gateway", None, "127.0.0.1", 8, log="x", state=State.WAITING, cause="ValueError: no"),
    )
    rows = process_rows(state, {1: 5 * 2**20})
    assert rows[0] | {"uptime": 65.0} == {
        "name": "a",
        "replica": 0,
        "pid": 1,
        "host": "127.0.0.1",
        "port": 7,
        "metrics_port": 9,
        "state": "ready",
        "restarts": 2,
        "uptime": 65.0,
        "memory": 5 * 2**20,
        "cause": "",
        "log": "x",
    }
    assert [(row["pid"], row["uptime"], row["memory"]) for row in rows[1:]] == [(None, None, None)] * 2
    output = io.StringIO()
    Console(file=output, width=100).print(process_table(rows))
    lines = [line.split() for line in output.getvalue().splitlines()]
    assert lines[1] == ["a", "0", "1", "7", "ready", "2", "1", "min", "5", "s", "5", "MiB"]
    assert lines[2] == ["ext", "0", "external", "9", "ready", "0", "-", "-"]
    assert lines[3] == ["gateway", "-", "-", "8", "waiting", "0", "-", "-"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (59.94, "59.9 s"),
        (60, "1 min 0 s"),
        (3599, "59 min 59 s"),
        (3600, "1 h 0 min"),
        (86399, "23 h 59 min"),
        (90000, "1 d 1 h"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
