"""Rankings side by side: by cosine, and how much two of them agree. Pure.

vectors (n, dim), query (dim,) --rank--> Ranking: ids in order, scores
two rankings --agreement--> shared hits, their share, Spearman's correlation
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

__all__ = ["Agreement", "Ranking", "agreement", "rank"]


@dataclass(frozen=True)
class Ranking:
    """Ids in order, best first.

    Attributes:
        ids: Each once.
        scores: One an id, descending.
    """

    ids: Sequence[str]
    scores: Sequence[float]

    @cached_property
    def ranks(self) -> Mapping[str, int]:
        """The rank of each id, from 1."""
        return {name: place for place, name in enumerate(self.ids, start=1)}


@dataclass(frozen=True)
class Agreement:
    """How much two rankings agree.

    Attributes:
        shared: How many of the first hits of one are among those of the other.
        overlap: What share of them that is (overlap at k; Webber, Moffat and Zobel 2010).
        correlation: Spearman's rho over the ids that both rank; None of fewer than two.
        common: How many ids both rank.
    """

    shared: int
    overlap: float
    correlation: float | None
    common: int


def rank(ids: Sequence[str], vectors: npt.NDArray[np.float32], query: npt.NDArray[np.float32]) -> Ranking:
    """Rank by the cosine with a query; a vector of zeros has 0, and what is equal keeps its order.

    Args:
        ids: Of the vectors.
        vectors: Shape (n, dim).
        query: Shape (dim,).
    """
    lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(query)
    scores = np.divide(vectors @ query, lengths, out=np.zeros(len(vectors), np.float32), where=lengths > 0)
    order = np.argsort(-scores, kind="stable")
    return Ranking([ids[row] for row in order.tolist()], scores[order].tolist())


def agreement(one: Ranking, other: Ranking, limit: int) -> Agreement:
    """How much two rankings agree, in their first `limit` hits and as a whole."""
    top = set(one.ids[:limit]), set(other.ids[:limit])
    shared, most = len(top[0] & top[1]), max(len(each) for each in top)
    common = [name for name in one.ids if name in other.ranks]
    return Agreement(shared, shared / most if most else 0.0, _spearman(common, other.ranks), len(common))


def _spearman(names: Sequence[str], ranks: Mapping[str, int]) -> float | None:
    """Spearman's rho of the order of names, and the order of their ranks among each other."""
    count = len(names)
    if count < 2:
        return None
    others = np.argsort(np.argsort([ranks[name] for name in names]))
    squares = float(((np.arange(count) - others) ** 2).sum())
    return 1 - 6 * squares / (count * (count**2 - 1))
