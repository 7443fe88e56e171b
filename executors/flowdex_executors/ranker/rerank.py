"""The rerank stage: a costlier look at the first hits, within a budget, and never at the price of an answer.

    hits, best first --the first `top`--> Scorer.score(query, texts) --in time--> reranked hits, then the rest
                                                    |
                                                    +--too late, or failed--> the hits as they were, and a note

A query is reranked wholly or not at all: scores of some hits only, beside others without, would be no order. Of several
queries in one request, those that are done in time are reranked.

A cross-encoder has read query and text together, and its order replaces the one before. Late interaction is one more
witness beside the scores that a hit has already (dense, sparse): each is standardised over the reranked hits (mean 0,
deviation 1), and their weighted mean is the score, as in CombSUM with z-scores (Fox and Shaw 1994; Montague and Aslam
2001). The score of a hit below the reranked ones says only how far below it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt

from flowdex.errors import FlowdexError
from flowdex_executors.ranker.aggregation import Hit
from flowdex_executors.ranker.parameters import Reranking

__all__ = ["Candidates", "Outcome", "Scorer", "Scores", "rerank", "standardised"]

Scores = npt.NDArray[np.float64]

_AT_A_TIME = 2  # queries; more would only make each wait for the others


class Scorer(Protocol):
    """Says how well texts answer a query.

    Attributes:
        replaces: Whether its order replaces the one before, rather than being weighed with it.
    """

    replaces: bool

    async def score(self, query: str, texts: Sequence[str], timeout: float) -> Scores:
        """A score for each text, higher is better.

        Args:
            query: Not blank.
            texts: At least one, none of them blank.
            timeout: Seconds until nobody waits any more.

        Raises:
            FlowdexError: It cannot.
        """
        ...


@dataclass(frozen=True)
class Candidates:
    """The hits of one query.

    Attributes:
        query: Its text.
        hits: Best first.
        texts: Of each hit; one that is blank or absent cannot be reranked.
        evidence: For each hit, the scores that it has by name.
        weights: Of these names; 1 where absent.
    """

    query: str
    hits: Sequence[Hit]
    texts: Sequence[str | None]
    evidence: Sequence[Mapping[str, float]]
    weights: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """What became of the hits of one query; `note` says why they are as they were, if they are."""

    hits: list[Hit]
    note: str | None = None


async def rerank(
    scorer: Scorer, queries: Sequence[Candidates], settings: Reranking, budget: float | None = None
) -> list[Outcome]:
    """Rerank the hits of each query.

    Args:
        scorer: Scores them.
        queries: The queries.
        settings: How many hits, and how many seconds.
        budget: Seconds that the request has left for this; None for no limit.
    """
    seconds = settings.timeout if budget is None else min(settings.timeout, budget)
    turns = asyncio.Semaphore(_AT_A_TIME)

    async def one(candidates: Candidates) -> list[Hit]:
        async with turns:
            return await _rerank_one(scorer, candidates, settings.top, seconds)

    tasks = [asyncio.ensure_future(one(candidates)) for candidates in queries]
    try:
        if tasks:
            await asyncio.wait(tasks, timeout=max(0.0, seconds))
        return [
            _outcome(task, candidates, settings.method, seconds)
            for task, candidates in zip(tasks, queries, strict=True)
        ]
    finally:
        for task in tasks:
            task.cancel()


def _outcome(task: asyncio.Future[list[Hit]], candidates: Candidates, method: str, seconds: float) -> Outcome:
    if not task.done():
        return Outcome(
            list(candidates.hits),
            f"not reranked: {method} was not done within {seconds:.3g} s; allow more (rerank.timeout, or the request's "
            "own) or rerank fewer (rerank.top)",
        )
    try:
        return Outcome(task.result())
    except FlowdexError as error:
        return Outcome(list(candidates.hits), f"not reranked: {method} failed: {error.message}")


async def _rerank_one(scorer: Scorer, candidates: Candidates, top: int, timeout: float) -> list[Hit]:
    hits, texts = candidates.hits, candidates.texts
    chosen = [place for place in range(min(top, len(hits))) if (texts[place] or "").strip()]
    if not chosen or not candidates.query.strip():
        return list(hits)
    given = await scorer.score(candidates.query, [texts[place] or "" for place in chosen], timeout)
    final = given if scorer.replaces else _weighed(candidates, chosen, given)
    order = np.argsort(-final, kind="stable")  # equal ones stay in the order that they had
    ranks = np.empty(len(given), dtype=np.int64)
    ranks[np.argsort(-given, kind="stable")] = np.arange(1, len(given) + 1)
    reranked = [
        replace(hits[chosen[i]], score=float(final[i]), rerank=float(given[i]), rerank_rank=int(ranks[i]))
        for i in order
    ]
    above = set(chosen)
    rest = [hit for place, hit in enumerate(hits) if place not in above]
    if not rest:
        return reranked
    # Distances of the order before, counted down from the last of the reranked ones.
    start = max(rest[0].score, *(hits[place].score for place in chosen[-1:]))
    return reranked + [replace(hit, score=reranked[-1].score - (start - hit.score)) for hit in rest]


def _weighed(candidates: Candidates, chosen: Sequence[int], given: Scores) -> Scores:
    """The weighted mean of what is known of each hit and what it has just been given, all standardised."""
    evidence = [candidates.evidence[place] for place in chosen]
    columns, weights = [standardised(given)], [1.0]
    names = dict.fromkeys(name for known in evidence for name in known)
    for name in names:
        values = [known.get(name) for known in evidence]
        least = min(value for value in values if value is not None)  # what did not find a hit ranks it last
        columns.append(standardised(np.array([least if value is None else value for value in values])))
        weights.append(candidates.weights.get(name, 1.0))
    return np.average(np.stack(columns), axis=0, weights=weights)


def standardised(values: npt.NDArray[np.floating]) -> Scores:
    """Values with mean 0 and standard deviation 1; all 0 where they are equal but for rounding."""
    values = np.asarray(values, dtype=np.float64)
    centred = values - values.mean()
    deviation = centred.std()
    equal = deviation <= 1e-9 * max(1e-300, float(np.abs(values).max()))
    return np.zeros_like(centred) if equal else centred / deviation
