r"""`flowdex reload`: a flow that runs is made what its file says now.

reload --check the file here--> findings, or --token--> runner --> reloading.Reloader
"""

from __future__ import annotations

import time
from pathlib import Path

import click

from flowdex.cli import complete
from flowdex_orchestrator.runner.cli import locate

__all__ = ["reload"]


@click.command()
@click.argument(
    "flow", required=False, type=click.Path(path_type=Path), metavar="[FLOW.YML]", shell_complete=complete.flow_files
)
@click.option("--dry-run", is_flag=True, help="Only say what it would change.")
@click.option("--check/--no-check", default=True, help="Look for mistakes in the flow file first.  [default: check]")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="Give up when it is not done by then.",
)
@click.pass_context
def reload(ctx: click.Context, flow: Path | None, *, dry_run: bool, check: bool, timeout: float | None) -> None:
    """Make a running flow what its file says now, without losing a request.

    Executors whose keys have changed are restarted replica by replica, replicas are added and removed, limits of the
    gateway change at once. What cannot change while the flow serves (ports, protocols, the graph, an embedded index)
    is named, and then nothing changes at all; with --dry-run the exit code is 1. A mistake in the file changes nothing.

    \b
    Example:
      flowdex reload --dry-run
      flowdex reload
    """  # noqa: D301 - click's mark for lines to keep
    from flowdex_orchestrator.flow import FlowFileError, load_flow
    from flowdex_orchestrator.flow.check import check_flow
    from flowdex_orchestrator.runner.changes import Action
    from flowdex_orchestrator.runner.scale_cli import ask_runner

    flow_file, folder, cwd = locate(flow)
    model = load_flow(flow_file)
    planned = ask_runner(folder, "reload", {"dry_run": True}, timeout)["changes"]
    if check and planned:
        findings = check_flow(model, ports=False, folder=cwd)
        if errors := [finding for finding in findings if finding.severity == "error"]:
            raise FlowFileError(errors)
    if not planned:
        click.echo("Nothing to do: the flow is what its file says.")
    for change in planned:
        note = f" ({change['note']})" if change["note"] else ""
        click.echo(f"{change['key']}: {change['action']}{note}")
    if dry_run:
        if any(change["action"] == Action.DOWN.value for change in planned):
            ctx.exit(1)
        return
    began = time.monotonic()
    ask_runner(folder, "reload", {}, timeout)
    if planned:
        click.echo(f"Reloaded ({time.monotonic() - began:.1f} s).")
