"""`flowdex snapshot` and `flowdex restore`."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path

import click

from flowdex.cli.common import connect, connection_options, json_option, print_json

__all__ = ["restore", "snapshot"]

_DATED = re.compile(r"flowdex-\d{8}-\d{6}\.snapshot")


@click.command()
@click.option(
    "--output",
    "-o",
    "output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="File to save it to, or a folder for flowdex-DATE-TIME.snapshot.  [default: the working folder]",
)
@click.option(
    "--keep",
    metavar="N",
    type=click.IntRange(1),
    help="With a folder: once it is saved, leave the N newest flowdex-DATE-TIME.snapshot, and remove older ones.",
)
@json_option
@connection_options
@click.pass_context
def snapshot(
    ctx: click.Context,
    *,
    output: Path | None,
    keep: int | None,
    as_json: bool,
    url: str | None,
    timeout: float | None,
) -> None:
    """Save all that is indexed to one file, while the flow runs.

    The file appears under its name when all of it has arrived, its sum agrees and it is on the disk.

    \b
    Example:
      flowdex snapshot -o monday.snapshot
      flowdex snapshot -o backups/ --keep 7
      flowdex inspect monday.snapshot
    """  # noqa: D301 - click's mark for lines to keep
    folder = Path() if output is None else output if output.is_dir() else None
    if keep is not None and folder is None:
        raise click.UsageError(f"--keep needs a folder that is there, and {output} is none")
    path = output if folder is None else folder / f"flowdex-{datetime.now().astimezone():%Y%m%d-%H%M%S}.snapshot"
    assert path is not None
    from flowdex.progress import Bar

    with connect(ctx, url) as client, Bar("fetching", unit="bytes") as bar:
        result = client.snapshot(path, progress=bar.show, timeout=timeout)
    removed = _remove_old(path.parent, keep) if keep is not None else []
    if as_json:
        print_json(
            {
                "path": str(result.path),
                "size": result.size,
                "sha256": result.sha256,
                "removed": [str(each) for each in removed],
            }
        )
    else:
        click.echo(f"Saved {result.path} ({result.size / 1e6:.1f} MB).")
        for each in removed:
            click.echo(f"Removed {each}.")


def _remove_old(folder: Path, keep: int) -> list[Path]:
    """Remove all but the newest snapshots that were named by their date; what was removed."""
    dated = sorted(path for path in folder.iterdir() if _DATED.fullmatch(path.name))
    old = dated[:-keep]
    for path in old:
        path.unlink(missing_ok=True)
    return old


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
