"""What the shell offers after TAB: flow files, executors, logs, addresses; from files, never the network.

    argument so far --> flow_files | executor_names | replica_counts | log_names | addresses --> candidates

Called each time somebody presses TAB, so nothing but the standard library is imported, and what cannot be read offers
nothing. The state of a flow is read here as JSON, not by the runner's own classes, which would load gRPC.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import click
    from click.shell_completion import CompletionItem

__all__ = ["addresses", "encoders", "executor_names", "flow_files", "log_names", "names", "replica_counts"]

_SUFFIXES = (".yml", ".yaml")
_EXECUTOR = re.compile(r"^\s*-\s+name:\s*['\"]?([\w.-]+)", re.MULTILINE)
_GATEWAY = "gateway"


def flow_files(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """YAML files, and folders on the way to some; whatever the shell finds where there is none."""
    from click.shell_completion import CompletionItem

    folder, _, beginning = incomplete.rpartition("/")
    base = Path(f"{folder}/" if folder or incomplete.startswith("/") else ".").expanduser()
    prefix = incomplete[: len(incomplete) - len(beginning)]
    try:
        entries = sorted(base.iterdir())
    except OSError:
        entries = []
    found = [
        f"{prefix}{entry.name}{'/' if entry.is_dir() else ''}"
        for entry in entries
        if entry.name.startswith(beginning)
        and (beginning or not entry.name.startswith("."))
        and (entry.suffix in _SUFFIXES or (entry.is_dir() and any(_flows(entry))))
    ]
    return [CompletionItem(name) for name in found] or [CompletionItem(incomplete, type="file")]


def _flows(folder: Path) -> Iterable[Path]:
    try:
        return [each for each in folder.iterdir() if each.suffix in _SUFFIXES]
    except OSError:
        return []


def executor_names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Executors of the flow: as it runs or last ran, else as its file says."""
    return _beginning(_executors(ctx), incomplete)


def replica_counts(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """`NAME=` of each executor, for a number."""
    return _beginning((f"{name}=" for name in _executors(ctx)), incomplete)


def log_names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """What `flowdex logs` takes: executors, replicas, the gateway, the runner."""
    try:
        labels = sorted(file.stem for file in (_run_folder(ctx) / "logs").glob("*.log"))
    except OSError:
        labels = []
    replicas = (label.rpartition("-")[0] for label in labels if label.rpartition("-")[2].isdecimal())
    return _beginning(dict.fromkeys([*replicas, *labels]), incomplete)


def addresses(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Addresses of the gateway of the flow that ran last in this folder."""
    endpoints = _state(ctx).get("endpoints") or {}
    return _beginning((endpoints[name] for name in ("grpc", "http") if name in endpoints), incomplete)


def encoders(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """What `flowdex init --encoder` takes, but for models."""
    return _beginning(("minilm", "glove", "gpt=", "elmo=", "ulmfit=", "words="), incomplete)


def names(*values: str) -> Any:
    """A completion that offers fixed names, for an option that takes others, too."""

    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
        return _beginning(values, incomplete)

    return complete


# ---- what is known of the flow ----


def _beginning(values: Iterable[str], incomplete: str) -> list[str]:
    return [value for value in values if value.startswith(incomplete)]


def _executors(ctx: click.Context) -> list[str]:
    running = [each.get("name") for each in _state(ctx).get("processes") or []]
    found = [str(name) for name in dict.fromkeys(running) if name and name != _GATEWAY]
    if found:
        return found
    try:
        return list(dict.fromkeys(_EXECUTOR.findall(_flow_file(ctx).read_text(encoding="utf-8", errors="replace"))))
    except OSError:
        return []


def _flow_file(ctx: click.Context) -> Path:
    named = ctx.params.get("flow") or ctx.params.get("flow_file")
    return Path(named).expanduser() if named else Path("flow.yml")


def _run_folder(ctx: click.Context) -> Path:
    """Where the runner keeps state and logs: `runner.state.RunFolder`, without its imports."""
    flow = _flow_file(ctx)
    home = os.environ.get("FLOWDEX_HOME")
    return (Path(home).expanduser() if home else flow.resolve().parent / ".flowdex") / "run" / flow.stem


def _state(ctx: click.Context) -> dict[str, Any]:
    try:
        state = json.loads((_run_folder(ctx) / "state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}
