"""Search: queries to the passages of the best documents.

    queries --all rankings of all of them as one batch--> index: ids and scores, best first
        dense    nearest vectors     scores: the collection's distance
        sparse   BM25                scores: BM25
    --fuse (hybrid, see fusion.py)--> hits, best first --fetch--> their payloads, and vectors where asked for

Filters are part of the queries (not applied to their results), and search is exact (on a server only up to
`exact_up_to` passages). Long rankings carry no texts; those are fetched for the hits alone, because a fusion drops most
of what it looks at.

Paging: the first hits are the same however many are asked for. Rankings to be fused are read to fixed depths
(`_DEPTHS`), and what only a deeper look finds comes after all that the look before has found. A single ranking is read
to where it is wanted, and beyond equal scores that this would divide.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, TypeAlias

from qdrant_client import models

from flowdex_executors.indexer.collection import Collection
from flowdex_executors.indexer.fusion import Fusion, fuse
from flowdex_executors.indexer.payload import BM25, CONTEXT, DENSE, DOCUMENT_ID, GENERATION, ORDINAL, TAGS
from flowdex_executors.indexer.search_parameters import SearchParameters
from flowdex_executors.indexer.settings import IndexerSettings

__all__ = ["Component", "Hit", "Query", "best_hits", "explanation", "ranked", "read_rankings", "requests_for", "search"]

_DEPTHS = (100, 400, 1600, 6400, 20_000)
_FEW = 64  # passages
_PASSAGES_A_DOCUMENT = 4  # first guess of how many passages must be looked at for a document
_KEYS = [DOCUMENT_ID, ORDINAL, GENERATION]
_SHOWN = ["text", "start", "end", TAGS, CONTEXT]


@dataclass(frozen=True)
class Query:
    """What is looked for: a dense vector, a sparse one, or both; at least one."""

    dense: list[float] | None = None
    sparse: models.SparseVector | None = None


@dataclass(frozen=True, slots=True)
class Component:
    """Where one ranking has a passage: `rank` from 1, `score` higher for better."""

    rank: int
    score: float


@dataclass(slots=True)
class Hit:
    """A passage that was found.

    Attributes:
        id: Of its point.
        document_id, ordinal, generation: See payload.py.
        score: The one to rank by.
        rank: By that score, from 1.
        components: Where each ranking that has it has it.
        payload: What is shown of it; None until it is fetched.
        vector: The dense vector as the index holds it, where it was asked for.
    """

    id: str
    document_id: str
    ordinal: int
    generation: int
    score: float = 0.0
    rank: int = 0
    components: dict[str, Component] = field(default_factory=dict)
    payload: dict[str, Any] | None = None
    vector: list[float] | None = None


Ranking: TypeAlias = list[tuple[Hit, float]]


async def search(
    collection: Collection,
    queries: Sequence[Query],
    wanted: SearchParameters,
    selection: models.Filter | None,
    settings: IndexerSettings,
) -> list[list[Hit]]:
    """Find the passages of the best documents for each query.

    Args:
        collection: Where; it exists.
        queries: All run as one batch.
        wanted: How many documents, passages of each, and how they are ranked.
        selection: The compiled filter.
        settings: Of the indexer.

    Returns:
        The passages of each query, best first; equal scores in the order of document id and place.
    """
    reader = _Reader(collection, wanted, selection, settings, long_documents=await collection.has_long_documents())
    fusion = wanted.fusion.fusion(settings.rrf_k) if wanted.mode == "hybrid" else None
    results: list[list[Hit]] = [[] for _ in queries]
    pending = list(range(len(queries)))
    vectors = wanted.diversity is not None
    for whole in (False, True):
        found = await reader.read([queries[index] for index in pending], whole=whole)
        for index, (rankings, depth) in zip(pending, found, strict=True):
            results[index] = best_hits(ranked(rankings, depth, fusion), wanted)
        hits = [hit for index in pending for hit in results[index]]
        await _fetch(collection, [hit for hit in hits if vectors or hit.payload is None], vectors=vectors)
        # A document replaced between the two steps has lost the passages that were found: look again, in one step.
        pending = [index for index in pending if any(hit.payload is None for hit in results[index])]
        if not pending:
            break
    return [[hit for hit in hits if hit.payload is not None] for hits in results]


# ---- rankings: from the index ----


class _Reader:
    """Reads rankings, as deep as the wanted number of hits takes.

    Passages of one document crowd out others, so queries are repeated deeper until enough documents are there or
    nothing is left.
    """

    def __init__(
        self,
        collection: Collection,
        wanted: SearchParameters,
        selection: models.Filter | None,
        settings: IndexerSettings,
        *,
        long_documents: bool,
    ) -> None:
        self._collection = collection
        self._wanted = wanted
        self._selection = selection
        self._layout = settings.layout
        self._higher_is_better = settings.higher_is_better
        crowded = long_documents and wanted.group == "document"
        needed = min(wanted.units * (_PASSAGES_A_DOCUMENT if crowded else 1), _DEPTHS[-1])
        depths = [depth for depth in _DEPTHS if depth >= needed]
        self._single = wanted.mode != "hybrid"
        self._depths = [needed, *(depth for depth in depths if depth > needed)] if self._single else depths

    async def read(self, queries: Sequence[Query], *, whole: bool) -> list[tuple[dict[str, Ranking], int]]:
        """Each query's rankings by name, and the depth to which they were read.

        Args:
            queries: What to look for.
            whole: Whether to read what is shown of hits, too. Of a few passages it is always read: that is cheaper than
                to ask again for the best.
        """
        params = self._layout.search_params(exact=await self._collection.is_small())
        found: list[tuple[dict[str, Ranking], int]] = [({}, 0) for _ in queries]
        pending = list(range(len(queries)))
        for depth in self._depths:
            # One more than is ranked shows whether the cut divides a group of equal scores.
            requests = [
                requests_for(queries[index], depth + 1, self._selection, self._wanted, params) for index in pending
            ]
            for request in (request for each in requests for request in each.values()):
                request.with_payload = _KEYS + _SHOWN if whole or (self._single and depth <= _FEW) else _KEYS
            answers = iter(await self._collection.query([request for each in requests for request in each.values()]))
            unsatisfied: list[int] = []
            for index, asked in zip(pending, requests, strict=True):
                points = dict(zip(asked, islice(answers, len(asked)), strict=True))
                rankings = read_rankings(points, higher_is_better=self._higher_is_better)
                found[index] = rankings, depth
                if any(len(each) > depth for each in points.values()) and not self._suffices(rankings, depth):
                    unsatisfied.append(index)
            pending = unsatisfied
            if not pending:
                break
        return found

    def _suffices(self, rankings: Mapping[str, Ranking], depth: int) -> bool:
        """Whether enough is there; of a single ranking without equal scores that the cut divides."""
        hits = (hit for each in rankings.values() for hit, _ in (_undivided(each, depth) if self._single else each))
        by_document = self._wanted.group == "document"
        return len({hit.document_id if by_document else hit.id for hit in hits}) >= self._wanted.units


def requests_for(
    query: Query, limit: int, selection: models.Filter | None, wanted: SearchParameters, params: models.SearchParams
) -> dict[str, models.QueryRequest]:
    """The requests for a query's rankings, by their names; one without weight in the fusion is left out."""
    parts: dict[str, dict[str, Any]] = {}
    if query.dense is not None:
        parts["dense"] = {"query": query.dense, "using": DENSE, "params": params}
    if query.sparse is not None:
        parts["sparse"] = {"query": query.sparse, "using": BM25}
    if len(parts) > 1:
        weights = wanted.fusion.weights
        parts = {name: part for name, part in parts.items() if weights.get(name, 1.0)}  # type: ignore[call-overload]
    return {
        name: models.QueryRequest(**part, filter=selection, limit=limit, with_payload=_KEYS)
        for name, part in parts.items()
    }


def read_rankings(points: Mapping[str, Sequence[Any]], *, higher_is_better: bool) -> dict[str, Ranking]:
    """Make hits of the points of each ranking, one for a passage however many rankings have it.

    Equal scores are put in the order of document id and place. While a document is being replaced on a server, passages
    of two generations may be found: the newer ones count.
    """
    hits: dict[str, Hit] = {}
    newest: dict[str, int] = {}
    for point in (point for each in points.values() for point in each):
        key = str(point.id)
        if key not in hits:
            payload = point.payload or {}
            hit = hits[key] = Hit(key, payload[DOCUMENT_ID], int(payload[ORDINAL]), int(payload[GENERATION]))
            hit.payload = payload if "text" in payload else None
            newest[hit.document_id] = max(newest.get(hit.document_id, 0), hit.generation)
    rankings: dict[str, Ranking] = {}
    for name, each in points.items():
        # A distance is made a score: higher is better everywhere in a flow.
        sign = -1.0 if name == "dense" and not higher_is_better else 1.0
        ranking = [(hits[str(point.id)], sign * point.score) for point in each]
        ranking = [(hit, score) for hit, score in ranking if hit.generation == newest[hit.document_id]]
        ranking.sort(key=lambda item: _order(item[1], item[0]))
        for rank, (hit, score) in enumerate(ranking, 1):
            hit.components[name] = Component(rank, score)
        rankings[name] = ranking
    return rankings


# ---- hits: one order, and as many as wanted ----


def ranked(rankings: Mapping[str, Ranking], depth: int, fusion: Fusion | None) -> list[Hit]:
    """All hits of the rankings, best first, with their scores.

    Args:
        rankings: Read to `depth`.
        depth: For a fusion one of `_DEPTHS`. Each up to it is fused by itself; what it adds follows what was there.
        fusion: None with a single ranking, whose scores are then the hits'.
    """
    if fusion is None:
        (ranking,) = rankings.values() or [[]]
        for rank, (hit, score) in enumerate(ranking[:depth], 1):
            hit.score, hit.rank = score, rank
        return [hit for hit, _ in ranking[:depth]]
    hits = {hit.id: hit for ranking in rankings.values() for hit, _ in ranking}
    order: dict[str, None] = {}
    least = math.inf
    for level in _DEPTHS[: _DEPTHS.index(depth) + 1]:
        lists = {
            name: [(hit.id, score) for hit, score in _undivided(each, level) or each[:level]]
            for name, each in rankings.items()
        }
        scores = fuse(lists, fusion)
        added = sorted(
            (key for key in scores if key not in order),
            key=lambda key: _order(scores[key], hits[key]),
        )
        if not added:
            continue
        # Scores must not contradict the order: all that is added stays below what is there, equal scores too.
        ceiling = math.nextafter(least, -math.inf)
        above = max(0.0, scores[added[0]] - ceiling)
        for key in added:
            order[key] = None
            hits[key].score, hits[key].rank = min(scores[key] - above, ceiling), len(order)
        least = hits[added[-1]].score
    return [hits[key] for key in order]


def _undivided(ranking: Ranking, size: int) -> Ranking:
    """The first of a ranking, without a group of equal scores that the cut would divide.

    Which of such a group an index answers is arbitrary: it would decide which of them a fusion favours, or which of
    them a page shows.
    """
    return ranking if len(ranking) <= size else [item for item in ranking[:size] if item[1] > ranking[size][1]]


def best_hits(hits: Sequence[Hit], wanted: SearchParameters) -> list[Hit]:
    """Keep those of the first documents, of each no more passages than wanted; or the first passages."""
    kept: list[Hit] = []
    counts: dict[str, int] = {}
    by_passage, units, passages_each = wanted.group == "passage", wanted.units, wanted.passages_each
    for hit in hits:
        opens = by_passage or hit.document_id not in counts
        if opens and (len(kept) if by_passage else len(counts)) == units:
            if by_passage:
                break
            continue
        counts[hit.document_id] = counts.get(hit.document_id, 0) + 1
        if passages_each is None or counts[hit.document_id] <= passages_each:
            kept.append(hit)
    return kept


def _order(score: float, hit: Hit) -> tuple[float, str, int]:
    return -score, hit.document_id, hit.ordinal


# ---- what is shown of the hits ----


def explanation(hit: Hit, wanted: SearchParameters) -> dict[str, Any]:
    """Where a hit's score comes from: `rank`, from 1, and `score` in each ranking that has it, and in their fusion."""
    parts: dict[str, Any] = {
        name: {"rank": component.rank, "score": component.score} for name, component in hit.components.items()
    }
    if wanted.mode == "hybrid":
        parts["fusion"] = {"rank": hit.rank, "score": hit.score, "method": wanted.fusion.method}
    return parts


async def _fetch(collection: Collection, hits: Sequence[Hit], *, vectors: bool) -> None:
    """Fill in payloads, and vectors where wanted; hits that are no longer there keep None."""
    if not hits:
        return
    ids = list(dict.fromkeys(hit.id for hit in hits))
    records = {str(each.id): each for each in await collection.retrieve(ids, _SHOWN, vectors=vectors)}
    for hit in hits:
        record = records.get(hit.id)
        if record is not None:
            hit.payload = record.payload
            hit.vector = record.vector[DENSE] if vectors else None
        elif vectors:
            hit.payload = None  # without its vector it cannot be told from others
