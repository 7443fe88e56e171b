"""`flowdex get`, `flowdex count` and `flowdex export`: documents out of the index, as they were sent."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, TextIO

import click

from flowdex.cli.common import connect, connection_options, console, filter_option, json_option, print_json

if TYPE_CHECKING:
    from rich.console import Console

    from flowdex.stored import StoredDocument

__all__ = ["count", "export", "get"]

_FLOW_EXPORTS = {
    "kubernetes": ("flowdex_orchestrator.export.cli:kubernetes", "Write Kubernetes manifests of a flow file."),
    "docker-compose": ("flowdex_orchestrator.export.cli:docker_compose", "Write a docker-compose.yml of a flow file."),
}


@click.command()
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@click.option("--passages", is_flag=True, help="Show the passages that each was cut into.")
@click.option("--embeddings", is_flag=True, help="With --json: the vectors too.")
@json_option
@connection_options
@click.pass_context
def get(
    ctx: click.Context,
    *,
    ids: tuple[str, ...],
    passages: bool,
    embeddings: bool,
    as_json: bool,
    url: str | None,
    timeout: float | None,
) -> None:
    """Print documents by their ids.

    With --json, one line a document: {"id": ..., "text" or "fields": ..., "tags": ...}. The exit code is 1 if one of
    them is not in the index.

    \b
    Example:
      flowdex get docs/search.md
      flowdex get docs/search.md --passages
      flowdex get a b c --json
    """  # noqa: D301 - click's mark for lines to keep
    with connect(ctx, url) as client:
        found = client.get(ids, passages=passages, embeddings=embeddings, timeout=timeout)
    out = console()
    for document in found:
        if as_json:
            print_json(document.to_dict())
        else:
            _show(document, out, passages=passages)
    known = {document.id for document in found}
    missing = [id_ for id_ in dict.fromkeys(ids) if id_ not in known]
    for id_ in missing:
        click.echo(f"{id_}: there is no such document", err=True)
    if missing:
        ctx.exit(1)


def _show(document: StoredDocument, out: Console, *, passages: bool) -> None:
    from rich.text import Text

    from flowdex.results import counted

    head = Text(document.id or "", style="bold")
    head.append(f"  {counted(document.passage_count, 'passage')}", style="dim")
    out.print(head, soft_wrap=True)
    for name, value in document.tags.items():
        out.print(
            Text(f"{name}: {value if isinstance(value, str) else json.dumps(value)}", style="dim"), soft_wrap=True
        )
    if passages:
        for each in document.passages:
            place = f"\n{each.id}  characters {each.location[0]:,}-{each.location[1]:,}"
            out.print(Text(place + (f"  {each.context}" if each.context else ""), style="dim"), soft_wrap=True)
            out.print(Text(each.text), soft_wrap=True)
    elif document.fields:
        for name, text in document.fields.items():
            out.print(Text(f"\n{name}", style="dim"), soft_wrap=True)
            out.print(Text(text), soft_wrap=True)
    else:
        out.print()
        out.print(Text(document.text), soft_wrap=True)
    out.print()


@click.command()
@filter_option
@json_option
@connection_options
@click.pass_context
def count(
    ctx: click.Context, *, condition: dict[str, Any] | None, as_json: bool, url: str | None, timeout: float | None
) -> None:
    """Count the documents in the index, or those that a filter finds.

    \b
    Example:
      flowdex count
      flowdex count --filter '{"year": {"$gte": 2020}}'
    """  # noqa: D301 - click's mark for lines to keep
    with connect(ctx, url) as client:
        number = client.count(condition, timeout=timeout)
    if as_json:
        print_json({"documents": number})
    else:
        click.echo(number)


class _Export(click.Group):
    """Exports of the flow file, each imported when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_FLOW_EXPORTS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _FLOW_EXPORTS:
            return None
        from importlib import import_module

        module, _, attribute = _FLOW_EXPORTS[cmd_name][0].partition(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _FLOW_EXPORTS.items()])


@click.group(cls=_Export, invoke_without_command=True)
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    type=click.File("w", encoding="utf-8"),
    default="-",
    help="Write to this file.  [default: standard output]",
)
@filter_option
@connection_options
@click.pass_context
def export(
    ctx: click.Context,
    *,
    output: TextIO,
    condition: dict[str, Any] | None,
    url: str | None,
    timeout: float | None,
) -> None:
    """Write all documents, or those that a filter finds, as JSON lines that `flowdex index` reads back exactly.

    With a command: write the flow file for another runtime instead.

    Documents come as they were sent: id, text or fields, tags, and vectors that were the caller's own. Passages and the
    encoder's vectors are made anew when they are indexed again. --timeout is for each page.

    \b
    Example:
      flowdex export -o backup.jsonl
      flowdex export --filter '{"lang": "en"}' | flowdex -u grpc://other:51000 index -
      flowdex export kubernetes flow.yml -o k8s/
    """  # noqa: D301 - click's mark for lines to keep
    if ctx.invoked_subcommand is not None:
        return
    from flowdex.progress import Bar, watched
    from flowdex.readers import EXPORT_VERSION
    from flowdex.results import counted

    written = 0
    cursor: str | None = None
    with connect(ctx, url) as client, Bar("exporting") as bar:
        total = client.count(condition, timeout=timeout) if watched() else None
        while True:
            page = client.page(cursor, filter=condition, embeddings=True, timeout=timeout)
            for document in page.documents:
                output.write(json.dumps({EXPORT_VERSION: 1, **document.to_dict()}, ensure_ascii=False) + "\n")
            written += len(page.documents)
            bar.show(written, total)
            cursor = page.cursor
            if cursor is None:
                break
    output.flush()
    click.echo(f"Exported {counted(written, 'document')}.", err=True)
