"""`flowdex rank`: lines of a file or of standard input in the order of how well they answer a query."""

from __future__ import annotations

from typing import TYPE_CHECKING, TextIO

import click

from flowdex.cli.common import connect, connection_options, console, json_option, print_json

if TYPE_CHECKING:
    from flowdex.ranking import RankMethod

__all__ = ["rank"]


@click.command()
@click.argument("query")
@click.option(
    "--texts",
    "file",
    metavar="FILE",
    type=click.File(encoding="utf-8"),
    required=True,
    help="The texts, one a line, blank lines left out; - is standard input.",
)
@click.option(
    "--method",
    type=click.Choice(["late_interaction", "cross_encoder", "dense"]),
    help="What ranks them.  [default: cross_encoder where the flow has one, else late_interaction]",
)
@click.option("-n", "--top", metavar="N", type=click.IntRange(min=1), help="Show so many.  [default: all]")
@json_option
@connection_options
@click.pass_context
def rank(
    ctx: click.Context,
    *,
    query: str,
    file: TextIO,
    method: RankMethod | None,
    top: int | None,
    as_json: bool,
    url: str | None,
    timeout: float | None,
) -> None:
    """Rank texts by how well they answer QUERY, without an index.

    \b
    Example:
      printf 'cats purr\\nthe moon is far\\n' | flowdex rank "space" --texts -
    """  # noqa: D301 - click's mark for lines to keep
    texts = [line.rstrip("\n") for line in file if not line.isspace()]
    if not texts:
        raise click.UsageError("There are no texts to rank.", ctx)
    with connect(ctx, url) as client:
        ranked = client.rank(query, texts, method=method, top=top, timeout=timeout)
    if as_json:
        print_json({"query": query, "results": [each.to_dict() for each in ranked]})
        return
    from rich.text import Text

    out = console()
    for place, each in enumerate(ranked, 1):
        out.print(Text.assemble(f"{place:>3}  ", (f"{each.score:.4f}", "bold"), f"  {each.text}"))
