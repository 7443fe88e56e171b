"""`flowdex search`: hits with rank, score, id and the passage that matched, its matching words in bold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, TextIO

import click

from flowdex.cli import complete
from flowdex.cli.common import (
    connect,
    connection_options,
    console,
    filter_option,
    json_option,
    parse_object,
    print_json,
)

if TYPE_CHECKING:
    from rich.console import Console

    from flowdex.results import Hit, SearchResult
    from flowdex.searching import SearchMode

__all__ = ["search"]


def _options(ctx: click.Context, param: click.Parameter, value: str | None) -> Any:
    """A name, a number, or the JSON object that says more."""
    if value is None:
        return None
    if value.startswith("{"):
        return parse_object(value)
    try:
        return float(value)
    except ValueError:
        return value


@click.command()
@click.argument("query", required=False)
@click.option("-n", "--limit", metavar="N", type=click.IntRange(1), default=10, show_default=True, help="Most hits.")
@click.option(
    "--offset",
    metavar="N",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Hits to leave out at the front.",
)
@filter_option
@click.option(
    "--mode",
    type=click.Choice(["hybrid", "dense", "sparse"]),
    help="By vectors (dense), by words (sparse), or both (hybrid).  [default: the flow's]",
)
@click.option("--threshold", metavar="SCORE", type=float, help="Leave out hits with a lower score.")
@click.option("--passages", metavar="N", type=click.IntRange(1), help="Most passages of one document.")
@click.option("--group", type=click.Choice(["document", "passage"]), help="Whether hits are documents or passages.")
@click.option(
    "--fusion",
    metavar="NAME|JSON",
    shell_complete=complete.names("rrf", "dbsf"),
    callback=_options,
    help="How hybrid is ranked: rrf or dbsf.",
)
@click.option(
    "--rerank",
    metavar="NAME|JSON",
    shell_complete=complete.names("late_interaction", "cross_encoder", "none"),
    callback=_options,
    help="late_interaction, cross_encoder, or none.",
)
@click.option(
    "--aggregate",
    metavar="NAME|JSON",
    shell_complete=complete.names("max", "mean", "sum", "softmax"),
    callback=_options,
    help="Passages to a score: max, mean, sum, softmax.",
)
@click.option("--diversity", metavar="NUMBER|JSON", callback=_options, help="From 0 to 1, prefer hits that differ.")
@click.option("--candidates", metavar="N", type=click.IntRange(1), help="How many documents the ranker chooses from.")
@click.option("--explain", is_flag=True, help="Show where each hit's score comes from.")
@click.option(
    "--queries",
    type=click.File(encoding="utf-8"),
    metavar="FILE",
    help="Search for each line of it; - is standard input.",
)
@json_option
@connection_options
@click.pass_context
def search(
    ctx: click.Context,
    /,
    *,
    query: str | None,
    limit: int,
    offset: int,
    condition: dict[str, Any] | None,
    mode: SearchMode | None,
    queries: TextIO | None,
    as_json: bool,
    url: str | None,
    timeout: float | None,
    **choices: Any,
) -> None:
    """Find the documents that answer QUERY, best first.

    Where an option takes NAME|JSON, an object says more: --fusion '{"method": "rrf", "weights": {"sparse": 0.5}}'.

    With --json, one object: {"query": ..., "hits": [{"id", "score", "text", "tags", "location", ...}], "took_ms": ...,
    "notes": [...]}; with --queries one such object a line.

    \b
    Example:
      flowdex search "how do I copy a folder?" -n 3
      flowdex search "breaking changes" --filter '{"path": "CHANGELOG.md"}' --explain
      flowdex search --queries questions.txt --json --rerank late_interaction
    """  # noqa: D301 - click's mark for lines to keep
    if (query is None) == (queries is None):
        raise click.UsageError("Name one QUERY, or a file with --queries.")
    lines = [line.strip() for line in queries or () if not line.isspace()]
    if queries is not None and not lines:
        raise click.UsageError("The file of --queries has no lines with text.")
    choices["explain"] = choices["explain"] or None
    with connect(ctx, url) as client:
        if query is not None:
            results = [client.search(query, limit, offset, condition, mode, timeout=timeout, **choices)]
        else:
            results = client.search(lines, limit, offset, condition, mode, timeout=timeout, **choices)
    out = console()
    for result in results:
        if as_json:
            print_json(result.to_dict())
        else:
            if queries is not None:
                out.print(result.query, style="bold underline", soft_wrap=True)
            _show(result, offset, out)


def _show(result: SearchResult, offset: int, out: Console) -> None:
    from rich.text import Text

    from flowdex.results import counted
    from flowdex.snippets import snippet

    indent = 5
    for rank, hit in enumerate(result.hits, offset + 1):
        out.print(_head(rank, hit), soft_wrap=True)
        for stage in _explanation(hit):
            out.print(Text(" " * indent + stage, style="dim"), soft_wrap=True)
        shown = snippet(hit.text, hit.highlights, length=3 * max(20, out.width - 2 * indent))
        passage = Text(shown.text)
        for start, end in shown.highlights:
            passage.stylize("bold yellow", start, end)
        for line in passage.wrap(out, out.width - 2 * indent):
            line.rstrip()
            out.print(Text(" " * indent) + line)
        out.print()
    for note in result.notes:
        out.print(Text(f"note: {note}", style="yellow"), soft_wrap=True)
    out.print(Text(f"{counted(len(result), 'hit')} in {result.took_ms:.0f} ms", style="dim"))


def _explanation(hit: Hit) -> Iterator[str]:
    """A line for each stage that ranked a hit: its rank and score there, and what else it says."""
    for stage, found in hit.explain.items():
        if not isinstance(found, Mapping):
            continue
        rank, score = found.get("rank"), found.get("score")
        place = f"#{int(rank)}" if isinstance(rank, (int, float)) else "-"
        shown = f"{score:.4f}" if isinstance(score, (int, float)) else "-"
        more = ", ".join(f"{key} {value}" for key, value in found.items() if key not in ("rank", "score"))
        yield f"{stage:<10} {place:>5}  {shown:>9}  {more}".rstrip()


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
