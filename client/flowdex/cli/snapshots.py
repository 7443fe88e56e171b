"""`flowdex snapshot` and `flowdex restore`."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import click

from flowdex.cli.common import connect, connection_options, json_option, print_json

__all__ = ["restore", "snapshot"]


@click.command()
@click.option(
    "--output",
    "-o",
    "output",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Where to save it.  [default: flowdex-DATE-TIME.snapshot]",
)
@json_option
@connection_options
@click.pass_context
def snapshot(ctx: click.Context, *, output: Path | None, as_json: bool, url: str | None, timeout: float | None) -> None:
    """Save all that is indexed to one file, while the flow runs.

    \b
    Example:
      flowdex snapshot -o monday.snapshot
      flowdex restore monday.snapshot
    """  # noqa: D301 - click's mark for lines to keep
    path = output or Path(f"flowdex-{datetime.now().astimezone():%Y%m%d-%H%M%S}.snapshot")
    from flowdex.progress import Bar

    with connect(ctx, url) as client, Bar("fetching", unit="bytes") as bar:
        result = client.snapshot(path, progress=bar.show, timeout=timeout)
    if as_json:
        print_json({"path": str(result.path), "size": result.size, "sha256": result.sha256})
    else:
        click.echo(f"Saved {result.path} ({result.size / 1e6:.1f} MB).")


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--yes", is_flag=True, help="Do not ask, though documents are there.")
@json_option
@connection_options
@click.pass_context
def restore(
    ctx: click.Context, *, file: Path, yes: bool, as_json: bool, url: str | None, timeout: float | None
) -> None:
    """Put a snapshot in the place of all that is indexed, at once, while the flow runs.

    A file that is damaged, or of another version's format, is refused, and nothing changes.

    \b
    Example:
      flowdex restore monday.snapshot
      flowdex restore --yes monday.snapshot
    """  # noqa: D301 - click's mark for lines to keep
    from flowdex.progress import Bar
    from flowdex.results import counted

    with connect(ctx, url) as client:
        if not yes and not as_json and (there := client.count()):
            click.confirm(f"{counted(there, 'document')} will be replaced. Go on?", abort=True)
        with Bar("sending", unit="bytes") as bar:
            result = client.restore(file, progress=bar.show, timeout=timeout)
    if as_json:
        print_json({"documents": result.documents, "passages": result.passages})
    else:
        click.echo(f"Restored {counted(result.documents, 'document')}, {counted(result.passages, 'passage')}.")
