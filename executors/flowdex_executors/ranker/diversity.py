"""Maximal marginal relevance: hits that are relevant and differ from those before them.

Carbonell and Goldstein 1998, "The Use of MMR, Diversity-Based Reranking for Reordering Documents and Producing
Summaries": of those left, the next is the one with the greatest

    (1 - weight) * relevance - weight * max over those chosen of cosine(it, chosen)

Relevance is the score, min-max normalised over the candidates, so that it is on the scale of a cosine.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["diversify"]


def diversify(scores: Sequence[float], vectors: npt.NDArray[np.float32], weight: float) -> list[int]:
    """The order in which to show candidates.

    Args:
        scores: Of the candidates.
        vectors: Shape (candidates, D), of any length; one of zeros is like no other.
        weight: How much difference counts, 0 to 1.

    Returns:
        Positions of all candidates; of equally good ones the first goes first.
    """
    count = len(scores)
    if not count:
        return []
    relevance = np.asarray(scores, dtype=np.float64)
    spread = relevance.max() - relevance.min()
    relevance = (relevance - relevance.min()) / spread if spread > 0 else np.zeros(count)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    units = np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)
    order: list[int] = []
    left = np.ones(count, dtype=bool)
    nearest = np.full(count, -np.inf)
    for _ in range(count):
        penalty = nearest if order else np.zeros(count)
        value = np.where(left, (1 - weight) * relevance - weight * penalty, -np.inf)
        chosen = int(np.argmax(value))
        order.append(chosen)
        left[chosen] = False
        nearest = np.maximum(nearest, units @ units[chosen])
    return order
