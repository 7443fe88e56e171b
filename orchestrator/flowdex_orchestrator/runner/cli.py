r"""The commands that run a flow on this machine: `flowdex up`, `down`, `ps`, `logs`.

up --> lock --> checks --> plan --> run (foreground)
                             \--> start_in_background (--detach) --> up --background
down, ps, logs --> state.json, logs
"""

from __future__ import annotations

import asyncio
import json
import math
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from flowdex.cli import complete

if TYPE_CHECKING:
    from flowdex_orchestrator.flow.model import Flow
    from flowdex_orchestrator.runner.state import FlowState, RunFolder

__all__ = ["down", "locate", "logs", "ps", "up"]

_FLOW = click.argument(
    "flow", required=False, type=click.Path(path_type=Path), metavar="[FLOW.YML]", shell_complete=complete.flow_files
)
_RUNNER = "runner"


def _replicas(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, int]:
    """Read `NAME=N`s."""
    found = {}
    for value in values:
        name, _, count = value.partition("=")
        if not name or not count.isdecimal() or int(count) < 1:
            raise click.BadParameter(f"expected NAME=N with N at least 1, such as encoder=2, got {value!r}", ctx, param)
        found[name] = int(count)
    return found


@click.command()
@_FLOW
@click.option(
    "--replicas",
    multiple=True,
    metavar="NAME=N",
    shell_complete=complete.replica_counts,
    callback=_replicas,
    help="Start N replicas of NAME. Repeatable.",
)
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="NAME.KEY=VALUE",
    help="Give NAME another argument (uses_with) than the file does. Repeatable.",
)
@click.option("--insecure", is_flag=True, help="Listen beyond this machine though there are no keys.")
@click.option("--free-ports", is_flag=True, help="Listen on any free ports, whatever the file says.")
@click.option("-d", "--detach", is_flag=True, help="Return once the flow is ready; it runs on in the background.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="Give up when it is not ready by then.",
)
@click.option(
    "--metrics-port",
    type=click.IntRange(0, 65535),
    metavar="N",
    default=0,
    show_default=True,
    help="Loopback port for Prometheus: the runner's own metrics and the list of all processes'; 0 for any free one.",
)
@click.option("--check/--no-check", default=True, help="Look for mistakes in the flow file first.  [default: check]")
@click.option("--background", is_flag=True, hidden=True, help="Run as the background half of --detach.")
def up(
    flow: Path | None,
    *,
    replicas: dict[str, int],
    settings: tuple[str, ...],
    insecure: bool,
    free_ports: bool,
    detach: bool,
    timeout: float | None,
    metrics_port: int,
    check: bool,
    background: bool,
) -> int:
    """Start a flow: its gateway and every executor.

    FLOW.YML is the flow file: ./flow.yml, or the one that comes with flowdex, if not given. Ctrl-C stops the flow.

    \b
    Example:
      flowdex up
      flowdex up --replicas encoder=2 --detach
      flowdex up --set encoder.model=./my-model --set indexer.collection=trial --free-ports
    """  # noqa: D301 - click's mark for lines to keep
    from rich.console import Console

    from flowdex.errors import ConfigurationError, FlowdexError
    from flowdex_orchestrator.flow import load_flow
    from flowdex_orchestrator.flow.overrides import parse_overrides
    from flowdex_orchestrator.runner.checking import Checked, check_flow
    from flowdex_orchestrator.runner.metrics import published
    from flowdex_orchestrator.runner.plan import make_plan
    from flowdex_orchestrator.runner.run import run_flow
    from flowdex_orchestrator.runner.table import PlainLines, display_for, start_times

    began = time.time()
    flow_file, folder, cwd = locate(flow)
    overrides = parse_overrides(settings)
    model = load_flow(flow_file).with_replicas(replicas).with_arguments(overrides)
    if insecure:
        model = model.model_copy(update={"gateway": model.gateway.model_copy(update={"insecure": True})})
    if free_ports:
        model = model.with_free_ports()
    if external := [name for name in replicas if model.executor(name).external]:
        raise ConfigurationError(f"--replicas {external[0]}: it is external, so it is not started here")
    console = Console(stderr=True)
    with folder.locked():
        checked = Checked(folder.path, model)
        findings = check_flow(model, cwd, checked) if check else []
        for finding in findings:
            click.echo(str(finding), err=True)
        expected = start_times(folder.former())

        def ready(state: FlowState) -> None:
            if check and not findings:  # a doubt is said at every start
                checked.remember()
            _show_ready(state, began, background=background or detach)

        if detach:
            _prepare_background(folder)
        else:
            state = _begin(model, flow_file, folder)
            try:
                plan = make_plan(model, flow_file, folder, cwd, overrides, text=folder.keep_text(model.text))
                run = run_flow(
                    plan,
                    state,
                    folder,
                    PlainLines(console) if background else display_for(console, expected),
                    on_ready=ready,
                    on_stop=lambda: click.echo("Stopping the flow ...", err=True),
                    timeout=timeout or math.inf,
                )
                with published(state, metrics_port, [each.hop.files for each in plan.executors]):
                    return asyncio.run(run)
            except FlowdexError as error:
                checked.forget()
                _note_failure(state, folder, str(error))
                raise
    options = [part for name, count in replicas.items() for part in ("--replicas", f"{name}={count}")]
    options += [part for setting in settings for part in ("--set", setting)]
    options += ["--free-ports"] if free_ports else []
    options += ["--insecure"] if insecure else []
    options += [] if timeout is None else ["--timeout", str(timeout)]
    options += ["--metrics-port", str(metrics_port)]
    ready(_detach(flow_file, cwd, folder, options, expected))
    return 0


@click.command()
@_FLOW
def down(flow: Path | None) -> None:
    """Stop a flow that runs in the background (or in another terminal).

    Requests in flight are finished first. When nothing runs, that is said and is no error.

    \b
    Example:
      flowdex down
      flowdex down flows/glove.yml
    """  # noqa: D301 - click's mark for lines to keep
    from flowdex_orchestrator.runner.control import stop_flow

    flow_file, folder, _ = locate(flow)
    if stop_flow(folder, tell=click.echo):
        click.echo("Stopped.")
    else:
        click.echo(f"Nothing is running of {flow_file}.")


@click.command()
@_FLOW
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
def ps(flow: Path | None, as_json: bool) -> None:
    """List the processes of a running flow: state, port, restarts, time since the start, memory.

    \b
    Example:
      flowdex ps
      flowdex ps --json | jq -r '.processes[] | select(.state != "ready") | .log'
    """  # noqa: D301 - click's mark for lines to keep
    from flowdex_orchestrator.runner.memory import memory_of_groups
    from flowdex_orchestrator.runner.state import Status
    from flowdex_orchestrator.runner.table import process_rows, process_table

    flow_file, folder, _ = locate(flow)
    state = folder.read()
    lost: list[int] = []
    if state is not None and not state.running:
        lost = [process.pid for process in state.survivors()]
        state.processes = [process for process in state.processes if process.process and process.process.pid in lost]
        state.status = Status.FAILED if state.status is Status.FAILED else Status.STOPPED
        state.endpoints = {}
    pids = [each.process.pid for each in state.processes if each.process] if state is not None else []
    rows = process_rows(state, memory_of_groups(pids)) if state is not None else []
    changed = state is not None and state.running and _differs(state, flow_file)
    if as_json:
        click.echo(json.dumps({**_as_json(state, flow_file, rows), "file_changed": changed}, indent=2))
        return
    if lost:
        click.echo("The runner of this flow has died; what is left of it (`flowdex down` stops it):")
    elif state is None or not state.running:
        click.echo(f"Nothing is running of {flow_file}.")
        if state is not None and state.error:
            click.echo(f"The last start failed: {state.error}")
        return
    else:
        click.echo(f"{state.name}: {state.status.value}, {state.flow} (runner: process {state.runner.pid})")
    from rich.console import Console

    Console(soft_wrap=True, highlight=False).print(process_table(rows))
    for process in state.processes if state is not None else ():
        if process.cause:
            click.echo(f"{process.label}: {process.cause}")
    if changed:
        click.echo(f"{flow_file} is not what runs any more: `flowdex reload --dry-run` says what differs.")


def _differs(state: FlowState, flow_file: Path) -> bool:
    """Whether the flow file has changed since it was started or reloaded."""
    from flowdex_orchestrator.runner.state import fingerprint_of

    try:
        text = flow_file.read_text(encoding="utf-8-sig")
    except (OSError, ValueError):
        return True
    return bool(state.fingerprint) and fingerprint_of(text) != state.fingerprint


@click.command()
@click.argument("name", required=False, shell_complete=complete.log_names)
@click.option("-f", "--follow", is_flag=True, help="Go on printing what is written, until the flow ends or Ctrl-C.")
@click.option(
    "-n",
    "--lines",
    metavar="N",
    type=click.IntRange(min=0),
    default=100,
    show_default=True,
    help="Begin with the last N lines.",
)
@click.option(
    "--flow",
    type=click.Path(path_type=Path),
    metavar="FLOW.YML",
    shell_complete=complete.flow_files,
    help="The flow file.  [default: ./flow.yml]",
)
def logs(name: str | None, follow: bool, lines: int, flow: Path | None) -> None:
    """Print the log of an executor or of the gateway.

    NAME is an executor (all its replicas), a replica such as encoder-1, `gateway`, or `runner` for a flow in the
    background; all of them, if not given.

    \b
    Example:
      flowdex logs encoder
      flowdex logs gateway --follow --lines 0
    """  # noqa: D301 - click's mark for lines to keep
    from flowdex_orchestrator.runner.logs import follow as follow_logs
    from flowdex_orchestrator.runner.logs import tail

    _, folder, _ = locate(flow)
    files = _log_files(folder, name)
    prefix = {file: f"{file.stem} | " if len(files) > 1 else "" for file in files}

    def over() -> bool:
        state = folder.read()
        return state is None or not state.running

    if not follow:
        for file in files:
            for line in tail(file, lines):
                click.echo(prefix[file] + line)
        return
    try:
        for file, line in follow_logs(files, lines, until=over):
            click.echo(prefix[file] + line)
    except KeyboardInterrupt:
        return  # Ctrl-C is how one stops following


# ---- where a flow is ----


def locate(flow: Path | None) -> tuple[Path, RunFolder, Path]:
    """The flow file, the folder of its state, and the folder in which its processes run."""
    from flowdex_orchestrator.flow import default_flow_path
    from flowdex_orchestrator.runner.state import RunFolder

    if flow is not None:
        flow_file = flow.resolve()
        cwd = flow_file.parent
    else:
        flow_file = Path(default_flow_path()).resolve()
        cwd = Path.cwd()  # the flow that comes with flowdex keeps its index here, not beside flowdex's code
    return flow_file, RunFolder(flow_file, cwd), cwd


def _log_files(folder: RunFolder, name: str | None) -> list[Path]:
    import difflib

    from flowdex.errors import NotFound

    files = {file.stem: file for file in sorted(folder.logs.glob("*.log"))}
    if not files:
        raise NotFound(f"there are no logs in {folder.logs}: the flow has not been started yet")
    if name is None:
        return list(files.values())
    found = [file for label, file in files.items() if label == name or label.rpartition("-")[0] == name]
    if not found:
        near = difflib.get_close_matches(name, files, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(files)}"
        raise NotFound(f"there is no log of {name!r}; {hint}")
    return found


# ---- the steps of `up` ----


def _begin(model: Flow, flow_file: Path, folder: RunFolder) -> FlowState:
    """Write the first state down, stop what a killed runner has left, remove its copies, move old logs aside."""
    import os

    from flowdex_orchestrator.runner.control import end_processes
    from flowdex_orchestrator.runner.logs import rotate
    from flowdex_orchestrator.runner.state import FlowState, ProcessId, fingerprint_of

    former = folder.former()
    if former is not None and (survivors := former.survivors()):
        end_processes(survivors, grace=2.0)
    folder.forget_texts()
    for log in folder.logs.glob("*.log"):
        if log.stem != _RUNNER:
            rotate(log)
    runner = ProcessId.of(os.getpid())
    assert runner is not None, "a process that runs this line is alive"
    state = FlowState(flow=str(flow_file), name=model.name, runner=runner, fingerprint=fingerprint_of(model.text))
    folder.write(state)
    return state


def _note_failure(state: FlowState, folder: RunFolder, message: str) -> None:
    from flowdex_orchestrator.runner.state import Status

    state.status, state.error = Status.FAILED, message
    folder.write(state)


def _prepare_background(folder: RunFolder) -> None:
    from flowdex_orchestrator.runner.logs import rotate

    rotate(folder.log(_RUNNER))


def _detach(
    flow_file: Path, cwd: Path, folder: RunFolder, options: Sequence[str], expected: Mapping[str, float]
) -> FlowState:
    from rich.console import Console

    from flowdex_orchestrator.runner.control import start_in_background
    from flowdex_orchestrator.runner.plan import FLOWDEX
    from flowdex_orchestrator.runner.table import display_for

    command = [*FLOWDEX, "up", "--background", "--no-check"]
    if cwd == flow_file.parent:
        command.append(str(flow_file))
    return start_in_background([*command, *options], folder, display_for(Console(stderr=True), expected))


def _show_ready(state: FlowState, began: float, *, background: bool) -> None:
    """Print how long it took, checks included, and where the flow is reached."""
    how_to_stop = "`flowdex down` stops it." if background else "Ctrl-C stops it."
    click.echo(f"{state.name} is ready after {time.time() - began:.1f} s. {how_to_stop}")
    width = max(map(len, state.endpoints), default=0) + 1
    for name, url in state.endpoints.items():
        click.echo(f"  {name:<{width}} {url}")
    sys.stdout.flush()


def _as_json(state: FlowState | None, flow_file: Path, rows: list[dict[str, object]]) -> dict[str, object]:
    if state is None:
        return {"flow": str(flow_file), "status": "stopped", "endpoints": {}, "processes": []}
    return {
        "flow": state.flow,
        "name": state.name,
        "status": state.status.value,
        "runner": state.runner.pid if state.running else None,
        "started_at": state.started_at,
        "ready_at": state.ready_at,
        "endpoints": state.endpoints,
        "metrics": state.metrics if state.running else "",
        "error": state.error,
        "processes": rows,
    }
