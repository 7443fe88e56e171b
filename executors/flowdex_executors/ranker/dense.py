"""Ranking by the cosine of one vector for the query and one for each text, as a dense search would."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np

from flowdex_executors.ranker.flow_encoder import FlowEncoder
from flowdex_executors.ranker.rerank import Scores

__all__ = ["Dense"]


class Dense:
    """Scores texts by their vectors.

    Args:
        encoder: Makes them.
    """

    replaces = True

    def __init__(self, encoder: FlowEncoder) -> None:
        self._encoder = encoder

    async def score(self, query: str, texts: Sequence[str], timeout: float) -> Scores:
        """The cosine for each text; see `Scorer.score`."""
        asked, vectors = await asyncio.gather(
            self._encoder.vectors([query], "search", timeout), self._encoder.vectors(texts, "index", timeout)
        )
        scores: Scores = (vectors @ asked[0]).astype(np.float64)
        return scores
