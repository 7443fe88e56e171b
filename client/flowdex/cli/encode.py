"""`flowdex encode`: texts from arguments, a file or standard input to vectors, on screen, as JSON or as a .npy file."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

import click

from flowdex.cli import complete
from flowdex.cli.common import connect, connection_options, json_option, print_heading, print_json

if TYPE_CHECKING:
    import numpy.typing as npt

    from flowdex.encodings import Encoding

__all__ = ["encode"]

F = TypeVar("F", bound=Callable[..., Any])

_POOLING = ("mean", "max", "mean_max", "cls", "sep", "last", "weighted_mean", "mean_sqrt_len", "idf", "none")
_SHOWN = 8


def _choices(command: F) -> F:
    """Add what a request may choose; the names are those of `Client.encode`."""
    options = [
        click.option(
            "--pooling",
            multiple=True,
            type=click.Choice(_POOLING),
            help="How token vectors become one; may be repeated.",
        ),
        click.option(
            "--layers", metavar="N[,N...]", callback=_parse_layers, help="Layers of the model; -1 is the top."
        ),
        click.option("--layer-mode", type=click.Choice(["concat", "mean"]), help="What is made of several layers."),
        click.option("--normalize/--no-normalize", default=None, help="Whether vectors have length 1."),
        click.option(
            "--truncation",
            type=click.Choice(["head", "tail", "window_mean", "error"]),
            help="What becomes of texts that are too long.",
        ),
        click.option("--max-length", metavar="N", type=click.IntRange(min=1), help="Longest sequence in tokens."),
        click.option("--dimensions", metavar="N", type=click.IntRange(min=1), help="So many leading dimensions."),
        click.option(
            "--dtype", type=click.Choice(["float32", "float16", "int8", "binary"]), help="Number type of the vectors."
        ),
        click.option("--prompt", metavar="NAME", help="The prompt before each text."),
        click.option("--tokens", is_flag=True, default=None, help="Show the tokens of each text."),
        click.option("--attention", is_flag=True, default=None, help="With --json: the attention, too."),
        click.option("--receipt", is_flag=True, default=None, help="Show tokens, time and fingerprint of each text."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def _parse_layers(ctx: click.Context, param: click.Parameter, value: str | None) -> list[int] | None:
    try:
        return None if value is None else [int(layer) for layer in value.split(",")]
    except ValueError:
        raise click.BadParameter("must be whole numbers with commas between, such as -1 or -2,-1") from None


@click.command()
@click.argument("texts", nargs=-1, metavar="[TEXT]...")
@click.option(
    "-f",
    "--file",
    metavar="FILE",
    type=click.File(encoding="utf-8"),
    help="Read texts from it, one a line; - is standard input.",
)
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write float32 rows to this .npy file.",
)
@click.option(
    "--flow",
    type=click.Path(path_type=Path),
    metavar="FLOW.YML",
    shell_complete=complete.flow_files,
    help="Use this flow on this machine; if it does not run, start it for this command.",
)
@_choices
@json_option
@connection_options
@click.pass_context
def encode(
    ctx: click.Context,
    /,
    *,
    texts: tuple[str, ...],
    file: TextIO | None,
    output: Path | None,
    flow: Path | None,
    as_json: bool,
    url: str | None,
    timeout: float | None,
    **choices: Any,
) -> None:
    """Turn texts into vectors.

    With --json, one line a text: {"text": ..., "embedding": [...]}, and what else is asked for.

    \b
    Example:
      flowdex encode "a sentence" "another one"
      flowdex encode -f sentences.txt -o vectors.npy
      flowdex encode "a sentence" --flow flows/glove.yml
      flowdex encode "a sentence" --tokens --receipt --pooling cls --layers -2,-1
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
        client = stack.enter_context(connect(ctx, url))
        chosen = {name: value for name, value in choices.items() if value not in (None, ())}
        began = time.monotonic()
        found = client.encode(contents, timeout=timeout, **chosen)
        took = max(time.monotonic() - began, 1e-3)
    from flowdex.encodings import Encodings

    encodings = found if isinstance(found, Encodings) else Encodings.from_vectors(found)
    if output is not None:
        import numpy as np

        if encodings[0].embedding.ndim != 1:
            raise click.UsageError("With --pooling none a text has a matrix: use --json.", ctx)
        with output.open("wb") as target:  # np.save would append .npy to another name
            np.save(target, encodings.embeddings)
        about = f"{len(encodings)} rows of {encodings[0].embedding.shape[0]} {encodings[0].embedding.dtype}"
        click.echo(f"{output}: {about} in {took:.1f} s, {len(encodings) / took:,.0f}/s", err=True)
    if as_json:
        for text, each in zip(contents, encodings, strict=True):
            print_json({"text": text, **each.to_dict()})
    elif output is None:
        for text, each in zip(contents, encodings, strict=True):
            _show(text, each)


def _show(text: str, encoding: Encoding) -> None:
    """Print what came back for one text."""
    print_heading(text)
    if encoding.embedding.ndim == 1:
        size = f"{len(encoding.embedding)} values"
        scale = f" x {encoding.scale:.6f}" if isinstance(encoding.scale, float) else ""
        click.echo(f"  {_numbers(encoding.embedding)}{scale}   ({size})")
    else:
        click.echo(f"  a matrix of {encoding.embedding.shape[0]} tokens and {encoding.embedding.shape[1]} values")
    if encoding.tokens is not None:
        for token, (start, end), vector in zip(
            encoding.tokens.texts, encoding.tokens.spans.tolist(), encoding.tokens.vectors, strict=True
        ):
            click.echo(f"  {token:<16} {f'[{start}, {end})':<12} {_numbers(vector)}")
    if encoding.receipt is not None:
        click.echo("  " + ", ".join(f"{name} {value}" for name, value in encoding.receipt.to_dict().items()))


def _numbers(vector: npt.NDArray[Any]) -> str:
    shown = "  ".join(f"{value: .4f}" if vector.dtype.kind == "f" else f"{value}" for value in vector[:_SHOWN])
    return f"{shown}{'  …' if len(vector) > _SHOWN else ''}"


def _lines(file: TextIO | None) -> list[str]:
    if file is None:
        return []
    try:
        return [line.rstrip("\r\n") for line in file]
    except UnicodeDecodeError as error:
        raise click.ClickException(f"{file.name} is not UTF-8 text (byte {error.start})") from None
