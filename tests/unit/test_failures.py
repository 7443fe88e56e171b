"""Marks of single documents' failures."""

from __future__ import annotations

from flowdex.documents import DocumentBatch
from flowdex.errors import InvalidInput, Unavailable
from flowdex_executors.failures import mark, unmarked


def test_marked_documents_are_left_out_and_keep_their_first_failure() -> None:
    batch = DocumentBatch.from_columns(ids=["a", "b", "c"])
    mark(batch, {1: InvalidInput("no text")})
    assert unmarked(batch) == [0, 2]
    mark(batch, {1: Unavailable("later"), 2: Unavailable("away")})
    read = DocumentBatch.from_bytes(batch.to_bytes())
    assert unmarked(read) == [0]
    assert read.column("error") == [
        None,
        {"name": "InvalidInput", "message": "no text"},
        {"name": "Unavailable", "message": "away"},
    ]


def test_nothing_is_written_where_nothing_failed() -> None:
    batch = DocumentBatch.from_columns(ids=["a"])
    mark(batch, {})
    assert "error" not in batch.fields()
