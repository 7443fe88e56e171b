"""`flowdex delete` and `flowdex status`."""

from __future__ import annotations

from typing import Any

import click

from flowdex.cli.common import connect, connection_options, console, filter_option, json_option, print_json

__all__ = ["delete", "status"]


@click.command()
@click.argument("ids", nargs=-1, metavar="[ID]...")
@filter_option
@json_option
@connection_options
@click.pass_context
def delete(
    ctx: click.Context,
    *,
    ids: tuple[str, ...],
    condition: dict[str, Any] | None,
    as_json: bool,
    url: str | None,
    timeout: float | None,
) -> None:
    """Remove documents from the index, by id or by a filter on their tags.

    \b
    Example:
      flowdex delete docs/old.md docs/older.md
      flowdex delete --filter '{"path": "reviews.csv"}'
    """  # noqa: D301 - click's mark for lines to keep
    if bool(ids) == (condition is not None):
        raise click.UsageError("Name ids, or a --filter, and not both.", ctx)
    with connect(ctx, url) as client:
        removed = client.delete(ids or None, filter=condition, timeout=timeout)
    if as_json:
        print_json({"deleted": removed})
    else:
        from flowdex.results import counted

        click.echo(f"Removed {counted(removed, 'document')}.")


@click.command()
@json_option
@connection_options
@click.pass_context
def status(ctx: click.Context, as_json: bool, url: str | None, timeout: float | None) -> None:
    """Show the flow's executors, their replicas and models, and how much is indexed.

    \b
    Example:
      flowdex status
      flowdex status --json | jq '.executors[] | select(.name == "indexer").status.documents'
    """  # noqa: D301 - click's mark for lines to keep
    with connect(ctx, url) as client:
        found = client.status(timeout=timeout if timeout is not None else 10.0)
        address = client.url
    if as_json:
        print_json(found.to_dict())
        return
    from rich.table import Table
    from rich.text import Text

    out = console()
    version = f", flowdex {found.version}" if found.version else ""
    uptime = f", up {_duration(found.uptime_s)}" if found.uptime_s else ""
    out.print(Text.assemble((found.name or "flow", "bold"), f" at {address}{version}{uptime}"))
    table = Table("executor", "ready", "facts", box=None, pad_edge=False, padding=(0, 2), header_style="dim")
    for each in found.executors:
        ready = sum(bool(replica.get("ready")) for replica in each.replicas)
        facts = "  ".join(f"{key}={value}" for key, value in sorted(each.status.items()))
        style = "" if ready == len(each.replicas) else "red"
        table.add_row(
            Text(each.name), Text(f"{ready}/{len(each.replicas)}" if each.replicas else "?", style), Text(facts)
        )
    out.print(table)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
