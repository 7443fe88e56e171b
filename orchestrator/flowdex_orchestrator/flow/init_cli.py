"""`flowdex init`: three questions, or flags, to a flow file that `flowdex check` finds nothing wrong with.

    flags, questions, defaults --> starter.Starter --text--> parse_flow, check_flow --> FOLDER/flow.yml

Nothing is written before the check has passed, and nothing is overwritten without --force.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from flowdex.cli import complete

if TYPE_CHECKING:
    from flowdex_orchestrator.flow.starter import Starter

__all__ = ["init"]

T = TypeVar("T")

_FILE = "flow.yml"
_DEFAULTS = {"purpose": "search", "encoder": "minilm", "index": "embedded"}


@click.command()
@click.argument("folder", default=".", type=click.Path(file_okay=False, path_type=Path), metavar="[FOLDER]")
@click.option(
    "--for",
    "purpose",
    type=click.Choice(["search", "encode", "bert-as-service"]),
    help="What the flow is for.  [default: search]",
)
@click.option(
    "--encoder",
    metavar="NAME|MODEL",
    shell_complete=complete.encoders,
    help="minilm, glove, a transformer's folder or hub id, gpt=MODEL, elmo=FOLDER, ulmfit=FOLDER or words=FILE.  "
    "[default: minilm]",
)
@click.option(
    "--index", metavar="PLACE", help="embedded, a Qdrant server's URL, or none.  [default: embedded, for search]"
)
@click.option("-y", "--yes", is_flag=True, help="Ask nothing; take the defaults for what is not given.")
@click.option("--force", is_flag=True, help="Overwrite a flow.yml that is there.")
def init(folder: Path, *, purpose: str | None, encoder: str | None, index: str | None, yes: bool, force: bool) -> None:
    """Write a starter flow.yml into FOLDER, after three questions or by flags.

    FOLDER is the working directory by default, and is made where there is none. The file is checked before it is
    written, as `flowdex check` does, which takes some seconds. Where there is no terminal to ask on, the defaults are
    taken.

    \b
    Example:
      flowdex init
      flowdex init my-search --encoder glove --yes
      flowdex init vectors --for encode --encoder BAAI/bge-small-en-v1.5
      flowdex init big --index http://127.0.0.1:6333 --yes
    """  # noqa: D301 - click's mark for lines to keep
    from flowdex.errors import Conflict
    from flowdex_orchestrator.flow.starter import Starter, check_index, flow_name, read_encoder

    target = folder / _FILE
    if target.exists() and not force:
        raise Conflict(f"{target} exists already: --force overwrites it, or name another folder")
    given = {"purpose": purpose, "encoder": encoder, "index": index}
    ask = not yes and sys.stdin.isatty()
    if not ask and not yes and None in given.values():
        click.echo("There is no terminal to ask on, so the defaults are taken for what is not given.", err=True)
    purpose = purpose or (_ask_purpose() if ask else _guess_purpose(index))
    chosen = _answer(encoder, _ask_encoder if ask else None, "encoder", lambda text: read_encoder(text, folder))
    if purpose == "search":
        place = _answer(index, _ask_index if ask else None, "index", check_index)
    else:
        place = check_index(index or "none")
    starter = Starter(flow_name(folder), purpose, chosen, place)
    text = starter.text()
    _check(text, target)
    _write(text, target, force=force)
    _say_next(target, starter)


# ---- the questions ----


def _ask_purpose() -> str:
    from flowdex_orchestrator.flow.starter import PURPOSES

    _explain("What is the flow for?", PURPOSES)
    answer: str = click.prompt(
        "For", type=click.Choice(list(PURPOSES)), default=_DEFAULTS["purpose"], show_choices=False, err=True
    )
    return answer


def _guess_purpose(index: str | None) -> str:
    return "encode" if index == "none" else _DEFAULTS["purpose"]


def _ask_encoder(read: Callable[[str], T]) -> T:
    from flowdex_orchestrator.flow.starter import ENCODERS

    _explain("Which encoder makes the vectors?", ENCODERS)
    return _prompt("Encoder", _DEFAULTS["encoder"], read)


def _ask_index(read: Callable[[str], T]) -> T:
    _explain(
        "Where does the index live?",
        {"embedded": "in the flow, in a folder of this machine", "URL": "on a Qdrant server: http(s):// or grpc(s)://"},
    )
    return _prompt("Index", _DEFAULTS["index"], read)


def _explain(question: str, answers: Mapping[str, str]) -> None:
    click.echo(question, err=True)
    width = max(map(len, answers))
    for name, meaning in answers.items():
        click.echo(f"  {name:<{width}}  {meaning}", err=True)


def _prompt(label: str, default: str, read: Callable[[str], T]) -> T:
    """Ask until the answer can be read."""
    from flowdex.errors import ConfigurationError

    def checked(text: str) -> T:
        try:
            return read(text)
        except ConfigurationError as error:
            raise click.UsageError(error.message) from None

    answer: T = click.prompt(label, default=default, value_proc=checked, err=True)
    click.echo(err=True)
    return answer


def _answer(given: str | None, ask: Callable[[Callable[[str], T]], T] | None, name: str, read: Callable[[str], T]) -> T:
    if given is None and ask is not None:
        return ask(read)
    return read(given if given is not None else _DEFAULTS[name])


# ---- the file ----


def _check(text: str, target: Path) -> None:
    """What `flowdex check` finds, but for the ports: those matter when the flow starts.

    Raises:
        FlowFileError: Something would fail.
    """
    from flowdex_orchestrator.flow.check import check_flow
    from flowdex_orchestrator.flow.findings import FlowFileError
    from flowdex_orchestrator.flow.load import parse_flow

    folder = target.parent if target.parent.is_dir() else Path.cwd()  # a folder to be made holds nothing to be found
    findings = check_flow(parse_flow(text, file=str(target)), ports=False, folder=folder)
    if errors := [finding for finding in findings if finding.severity == "error"]:
        raise FlowFileError(errors)
    for finding in findings:
        click.echo(str(finding), err=True)


def _write(text: str, target: Path, *, force: bool) -> None:
    from flowdex.errors import ConfigurationError, Conflict

    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("w" if force else "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise Conflict(f"{target} exists already: --force overwrites it, or name another folder") from None
    except OSError as error:
        raise ConfigurationError(f"{target} cannot be written: {error.strerror}") from None


def _say_next(target: Path, starter: Starter) -> None:
    """Print where the file is, and the next commands."""
    steps = [
        ("flowdex doctor", "is this machine ready for it?"),
        ("flowdex up --detach", "start it"),
    ]
    if starter.purpose == "search":
        steps += [("flowdex index FILE...", "files or folders"), ('flowdex search "..."', "")]
    else:
        steps += [('flowdex encode "..."', "")]
    steps += [("flowdex down", "stop it")]
    if target.parent.resolve() != Path.cwd():
        steps.insert(0, (f"cd {_quoted(target.parent)}", ""))
    click.echo(f"Wrote {target}. Next:\n")
    width = max(len(command) for command, _ in steps)
    for command, about in steps:
        click.echo(f"  {command:<{width}}  # {about}" if about else f"  {command}")


def _quoted(folder: Path) -> str:
    import shlex

    return shlex.quote(os.fspath(folder))
