"""`flowdex inspect`: what a snapshot or an index folder is, without a flow, and whether this version can read it.

FILE    --header, then every checksum-->     format, version, collection, points, whole or damaged
FOLDER  --format.json, collection.json-->    format, version, collections, in use or not
"""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from typing import Any

import click

from flowdex.cli.common import json_option, print_json

__all__ = ["inspect"]


@click.command()
@click.argument("path", type=click.Path(exists=True, path_type=Path))
@json_option
@click.pass_context
def inspect(ctx: click.Context, *, path: Path, as_json: bool) -> None:
    """Say what a snapshot or an index folder is, and check a snapshot as a restore would.

    PATH is a file that `flowdex snapshot` made, or the folder of an embedded index. No flow is needed, nothing is
    changed. The exit code is 1 where this version of flowdex cannot use it: damaged, newer, or nothing of flowdex.

    \b
    Example:
      flowdex inspect monday.snapshot
      flowdex inspect .flowdex/index
    """  # noqa: D301 - click's mark for lines to keep
    found = _folder(path) if path.is_dir() else _snapshot(path)
    if as_json:
        print_json(found)
    else:
        _show(found)
    if found["problem"]:
        ctx.exit(1)


def _snapshot(path: Path) -> dict[str, Any]:
    from flowdex.errors import FlowdexError
    from flowdex_executors.indexer.snapshots import read_header, read_snapshot

    found: dict[str, Any] = {"path": str(path), "kind": "snapshot", "size": path.stat().st_size, "problem": ""}
    try:
        header = read_header(path)
        found |= {key: header.get(key) for key in ("format", "collection", "points")}
        found |= {key: (header.get("manifest") or {}).get(key) for key in ("flowdex", "shards")}
        read_snapshot(path, None, lambda manifest: None)
    except FlowdexError as error:
        found["problem"] = error.message
    return found


def _folder(path: Path) -> dict[str, Any]:
    from flowdex.errors import FlowdexError
    from flowdex_executors.indexer.layout import FLAT, read_manifest, read_mark

    found: dict[str, Any] = {"path": str(path), "kind": "index", "in_use_by": _holder(path), "problem": ""}
    collections = []
    try:
        mark = read_mark(path) or {}
        found |= {"format": mark.get("format"), "flowdex": mark.get("flowdex")}
        for folder in sorted(each for each in path.iterdir() if each.is_dir() and not each.name.startswith(".")):
            manifest = read_manifest(folder)
            if manifest is not None:
                size = _size(folder / manifest.data)
                collections.append(
                    {"name": folder.name, "format": manifest.format, "shards": manifest.shards, "size": size}
                )
            elif (folder / FLAT).is_dir():
                collections.append({"name": folder.name, "format": 0, "shards": 1, "size": _size(folder / FLAT)})
    except FlowdexError as error:
        found["problem"] = error.message
    if not collections and not found["problem"] and found.get("format") is None:
        found["problem"] = "there is no index in the folder"
    return found | {"collections": collections}


def _holder(path: Path) -> str | None:
    """The process that uses the folder; None for none."""
    try:
        descriptor = os.open(path / ".lock", os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
    else:
        return None
    finally:
        os.close(descriptor)


def _size(path: Path) -> int:
    """Bytes on disk; the engine's files are larger than what they hold."""
    return sum(each.stat().st_blocks * 512 for each in path.rglob("*") if each.is_file())


def _show(found: dict[str, Any]) -> None:
    author = f", written by flowdex {found['flowdex']}" if found.get("flowdex") else ""
    what = "snapshot" if found["kind"] == "snapshot" else "index folder"
    known = found.get("format")
    click.echo(f"{found['path']}: {what}" + (f" of format {known}{author}" if known is not None else ""))
    if found["kind"] == "snapshot" and known is not None:
        name = json.dumps(found["collection"])
        size = f"{found['size'] / 1e6:.1f} MB"
        click.echo(f"  collection {name}, {found['points']} points, {found['shards']} shard(s), {size}")
    for each in found.get("collections", ()):
        older = ", is migrated at the next start" if each["format"] == 0 else ""
        size = f"{each['size'] / 1e6:.1f} MB"
        click.echo(f"  {each['name']}: format {each['format']}{older}, {each['shards']} shard(s), {size}")
    if found.get("in_use_by"):
        click.echo(f"  in use by process {found['in_use_by']}")
    if found["problem"]:
        click.echo(f"  {found['problem']}")
    elif found["kind"] == "snapshot":
        click.echo("  all checksums agree")
