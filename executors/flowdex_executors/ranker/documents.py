"""From hits to the documents of the answer.

matches (passages), hits --of each: its best passage, what it scored, highlights, its passages--> documents
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
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
    by_document = wanted.group == "document"
    most = (wanted.passages or _PASSAGES) if by_document else 1
    rows = [hit.rows[:most] for hit in hits]
    passages = matches.select(row for each in rows for row in each)
    passages.drop("highlights")
    if wanted.highlight:
        highlighter = Highlighter(query)
        passages.set_column("highlights", [highlighter.spans(text or "") for text in passages.texts])
    extra = ["highlights"] if wanted.highlight else []
    extra += ["explain"] if wanted.explain else []

    # Messages are copied whole, which takes a tenth of the time of copying field by field.
    documents = matches.select(hit.rows[0] for hit in hits).copy()
    documents.keep("text", "location", "tags", "scores", "context", *extra, *([] if by_document else ["parent_id"]))
    documents.ids = [hit.id for hit in hits]
    scores = zip(documents.column("scores"), hits, strict=True)
    documents.set_column("scores", [_scores(known, hit) for known, hit in scores])
    if wanted.explain:
        explained = zip(documents.column("explain"), hits, strict=True)
        documents.set_column("explain", [_explained(known, hit) for known, hit in explained])
    if by_document:
        passages.keep("id", "text", "location", "scores", *extra)
        passages.set_column("parent_id", [hit.id for hit, each in zip(hits, rows, strict=True) for _ in each])
        unused = iter(passages)
        documents.set_nested("chunks", [DocumentBatch(list(islice(unused, len(each)))) for each in rows])
    return documents


def _scores(scores: Any, hit: Hit) -> dict[str, float]:
    known = {**(scores or {}), "score": hit.score}
    return known if hit.rerank is None else {**known, "rerank": hit.rerank}


def _explained(explain: Any, hit: Hit) -> dict[str, Any]:
    known = dict(explain or {})
    if hit.rerank is not None:
        known["rerank"] = {"rank": hit.rerank_rank, "score": hit.rerank}
    return known
