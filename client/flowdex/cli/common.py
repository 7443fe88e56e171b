"""What the client's commands share: the connection options, output as JSON, and parsing of filters."""

from __future__ import annotations

import json
import os
import shutil
import sys
import unicodedata
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from flowdex.cli import complete
from flowdex.cli.main import Settings

if TYPE_CHECKING:
    from rich.console import Console

    from flowdex.client import Client

__all__ = [
    "connect",
    "connection_options",
    "console",
    "filter_option",
    "json_option",
    "parse_object",
    "print_heading",
    "print_json",
]

_WIDTH = 100  # columns, where nobody looks
F = TypeVar("F", bound=Callable[..., Any])

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


def connection_options(command: F) -> F:
    """Add --url and --timeout, so that they may also be given after the verb."""
    command = click.option(
        "--timeout", metavar="SECONDS", type=click.FloatRange(min=0, min_open=True), help="Time for the whole call."
    )(command)
    return click.option(
        "-u",
        "--url",
        metavar="URL",
        shell_complete=complete.addresses,
        help="The flow's gateway; as before the command.",
    )(command)


def connect(ctx: click.Context, url: str | None) -> Client:
    """Open a client by the options of the verb, or else of the group."""
    from flowdex.client import Client

    settings = ctx.obj if isinstance(ctx.obj, Settings) else Settings()
    return Client(url or settings.url, api_key=settings.api_key)


def parse_object(value: str) -> dict[str, Any]:
    """Read an option's JSON object."""
    try:
        parsed = json.loads(value)
    except ValueError as error:
        raise click.BadParameter(f"not JSON: {error}") from None
    if not isinstance(parsed, dict):
        raise click.BadParameter('must be a JSON object, such as \'{"lang": "en"}\'')
    return parsed


def _parse_filter(ctx: click.Context, param: click.Parameter, value: str | None) -> dict[str, Any] | None:
    return None if value is None else parse_object(value)


filter_option = click.option(
    "--filter",
    "condition",
    metavar="JSON",
    callback=_parse_filter,
    help='Conditions on tags, such as \'{"year": {"$gte": 2020}}\'.',
)


def print_json(value: Any) -> None:
    """Print one JSON value on one line; beyond ASCII as it is, where standard output can show it."""
    unicode = (sys.stdout.encoding or "").lower().startswith("utf")
    click.echo(json.dumps(value, ensure_ascii=not unicode))


def print_heading(text: str) -> None:
    """Print a text on one line, cut at the terminal's width, bold where there are colours.

    Without rich, the import of which takes a tenth of the time of a short command. NO_COLOR takes the colour off
    terminals, FORCE_COLOR puts it into pipes, as for `console`.
    """
    watched = sys.stdout.isatty()
    width = shutil.get_terminal_size().columns if watched else _WIDTH
    line = " ".join(text.splitlines())
    cells = 0
    for shown, character in enumerate(line):
        cells += 2 if unicodedata.east_asian_width(character) in "WF" else 1
        if cells > width:
            line = line[: max(0, shown - 1)] + "\N{HORIZONTAL ELLIPSIS}"
            break
    coloured = "NO_COLOR" not in os.environ and (watched or "FORCE_COLOR" in os.environ)
    click.echo(click.style(line, bold=True) if coloured else line, color=coloured)


def console(*, stderr: bool = False) -> Console:
    """A console that keeps colours off pipes and never guesses at highlighting; 100 columns where nobody looks.

    NO_COLOR takes colours off terminals, too; FORCE_COLOR puts them into pipes.
    """
    from rich.console import Console

    found = Console(stderr=stderr, highlight=False, emoji=False, markup=False)
    if not found.file.isatty():
        found.width = _WIDTH
    return found
