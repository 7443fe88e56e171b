"""The progress bar of long calls: on standard error, and only where a person is looking.

    show_progress, total --open_progress--> advance(count) ... --> a rich bar, or nothing

rich is imported only when there is a bar to draw.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["Progress", "open_progress"]

# What callers may pass as `show_progress`.
Progress = bool | Callable[[int], object] | None


@contextmanager
def open_progress(show: Progress, what: str, total: int | None, batch_size: int) -> Iterator[Callable[[int], object]]:
    """Show progress while the context is open.

    Args:
        show: Whether to; None decides: the size is known, more than one batch, and standard error is a terminal. A
            function is called with the number of items done since its last call, and nothing is shown.
        what: Word in front of the bar.
        total: Number of items, where known.
        batch_size: Items in a request.

    Yields:
        A function that is told how many more items are done.
    """
    if callable(show):
        yield show
        return
    if show is None:
        show = total is not None and total > batch_size and sys.stderr.isatty()
    if not show:
        yield lambda count: None
        return
    from rich import progress as rich_progress
    from rich.console import Console

    columns = (
        rich_progress.TextColumn("{task.description}"),
        rich_progress.BarColumn(),
        rich_progress.MofNCompleteColumn(),
        rich_progress.TextColumn("{task.fields[rate]}"),
        rich_progress.TimeElapsedColumn() if total is None else rich_progress.TimeRemainingColumn(),
    )
    with rich_progress.Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total, rate="")

        def advance(count: int) -> None:
            bar.advance(task, count)
            speed = bar.tasks[0].finished_speed or bar.tasks[0].speed
            bar.update(task, rate=f"{speed:,.0f}/s" if speed else "")

        yield advance
