"""The forward pass of word vectors: rows of a table."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from flowdex.errors import InvalidInput
from flowdex_executors.encoder.backend import TokenVectors, resolve_layers
from flowdex_executors.encoder.word_vectors.tokenizer import NO_WORD
from flowdex_executors.encoder.word_vectors.vectors import Matrix, WordVectors

if TYPE_CHECKING:
    from flowdex_executors.encoder.tokenising import TokenSequence

__all__ = ["UNKNOWN", "LookUp", "Unknown", "hashed_vector"]

Unknown: TypeAlias = Literal["skip", "zero", "mean", "hash"]
UNKNOWN: tuple[Unknown, ...] = ("skip", "zero", "mean", "hash")


class LookUp:
    """Word vectors as a backend of one layer. It computes nothing that a GPU would do sooner, and has no device.

    Args:
        vectors: The words and their vectors.
        unknown: What becomes of a word that is not among them: "zero" gives it the zero vector, "mean" the mean of all
            vectors, and "hash" one of its own that depends on its letters alone. Under "skip" there are none.
        components: Directions to take out of every vector, rows of length 1 at right angles: float32, shape (n, D).
            Pooling is linear (but for max), so they are then out of the texts' vectors.
    """

    name = "look-up"
    padded = False

    def __init__(self, vectors: WordVectors, unknown: Unknown = "skip", components: Matrix | None = None) -> None:
        self._vectors = vectors
        self._rows = vectors.rows  # built here, and not by the first request
        self._unknown = unknown
        self._unknown_vector = vectors.mean if unknown == "mean" else np.zeros(vectors.dimensions, np.float32)
        self._components = components
        self.dimensions: tuple[int, ...] = (vectors.dimensions,)

    def forward(
        self, sequences: Sequence[TokenSequence], layers: Sequence[int] = (-1,), *, attention: bool = False
    ) -> TokenVectors:
        """Look all words up; see `Backend.forward`."""
        import torch

        if attention:
            raise InvalidInput("attention: word vectors have none to give")
        words = [word for sequence in sequences for word in sequence.ids]
        rows = np.array([self._rows.get(word, -1) for word in words], dtype=np.intp)
        values = self._vectors.table[rows]  # a copy, in which -1 has taken some row
        for position in np.flatnonzero(rows < 0).tolist():
            values[position] = self._of_unknown(words[position])
        if self._components is not None:
            values -= (values @ self._components.T) @ self._components
        lengths = torch.tensor([len(sequence) for sequence in sequences])
        layer = torch.from_numpy(values)
        return TokenVectors(tuple(layer for _ in resolve_layers(layers, 1)), lengths)

    def _of_unknown(self, word: str) -> Matrix | float:
        if word == NO_WORD:
            return 0.0
        if self._unknown == "hash":
            return hashed_vector(word, self._vectors.dimensions, self._vectors.typical_length)
        return self._unknown_vector


def hashed_vector(word: str, dimensions: int, length: float) -> Matrix:
    """A vector that looks random and is the same for the same word, on every machine and in every version.

    Args:
        word: Any word.
        dimensions: Its size.
        length: Its Euclidean length.
    """
    digest = hashlib.shake_128(word.encode("utf-8", "surrogatepass")).digest(4 * dimensions)
    values = np.frombuffer(digest, "<u4").astype(np.float64) - (2**32 - 1) / 2
    vector: Matrix = (values * (length / np.linalg.norm(values))).astype(np.float32)
    return vector
