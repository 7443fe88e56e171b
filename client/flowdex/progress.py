"""Progress of long work: bars on standard error, and only where a person is looking.

    watched --> is standard error a terminal?     FORCE_COLOR colours what goes into a pipe, it draws no bars there
    Bar, open_progress --> what, bar, amount, rate, time that remains

rich is imported only when there is a bar to draw.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import ProgressColumn, TaskID

__all__ = ["Bar", "Progress", "open_progress", "watched"]

# What callers may pass as `show_progress`.
Progress = bool | Callable[[int], object] | None


def watched() -> bool:
    """Whether somebody sees standard error as it is written: a terminal that can move its cursor."""
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


class Bar:
    """One bar while the context is open: what, how much of how much, how fast, how long still. Nothing in a pipe.

    Args:
        what: Word in front.
        total: Amount, where known; else the time that has passed is shown.
        unit: What is counted: "items", or "bytes" for sizes; "share" shows per cent and a note that says more.
        show: Whether to draw; None for where it is watched.
    """

    def __init__(
        self,
        what: str,
        total: float | None = None,
        *,
        unit: Literal["items", "bytes", "share"] = "items",
        show: bool | None = None,
    ) -> None:
        self._what, self._total, self._unit = what, total, unit
        self._shown = watched() if show is None else show
        self._bars: RichProgress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Bar:
        if self._shown:
            from rich.console import Console
            from rich.progress import Progress as RichProgress

            self._bars = RichProgress(*self._columns(), console=Console(stderr=True), transient=True)
            self._task = self._bars.add_task(self._what, total=self._total, note="")
            self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bars is not None:
            self._bars.stop()

    def advance(self, count: float) -> None:
        """Say how much more is done."""
        if self._bars is not None and self._task is not None:
            self._bars.advance(self._task, count)

    def show(self, done: float, total: float | None, *, what: str | None = None, note: str | None = None) -> None:
        """Say how far it is.

        Args:
            done: Amount that is done.
            total: Amount there is; None for unknown.
            what: Another word in front; a new stage, whose rate begins anew.
            note: With "share", what to show beside it.
        """
        if self._bars is None or self._task is None:
            return
        if what is not None and what != self._what:
            self._what = what
            self._bars.reset(self._task, description=what)
        if note is not None:
            self._bars.update(self._task, note=note)
        self._bars.update(self._task, completed=done, total=total)

    def _columns(self) -> list[ProgressColumn]:
        from rich import progress as bars
        from rich.text import Text

        class Amount(bars.ProgressColumn):
            """How many of how many, and how many a second."""

            def render(self, task: bars.Task) -> Text:
                speed = task.finished_speed or task.speed
                total = "?" if task.total is None else f"{task.total:,.0f}"
                return Text(f"{task.completed:,.0f}/{total}" + (f"  {speed:,.0f}/s" if speed else ""))

        class Left(bars.ProgressColumn):
            """The time that remains, or where that is not known the time that has passed."""

            def __init__(self) -> None:
                super().__init__()
                self._remaining, self._elapsed = bars.TimeRemainingColumn(), bars.TimeElapsedColumn()

            def render(self, task: bars.Task) -> Text:
                return self._elapsed.render(task) if task.total is None else self._remaining.render(task)

        amounts: dict[str, list[bars.ProgressColumn]] = {
            "items": [Amount()],
            "bytes": [bars.DownloadColumn(), bars.TransferSpeedColumn()],
            "share": [bars.TaskProgressColumn(), bars.TextColumn("{task.fields[note]}")],
        }
        return [
            bars.TextColumn("{task.description}"),
            bars.BarColumn(),
            *amounts[self._unit],
            Left(),
        ]


@contextmanager
def open_progress(show: Progress, what: str, total: int | None, batch_size: int) -> Iterator[Callable[[int], object]]:
    """Show progress while the context is open.

    Args:
        show: Whether to; None decides: the size is known, more than one batch, and standard error is watched. A
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
        show = total is not None and total > batch_size and watched()
    with Bar(what, total, show=show) as bar:
        yield bar.advance
