"""`flowdex search`: hits with rank, score, id and the passage that matched, its matching words in bold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from flowdex.cli.common import connect, connection_options, console, filter_option, json_option, print_json

if TYPE_CHECKING:
    from rich.console import Console

    from flowdex.async_client import SearchMode
    from flowdex.results import Hit, SearchResult

__all__ = ["search"]


@click.command()
@click.argument("query")
@click.option("-n", "--limit", type=click.IntRange(1), default=10, show_default=True, help="Most hits.")
@click.option("--offset", type=click.IntRange(0), default=0, help="Hits to leave out at the front.")
@filter_option
@click.option(
    "--mode",
    type=click.Choice(["hybrid", "dense", "sparse"]),
    help="By vectors (dense), by words (sparse), or both  [the flow's default].",
)
@json_option
@connection_options
@click.pass_context
def search(
    ctx: click.Context,
    *,
    query: str,
    limit: int,
    offset: int,
    condition: dict[str, Any] | None,
    mode: SearchMode | None,
    as_json: bool,
    url: str | None,
    timeout: float | None,
) -> None:
    """Find the documents that answer QUERY, best first.

    With --json, one object: {"query": ..., "hits": [{"id", "score", "text", "tags", "location", ...}], "took_ms": ...}.

    \b
    Example:
      flowdex search "how do I copy a folder?" -n 3
      flowdex search "breaking changes" --filter '{"path": "CHANGELOG.md"}'
    """  # noqa: D301 - click's mark for lines to keep
    with connect(ctx, url) as client:
        result = client.search(query, limit, offset, condition, mode, timeout=timeout)
    if as_json:
        print_json(result.to_dict())
    else:
        _show(result, offset, console())


def _show(result: SearchResult, offset: int, out: Console) -> None:
    from rich.text import Text

    from flowdex.results import counted
    from flowdex.snippets import snippet

    indent = 5
    for rank, hit in enumerate(result.hits, offset + 1):
        out.print(_head(rank, hit), soft_wrap=True)
        shown = snippet(hit.text, hit.highlights, length=3 * max(20, out.width - 2 * indent))
        passage = Text(shown.text)
        for start, end in shown.highlights:
            passage.stylize("bold yellow", start, end)
        for line in passage.wrap(out, out.width - 2 * indent):
            line.rstrip()
            out.print(Text(" " * indent) + line)
        out.print()
    out.print(Text(f"{counted(len(result), 'hit')} in {result.took_ms:.0f} ms", style="dim"))


def _head(rank: int, hit: Hit) -> Any:
    from rich.text import Text

    from flowdex.results import counted

    line = Text(f"{rank:>3}  ")
    line.append(f"{hit.score:.4f}", style="cyan")
    line.append(f"  {hit.id}", style="bold")
    title = hit.tags.get("title")
    if isinstance(title, str) and title != hit.id:
        line.append(f"  {title}")
    if hit.location is not None:
        line.append(f"  characters {hit.location[0]:,}-{hit.location[1]:,}", style="dim")
    if len(hit.passages) > 1:
        line.append(f"  {counted(len(hit.passages), 'passage')}", style="dim")
    return line
