"""Texts to words of the vocabulary.

    "Don't PANIC!" --split--> Do n't PANIC ! --lower--> do n't panic ! --known?--> words, their spans and weights

What becomes of a word that the vocabulary does not have is the encoder's option `unknown`: "skip" leaves it out here,
with the others it stays, and `LookUp` gives it a vector.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from flowdex.errors import ConfigurationError, InvalidInput
from flowdex_executors.encoder.tokenising import Span, Text, TokenIds, TokeniseOptions, TokenSequence
from flowdex_executors.encoder.words import word_spans

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from flowdex_executors.encoder.word_vectors.vectors import WordVectors

__all__ = ["NO_WORD", "SPLITTERS", "Splitter", "WordTokenizer"]

Splitter: TypeAlias = Literal["treebank", "punctuation", "whitespace", "scripts"]
SPLITTERS: tuple[Splitter, ...] = ("treebank", "punctuation", "whitespace", "scripts")
NO_WORD = ""
"""Stands for a text without words, where that is no error; its vector is zero."""

_Word: TypeAlias = tuple[str, Span]


@dataclass(frozen=True, slots=True)
class WordTokenizer:
    """Makes sequences of words: their `ids` are the words themselves.

    Args:
        vectors: The vocabulary.
        weights: Weight of each word of it, for the pooling "idf", and that of any other: float64, shape (words + 1,).
        splitter: How texts are split; see `make_splitter`.
        lower_case: Whether words are lowered.
        keep_unknown: Whether words that the vocabulary does not have are kept.
        keep_empty: Whether a text without words becomes `NO_WORD`, rather than an empty sequence.
    """

    vectors: WordVectors
    weights: npt.NDArray[np.float64]
    splitter: Callable[[str], list[_Word]]
    lower_case: bool
    keep_unknown: bool
    keep_empty: bool

    def tokenise(self, texts: Sequence[Text], options: TokeniseOptions) -> list[TokenSequence]:
        """Tokenise; see `Tokenizer.tokenise`. `dropped` does not count the words that the vocabulary does not have."""
        return [self._sequence(text, options) for text in texts]

    def tokens(self, sequence: TokenSequence) -> list[str]:
        """The words, as they were looked up."""
        return list(sequence.ids)

    def _sequence(self, text: Text, options: TokeniseOptions) -> TokenSequence:
        if isinstance(text, tuple):
            raise InvalidInput("word vectors have no use for pairs of texts; send the two as documents of their own")
        if isinstance(text, TokenIds):
            raise InvalidInput("word vectors have words for tokens, and no ids; send the text or its words")
        found = self.splitter(text) if isinstance(text, str) else _given(text)
        rows = self.vectors.rows
        words = [word.lower() for word, _ in found] if self.lower_case else [word for word, _ in found]
        if self.keep_unknown:
            kept = list(range(len(words)))
        else:
            kept = [position for position, word in enumerate(words) if word in rows]
        if not kept:
            if not self.keep_empty:
                return TokenSequence([])
            return TokenSequence([NO_WORD], spans=[(0, 0)] if options.spans else None, weights=[1.0])
        spans = [found[position][1] for position in kept] if options.spans else None
        words = words if len(kept) == len(words) else [words[position] for position in kept]
        return _cut(words, self._weights(words), spans, options)

    def _weights(self, words: Sequence[str]) -> list[float]:
        rows = self.vectors.rows
        weights: list[float] = self.weights[[rows.get(word, -1) for word in words]].tolist()
        return weights


def make_splitter(name: Splitter) -> Callable[[str], list[_Word]]:
    """A function that splits a text into words and the characters they cover.

    Args:
        name: "treebank" (contractions apart, numbers and abbreviations whole, as GloVe's and most English vocabularies
            have them), "punctuation" (at white space and around each punctuation mark, as BERT does before word
            pieces), "whitespace" (nothing but white space), "scripts" (where the script changes, too).

    Raises:
        ConfigurationError: The name is unknown.
    """
    if name == "treebank":
        return _treebank
    if name not in SPLITTERS:
        raise ConfigurationError(f"words: {name!r} is unknown; choose from {', '.join(SPLITTERS)}")
    from tokenizers import pre_tokenizers

    by_script = [pre_tokenizers.BertPreTokenizer(), pre_tokenizers.UnicodeScripts()]
    rules: dict[str, Callable[[], Any]] = {
        "punctuation": pre_tokenizers.BertPreTokenizer,
        "whitespace": pre_tokenizers.WhitespaceSplit,
        "scripts": lambda: pre_tokenizers.Sequence(by_script),
    }
    split: Callable[[str], list[_Word]] = rules[name]().pre_tokenize_str
    return split


def _treebank(text: str) -> list[_Word]:
    return [(text[start:end], (start, end)) for start, end in word_spans(text)]


def _given(words: Sequence[str]) -> list[_Word]:
    """Words that the caller split, with their places in the text that they make joined by spaces."""
    found = []
    start = 0
    for word in words:
        if word and not word.isspace():
            found.append((word, (start, start + len(word))))
        start += len(word) + 1
    return found


def _cut(words: list[str], weights: list[float], spans: list[Span] | None, options: TokeniseOptions) -> TokenSequence:
    limit, total = options.max_tokens, len(words)

    def piece(start: int, windows: tuple[TokenSequence, ...] = (), dropped: int = 0) -> TokenSequence:
        part = slice(start, None if limit is None else start + limit)
        own_spans = None if spans is None else spans[part]
        return TokenSequence(words[part], dropped=dropped, spans=own_spans, weights=weights[part], windows=windows)

    if limit is None or total <= limit:
        return piece(0)
    if options.truncation == "window_mean":
        return piece(0, tuple(piece(start) for start in range(limit, total, limit)))
    return piece(total - limit if options.truncation == "tail" else 0, dropped=total - limit)
