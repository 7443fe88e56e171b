"""A vocabulary and the vector of each of its words."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from flowdex.errors import ConfigurationError

__all__ = ["Matrix", "WordVectors", "save_word_vectors"]

Matrix: TypeAlias = npt.NDArray[np.float32]

TABLE_FILE, WORDS_FILE = "vectors.npy", "words.txt"


class WordVectors:
    """Words and their vectors.

    Args:
        words: In the file's order, which the training tools write by falling frequency. Of equal ones the first counts.
        table: float32, shape (words, dimensions); it may be a read-only map of a file.
        name: For people.
        files: What they were read from.

    Raises:
        ConfigurationError: There are no words, or not as many as vectors.
    """

    def __init__(self, words: Sequence[str], table: Matrix, name: str, files: Sequence[Path] = ()) -> None:
        if len(words) != len(table):
            raise ConfigurationError(f"word vectors {name}: {len(words)} words for {len(table)} vectors")
        if not words:
            raise ConfigurationError(f"word vectors {name}: there is no word in the file")
        self.words = words
        self.table = table
        self.name = name
        self.files = tuple(files)

    def __len__(self) -> int:
        return len(self.words)

    @property
    def dimensions(self) -> int:
        """Size of a vector."""
        return int(self.table.shape[1])

    @cached_property
    def rows(self) -> dict[str, int]:
        """Row of each word in the table. The empty word, which some files have, has none."""
        rows = dict(zip(reversed(self.words), range(len(self.words) - 1, -1, -1), strict=True))
        rows.pop("", None)
        return rows

    @cached_property
    def mean(self) -> Matrix:
        """The mean of all vectors, float32 of shape (dimensions,)."""
        mean: Matrix = self.table.mean(axis=0, dtype=np.float64).astype(np.float32)
        return mean

    @cached_property
    def typical_length(self) -> float:
        """The mean Euclidean length of the vectors of the first 10,000 words."""
        return float(np.linalg.norm(self.table[:10_000], axis=1).mean())

    @cached_property
    def lower_case(self) -> bool:
        """Whether no capital letter is in the first 10,000 words: the vocabulary of texts that had been lowered."""
        return all(word == word.lower() for word in self.words[:10_000])


def save_word_vectors(vectors: WordVectors, folder: Path) -> None:
    """Write a folder that loads at once, mapped into memory and shared by all processes that use it.

    Raises:
        ConfigurationError: The folder cannot be written.
    """
    # A word of the line-based file cannot hold a line break; no published vocabulary has one.
    words = (word.replace("\n", " ").replace("\r", " ") for word in vectors.words)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / TABLE_FILE).open("wb") as file:
            np.save(file, np.ascontiguousarray(vectors.table), allow_pickle=False)
        (folder / WORDS_FILE).write_bytes("".join(f"{word}\n" for word in words).encode())
    except OSError as error:
        raise ConfigurationError(f"{folder} cannot be written: {error}") from None
