"""BM25 as sparse vectors: a weight for each term, to be multiplied with the terms' rarity by the index.

    text --terms.py--> {hash of the term: count}
    counts of a text's weighted spans and of its context --weighted sum--> counts --saturate--> {hash: weight}

A passage's weight is BM25's term-frequency part, `f (k + 1) / (f + k (1 - b + b n / average))` with f the term's count
and n the sum of all counts (Robertson and Zaragoza 2009, "The Probabilistic Relevance Framework: BM25 and Beyond"). A
span of weight w counts as if it were there w times: counts are weighted before they are saturated, not scores after
(BM25F; Robertson, Zaragoza and Taylor 2004, "Simple BM25 Extension to Multiple Weighted Fields"). A query's is 1.
The inverse document frequency is the index's `Idf` modifier, over what it holds at that moment. The vectors are made
here for every backend, so that all of them rank alike.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import chain, pairwise
from typing import TypeAlias

import numpy as np
from qdrant_client import models

from flowdex_executors.indexer.columns import SparseRow
from flowdex_executors.indexer.terms import TermCounter

__all__ = ["SparseEncoder", "WeightedSpans"]

WeightedSpans: TypeAlias = Sequence[Sequence[float]]
"""[start, end, weight] of spans of a text, in characters."""

K, B = 1.2, 0.75


class SparseEncoder:
    """Makes the BM25 vectors.

    Args:
        average_length: Expected average length of a passage in terms, without stop words.
    """

    def __init__(self, average_length: float) -> None:
        self._average_length = average_length
        self._terms = TermCounter()

    def passages(
        self,
        texts: Sequence[str],
        *,
        contexts: Sequence[str | None] | None = None,
        weights: Sequence[WeightedSpans | None] | None = None,
    ) -> list[SparseRow]:
        """Encode passages; a text without terms gives an empty vector.

        Args:
            texts: The passages.
            contexts: What to count with each text, without being part of it.
            weights: Spans of each text that count more or less than once; where spans overlap, the later one decides.
        """
        columns = []
        for row, text in enumerate(texts):
            context = contexts[row] if contexts else None
            spans = weights[row] if weights else None
            if context or spans:
                columns.append(self._mixed(text, context, spans or ()))
            else:
                columns.append(self._terms.count(text))
        return self._saturate(columns)

    def query(self, text: str) -> models.SparseVector | None:
        """Encode a query; None where it has no terms (stop words only)."""
        indices, values = self._terms.query(text)
        return models.SparseVector(indices=indices, values=values) if indices else None

    def _mixed(self, text: str, context: str | None, spans: WeightedSpans) -> tuple[list[int], list[float]]:
        """The counts of a text's pieces and of its context, each as often as it weighs."""
        total: dict[int, float] = defaultdict(float)
        for piece, weight in [*_pieces(text, spans), (context or "", 1.0)]:
            for index, count in zip(*self._terms.count(piece), strict=True):
                total[index] += weight * count
        return list(total), list(total.values())

    def _saturate(self, columns: Sequence[tuple[Sequence[int], Sequence[float]]]) -> list[SparseRow]:
        if not columns:
            return []
        sizes = np.fromiter((len(counts) for _, counts in columns), np.int64, len(columns))
        ends = np.cumsum(sizes).tolist()
        indices = np.fromiter(chain.from_iterable(each for each, _ in columns), np.uint32, int(sizes.sum()))
        counts = np.fromiter(chain.from_iterable(each for _, each in columns), np.float64, int(sizes.sum()))
        row_of = np.repeat(np.arange(len(columns)), sizes)
        norms = K * (1 - B + B * np.bincount(row_of, counts, len(columns)) / self._average_length)
        values = (counts * (K + 1) / (counts + norms[row_of])).astype(np.float32)
        rows = map(slice, [0, *ends], ends)  # numpy's split does the same in four times the time
        return [SparseRow(indices[row], values[row]) for row in rows]


def _pieces(text: str, spans: WeightedSpans) -> Iterator[tuple[str, float]]:
    """The text cut at the bounds of the spans, each piece with its weight; those of weight 0 are left out."""
    marks = sorted({0, len(text), *(min(max(int(edge), 0), len(text)) for span in spans for edge in span[:2])})
    for start, end in pairwise(marks):
        weight = next((weight for first, last, weight in reversed(spans) if first <= start and end <= last), 1.0)
        if weight > 0:
            yield text[start:end], float(weight)
