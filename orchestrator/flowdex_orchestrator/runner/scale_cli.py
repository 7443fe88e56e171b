r"""The commands that change a flow while it serves: `flowdex scale`, `flowdex restart`.

scale, restart --token--> runner (found through state.json) --> scaling.Scaler
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flowdex.cli import complete
from flowdex_orchestrator.runner.cli import locate

if TYPE_CHECKING:
    from flowdex_orchestrator.runner.state import RunFolder

__all__ = ["ask_runner", "restart", "scale"]

_flow = click.option(
    "--flow",
    type=click.Path(path_type=Path),
    metavar="FLOW.YML",
    shell_complete=complete.flow_files,
    help="The flow file.  [default: ./flow.yml]",
)
_timeout = click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="Give up when it is not done by then.",
)


@click.command()
@click.argument("targets", nargs=-1, required=True, metavar="NAME=N...", shell_complete=complete.replica_counts)
@_flow
@_timeout
def scale(targets: tuple[str, ...], *, flow: Path | None, timeout: float | None) -> None:
    """Give executors of a running flow another number of replicas.

    New replicas take requests once they have loaded and warmed up; those removed finish theirs first. If a new one
    fails, or you press Ctrl-C, all stays as it was. The flow file is not changed: the next `flowdex up` goes by it.

    \b
    Example:
      flowdex scale encoder=3
      flowdex scale encoder=1 segmenter=2
    """  # noqa: D301 - click's mark for lines to keep
    replicas = {}
    for target in targets:
        name, _, number = target.partition("=")
        if not name or not number.isdecimal():
            raise click.BadParameter(f"expected NAME=N, such as encoder=2, got {target!r}")
        replicas[name] = int(number)
    _, folder, _ = locate(flow)
    began = time.monotonic()
    before = ask_runner(folder, "scale", {"replicas": replicas}, timeout)["before"]
    for name, count in replicas.items():
        was = ", as before" if before[name] == count else f" instead of {before[name]}"
        click.echo(f"{name} has {count} {'replica' if count == 1 else 'replicas'}{was} ({_since(began)})")


@click.command()
@click.argument("name", shell_complete=complete.executor_names)
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="Give it another argument (uses_with) than it has. Repeatable.",
)
@_flow
@_timeout
def restart(name: str, *, settings: tuple[str, ...], flow: Path | None, timeout: float | None) -> None:
    """Replace the replicas of an executor one by one, while the flow serves.

    Each new replica loads and warms up before the old one finishes its requests and ends. If a new one fails, the
    restart stops there.

    \b
    Example:
      flowdex restart encoder
      flowdex restart encoder --set batch_tokens=2048
    """  # noqa: D301 - click's mark for lines to keep
    from flowdex_orchestrator.flow.overrides import parse_argument

    prefixes = (f"{name}.uses_with.", f"{name}.")
    arguments = {}
    for setting in settings:
        bare = next((setting.removeprefix(prefix) for prefix in prefixes if setting.startswith(prefix)), setting)
        key, value = parse_argument(bare)
        arguments[key] = value
    _, folder, _ = locate(flow)
    began = time.monotonic()
    replicas = ask_runner(folder, "restart", {"executor": name, "settings": arguments}, timeout)["replicas"]
    count = "1 replica" if replicas == 1 else f"{replicas} replicas"
    click.echo(f"{name}: {count} restarted ({_since(began)})")


def ask_runner(folder: RunFolder, method: str, body: dict[str, Any], timeout: float | None) -> dict[str, Any]:
    """Ask the runner of the flow.

    Raises:
        Unavailable: None runs.
    """
    import asyncio

    from flowdex.errors import Unavailable
    from flowdex_orchestrator.control import ask

    state = folder.read()
    if state is None or not state.running or not state.control:
        raise Unavailable("the flow is not running; start it with `flowdex up --detach`")
    return asyncio.run(ask(state.control, folder.read_token(), method, body, timeout=timeout))


def _since(began: float) -> str:
    return f"{time.monotonic() - began:.1f} s"
