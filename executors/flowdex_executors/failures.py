"""Failures of single documents: marked in the document's `error`, so that the rest of a request goes on.

    /index: segmenter --mark--> encoder --skips, mark--> indexer --skips, reports--> reply {id, passages} or {id, error}

An executor leaves out documents that are marked already, marks those it cannot work on, and passes all of them on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flowdex.documents import DocumentBatch
    from flowdex.errors import FlowdexError

__all__ = ["mark", "unmarked"]


def mark(batch: DocumentBatch, failures: Mapping[int, FlowdexError]) -> None:
    """Write failures, by row, into the column `error`; a document that has failed before keeps its first failure."""
    if not failures:
        return
    errors = batch.column("error")
    for row, failure in failures.items():
        if errors[row] is None:
            errors[row] = {"name": failure.name, "message": failure.message}
    batch.set_column("error", errors)


def unmarked(batch: DocumentBatch) -> list[int]:
    """Rows of the documents that nothing has failed on."""
    return [row for row, error in enumerate(batch.column("error")) if error is None]
