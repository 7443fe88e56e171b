r"""Texts to token ids as fastai makes them: its rules, its words, its vocabulary.

    text --rules--> marked text --word_spans--> tokens --cut at the limit--> xxbos + tokens --Vocabulary--> ids

fastai's own splitter is spaCy's; `flowdex_executors.encoder.words` has the same conventions, hyphens split. As with
spaCy, white space beyond a single space is a token too ("\n\n").
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from flowdex.errors import InvalidInput
from flowdex_executors.encoder.tokenising import Span, Text, TokenIds, TokeniseOptions, TokenSequence
from flowdex_executors.encoder.ulmfit.rules import MarkedText, apply_rules
from flowdex_executors.encoder.ulmfit.vocabulary import Vocabulary
from flowdex_executors.encoder.words import word_spans

__all__ = ["FastaiTokenizer"]

# Few words are longer on average; the words next to where a prefix ends may differ from the text's.
_PREFIX_CHARACTERS_PER_TOKEN = 64
_SPARE_TOKENS = 8


class FastaiTokenizer:
    """Makes token ids of texts.

    Args:
        vocabulary: The model's tokens.
        backward: Whether the model reads texts from their end, as fastai's backward models do: sequences are reversed
            after they are cut, xxbos included.
    """

    def __init__(self, vocabulary: Vocabulary, *, backward: bool = False) -> None:
        self._vocabulary = vocabulary
        self._backward = backward
        self._before = [] if vocabulary.beginning is None else [vocabulary.beginning]

    def tokenise(self, texts: Sequence[Text], options: TokeniseOptions) -> list[TokenSequence]:
        """Tokenise; see `Tokenizer.tokenise`."""
        least = len(self._before) + 1
        if options.max_tokens is not None and options.max_tokens < least:
            raise InvalidInput(f"max_length must be at least {least} tokens, got {options.max_tokens}")
        return [self._tokenise(text, options) for text in texts]

    def tokens(self, sequence: TokenSequence) -> list[str]:
        """The tokens as the vocabulary has them; see `Tokenizer.tokens`."""
        return [self._vocabulary.tokens[token] for token in sequence.ids]

    def _tokenise(self, text: Text, options: TokeniseOptions) -> TokenSequence:
        if isinstance(text, tuple):
            raise InvalidInput("ULMFiT reads single texts, not pairs; send the two as documents of their own")
        if isinstance(text, TokenIds):
            raise InvalidInput("ULMFiT takes no token ids; send the text")
        if isinstance(text, list):
            marked = apply_rules(" ".join(text))
            return self._cut(marked, [match.span() for match in re.finditer(r"\S+", marked.text)], options)
        limit = options.max_tokens
        if limit is not None and options.truncation in ("head", "error") and not options.exact:
            prefix = text[: _PREFIX_CHARACTERS_PER_TOKEN * limit + 1024]
            if len(prefix) < len(text):  # far longer than what is kept: a part of it does
                marked = apply_rules(prefix)
                if len(places := list(_places(marked.text))) >= limit + _SPARE_TOKENS:
                    return self._cut(marked, places, options)
        marked = apply_rules(text)
        return self._cut(marked, list(_places(marked.text)), options)

    def _cut(self, marked: MarkedText, places: Sequence[Span], options: TokeniseOptions) -> TokenSequence:
        room = max(len(places), 1) if options.max_tokens is None else options.max_tokens - len(self._before)

        def piece(start: int, windows: tuple[TokenSequence, ...] = (), dropped: int = 0) -> TokenSequence:
            kept = places[start : start + room]
            before = self._before if kept else []
            ids = before + self._vocabulary.ids([marked.text[first:last].replace(" ", "▁") for first, last in kept])
            spans: list[Span] | None = None
            special: tuple[int, ...] = ()
            if options.spans:
                spans = [(0, 0)] * len(before) + [marked.span(*place) for place in kept]
                special = tuple(range(len(before)))
            if self._backward:
                ids.reverse()
                spans = None if spans is None else spans[::-1]
                special = tuple(len(ids) - 1 - position for position in special)
            return TokenSequence(ids, dropped=dropped, spans=spans, special=special, windows=windows)

        if options.truncation == "window_mean":
            return piece(0, windows=tuple(piece(start) for start in range(room, len(places), room)))
        dropped = max(len(places) - room, 0)
        return piece(dropped if options.truncation == "tail" else 0, dropped=dropped)


def _places(text: str) -> Iterator[Span]:
    """[start, end) of each token: the words, and what white space is between them beyond one space."""
    done = 0
    for start, end in word_spans(text, split_hyphens=True):
        if done:  # what is before the first word is left out, as what is after the last one
            gap = done + (text[done] == " ")
            if gap < start:
                yield gap, start
        yield start, end
        done = end
