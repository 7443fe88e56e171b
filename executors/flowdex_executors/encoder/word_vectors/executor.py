"""WordVectorEncoder: the vectors of a text's words, averaged.

text -> words -> look-up in a table -> mean weighted by smooth inverse frequency, mean, max, ... -> L2 norm
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from flowdex.errors import ConfigurationError
from flowdex_executors.encoder.base import check_options
from flowdex_executors.encoder.fingerprint import digest_files
from flowdex_executors.encoder.token_encoder import TokenEncoder
from flowdex_executors.encoder.tokenising import TokenSequence
from flowdex_executors.encoder.word_vectors.files import find_word_vectors, read_word_vectors
from flowdex_executors.encoder.word_vectors.look_up import UNKNOWN, LookUp, Unknown
from flowdex_executors.encoder.word_vectors.tokenizer import SPLITTERS, Splitter, WordTokenizer, make_splitter
from flowdex_executors.encoder.word_vectors.weights import (
    WEIGHTINGS,
    Weighting,
    read_component,
    read_frequencies,
    weigh,
    zipf,
)

# No `from __future__ import annotations` here: see flowdex_executors.schema.

__all__ = ["WordVectorEncoder"]

_CHOICES: dict[str, tuple[str, ...]] = {
    "words": SPLITTERS,
    "unknown": UNKNOWN,
    "empty": ("error", "zero"),
    "weighting": WEIGHTINGS,
}


class WordVectorEncoder(TokenEncoder):
    """Encodes texts with word vectors: word2vec, GloVe, fastText, NNLM.

    Args:
        model: None or "default" for GloVe 6B 50d from its package, a file or a folder; see `find_word_vectors`.
        vocabulary: File of the words of a `.npy` file.
        limit: How many words to read, from the most frequent one; None for all.
        words: How texts are split: "treebank", "punctuation", "whitespace" or "scripts"; see `make_splitter`.
        lower_case: Whether words are lowered before they are looked up; None to do so if the vocabulary is.
        unknown: What becomes of words that are not in the vocabulary: "skip", "zero", "mean" or "hash"; see `LookUp`.
        empty: What becomes of a text of which no word is left: "error" refuses it, "zero" gives it the zero vector.
        weighting: Weights of words in the pooling "idf": "sif" or "idf"; see the module `weights`.
        smoothing: The a of "sif".
        frequencies: File of words and their counts; None to estimate from the order of the vocabulary.
        frequency_total: What the counts are parts of (the number of documents); None for their sum.
        common_component: `.npy` file of the directions to take out of all vectors; see `common_component`.
        max_length: Longest sequence in words; None for no limit.
        pooling: As for every encoder; "idf" is the mean with the weights above.
        normalize: Whether to scale vectors to length 1. The zero vector stays.
        **options: What `TokenEncoder` takes: `truncation`, `dimensions`, `dtype`, `batch_tokens`, `threads`, ...

    Raises:
        ConfigurationError: A file cannot be found or is damaged, or an option is wrong.
    """

    no_tokens: ClassVar[str] = (
        "has a text of which no word is in the vocabulary; leave it out, or set `empty: zero` or `unknown: hash` in "
        "uses_with of the encoder"
    )

    def __init__(
        self,
        model: str | Path | None = None,
        *,
        vocabulary: str | Path | None = None,
        limit: int | None = None,
        words: Splitter = "treebank",
        lower_case: bool | None = None,
        unknown: Unknown = "skip",
        empty: str = "error",
        weighting: Weighting = "sif",
        smoothing: float = 1e-3,
        frequencies: str | Path | None = None,
        frequency_total: int | None = None,
        common_component: str | Path | None = None,
        max_length: int | None = None,
        pooling: str | Sequence[str] = "idf",
        normalize: bool = True,
        **options: Any,
    ) -> None:
        given = {"words": words, "unknown": unknown, "empty": empty, "weighting": weighting, "smoothing": smoothing}
        limits = {"limit": limit, "max_length": max_length, "frequency_total": frequency_total}
        for problem in _problems({**given, **limits}):
            raise ConfigurationError(problem)
        self.vectors = vectors = read_word_vectors(find_word_vectors(model, vocabulary), limit)
        self.lower_case = vectors.lower_case if lower_case is None else bool(lower_case)
        counts = None if frequencies is None else Path(frequencies).expanduser()
        component = None if common_component is None else Path(common_component).expanduser()
        shares = zipf(len(vectors)) if counts is None else read_frequencies(counts, vectors.words, frequency_total)
        weights = weigh(shares, weighting, smoothing=float(smoothing))
        parts: dict[str, Any] = {
            "weights": digest_files(*vectors.files),
            "vocabulary": len(vectors),
            "words": words,
            "lower_case": self.lower_case,
            "unknown": unknown,
            "weighting": f"{weighting} {float(smoothing)}" if weighting == "sif" else weighting,
        }
        if counts is not None:
            parts["frequencies"] = [digest_files(counts), frequency_total]
        if component is not None:
            parts["common_component"] = digest_files(component)
        super().__init__(
            tokenizer=WordTokenizer(
                vectors,
                np.append(weights, weights.max()),  # an unknown word weighs as much as the rarest
                make_splitter(words),
                lower_case=self.lower_case,
                keep_unknown=unknown != "skip",
                keep_empty=empty == "zero",
            ),
            backend=LookUp(
                vectors, unknown, None if component is None else read_component(component, vectors.dimensions)
            ),
            model=vectors.name,
            max_tokens=max_length,
            fingerprint_parts=parts,
            pooling=pooling,
            normalize=normalize,
            **options,
        )

    def warm_up(self) -> None:
        """Look the first words up, whatever they are: those that a request would have may not be in the vocabulary."""
        words = list(self.vectors.words[:64])
        self.backend.forward([TokenSequence(words)])

    def about(self) -> dict[str, Any]:
        """What `/status` says about the model."""
        return {**super().about(), "vocabulary": len(self.vectors), "lower_case": self.lower_case}

    @classmethod
    def describe(cls, uses_with: Mapping[str, Any]) -> dict[str, Any]:
        """Model, dimensions, max_tokens, pooling and normalize for these options, from the beginnings of files alone.

        Raises:
            ConfigurationError: The word vectors cannot be found, or an option is wrong.
        """
        files = find_word_vectors(uses_with.get("model"), uses_with.get("vocabulary"))
        vectors = cls.describe_vectors(uses_with, (files.dimensions,), pooling="idf", normalize=True)
        facts = {"model": files.name, **vectors}
        limit = uses_with.get("max_length")
        return facts if limit is None else {**facts, "max_tokens": limit}

    @classmethod
    def check(cls, uses_with: Mapping[str, Any], context: Any = None) -> list[str]:
        """Problems of these options that can be known before start, as sentences; beyond what `describe` raises."""
        problems = [f"{name}: {problem}" for name, problem in check_options(uses_with).items()]
        problems += _problems(uses_with)
        for name in ("frequencies", "common_component"):
            path = uses_with.get(name)
            if path is not None and not Path(str(path)).expanduser().is_file():
                problems.append(f"{name}: there is no file {str(path)!r}")
        return problems


def _problems(options: Mapping[str, Any]) -> list[str]:
    problems = [
        f"{name}: {options[name]!r} is unknown; choose from {', '.join(choices)}"
        for name, choices in _CHOICES.items()
        if name in options and options[name] not in choices
    ]
    for name in ("limit", "max_length", "frequency_total"):
        value = options.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            problems.append(f"{name}: must be a whole number of at least 1, got {value!r}")
    smoothing = options.get("smoothing", 1e-3)
    if isinstance(smoothing, bool) or not isinstance(smoothing, (int, float)) or not 0 < smoothing < np.inf:
        problems.append(f"smoothing: must be a number above 0, got {smoothing!r}")
    return problems
