"""Splitting a text into passages of a bounded number of tokens, at the best boundaries, with their offsets.

    text --window--> tokenise once --TextSplitter--> passages --check each--> passages
             ^                                          |
             +----- starts again at the last one -------+

Where to cut is semantic-text-splitter's decision: between paragraphs if that fits, else lines, sentences, words (all by
Unicode's rules, which know languages without spaces), and inside of a word only when the word alone does not fit. Its
own way of counting tokenises every candidate anew, and its time grows with the square of a text without punctuation;
so it is given windows of some passages' length, whose tokens were located once, and counts by looking up positions. The
last passage of a window may be cut short by the window's end, and begins the next window instead. Both are invisible in
the result but for the time, which is that of tokenising the text twice.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flowdex.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from tokenizers import Tokenizer

__all__ = ["Passage", "PassageSplitter"]

# A passage never has more characters than this times its tokens: a megabyte of base64 is one unknown "word" to some
# tokenizers, and must not become one passage. No prose comes near it.
_CHARACTERS_PER_TOKEN = 16
_PASSAGES_PER_WINDOW = 8
_WINDOW_GROWTH = 4


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of a text: `text == source[start:end]`, without white space around it."""

    text: str
    start: int
    end: int


class PassageSplitter:
    """Splits texts; one instance may be used from several threads.

    Args:
        tokenizer: Counts tokens; without truncation and padding.
        max_tokens: Most tokens of a passage, special tokens not counted.
        overlap: Most tokens that a passage repeats from the end of the one before it.

    Raises:
        ConfigurationError: `overlap` is not less than `max_tokens`.
    """

    def __init__(self, tokenizer: Tokenizer, max_tokens: int, overlap: int = 0) -> None:
        if not 0 <= overlap < max_tokens:
            raise ConfigurationError(f"overlap must be from 0 to less than max_tokens ({max_tokens}), got {overlap}")
        self._tokenizer = tokenizer
        self.max_tokens = max_tokens
        self.overlap = overlap
        self._max_characters = _CHARACTERS_PER_TOKEN * max_tokens

    def split(self, text: str) -> list[Passage]:
        """The passages of a text, in order; together they hold all of it that is not white space."""
        from semantic_text_splitter import TextSplitter

        counter = _Counter(self._tokenizer, self.max_tokens, self._max_characters)
        splitter = TextSplitter.from_callback(counter, self.max_tokens, self.overlap)
        passages: list[Passage] = []
        position = 0
        smallest = size = 2 * self._max_characters
        while position < len(text):
            window = text[position : position + size]
            counter.enter(window)
            pieces = splitter.chunk_indices(window)
            is_last = position + size >= len(text)
            passages += _passages(pieces if is_last else pieces[:-1], position)
            if is_last:
                break
            if not pieces:  # white space only
                position += size
            elif len(pieces) > 1:
                last = pieces[-1][0]
                position += last
                # As many characters as some passages of this text have: a window costs more than in proportion.
                size = max(self._max_characters // 2, _PASSAGES_PER_WINDOW * last // (len(pieces) - 1))
            elif pieces[0][0]:
                position += pieces[0][0]
                size = max(size, smallest)
            else:  # nothing but this passage and white space: look further
                size *= _WINDOW_GROWTH
        return self._checked(passages)

    def _checked(self, passages: Sequence[Passage]) -> list[Passage]:
        """Split again what, tokenised by itself, has more tokens than it has as a part of its text."""
        from semantic_text_splitter import TextSplitter

        fitting: list[Passage] = []
        for passage, size in zip(passages, self._count([passage.text for passage in passages]), strict=True):
            if size <= self.max_tokens:
                fitting.append(passage)
            else:
                splitter = TextSplitter.from_huggingface_tokenizer(self._tokenizer, self.max_tokens, self.overlap)
                fitting += _passages(splitter.chunk_indices(passage.text), passage.start)
        return fitting

    def _count(self, texts: Sequence[str]) -> list[int]:
        return [len(encoding) for encoding in self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)]


def _passages(pieces: Iterable[tuple[int, str]], position: int) -> Iterator[Passage]:
    """Passages of pieces whose offsets count from `position`; the splitter leaves some control characters for text."""
    for offset, piece in pieces:
        text = piece.strip()
        if text:
            start = position + offset + len(piece) - len(piece.lstrip())
            yield Passage(text, start, start + len(text))


class _Counter:
    """The size of a candidate passage: its tokens, counted by where the window's tokens start."""

    def __init__(self, tokenizer: Tokenizer, max_tokens: int, max_characters: int) -> None:
        self._tokenizer = tokenizer
        self._max_tokens = max_tokens
        self._max_characters = max_characters
        self._window = ""
        self._starts: list[int] = []
        self._cursor = 0

    def enter(self, window: str) -> None:
        self._window = window
        (encoding,) = self._tokenizer.encode_batch([window], add_special_tokens=False)  # `encode` would hold the GIL
        self._starts = [start for start, _ in encoding.offsets]
        self._cursor = 0

    def __call__(self, text: str) -> int:
        if len(text) > self._max_characters:
            return self._max_tokens + len(text) - self._max_characters
        # The splitter tries candidates of one start after the other, so the text is usually where the last one was.
        if not self._window.startswith(text, self._cursor):
            position = self._window.find(text, self._cursor)
            self._cursor = position if position >= 0 else self._window.find(text)
        end = self._cursor + len(text)
        return bisect_left(self._starts, end) - bisect_left(self._starts, self._cursor)
