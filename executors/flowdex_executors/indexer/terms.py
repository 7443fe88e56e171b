"""Count the terms of a text: tokenise (Unicode, Chinese segmented), drop English stop words, stem, hash, count.

    text --plain ASCII-> words between white space --known word--> its terms     counted in one go
         --else--------> the engine's tokenizer                                   1.5 us a word

The engine's tokenizer decides what a term is. In plain ASCII no term crosses white space, so a word's terms are the
same wherever it stands, and the engine is asked about each word only once: that is several times faster. In other text
its neighbours decide (Chinese has no spaces), so the engine reads it as a whole.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

__all__ = ["TermCounter"]

# With so large a k, f (k + 1) / (f + k) is f to the last bit; with b = 0, whatever the length: the engine counts.
_NO_SATURATION = 1e15
_MOST_WORDS = 200_000  # that are remembered; 100 bytes each
_LONGEST_WORD = 64  # characters, of those
_PLAIN = re.compile(r"[ -~\t\n\r]*")
"""ASCII without control characters, some of which are white space to Python and parts of words to the engine."""


class TermCounter:
    """Counts terms, and remembers the words it has seen. May be used from several threads."""

    def __init__(self) -> None:
        import qdrant_edge as edge

        self._engine: Any = edge.Bm25(
            edge.Bm25Config(
                k=_NO_SATURATION,
                b=0.0,
                avg_len=1.0,
                tokenizer=edge.TokenizerType.Multilingual,
                language="english",
                lowercase=True,
            )
        )
        self._terms: dict[str, int | tuple[int, ...]] = {}  # of a word: its one term, or none or several

    def count(self, text: str) -> tuple[list[int], list[float]]:
        """The terms of a text, as hashes in no order, and how often each occurs."""
        if not _PLAIN.fullmatch(text):
            vector = self._engine.embed_document(text)
            return vector.indices, vector.values
        words = text.split()
        known = self._terms
        try:
            counts = Counter(map(known.__getitem__, words))
        except KeyError:
            counts = Counter([known[word] if word in known else self._learn(word) for word in words])
        several = [terms for terms in counts if isinstance(terms, tuple)]
        for terms in several:
            occurrences = counts.pop(terms)
            for term in terms:
                counts[term] += occurrences
        return list(counts), list(map(float, counts.values()))  # type: ignore[arg-type]  # no tuple is left

    def query(self, text: str) -> tuple[list[int], list[float]]:
        """The terms of a query, each once with weight 1."""
        vector = self._engine.embed_query(text)
        return vector.indices, vector.values

    def _learn(self, word: str) -> int | tuple[int, ...]:
        vector = self._engine.embed_document(word)
        found = [term for term, count in zip(vector.indices, vector.values, strict=True) for _ in range(round(count))]
        terms = found[0] if len(found) == 1 else tuple(found)
        if len(word) <= _LONGEST_WORD:
            if len(self._terms) >= _MOST_WORDS:
                self._terms.clear()  # rare: the common words are back at once
            self._terms[word] = terms
        return terms
