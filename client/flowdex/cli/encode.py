"""`flowdex encode`: texts from arguments, a file or standard input to vectors, on screen, as JSON or as a .npy file."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TextIO

import click

from flowdex.cli.common import connect, connection_options, console, json_option, print_json

__all__ = ["encode"]


@click.command()
@click.argument("texts", nargs=-1, metavar="[TEXT]...")
@click.option(
    "-f", "--file", type=click.File(encoding="utf-8"), help="Read texts from it, one a line; - is standard input."
)
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Write float32 rows to this .npy file."
)
@click.option(
    "--flow",
    type=click.Path(path_type=Path),
    metavar="FLOW.YML",
    help="Use this flow on this machine; if it does not run, start it for this command.",
)
@json_option
@connection_options
@click.pass_context
def encode(
    ctx: click.Context,
    *,
    texts: tuple[str, ...],
    file: TextIO | None,
    output: Path | None,
    flow: Path | None,
    as_json: bool,
    url: str | None,
    timeout: float | None,
) -> None:
    """Turn texts into vectors.

    With --json, one line a text: {"text": ..., "embedding": [...]}.

    \b
    Example:
      flowdex encode "a sentence" "another one"
      flowdex encode -f sentences.txt -o vectors.npy
      flowdex encode "a sentence" --flow flows/glove.yml
    """  # noqa: D301 - click's mark for lines to keep
    contents = [*texts, *_lines(file)]
    if not contents and file is None and not sys.stdin.isatty():
        contents = _lines(sys.stdin)
    if not contents:
        raise click.UsageError("There is nothing to encode: give texts, or a file with -f.", ctx)
    if flow is not None and url is not None:
        raise click.UsageError("Give --flow or --url, not both.", ctx)
    with ExitStack() as stack:
        if flow is not None:
            from flowdex_orchestrator.runner.temporary import flow_address

            url = stack.enter_context(flow_address(flow))
        vectors = stack.enter_context(connect(ctx, url)).encode(contents, timeout=timeout)
    if output is not None:
        import numpy as np

        with output.open("wb") as target:  # np.save would append .npy to another name
            np.save(target, vectors)
        click.echo(f"{output}: {len(vectors)} rows of {vectors.shape[1]} float32", err=True)
    if as_json:
        for text, vector in zip(contents, vectors, strict=True):
            print_json({"text": text, "embedding": [float(value) for value in vector.tolist()]})
    elif output is None:
        from rich.text import Text

        out = console()
        for text, vector in zip(contents, vectors, strict=True):
            out.print(Text(text, style="bold", no_wrap=True, overflow="ellipsis"))
            numbers = "  ".join(f"{value: .4f}" for value in vector[:8])
            out.print(Text(f"  {numbers}{'  …' if len(vector) > 8 else ''}   ({len(vector)} values)"))


def _lines(file: TextIO | None) -> list[str]:
    if file is None:
        return []
    try:
        return [line.rstrip("\r\n") for line in file]
    except UnicodeDecodeError as error:
        raise click.ClickException(f"{file.name} is not UTF-8 text (byte {error.start})") from None
