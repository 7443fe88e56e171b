"""Fusion: from several rankings of the same passages to one score each.

    {"dense": [(id, score), ...], "sparse": [(id, score), ...]}  --fuse-->  {id: score}

rrf    sum of weight / (k + rank), ranks from 0: looks at ranks alone. Cormack, Clarke and Buettcher 2009, "Reciprocal
       Rank Fusion outperforms Condorcet and individual Rank Learning Methods".
dbsf   sum of weight * (score - (mean - 3 sigma)) / (6 sigma), by mean and sample deviation of each ranking's scores:
       the distances between scores count. As in Qdrant, outliers may leave [0, 1], and where all scores are equal, each
       counts 0.5. Mazzeschi 2023, "Distribution-Based Score Fusion".

Done here rather than in the engine, so that weights, constants and explanations are the same on every backend.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeVar

__all__ = ["Fusion", "fuse"]

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Fusion:
    """How rankings are fused.

    Attributes:
        method: See above.
        k: The constant of rrf, positive: the larger, the less the first ranks stand out.
        weights: Of rankings by name; 1 for those not named.
    """

    method: Literal["rrf", "dbsf"] = "rrf"
    k: float = 60.0
    weights: Mapping[str, float] = field(default_factory=dict)

    def weight(self, ranking: str) -> float:
        """How much a ranking counts."""
        return self.weights.get(ranking, 1.0)

    def contributions(self, scores: Sequence[float]) -> list[float]:
        """What each place of one ranking is worth, before its weight; `scores` best first."""
        if self.method == "rrf":
            return [1.0 / (self.k + rank) for rank in range(len(scores))]
        return _normalised(scores)


def fuse(rankings: Mapping[str, Sequence[tuple[Key, float]]], fusion: Fusion) -> dict[Key, float]:
    """Score everything that occurs in any of the rankings.

    Args:
        rankings: For each name, (key, score) best first, a key at most once.
        fusion: How.
    """
    fused: dict[Key, float] = {}
    for name, ranking in rankings.items():
        weight = fusion.weight(name)
        values = fusion.contributions([score for _, score in ranking])
        for (key, _), value in zip(ranking, values, strict=True):
            fused[key] = fused.get(key, 0.0) + weight * value
    return fused


def _normalised(scores: Sequence[float]) -> list[float]:
    if len(scores) < 2:
        return [0.5] * len(scores)
    mean = statistics.fmean(scores)
    deviation = math.sqrt(math.fsum((score - mean) ** 2 for score in scores) / (len(scores) - 1))
    if deviation <= 1e-9 * abs(mean):  # equal but for rounding
        return [0.5] * len(scores)
    return [(score - mean) / (6 * deviation) + 0.5 for score in scores]
