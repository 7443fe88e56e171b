"""How many tokens any part of a text has, without tokenising the part.

    text --chunks--> words (most are known already) or pieces --tokenizer--> where tokens start --> count(start, end)

A tokenizer of the BERT kind first cuts at white space and around Chinese characters, and no token depends on what is
beyond such a place. So the tokens of a text are those of its words, whose counts are kept: prose is counted many times
faster than it is tokenised, and exactly. Other tokenizers look across words; their texts are tokenised once, in pieces,
and what is counted in the middle of a text may be off by a few tokens from what that part has by itself.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = ["LocatedTokens", "TokenCounter", "word_starts"]

_SPACE = " \t\n\r"  # no other: what is white space to Python is nothing at all to some tokenizers
_HAN = "\u3400-\u4dbf\u4e00-\u9fff"
_WORD = re.compile(f"[{_HAN}]|[^{_SPACE}{_HAN}]+")
_PIECE = re.compile(r".{1,4096}(?=\s|\Z)|.{1,4096}", re.DOTALL)
_BOUNDARY = re.compile(f"[{_SPACE}{_HAN}]")
_LONGEST_KEPT = 64  # characters; a longer word is hardly seen twice
_MOST_KEPT = 200_000


class TokenCounter:
    """Counts as a model's encoder does; one instance may be used from several threads.

    Args:
        tokenizer: The model's, without truncation and padding.
        lower_case: Whether texts are lowered before they are tokenised.

    Attributes:
        by_words: Whether no token depends on what is beyond white space.
    """

    def __init__(self, tokenizer: Tokenizer, *, lower_case: bool = False) -> None:
        self._tokenizer = tokenizer
        self._lower_case = lower_case
        self._known: dict[str, tuple[int, ...]] = {}
        self.by_words = _cuts_at_white_space(tokenizer)

    def count(self, text: str) -> int:
        """Tokens of a text, special ones not counted."""
        return self.counts([text])[0]

    def counts(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text."""
        lowered = [text.lower() for text in texts] if self._lower_case else texts
        return [len(encoding) for encoding in self._tokenizer.encode_batch_fast(lowered, add_special_tokens=False)]

    def locate(self, text: str) -> LocatedTokens:
        """Find where the tokens of a text start."""
        found = [(match.start(), match[0]) for match in (_WORD if self.by_words else _PIECE).finditer(text)]
        chunks = [chunk for _, chunk in found]
        offsets = self._of_words(chunks) if self.by_words else self._tokenised(chunks)
        return LocatedTokens(text, [start for start, _ in found], offsets, by_words=self.by_words)

    def _of_words(self, words: Sequence[str]) -> list[tuple[int, ...]]:
        known = self._known
        missing = [word for word in dict.fromkeys(words) if word not in known]
        if not missing:
            return [known[word] for word in words]
        new = dict(zip(missing, self._tokenised(missing), strict=True))
        found = [new[word] if word in new else known[word] for word in words]
        if len(known) > _MOST_KEPT:
            known = self._known = {}  # others may be reading the old one
        known.update((word, offsets) for word, offsets in new.items() if len(word) <= _LONGEST_KEPT)
        return found

    def _tokenised(self, chunks: Sequence[str]) -> list[tuple[int, ...]]:
        texts = [_lowered(chunk) for chunk in chunks] if self._lower_case else chunks
        encodings = self._tokenizer.encode_batch(texts, add_special_tokens=False)  # `encode` would hold the GIL
        return [tuple(start for start, _ in encoding.offsets) for encoding in encodings]


class LocatedTokens:
    """A text with its tokens.

    Args:
        text: The text.
        starts: Where its chunks start.
        offsets: Where the tokens of each chunk start, from the chunk's start.
        by_words: Whether the chunks are words, independent of each other.

    Attributes:
        text: The text.
    """

    def __init__(self, text: str, starts: Sequence[int], offsets: Sequence[tuple[int, ...]], *, by_words: bool) -> None:
        self.text = text
        self._starts = starts
        self._offsets = offsets
        self._before = list(accumulate(map(len, offsets), initial=0))
        self._by_words = by_words

    def count(self, start: int, end: int) -> int:
        """Tokens that start in text[start:end]."""
        return self._until(end) - self._until(start)

    def is_exact(self, start: int, end: int) -> bool:
        """Whether text[start:end] has just as many tokens by itself."""
        return self._by_words and self._is_boundary(start) and self._is_boundary(end)

    def _until(self, position: int) -> int:
        chunk = bisect_right(self._starts, position) - 1
        if chunk < 0:
            return 0
        return self._before[chunk] + bisect_left(self._offsets[chunk], position - self._starts[chunk])

    def _is_boundary(self, position: int) -> bool:
        if not 0 < position < len(self.text):
            return True
        return _BOUNDARY.search(self.text, position - 1, position + 1) is not None


def _cuts_at_white_space(tokenizer: Tokenizer) -> bool:
    normalizer = tokenizer.normalizer
    return (
        type(tokenizer.pre_tokenizer).__name__ == "BertPreTokenizer"
        and type(normalizer).__name__ == "BertNormalizer"
        and normalizer.clean_text
        and normalizer.handle_chinese_chars
        and not any(_BOUNDARY.search(token.content) for token in tokenizer.get_added_tokens_decoder().values())
    )


def word_starts(text: str) -> list[int]:
    """Where the words of a text start, but for the first one: after white space, and at Chinese characters."""
    return [match.start() for match in _WORD.finditer(text)][1:]


def _lowered(text: str) -> str:
    """The text in lower case, of the same length: a letter that becomes two stays as it is."""
    lowered = text.lower()
    if len(lowered) == len(text):
        return lowered
    return "".join(low if len(low := letter.lower()) == 1 else letter for letter in text)
