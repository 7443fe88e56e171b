"""From hits to the documents of the answer.

matches (passages), hits --of each: its best passage, what it scored, highlights, its passages--> documents
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flowdex.documents import DocumentBatch
from flowdex_executors.highlight import Highlighter
from flowdex_executors.ranker.aggregation import Hit
from flowdex_executors.ranker.parameters import SearchParameters

__all__ = ["answer"]

_PASSAGES = 5


def answer(matches: DocumentBatch, hits: Sequence[Hit], query: str, wanted: SearchParameters) -> DocumentBatch:
    """The documents, or passages, to answer with.

    Args:
        matches: The passages that the indexer found.
        hits: What to show of them, in order.
        query: For the highlights.
        wanted: What the request asked for.
    """
    highlighter = Highlighter(query if wanted.highlight else "")
    best = matches.select(hit.rows[0] for hit in hits)
    columns: dict[str, Any] = {
        "location": best.column("location"),
        "scores": [_scores(scores, hit) for scores, hit in zip(best.column("scores"), hits, strict=True)],
    }
    if wanted.highlight:
        columns["highlights"] = [highlighter.spans(text or "") for text in best.texts]
    if wanted.explain:
        columns["explain"] = [
            _explained(explain, hit) for explain, hit in zip(best.column("explain"), hits, strict=True)
        ]
    if any(contexts := best.column("context")):
        columns["context"] = contexts
    if wanted.group == "passage":
        columns["parent_id"] = best.column("parent_id")
    documents = DocumentBatch.from_columns(ids=[hit.id for hit in hits], texts=best.texts, tags=best.tags, **columns)
    if wanted.group == "document":
        most = wanted.passages or _PASSAGES
        chunks = [_passages(matches.select(hit.rows[:most]), hit.id, highlighter, wanted) for hit in hits]
        documents.set_nested("chunks", chunks)
    return documents


def _passages(
    passages: DocumentBatch, document_id: str, highlighter: Highlighter, wanted: SearchParameters
) -> DocumentBatch:
    columns: dict[str, Any] = {"location": passages.column("location"), "scores": passages.column("scores")}
    if wanted.highlight:
        columns["highlights"] = [highlighter.spans(text or "") for text in passages.texts]
    if wanted.explain:
        columns["explain"] = passages.column("explain")
    return DocumentBatch.from_columns(
        ids=passages.ids, parent_id=[document_id] * len(passages), texts=passages.texts, **columns
    )


def _scores(scores: Any, hit: Hit) -> dict[str, float]:
    known = {**(scores or {}), "score": hit.score}
    return known if hit.rerank is None else {**known, "rerank": hit.rerank}


def _explained(explain: Any, hit: Hit) -> dict[str, Any]:
    known = dict(explain or {})
    if hit.rerank is not None:
        known["rerank"] = {"rank": hit.rerank_rank, "score": hit.rerank}
    return known
