"""What the indexer answers: what became of documents, and the passages that were found.

documents, passages stored of each  --outcomes-->  {id, passages} or {id, error}
hits                                --matches-->   {id, parent_id, text, location, tags, scores, ...}
remarks on a query                  --note-->      its field `notes`
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from flowdex.documents import DocumentBatch
from flowdex_executors.indexer.payload import CONTEXT
from flowdex_executors.indexer.search import Hit, Query, explanation
from flowdex_executors.indexer.search_parameters import SearchParameters

__all__ = ["matches", "note", "note_words", "outcomes"]


def outcomes(batch: DocumentBatch, counts: dict[str, int]) -> DocumentBatch:
    """What became of each document: `id` and `passages` (and `notes`, if there are some), or `id` and `error`."""
    ids, errors = batch.ids, batch.column("error")
    stored: list[int | None] = [None] * len(batch)
    for row in range(len(batch) - 1, -1, -1):  # where an id occurs twice, the last document was stored
        if errors[row] is None:
            stored[row] = counts.pop(ids[row], 0)
    answers = DocumentBatch.from_columns(ids=ids, passages=stored)
    for name, values in (("error", errors), ("notes", batch.column("notes"))):
        if any(values):
            answers.set_column(name, values)
    return answers


def note(batch: DocumentBatch, added: Sequence[str | None]) -> None:
    """Add a note to each query for which there is one."""
    notes: list[Any] = batch.column("notes")
    batch.set_column(
        "notes", [[*(old or ()), *([new] if new else [])] or None for old, new in zip(notes, added, strict=True)]
    )


def note_words(batch: DocumentBatch, queries: Sequence[Query | None], mode: str) -> None:
    """Say where a query had no words to be found by, which would otherwise look like an index without an answer."""
    if mode == "dense" or all(query is not None and query.sparse is not None for query in queries):
        return
    notes: list[Any] = batch.column("notes")
    for index, (query, text) in enumerate(zip(queries, batch.texts, strict=True)):
        if text and query is None:
            notes[index] = [*(notes[index] or ()), "the query has stop words only, which BM25 cannot find anything by"]
        elif text and query is not None and query.sparse is None:
            notes[index] = [*(notes[index] or ()), "the query has stop words only: it was searched by its vector alone"]
    batch.set_column("notes", notes)


def matches(hits: Sequence[Hit], wanted: SearchParameters) -> DocumentBatch:
    """The passages of one query, best first."""
    payloads = [hit.payload or {} for hit in hits]
    batch = DocumentBatch.from_columns(
        ids=[f"{hit.document_id}#{hit.ordinal}" for hit in hits],
        parent_id=[hit.document_id for hit in hits],
        texts=[payload["text"] for payload in payloads],
        location=[[payload["start"], payload["end"]] for payload in payloads],
        tags=[payload["tags"] for payload in payloads],
        scores=[
            {"score": hit.score, **{name: component.score for name, component in hit.components.items()}}
            for hit in hits
        ],
    )
    contexts = [payload.get(CONTEXT) for payload in payloads]
    if any(contexts):
        batch.set_column("context", contexts)
    if wanted.explain:
        batch.set_column("explain", [explanation(hit, wanted) for hit in hits])
    if wanted.diversity is not None and hits:
        batch.embeddings = np.asarray([hit.vector for hit in hits], dtype=np.float32)
    return batch
