"""Texts to words for ELMo, whose vocabulary is open: any string is a word, so a sequence's `ids` are its words.

text --splitter--> words and spans --cut at the limit--> TokenSequence(words, dropped, spans, windows)

Words that the caller has cut already are taken as they are, but for blank ones. Nothing is lowered: the characters of a
word say its case.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate

from flowdex.errors import InvalidInput
from flowdex_executors.encoder.tokenising import Span, Text, TokenIds, TokeniseOptions, TokenSequence

__all__ = ["WordTokenizer"]

# Few words are longer on average; the words next to where a prefix ends may differ from the text's.
_PREFIX_CHARACTERS_PER_WORD = 64
_SPARE_WORDS = 8


class WordTokenizer:
    """Cuts texts into words.

    Args:
        splitter: Gives the words of a text, each with the [start, end) of its characters.
    """

    def __init__(self, splitter: Callable[[str], list[tuple[str, Span]]]) -> None:
        self._split = splitter

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
        if isinstance(text, TokenIds):
            raise InvalidInput("ELMo reads characters and has no token ids; send the text")
        if isinstance(text, str):
            found = self._words(text, options)
            return _cut([word for word, _ in found], [span for _, span in found], options)
        starts = accumulate((len(word) + 1 for word in text), initial=0)  # as if joined by single spaces
        kept = [(word, (start, start + len(word))) for start, word in zip(starts, text, strict=False) if word.strip()]
        return _cut([word for word, _ in kept], [span for _, span in kept], options)

    def _words(self, text: str, options: TokeniseOptions) -> list[tuple[str, Span]]:
        """The words of a text: of a much longer one than is kept, those of a part of it that holds enough."""
        limit = options.max_tokens
        if limit is not None and options.truncation in ("head", "error") and not options.exact:
            prefix = text[: _PREFIX_CHARACTERS_PER_WORD * limit + 1024]
            if len(prefix) < len(text) and len(found := self._split(prefix)) >= limit + _SPARE_WORDS:
                return found
        return self._split(text)


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
