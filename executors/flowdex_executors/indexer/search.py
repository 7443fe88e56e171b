"""Search: queries to the passages of the best documents.

    dense    nearest vectors                                       scores: the collection's distance
    sparse   BM25                                                  scores: BM25
    hybrid   both, fused by reciprocal rank (Cormack et al. 2009)  scores: sum of 1 / (k + rank), ranks from 0

Filters are part of the query (not applied to its results), and search is exact (on a server only up to `exact_up_to`
passages). Enough passages are fetched for the wanted number of documents: passages of one document crowd out others, so
the query is repeated deeper until enough documents are there or nothing is left.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

from pydantic import BaseModel, Field
from qdrant_client import models

from flowdex_executors.indexer.collection import Collection
from flowdex_executors.indexer.payload import BM25, DENSE, DOCUMENT_ID, GENERATION, ORDINAL
from flowdex_executors.indexer.settings import IndexerSettings

__all__ = ["Hit", "Mode", "Query", "SearchParameters", "search"]

Mode: TypeAlias = Literal["hybrid", "dense", "sparse"]

MAX_LIMIT = 1000
MAX_OFFSET = 1000
_PASSAGES_A_DOCUMENT = 4  # first guess of how many passages must be fetched for a document
_LEAST_CANDIDATES = 100  # of each component of a hybrid search: fusion gains from depth
_DEEPER = 4
_DEEPEST = 20_000


class SearchParameters(BaseModel):
    """Parameters of /search.

    Attributes:
        limit: Most documents to return.
        offset: Documents to skip.
        filter: See `filters.py`.
        mode: See above.
        passages: Most passages of one document to return.
    """

    limit: int = Field(default=10, ge=1, le=MAX_LIMIT)
    offset: int = Field(default=0, ge=0, le=MAX_OFFSET)
    filter: dict[str, Any] | None = None
    mode: Mode = "hybrid"
    passages: int = Field(default=5, ge=1, le=100)


class Hit(Protocol):
    """What is read of a found point, whichever client made it."""

    score: float
    payload: dict[str, Any] | None


@dataclass(frozen=True)
class Query:
    """What is looked for: a dense vector, a sparse one, or both, which are then fused; at least one."""

    dense: list[float] | None = None
    sparse: models.SparseVector | None = None


async def search(
    collection: Collection,
    queries: Sequence[Query],
    parameters: SearchParameters,
    selection: models.Filter | None,
    settings: IndexerSettings,
) -> list[list[Hit]]:
    """Find the passages of the best `offset + limit` documents for each query.

    Args:
        collection: Where; it exists.
        queries: All run as one batch.
        parameters: How many documents, and passages of each.
        selection: The compiled filter.
        settings: Of the indexer.

    Returns:
        The passages of each query, best first; equal scores in the order of document id and place.
    """
    exact = await collection.is_small()
    documents = parameters.offset + parameters.limit
    depth = _PASSAGES_A_DOCUMENT * documents
    results: list[list[Hit]] = [[] for _ in queries]
    pending = list(range(len(queries)))
    while pending:
        requests = [request_for(queries[index], depth, selection, settings.rrf_k, exact=exact) for index in pending]
        unsatisfied = []
        for index, points in zip(pending, await collection.query(requests), strict=True):
            if not settings.higher_is_better and queries[index].sparse is None:
                for point in points:
                    point.score = -point.score  # a distance; a flow's scores are better when higher
            results[index] = best_documents(points, documents, parameters.passages)
            found = len({_payload(point)[DOCUMENT_ID] for point in results[index]})
            if found < documents and len(points) == depth and depth < _DEEPEST:
                unsatisfied.append(index)
        pending, depth = unsatisfied, min(depth * _DEEPER, _DEEPEST)
    return results


def best_documents(points: Iterable[Hit], documents: int, passages: int) -> list[Hit]:
    """Order the passages, and keep those of the first documents, of each no more than `passages`.

    While a document is being replaced on a server, passages of two generations may be found: the newer ones count.
    """
    points = sorted(points, key=_order)
    newest: dict[str, int] = {}
    for point in points:
        payload = _payload(point)
        document_id = payload[DOCUMENT_ID]
        newest[document_id] = max(newest.get(document_id, 0), payload[GENERATION])
    kept: list[Hit] = []
    counts: dict[str, int] = {}
    for point in points:
        payload = _payload(point)
        document_id = payload[DOCUMENT_ID]
        if payload[GENERATION] != newest[document_id]:
            continue
        if document_id not in counts and len(counts) == documents:
            continue
        counts[document_id] = counts.get(document_id, 0) + 1
        if counts[document_id] <= passages:
            kept.append(point)
    return kept


def _order(point: Hit) -> tuple[float, str, int]:
    payload = _payload(point)
    return -point.score, payload[DOCUMENT_ID], payload[ORDINAL]


def _payload(point: Hit) -> dict[str, Any]:
    payload: dict[str, Any] | None = point.payload
    assert payload is not None
    return payload


def request_for(
    query: Query, depth: int, selection: models.Filter | None, rrf_k: int, *, exact: bool
) -> models.QueryRequest:
    parts: list[dict[str, Any]] = []
    if query.dense is not None:
        parts.append({"query": query.dense, "using": DENSE, "params": models.SearchParams(exact=exact)})
    if query.sparse is not None:
        parts.append({"query": query.sparse, "using": BM25})
    if len(parts) == 1:
        return models.QueryRequest(**parts[0], filter=selection, limit=depth, with_payload=True)
    fusion = models.FusionQuery(fusion=models.Fusion.RRF) if rrf_k == 2 else models.RrfQuery(rrf=models.Rrf(k=rrf_k))
    return models.QueryRequest(
        prefetch=[models.Prefetch(**part, filter=selection, limit=max(depth, _LEAST_CANDIDATES)) for part in parts],
        query=fusion,
        limit=depth,
        with_payload=True,
    )
