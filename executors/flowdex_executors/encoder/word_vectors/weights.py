"""How much a word counts in a text's vector, from how frequent it is.

With p(w) the relative frequency of a word in a large corpus:

    sif   a / (a + p(w))    smooth inverse frequency, a = 0.001 (Arora, Liang and Ma, 2017)
    idf   ln(1 / p(w))      inverse document frequency (Sparck Jones, 1972), where p(w) is the part of documents with w

p(w) is read from a file of counts. Without one it is estimated from a word's rank r in the vocabulary, by Zipf's law:
p(w) = 1 / (r H), H = 1 + 1/2 + ... + 1/n. That needs a vocabulary in order of frequency, which is how word2vec, GloVe
and fastText write theirs.

The second half of smooth inverse frequency, taking away what all texts have in common, is `common_component`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from flowdex.errors import ConfigurationError
from flowdex_executors.encoder.word_vectors.vectors import Matrix

__all__ = ["WEIGHTINGS", "Weighting", "common_component", "read_component", "read_frequencies", "weigh", "zipf"]

Weighting: TypeAlias = Literal["sif", "idf"]
WEIGHTINGS: tuple[Weighting, ...] = ("sif", "idf")

_Floats: TypeAlias = npt.NDArray[np.float64]


def weigh(frequencies: _Floats, weighting: Weighting, *, smoothing: float = 1e-3) -> _Floats:
    """The weight of each word.

    Args:
        frequencies: Relative frequency of each, above 0 and at most 1.
        weighting: See the module's docstring.
        smoothing: The a of "sif".
    """
    if weighting == "sif":
        return smoothing / (smoothing + frequencies)
    return -np.log(frequencies)


def zipf(words: int) -> _Floats:
    """Relative frequencies of the words of a vocabulary in order of frequency, by Zipf's law."""
    shares = 1 / np.arange(1, words + 1, dtype=np.float64)
    estimate: _Floats = shares / shares.sum()
    return estimate


def read_frequencies(path: Path, words: Sequence[str], total: int | None = None) -> _Floats:
    """Relative frequencies of words, from a text file of a word, white space and its count a line.

    Args:
        path: The file.
        words: The words whose frequencies are wanted. One that the file does not have counts as its rarest.
        total: What the counts are parts of: the number of documents, for counts of documents; None for their sum.

    Raises:
        ConfigurationError: The file cannot be read; the message names the line.
    """
    counts: dict[str, float] = {}
    try:
        with path.open(encoding="utf-8", errors="replace", newline="\n") as file:
            for number, line in enumerate(file, 1):
                if line.isspace():
                    continue
                word, count = _entry(path, number, line)
                counts[word] = counts.get(word, 0) + count
    except OSError as error:
        raise ConfigurationError(f"frequencies: {path} cannot be read: {error.strerror}") from None
    if not counts:
        raise ConfigurationError(f"frequencies: {path} has no words")
    whole = sum(counts.values()) if total is None else total
    if max(counts.values()) > whole:
        raise ConfigurationError(f"frequency_total is {total}, but {path} has a word with a greater count")
    rarest = min(counts.values())
    return np.array([counts.get(word, rarest) for word in words], dtype=np.float64) / whole


def _entry(path: Path, number: int, line: str) -> tuple[str, float]:
    word, _, count = line.rstrip().replace("\t", " ").rpartition(" ")
    try:
        value = float(count)
    except ValueError:
        value = 0
    if not word or not 0 < value < float("inf"):
        raise ConfigurationError(f"frequencies: {path}, line {number}: expected a word and its count, which is above 0")
    return word.rstrip(), value


def common_component(vectors: Matrix) -> Matrix:
    """The direction that texts have most in common, for the option `common_component`.

    Args:
        vectors: Vectors of typical texts, not normalised, made with the weights that will be used: shape (texts, D).

    Returns:
        Their first right singular vector, float32 of shape (D,) and length 1 (Arora et al., 2017, algorithm 1).
    """
    # Of the (D, D) second moments: no larger than the vectors of D texts, however many there are.
    wide = vectors.astype(np.float64)
    _, directions = np.linalg.eigh(wide.T @ wide)
    first: Matrix = directions[:, -1].astype(np.float32)
    return first


def read_component(path: Path, dimensions: int) -> Matrix:
    """Common components from a `.npy` file, as rows of length 1: float32, shape (components, D).

    Raises:
        ConfigurationError: The file does not hold vectors of that size, at right angles to each other.
    """
    try:
        stored: npt.NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)  # a header may claim more
    except (OSError, ValueError, EOFError) as error:
        raise ConfigurationError(f"common_component: {path} cannot be read as .npy: {error}") from None
    if stored.dtype.kind != "f" or stored.ndim not in (1, 2) or stored.shape[-1] != dimensions or not stored.size:
        raise ConfigurationError(
            f"common_component: {path} holds {stored.dtype} of shape {stored.shape}, but the word vectors ask for "
            f"floats of shape ({dimensions},) or (components, {dimensions})"
        )
    rows = np.atleast_2d(stored).astype(np.float64)
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-300)
    if not np.allclose(rows @ rows.T, np.eye(len(rows)), atol=1e-3):
        raise ConfigurationError(f"common_component: the vectors of {path} must be at right angles and not zero")
    components: Matrix = rows.astype(np.float32)
    return components
