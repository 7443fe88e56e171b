"""`flowdex keys`: make, list and remove the keys of a flow.

add NAME --role search --> a token on standard output, once; its hash in the key file
"""

from __future__ import annotations

import json
import re
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import click

from flowdex.cli import complete

__all__ = ["keys"]

DEFAULT_FILE = ".flowdex/keys.json"
_UNITS = {"m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_FLOW = click.option(
    "--flow",
    "flow_file",
    metavar="FLOW.YML",
    shell_complete=complete.flow_files,
    type=click.Path(path_type=Path),
    help="The flow file, which names the key file.  [default: ./flow.yml]",
)
_FILE = click.option(
    "--file",
    "key_file",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help=f"The key file; goes before --flow.  [default: the flow file's, FLOWDEX_KEYS, {DEFAULT_FILE}]",
)


def _duration(ctx: click.Context, param: click.Parameter, value: str | None) -> timedelta | None:
    """Read `30d`."""
    if value is None:
        return None
    match = re.fullmatch(r"([1-9][0-9]{0,5})([mhdw])", value)
    if match is None:
        raise click.BadParameter(f"expected a number and m, h, d or w, such as 30d, got {value!r}", ctx, param)
    return timedelta(seconds=int(match[1]) * _UNITS[match[2]])


@click.group()
def keys() -> None:
    """Make, list and remove the API keys of a flow.

    A flow file that names a key file (`gateway: keys: .flowdex/keys.json`) has its gateway ask every caller for a key
    of it. A change is seen by a running gateway within a second.

    \b
    Example:
      flowdex keys add website --role search --rate 50
      flowdex keys list
    """  # noqa: D301 - click's mark for lines to keep


@keys.command()
@click.argument("name")
@click.option(
    "--role",
    "roles",
    multiple=True,
    required=True,
    type=click.Choice(["search", "index", "metrics", "admin"]),
    help="What it may do. Repeatable.",
)
@click.option("--tenant", metavar="NAME", help="Whose documents it sees and writes, and no others.")
@click.option("--rate", metavar="N", type=click.FloatRange(min=0, min_open=True), help="Most requests a second.")
@click.option("--burst", metavar="N", type=click.IntRange(min=1), help="Requests at once.  [default: twice the rate]")
@click.option("--concurrent", metavar="N", type=click.IntRange(min=1), help="Most requests in flight.")
@click.option("--expires", metavar="TIME", callback=_duration, help="When it ends, such as 12h or 30d.")
@_FLOW
@_FILE
def add(
    name: str,
    *,
    roles: tuple[str, ...],
    tenant: str | None,
    rate: float | None,
    burst: int | None,
    concurrent: int | None,
    expires: timedelta | None,
    flow_file: Path | None,
    key_file: Path | None,
) -> None:
    """Make a key and print it, once: only its hash is kept.

    \b
    Example:
      flowdex keys add website --role search --rate 50 --concurrent 8
      flowdex keys add acme-loader --role index --tenant acme --expires 30d
    """  # noqa: D301 - click's mark for lines to keep
    from pydantic import ValidationError

    from flowdex.errors import ConfigurationError
    from flowdex_orchestrator.access.keys import Key, changing, digest_of, key_id, new_token, read_keys, write_keys

    path = _locate(flow_file, key_file)
    token = new_token()
    now = datetime.now(timezone.utc).replace(microsecond=0)
    fields: dict[str, Any] = {
        "id": key_id(token),
        "name": name,
        "sha256": digest_of(token).hex(),
        "roles": frozenset(roles),
        "tenant": tenant,
        "rate": rate,
        "burst": burst,
        "concurrent": concurrent,
        "created": now,
        "expires": None if expires is None else now + expires,
    }
    try:
        key = Key.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = "".join(f"{part}: " for part in first["loc"])
        raise ConfigurationError(f"{place}{first['msg'].removeprefix('Value error, ')}") from None
    with changing(path):
        known = read_keys(path) if path.exists() else []
        if any(key.name == name for key in known):
            raise ConfigurationError(f"{path} has a key {name!r} already; remove it first, or choose another name")
        write_keys(path, [*known, key])
    click.echo(f"{name}: a key of {path}. It is shown this once; only its hash is kept.", err=True)
    click.echo(token)


@keys.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@_FLOW
@_FILE
def list_(*, as_json: bool, flow_file: Path | None, key_file: Path | None) -> None:
    """List the keys: names, roles, limits; nothing that lets anybody in.

    \b
    Example:
      flowdex keys list
      flowdex keys list --json | jq -r '.[].name'
    """  # noqa: D301 - click's mark for lines to keep
    from rich.console import Console
    from rich.table import Table

    from flowdex_orchestrator.access.keys import read_keys

    found = read_keys(_locate(flow_file, key_file))
    if as_json:
        rows = [key.model_dump(mode="json", exclude={"sha256"}, exclude_none=True) for key in found]
        click.echo(json.dumps([{**row, "roles": sorted(row["roles"])} for row in rows], indent=2))
        return
    table = Table(box=None, pad_edge=False)
    for title in ("name", "id", "roles", "tenant", "rate", "concurrent", "expires"):
        table.add_column(title)
    for key in found:
        expires = "never" if key.expires is None else f"{key.expires:%Y-%m-%d %H:%M}Z"
        table.add_row(
            key.name,
            key.id,
            ", ".join(sorted(role.value for role in key.roles)),
            key.tenant or "",
            f"{key.rate:g}/s" if key.rate is not None else "",
            f"{key.concurrent}" if key.concurrent is not None else "",
            f"{expires} (over)" if key.expired else expires,
        )
    Console(file=sys.stdout, soft_wrap=True, highlight=False).print(table)


@keys.command()
@click.argument("name")
@_FLOW
@_FILE
def remove(name: str, *, flow_file: Path | None, key_file: Path | None) -> None:
    """Remove a key: who has it is refused within a second.

    \b
    Example:
      flowdex keys remove website
    """  # noqa: D301 - click's mark for lines to keep
    from flowdex.errors import NotFound
    from flowdex_orchestrator.access.keys import changing, read_keys, write_keys

    path = _locate(flow_file, key_file)
    with changing(path):
        found = read_keys(path)
        kept = [key for key in found if key.name != name]
        if len(kept) == len(found):
            names = ", ".join(key.name for key in found) or "none"
            raise NotFound(f"{path} has no key {name!r}; there are {names}")
        write_keys(path, kept)
    click.echo(f"{name} is removed from {path}.")


def _locate(flow_file: Path | None, key_file: Path | None) -> Path:
    """The key file: the one named, else the flow file's, else the default beside the flow file."""
    from flowdex_orchestrator.access.guard import keys_path
    from flowdex_orchestrator.flow import load_flow

    if key_file is not None:
        return key_file
    if flow_file is None and not Path("flow.yml").is_file():
        import os

        named = os.environ.get("FLOWDEX_KEYS")
        return Path(named).expanduser() if named else Path(DEFAULT_FILE)
    flow = load_flow(flow_file or "flow.yml")
    return keys_path(flow) or flow.folder / DEFAULT_FILE
