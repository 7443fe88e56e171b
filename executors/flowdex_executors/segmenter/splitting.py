"""Splitting a text into spans of a bounded number of tokens, at the best boundaries.

    text --window--> TextSplitter, which asks for counts --> spans
             ^                          |
             +- starts again at the last one

Where to cut is semantic-text-splitter's decision: between paragraphs if that fits, else lines, sentences, words (all by
Unicode's rules, which know languages without spaces), and inside of a word only when the word alone does not fit. Its
own way of counting tokenises every candidate anew, and its time grows with the square of a text without punctuation;
so it is given windows of some spans' length, and counts by looking up positions. The last span of a window may be cut
short by the window's end, and begins the next window instead. Both are invisible in the result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from flowdex_executors.segmenter.tokens import LocatedTokens

__all__ = ["Span", "fits", "split", "split_exactly", "stripped"]

# A span never has more characters than this times its tokens: a megabyte of base64 is one unknown "word" to some
# tokenizers, and must not become one passage. No prose comes near it.
_CHARACTERS_PER_TOKEN = 16
_SPANS_PER_WINDOW = 8
_WINDOW_GROWTH = 4


class Span(NamedTuple):
    """A part of a text: text[start:end]."""

    start: int
    end: int

    def covers(self, other: Span) -> bool:
        """Whether all of another span is in this one."""
        return self.start <= other.start and other.end <= self.end


def fits(tokens: LocatedTokens, start: int, end: int, max_tokens: int) -> bool:
    """Whether text[start:end] may be one span."""
    return end - start <= _CHARACTERS_PER_TOKEN * max_tokens and tokens.count(start, end) <= max_tokens


def stripped(text: str, start: int, end: int) -> Span | None:
    """The span without white space around it; None where there is nothing else."""
    part = text[start:end]
    content = part.strip()
    if not content:
        return None
    start += len(part) - len(part.lstrip())
    return Span(start, start + len(content))


def split(tokens: LocatedTokens, start: int, end: int, max_tokens: int, overlap: int = 0) -> Iterator[Span]:
    """The spans of text[start:end], in order; together they hold all of it that is not white space.

    Args:
        tokens: The text.
        start: Where to begin.
        end: Where to end.
        max_tokens: Most tokens of a span.
        overlap: Most tokens that a span repeats from the end of the one before it; less than `max_tokens`.
    """
    from semantic_text_splitter import TextSplitter

    text, max_characters = tokens.text, _CHARACTERS_PER_TOKEN * max_tokens
    counter = _Counter(tokens, max_tokens, max_characters)
    splitter = TextSplitter.from_callback(counter, max_tokens, overlap)
    position = start
    smallest = size = 2 * max_characters
    while position < end:
        is_last = position + size >= end
        window = text[position : end if is_last else position + size]
        counter.enter(position, window)
        pieces = splitter.chunk_indices(window)
        for offset, piece in pieces if is_last else pieces[:-1]:
            span = stripped(text, position + offset, position + offset + len(piece))
            if span is not None:  # the splitter leaves some control characters for text
                yield span
        if is_last:
            break
        if not pieces:  # white space only
            position += size
        elif len(pieces) > 1:
            last = pieces[-1][0]
            position += last
            # As many characters as some spans of this text have: a window costs more than in proportion.
            size = max(max_characters // 2, _SPANS_PER_WINDOW * last // (len(pieces) - 1))
        elif pieces[0][0]:
            position += pieces[0][0]
            size = max(size, smallest)
        else:  # nothing but this span and white space: look further
            size *= _WINDOW_GROWTH


def split_exactly(text: str, span: Span, count: Callable[[str], int], max_tokens: int) -> Iterator[Span]:
    """Split a span by a true count of every candidate, which is slow and always right."""
    from semantic_text_splitter import TextSplitter

    splitter = TextSplitter.from_callback(count, max_tokens)
    for offset, piece in splitter.chunk_indices(text[span.start : span.end]):
        part = stripped(text, span.start + offset, span.start + offset + len(piece))
        if part is not None:
            yield part


class _Counter:
    """The size of a candidate, which the splitter hands over as a text: its place is looked up in the window."""

    def __init__(self, tokens: LocatedTokens, max_tokens: int, max_characters: int) -> None:
        self._tokens = tokens
        self._max_tokens = max_tokens
        self._max_characters = max_characters
        self._position = 0
        self._window = ""
        self._cursor = 0

    def enter(self, position: int, window: str) -> None:
        self._position = position
        self._window = window
        self._cursor = 0

    def __call__(self, text: str) -> int:
        if len(text) > self._max_characters:
            return self._max_tokens + len(text) - self._max_characters
        # The splitter tries candidates of one start after the other, so the text is usually where the last one was.
        if not self._window.startswith(text, self._cursor):
            found = self._window.find(text, self._cursor)
            self._cursor = found if found >= 0 else self._window.find(text)
        start = self._position + self._cursor
        return self._tokens.count(start, start + len(text))
