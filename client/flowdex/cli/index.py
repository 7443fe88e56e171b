"""`flowdex index`: files, folders and standard input into the index, with progress, and every failure by name.

PATH... --Reader--> documents --Client.index--> counts        failures, by name --> standard error, exit code 1
"""

from __future__ import annotations

import json
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple, TextIO

import click

from flowdex.cli.common import connect, connection_options, json_option, print_json

if TYPE_CHECKING:
    from flowdex.inputs import Document
    from flowdex.readers import Format, Reader
    from flowdex.results import IndexResult

__all__ = ["index"]

_SHOWN_FAILURES = 20


@click.command()
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option(
    "--format",
    "format_",
    type=click.Choice(["auto", "text", "csv", "jsonl"]),
    default="auto",
    show_default=True,
    help="Of all files; auto goes by the name's ending.",
)
@click.option("--text-column", metavar="NAME", default="text", show_default=True, help="Column or key with the text.")
@click.option("--id-column", metavar="NAME", help="Column or key with the id.  [default: id or _id]")
@click.option(
    "--tag-columns",
    metavar="NAMES",
    help="Columns or keys to keep as tags, with commas between.  [default: all others]",
)
@click.option("--encoding", metavar="NAME", default="utf-8", show_default=True, help="Text encoding of all files.")
@click.option(
    "--segment",
    type=click.Choice(["passage", "sentence", "markdown", "document"]),
    help="How to cut documents into passages.  "
    "[default: markdown for Markdown files, else as the flow's segmenter does]",
)
@click.option(
    "--batch-size", metavar="N", type=click.IntRange(1), default=64, show_default=True, help="Documents in a request."
)
@click.option(
    "--resume", is_flag=True, help="Leave alone what is in the index with the same content: go on where a run stopped."
)
@click.option(
    "--errors",
    type=click.File("w", encoding="utf-8", lazy=True),
    metavar="FILE",
    help="Write what could not be indexed to it, as JSON lines.",
)
@json_option
@connection_options
@click.pass_context
def index(
    ctx: click.Context,
    *,
    paths: tuple[str, ...],
    format_: Format,
    text_column: str,
    id_column: str | None,
    tag_columns: str | None,
    encoding: str,
    segment: str | None,
    batch_size: int,
    resume: bool,
    errors: TextIO | None,
    as_json: bool,
    url: str | None,
    timeout: float | None,
) -> None:
    """Add files, folders or standard input (-) to the index.

    A text file is one document, its path the id. CSV files and JSON lines hold one document a row: a text, an id if
    there is one, and tags. Indexing the same id again replaces the document. Folders are read recursively, without
    hidden and binary files. Whatever cannot be read or indexed is listed, the rest is indexed, and the exit code is 1.

    With --resume, a document that is stored with the same id, text and tags is passed over: to go on where a run was
    interrupted, or to index only what has changed.

    \b
    Example:
      flowdex index docs/ README.md
      flowdex index reviews.csv --text-column review --tag-columns stars,year
      zcat corpus.jsonl.gz | flowdex index -
      flowdex index corpus.jsonl --resume --errors failed.jsonl
    """  # noqa: D301 - click's mark for lines to keep
    from flowdex.readers import Reader, ReaderOptions, find_sources

    sources, missing = find_sources(paths)
    options = ReaderOptions(
        format=format_,
        text_column=text_column,
        id_column=id_column,
        tag_columns=None if tag_columns is None else [name.strip() for name in tag_columns.split(",") if name.strip()],
        encoding=encoding,
        segment=segment,
    )
    reader = Reader(sources, options, stdin=sys.stdin.buffer, failures=missing)
    documents = iter(reader)
    first = next(documents, None)
    if first is None:
        _report_failures([_Failure(None, each.source, each.reason) for each in reader.failures], errors)
        if not reader.failures:
            raise click.ClickException("there is no text in what was named, only blank or binary files")
        ctx.exit(1)
    with connect(ctx, url) as client, _progress(reader) as (watch, advance, done):
        try:
            result = client.index(
                watch(first, documents),
                batch_size=batch_size,
                show_progress=advance,
                on_error="collect",
                return_ids=False,
                resume=resume,
                timeout=timeout,
            )
        except KeyboardInterrupt:
            click.echo(f"Interrupted; {done():,} documents are indexed. To go on, add --resume.", err=True)
            raise
    failures = [_Failure(None, each.source, each.reason) for each in reader.failures]
    failures += [_Failure(each.id, reader.origin(each.position), each.error.message) for each in result.failures]
    _report_failures(failures, errors)
    if as_json:
        print_json(
            {
                "documents": result.documents,
                "passages": result.passages,
                "skipped_files": reader.skipped,
                "unchanged": result.unchanged,
                "failures": [each._asdict() for each in failures],
                "took_ms": result.took_ms,
            }
        )
    else:
        click.echo(_summary(result, reader.skipped, len(failures)))
    if failures:
        ctx.exit(1)


class _Failure(NamedTuple):
    """A document, row or file that is not in the index."""

    id: str | None
    source: str
    reason: str


def _report_failures(failures: list[_Failure], errors: TextIO | None) -> None:
    """List the first failures on standard error, and write all of them to the file `errors`."""
    for id_, source, reason in failures[:_SHOWN_FAILURES]:
        named = f"{source} ({id_})" if id_ is not None and id_ != source else source
        click.echo(f"{named}: {reason}", err=True)
    if len(failures) > _SHOWN_FAILURES:
        hint = "" if errors else "; --errors FILE lists all"
        click.echo(f"... and {len(failures) - _SHOWN_FAILURES:,} more{hint}", err=True)
    if errors is not None:
        for failure in failures:
            errors.write(json.dumps(failure._asdict(), ensure_ascii=False) + "\n")


def _summary(result: IndexResult, skipped: int, failed: int) -> str:
    from flowdex.results import counted

    seconds = max(result.took_ms / 1e3, 1e-3)
    text = (
        f"Indexed {counted(result.documents, 'document')} ({counted(result.passages, 'passage')}) in {seconds:.1f} s, "
        f"{result.documents / seconds:,.0f}/s"
    )
    if result.unchanged:
        text += f"; {result.unchanged:,} unchanged"
    if skipped:
        text += f"; skipped {counted(skipped, 'blank or binary file')}"
    if failed:
        text += f"; {failed:,} failed"
    return text


Watch = Callable[["Document", Iterator["Document"]], Iterator["Document"]]


@contextmanager
def _progress(reader: Reader) -> Iterator[tuple[Watch, Callable[[int], None], Callable[[], int]]]:
    """Progress by bytes of the input, which are known before its documents are: a bar on a terminal, otherwise silence.

    Yields:
        What to read the documents through, what to call when some are indexed, and a count of those.
    """
    from flowdex.progress import Bar

    # For each document on its way, how far the reader was when it gave it out.
    marks: deque[int] = deque()
    count, started = 0, time.monotonic()

    def watch(first: Document, rest: Iterator[Document]) -> Iterator[Document]:
        marks.append(reader.position)
        yield first
        for document in rest:
            marks.append(reader.position)
            yield document

    total = reader.total_bytes or None
    with Bar("indexing", total, unit="share") as bar:

        def advance(more: int) -> None:
            nonlocal count
            count += more
            position = 0
            for _ in range(min(more, len(marks))):
                position = marks.popleft()
            rate = count / max(time.monotonic() - started, 1e-3)
            bar.show(position, total, note=f"{count:,} documents, {rate:,.0f}/s")

        yield watch, advance, lambda: count
