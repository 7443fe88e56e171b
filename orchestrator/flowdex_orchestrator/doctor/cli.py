"""`flowdex doctor`: the checks in order, those of the machine first, then those of a flow.

    [FLOW.YML] --examine--> list[Check] --> lines, or JSON; exit code 1 where one of them is an error

A part that is not installed, or a file that cannot be read, is a finding: the other checks are made all the same.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from flowdex.cli import complete

if TYPE_CHECKING:
    from flowdex_orchestrator.doctor.report import Check
    from flowdex_orchestrator.flow.model import Flow
    from flowdex_orchestrator.runner.state import FlowState

__all__ = ["doctor", "examine"]

_TRUE = ("1", "on", "yes", "true")


@click.command()
@click.argument(
    "flow", required=False, type=click.Path(path_type=Path), metavar="[FLOW.YML]", shell_complete=complete.flow_files
)
@click.option("--no-classes", is_flag=True, help="Do not import the executors' classes: sooner, but without models.")
@click.option("--timeout", default=60.0, show_default=True, metavar="SECONDS", help="Time for these imports.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
def doctor(flow: Path | None, *, no_classes: bool, timeout: float, as_json: bool) -> int:
    """Say what this machine lacks for a flow, and what to do about it.

    Looks at Python, extras and versions, torch and GPU, cores, memory, limits, clock, proxies and text encoding; and of
    FLOW.YML (./flow.yml by default, else the flow that comes with flowdex) at the file, its models, ports, index, disk,
    and what a killed run has left. Nothing is changed. The exit code is 1 if something keeps the flow from starting.

    \b
    Example:
      flowdex doctor
      flowdex doctor flows/glove.yml --no-classes
      flowdex doctor --json | jq -r '.checks[] | select(.verdict != "ok") | .remedy'
    """  # noqa: D301 - click's mark for lines to keep
    from flowdex.cli.common import console
    from flowdex_orchestrator.doctor import report

    path, checks = examine(flow, classes=not no_classes, timeout=timeout)
    if as_json:
        click.echo(json.dumps(report.as_json(checks, path), indent=2, ensure_ascii=False))
    else:
        report.print_checks(checks, console())
    return 1 if report.worst(checks) is report.Verdict.ERROR else 0


def examine(flow: Path | None, *, classes: bool = True, timeout: float = 60.0) -> tuple[str | None, list[Check]]:
    """Make all checks.

    Args:
        flow: The flow file; None for ./flow.yml, else the one that comes with flowdex.
        classes: Whether to import the executors' classes, in another process.
        timeout: Seconds for that.

    Returns:
        The path of the flow file, None where there is none; and the checks.
    """
    from flowdex.errors import ConfigurationError
    from flowdex_orchestrator.doctor import machine, packages
    from flowdex_orchestrator.doctor.report import Check, Verdict

    path: Path | None = None
    loaded: Flow | None = None
    problems: list[Check] = []
    try:
        from flowdex_orchestrator.flow.load import default_flow_path, load_flow

        path = flow or default_flow_path()
        loaded = load_flow(path)
    except ModuleNotFoundError as error:  # the client alone is installed
        detail = f"flow files cannot be read without {error.name}"
        problems = [Check("flow file", Verdict.ERROR, detail, "pip install 'flowdex[server,models]'")]
    except ConfigurationError as error:
        lines = error.message.splitlines()
        problems = [Check("flow file", Verdict.ERROR, line) for line in lines[:-1]]
        problems.append(Check("flow file", Verdict.ERROR, lines[-1], "correct it, or `flowdex init` writes a new one"))
    gpus = machine.list_gpus()
    return None if path is None else str(path), [
        packages.check_python(),
        *_packages(loaded, len(gpus)),
        _gpu(loaded, gpus),
        *_room(loaded, flow),
        machine.check_files(),
        machine.check_clock(time.time(), machine.newest_file_time()),
        machine.check_proxies(),
        machine.check_locale(),
        *problems,
        *(_flow(loaded, flow, classes, timeout) if loaded is not None else []),
    ]


def _packages(flow: Flow | None, gpus: int) -> list[Check]:
    from flowdex_orchestrator.doctor import packages
    from flowdex_orchestrator.doctor.flow import needed_extras
    from flowdex_orchestrator.doctor.report import Check, Verdict

    needed = needed_extras(flow) if flow is not None else {}
    torch = packages.check_torch(packages.torch_build(), gpus, needed="bert" in needed)
    if packages.installed_version("packaging") is None:
        detail = "versions cannot be compared without the package packaging"
        return [Check("extras", Verdict.WARNING, detail, "pip install packaging"), torch]
    return [packages.check_extras(needed), packages.check_versions(needed), torch]


def _gpu(flow: Flow | None, gpus: list[str]) -> Check:
    from flowdex_orchestrator.doctor import machine

    executors = [each for each in flow.executors if not each.external] if flow is not None else []
    required = [each.name for each in executors if str(each.uses_with.get("device", "")).startswith("cuda")]
    wished = [each.name for each in executors if each.gpus is not None and each.name not in required]
    return machine.check_gpu(gpus, required, wished, device_file=Path("/dev/nvidia0").exists())


def _room(flow: Flow | None, file: Path | None) -> list[Check]:
    from flowdex_orchestrator.doctor import machine
    from flowdex_orchestrator.doctor.flow import encoders, memory_of
    from flowdex_orchestrator.runner.environment import usable_cores

    if flow is None:
        return [machine.check_cores(usable_cores(), 0)]
    cores = machine.check_cores(usable_cores(), sum(each.replicas for each in encoders(flow)))
    state = _state(file)
    available, total = machine.available_memory(), machine.total_memory()
    return [cores, machine.check_memory(available, total, memory_of(flow), running=state is not None)]


def _state(file: Path | None) -> FlowState | None:
    """The state of the flow's run, None where it does not run."""
    from flowdex_orchestrator.runner.cli import locate

    state = locate(file)[1].read()
    return state if state is not None and state.running else None


def _flow(flow: Flow, file: Path | None, classes: bool, timeout: float) -> list[Check]:
    from flowdex_orchestrator.doctor import flow as of_flow
    from flowdex_orchestrator.flow.check import bind_error, inspect_flow
    from flowdex_orchestrator.runner.cli import locate

    flow_file, folder, cwd = locate(file)
    found = inspect_flow(flow, ports=False, classes=classes, folder=cwd, timeout=timeout)
    cache, offline = _model_cache()
    return [
        *of_flow.check_file(flow_file, found.findings),
        *of_flow.check_models(flow, found.facts, offline=offline, cache=cache),
        of_flow.check_ports(flow, _state(file), reason=bind_error),
        *of_flow.check_disk(of_flow.flow_folders(flow, folder.path, cwd)),
        *(of_flow.check_index_server(name, *place) for name, place in of_flow.index_servers(flow).items()),
        of_flow.check_state(folder, flow_file),
    ]


def _model_cache() -> tuple[Path, bool]:
    """Where models of the hub are kept, and whether none may be fetched; as huggingface_hub reads the environment."""
    home = os.environ.get("HF_HOME") or f"{os.environ.get('XDG_CACHE_HOME') or '~/.cache'}/huggingface"
    cache = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE") or f"{home}/hub"
    offline = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE") or ""
    return Path(cache).expanduser(), offline.lower() in _TRUE
