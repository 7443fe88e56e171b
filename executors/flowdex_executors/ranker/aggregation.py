"""From the scores of passages to scores of documents.

    passages {document, score} --by document, best first--> scores s_1 >= s_2 >= ... of a document --aggregate--> score

    max      s_1
    mean     mean of all s_i
    sum      s_1 + ... + s_top: a document with several good passages wins; for scores that are not negative
    softmax  sum of w_i s_i, w_i = exp(s_i / (T d)) / sum of exp(s_j / (T d)), d the standard deviation of the scores of
             all passages of the query: between mean and max, whatever the scale of the scores

What is seen of a document is what the indexer has handed on of it: its best passages.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from flowdex_executors.ranker.parameters import Aggregation

__all__ = ["Hit", "aggregate", "group_by_document", "single_passages"]


@dataclass(frozen=True)
class Hit:
    """A document, or a passage by itself.

    Attributes:
        id: Its id.
        score: The one that it is ranked by; higher is better.
        rows: Where its passages are among the query's matches, best first.
        rerank: What the rerank stage gave it, if it did.
        rerank_rank: Its place by that, from 1.
    """

    id: str
    score: float
    rows: tuple[int, ...]
    rerank: float | None = None
    rerank_rank: int | None = None


def group_by_document(parents: Sequence[str], scores: Sequence[float], aggregation: Aggregation) -> list[Hit]:
    """Passages to documents, best first; equal scores in the order of the documents' ids.

    Args:
        parents: Id of each passage's document.
        scores: Score of each passage.
        aggregation: How.
    """
    rows_of: dict[str, list[int]] = {}
    for row in sorted(range(len(parents)), key=lambda row: (-scores[row], row)):
        rows_of.setdefault(parents[row], []).append(row)
    # (Exact, and by fractions: a tenth of what the ranker takes for ten passages.)
    deviation = statistics.pstdev(scores) if aggregation.method == "softmax" and len(scores) > 1 else 0.0
    hits = [
        Hit(document_id, aggregate([scores[row] for row in rows], aggregation, deviation), tuple(rows))
        for document_id, rows in rows_of.items()
    ]
    return sorted(hits, key=lambda hit: (-hit.score, hit.id))


def single_passages(ids: Sequence[str], scores: Sequence[float]) -> list[Hit]:
    """Passages as hits of their own, best first; equal scores in the order of their ids."""
    hits = [Hit(passage_id, score, (row,)) for row, (passage_id, score) in enumerate(zip(ids, scores, strict=True))]
    return sorted(hits, key=lambda hit: (-hit.score, hit.id))


def aggregate(scores: Sequence[float], aggregation: Aggregation, deviation: float) -> float:
    """One score of several.

    Args:
        scores: Best first, at least one.
        aggregation: How.
        deviation: Standard deviation of all scores of the query; only softmax asks for it.
    """
    if aggregation.method == "mean":
        return statistics.fmean(scores)
    if aggregation.method == "sum":
        return math.fsum(scores[: aggregation.top])
    if aggregation.method == "softmax" and deviation > 0:
        scale = aggregation.temperature * deviation
        weights = [math.exp((score - scores[0]) / scale) for score in scores] if scale > 0 else [1.0]
        total = math.fsum(weights)
        return math.fsum(weight * score for weight, score in zip(weights, scores, strict=False)) / total
    return scores[0]
