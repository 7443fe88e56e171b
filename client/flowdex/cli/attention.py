"""`flowdex attention`: where each token of a text looks, on screen, as JSON, or as an HTML page of its own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from flowdex.cli.common import connect, connection_options, console, json_option, print_json

if TYPE_CHECKING:
    from flowdex.attention import Attention

__all__ = ["attention"]

_SHOWN = 3


@click.command()
@click.argument("text")
@click.argument("text_pair", required=False)
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write a page that draws it; the file needs nothing else.",
)
@click.option(
    "--layer",
    "layers",
    type=int,
    metavar="N",
    multiple=True,
    help="Only this layer; may be repeated. -1 is the top.  [default: all]",
)
@click.option("--executor", metavar="NAME", help="The encoder, where the flow has several.")
@json_option
@connection_options
@click.pass_context
def attention(
    ctx: click.Context,
    *,
    text: str,
    text_pair: str | None,
    output: Path | None,
    layers: tuple[int, ...],
    executor: str | None,
    as_json: bool,
    url: str | None,
    timeout: float | None,
) -> None:
    """Show where each token of TEXT looks, or of TEXT and TEXT_PAIR read as one sequence.

    On screen: for each token the three that it takes most from in the top layer, as the mean of the layer's heads. The
    page that -o writes has every layer and head.

    \b
    Example:
      flowdex attention "The cat sat on the mat" -o cat.html
      flowdex attention "The cat sat on the mat" "The cat lay on the rug" --layer 3
    """  # noqa: D301 - click's mark for lines to keep
    with connect(ctx, url) as client:
        found = client.attention(text, text_pair, layers=layers or None, executor=executor, timeout=timeout)
    if output is not None:
        output.write_text(found.to_html(), encoding="utf-8")
        shape = found.weights.shape
        click.echo(f"{output}: {shape[0]} layers of {shape[1]} heads, {shape[2]} tokens", err=True)
    if as_json:
        print_json(found.to_dict())
    elif output is None:
        _show(found)


def _show(found: Attention) -> None:
    from rich.text import Text

    out = console()
    out.print(Text(f"{found.model}, layer {found.layers[-1]}, mean of {found.weights.shape[1]} heads", style="bold"))
    width = max(map(len, found.tokens))
    for token, row in zip(found.tokens, found.weights[-1].mean(0), strict=True):
        most = row.argsort()[::-1][:_SHOWN]
        out.print(
            Text(f"  {token:<{width}}  " + "  ".join(f"{row[at]:.2f} {found.tokens[at]:<{width}}" for at in most))
        )
