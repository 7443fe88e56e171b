"""Texts to words for ELMo, whose vocabulary is open: any string is a word, so a sequence's `ids` are its words.

text --word_spans--> spans --cut at the limit--> TokenSequence(words, dropped, spans, windows)

Words that the caller has cut already are taken as they are. Nothing is lowered: case is what the characters say.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from flowdex.errors import InvalidInput
from flowdex_executors.encoder.tokenising import Span, Text, TokeniseOptions, TokenSequence
from flowdex_executors.encoder.words import word_spans

__all__ = ["WordTokenizer"]

# Few words are longer on average; the words next to where a prefix ends may differ from the text's.
_PREFIX_CHARACTERS_PER_WORD = 64
_SPARE_WORDS = 8


class WordTokenizer:
    """Cuts texts into words; see `flowdex_executors.encoder.words` for where."""

    def tokenise(self, texts: Sequence[Text], options: TokeniseOptions) -> list[TokenSequence]:
        """Tokenise; see `Tokenizer.tokenise`."""
        if options.max_tokens is not None and options.max_tokens < 1:
            raise InvalidInput(f"max_length must be at least 1 word, got {options.max_tokens}")
        return [self._tokenise(text, options) for text in texts]

    def tokens(self, sequence: TokenSequence) -> list[str]:
        """The words."""
        return list(sequence.ids)

    def _tokenise(self, text: Text, options: TokeniseOptions) -> TokenSequence:
        if isinstance(text, tuple):
            raise InvalidInput("ELMo reads single texts, not pairs; send the two as documents of their own")
        if isinstance(text, str):
            spans = _spans(text, options)
            return _cut([text[start:end] for start, end in spans], spans, options)
        starts = accumulate((len(word) + 1 for word in text), initial=0)  # as if joined by single spaces
        return _cut(text, [(start, start + len(word)) for start, word in zip(starts, text, strict=False)], options)


def _spans(text: str, options: TokeniseOptions) -> list[Span]:
    """The words of a text: of a much longer one than is kept, those of a part of it that holds enough."""
    limit = options.max_tokens
    if limit is not None and options.truncation in ("head", "error") and not options.exact:
        prefix = text[: _PREFIX_CHARACTERS_PER_WORD * limit + 1024]
        if len(prefix) < len(text) and len(spans := word_spans(prefix)) >= limit + _SPARE_WORDS:
            return spans
    return word_spans(text)


def _cut(words: Sequence[str], spans: Sequence[Span], options: TokeniseOptions) -> TokenSequence:
    limit = options.max_tokens or max(len(words), 1)

    def piece(start: int, windows: tuple[TokenSequence, ...] = (), dropped: int = 0) -> TokenSequence:
        stop = start + limit
        return TokenSequence(
            words[start:stop],
            dropped=dropped,
            spans=list(spans[start:stop]) if options.spans else None,
            windows=windows,
        )

    if options.truncation == "window_mean":
        return piece(0, windows=tuple(piece(start) for start in range(limit, len(words), limit)))
    dropped = max(len(words) - limit, 0)
    return piece(dropped if options.truncation == "tail" else 0, dropped=dropped)
