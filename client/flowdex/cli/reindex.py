"""`flowdex reindex`: all documents embedded anew, in the background, and swapped in at once."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flowdex.cli import complete
from flowdex.cli.common import connection_options, json_option, print_json
from flowdex.cli.main import Settings

if TYPE_CHECKING:
    from flowdex.reindex import Reindexer

__all__ = ["reindex"]


@click.command()
@click.option(
    "--with",
    "encoder",
    metavar="FLOW",
    shell_complete=complete.flow_files,
    help="Embed by another flow: its file, started for this command, or its gateway's address.",
)
@click.option("--keep-old", is_flag=True, help="Keep the old collection, for searches with the encoder that made it.")
@click.option(
    "--skip-failed", is_flag=True, help="Swap also where documents could not be embedded; they are then gone."
)
@click.option("--abort", is_flag=True, help="Give up a reindex that is under way, and remove what it made.")
@click.option("--forget-old", is_flag=True, help="Remove the collection that --keep-old kept.")
@click.option(
    "--batch-size",
    metavar="N",
    type=click.IntRange(1, 1000),
    default=64,
    show_default=True,
    help="Documents in a request.",
)
@json_option
@connection_options
@click.pass_context
def reindex(
    ctx: click.Context,
    *,
    encoder: str | None,
    keep_old: bool,
    skip_failed: bool,
    abort: bool,
    forget_old: bool,
    batch_size: int,
    as_json: bool,
    url: str | None,
    timeout: float | None,
) -> None:
    """Embed all documents of a running flow anew, and swap the result in at once.

    For a flow whose encoder, segmenter or index layout was changed. The documents come from the index itself. Searches
    go on meanwhile: by words alone where the flow's encoder is the new one already, as before where --with names the
    new one. Nothing that is written or deleted meanwhile is lost. A run that was stopped goes on when started again.

    \b
    Example:
      flowdex reindex
      flowdex reindex --with new-encoder.yml --keep-old
      flowdex reindex --abort
    """  # noqa: D301 - click's mark for lines to keep
    if abort and forget_old:
        raise click.UsageError("Give --abort or --forget-old, not both.", ctx)
    from flowdex.reindex import Reindexer

    settings = ctx.obj if isinstance(ctx.obj, Settings) else Settings()
    with ExitStack() as stack:
        if encoder is not None and "://" not in encoder:
            from flowdex_orchestrator.runner.temporary import flow_of_its_own

            encoder = stack.enter_context(flow_of_its_own(Path(encoder)))
        driver = Reindexer(
            url or settings.url,
            encoder=encoder,
            api_key=settings.api_key,
            batch_size=batch_size,
            timeout=timeout if timeout is not None else 300.0,
        )
        if abort or forget_old:
            _steer(driver, abort=abort, as_json=as_json)
        else:
            _run(driver, keep=keep_old, skip_failed=skip_failed, as_json=as_json)


def _steer(driver: Reindexer, *, abort: bool, as_json: bool) -> None:
    told = asyncio.run(_closing(driver, driver.steer("abort" if abort else "forget")))
    if as_json:
        print_json(told)
    elif abort:
        click.echo("Gave the reindex up." if told["done"] else "There is no reindex under way.")
    else:
        click.echo("Removed the old collection." if told["done"] else "There is no old collection.")


def _run(driver: Reindexer, *, keep: bool, skip_failed: bool, as_json: bool) -> None:
    from flowdex.progress import Bar
    from flowdex.results import counted

    try:
        with Bar("embedding") as bar:

            def show(stage: str, done: int, total: int) -> None:
                bar.show(done, total, what=stage)

            result = asyncio.run(_closing(driver, driver.run(keep=keep, skip_failed=skip_failed, progress=show)))
    except KeyboardInterrupt:
        click.echo("Interrupted; run flowdex reindex again to go on, or with --abort to give it up.", err=True)
        raise
    finally:
        for name, reason in driver.result.failures.items():
            click.echo(f"{name}: {reason}", err=True)
    if as_json:
        print_json(
            {
                "documents": result.documents,
                "passages": result.passages,
                "failures": [{"id": name, "reason": reason} for name, reason in result.failures.items()],
                "swapped": result.swapped,
                "took_ms": result.took_ms,
            }
        )
    elif not result.swapped:
        click.echo("The index is empty: there is nothing to embed anew.")
    else:
        seconds = max(result.took_ms / 1e3, 1e-3)
        click.echo(
            f"Embedded {counted(result.documents, 'document')} ({counted(result.passages, 'passage')}) anew in "
            f"{seconds:.1f} s; searches now go there."
        )


async def _closing(driver: Reindexer, work: Any) -> Any:
    try:
        return await work
    finally:
        await driver.close()
