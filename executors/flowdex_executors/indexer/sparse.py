"""BM25 as sparse vectors: a weight for each term, to be multiplied with the terms' rarity by the index.

    text --tokenise (Unicode, Chinese segmented), drop English stop words, stem--> {hash of the term: weight}

A passage's weight is BM25's term-frequency part (Robertson and Zaragoza 2009, "The Probabilistic Relevance Framework:
BM25 and Beyond"); a query's is 1. The inverse document frequency is the index's `Idf` modifier, over what it holds
at that moment. The vectors are made here for every backend, so that all of them rank alike.
"""

from __future__ import annotations

from collections.abc import Iterable

from qdrant_client import models

__all__ = ["SparseEncoder"]


class SparseEncoder:
    """Makes the BM25 vectors.

    Args:
        average_length: Expected average length of a passage in terms, without stop words.
    """

    def __init__(self, average_length: float) -> None:
        import qdrant_edge as edge

        self._bm25 = edge.Bm25(
            edge.Bm25Config(
                avg_len=average_length, tokenizer=edge.TokenizerType.Multilingual, language="english", lowercase=True
            )
        )

    def passages(self, texts: Iterable[str]) -> list[models.SparseVector]:
        """Encode passages; a text without terms gives an empty vector."""
        encoded = [self._bm25.embed_document(text) for text in texts]
        return [models.SparseVector.model_construct(indices=vector.indices, values=vector.values) for vector in encoded]

    def query(self, text: str) -> models.SparseVector | None:
        """Encode a query; None where it has no terms (stop words only)."""
        vector = self._bm25.embed_query(text)
        if not vector.indices:
            return None
        return models.SparseVector(indices=vector.indices, values=vector.values)
