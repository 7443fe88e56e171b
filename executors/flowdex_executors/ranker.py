"""The ranker: passages in, documents out.

query {text, matches: passages, best first}
    --group by parent_id, score of the best passage, limit and offset, highlights-->
query {text, matches: documents {id, text, location, tags, scores, highlights, chunks: passages}}
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jina import Executor, requests
from pydantic import BaseModel, Field

from flowdex.documents import DocumentBatch
from flowdex.errors import InvalidInput
from flowdex_executors.highlight import Highlighter
from flowdex_executors.parameters import parse_parameters
from flowdex_executors.schema import DocumentColumns

__all__ = ["Ranker"]


class RankParameters(BaseModel):
    """Parameters of /search that the ranker heeds.

    Attributes:
        limit: Most documents to return.
        offset: Documents to skip.
        passages: Most passages of one document to return.
    """

    limit: int = Field(default=10, ge=1)
    offset: int = Field(default=0, ge=0)
    passages: int = Field(default=5, ge=1)


@dataclass(frozen=True)
class _Hit:
    """A document: its score, id, and rows of its passages among the matches, best first."""

    score: float
    document_id: str
    rows: list[int]


class Ranker(Executor):  # type: ignore[misc]  # jina is untyped
    """Turns matching passages into ranked documents: a document scores as its best passage does."""

    @requests(on="/search", request_schema=DocumentColumns, response_schema=DocumentColumns)  # type: ignore[untyped-decorator]
    def search(self, docs: DocumentColumns, parameters: dict[str, Any] | None = None, **kwargs: Any) -> DocumentColumns:
        """Regroup each query's `matches` into documents, best first; equal scores in the order of their ids.

        Raises:
            InvalidInput: A parameter is wrong, or a match has no score.
        """
        wanted = parse_parameters(RankParameters, parameters)
        batch = docs.batch
        ranked = [
            _documents(matches, Highlighter(query or ""), wanted)
            for query, matches in zip(batch.texts, batch.nested("matches"), strict=True)
        ]
        batch.set_nested("matches", ranked)
        return docs


def _documents(matches: DocumentBatch, highlighter: Highlighter, wanted: RankParameters) -> DocumentBatch:
    ids, parents, scores = matches.ids, matches.column("parent_id"), _scores(matches)
    hits = _group([parent or own for parent, own in zip(parents, ids, strict=True)], ids, scores)
    hits = hits[wanted.offset : wanted.offset + wanted.limit]
    best = matches.select(hit.rows[0] for hit in hits)
    documents = DocumentBatch.from_columns(
        ids=[hit.document_id for hit in hits],
        texts=best.texts,
        tags=best.tags,
        location=best.column("location"),
        scores=best.column("scores"),
        highlights=[highlighter.spans(text or "") for text in best.texts],
    )
    documents.set_nested(
        "chunks", [_passages(matches.select(hit.rows[: wanted.passages]), hit.document_id, highlighter) for hit in hits]
    )
    return documents


def _passages(matches: DocumentBatch, document_id: str, highlighter: Highlighter) -> DocumentBatch:
    return DocumentBatch.from_columns(
        ids=matches.ids,
        parent_id=[document_id] * len(matches),
        texts=matches.texts,
        location=matches.column("location"),
        scores=matches.column("scores"),
        highlights=[highlighter.spans(text or "") for text in matches.texts],
    )


def _scores(matches: DocumentBatch) -> list[float]:
    values: list[float] = []
    for match_id, scores in zip(matches.ids, matches.column("scores", {}), strict=True):
        score = scores.get("score") if isinstance(scores, dict) else None
        if not isinstance(score, (int, float)):
            raise InvalidInput(
                f"match {match_id!r} has no scores['score'] to rank by; put an indexer before the ranker"
            )
        values.append(float(score))
    return values


def _group(parents: Sequence[str], ids: Sequence[str], scores: Sequence[float]) -> list[_Hit]:
    rows_of: dict[str, list[int]] = {}
    for row in sorted(range(len(ids)), key=lambda row: (-scores[row], parents[row], row)):
        rows_of.setdefault(parents[row], []).append(row)
    hits = [_Hit(scores[rows[0]], document_id, rows) for document_id, rows in rows_of.items()]
    return sorted(hits, key=lambda hit: (-hit.score, hit.document_id))
