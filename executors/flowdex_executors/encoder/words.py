"""Words of a text, with the characters they cover, for the families whose vocabulary is words.

    "Don't panic, Dr. Who's well-known!" -> Do n't panic , Dr. Who 's well-known !

The conventions are those of the Penn Treebank, which the vocabularies of GloVe, ELMo and ULMFiT were made with (by the
Stanford tokenizer, by spaCy): punctuation stands by itself, contractions are split before their clitic, abbreviations
and numbers stay whole. Nothing is lowered or rewritten: a word is a slice of the text. White space is in no word.

It is one regular expression that looks ahead a bounded way, so that no text takes more than linear time.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flowdex_executors.encoder.tokenising import Span

__all__ = ["split_words", "word_spans"]

_TITLES = "mr|mrs|ms|dr|prof|rev|gen|sen|rep|gov|capt|col|lt|sgt|st|jr|sr|inc|ltd|co|corp|vs|etc"
_JOINERS = "\u200c\u200d"  # invisible, within words of Persian and of Indian languages
_SELECTORS = "\U000e0100-\U000e01ef"  # which form of an ideograph is meant: the only marks beyond the first two planes
_MARKS_END = 0x20000


def word_spans(text: str, *, split_hyphens: bool = False) -> list[Span]:
    """[start, end) of each word, in characters.

    Args:
        text: Any text.
        split_hyphens: Whether "well-known" is three words, as spaCy has it, or one, as the Stanford tokenizer does.
    """
    return [match.span() for match in _pattern(split_hyphens).finditer(text)]


def split_words(text: str, *, split_hyphens: bool = False) -> list[str]:
    """The words themselves; see `word_spans`."""
    return [text[start:end] for start, end in word_spans(text, split_hyphens=split_hyphens)]


@cache
def _pattern(split_hyphens: bool) -> re.Pattern[str]:
    marks = _JOINERS + _SELECTORS + _marks()
    letter = rf"[\w{marks}]"
    clitic = r"(?:s|m|d|ll|re|ve)\b"
    inside = rf"['’](?!{clitic}|t\b)" + ("" if split_hyphens else "|-")  # O'Neill, rock'n'roll
    return re.compile(
        "|".join(
            [
                r"(?:https?://|www\.)[^\s<>\"]{0,1000}[\w/]",
                r"[\w.+]{1,64}@\w{1,64}(?:[.-]\w{1,64})+",
                r"n['’]t\b",
                rf"['’]{clitic}",
                r"\b(?:can(?=not\b)|gon(?=na\b)|got(?=ta\b))",
                r"\b(?:[^\W\d_]\.){2,}",  # U.S., e.g.
                rf"\b(?:{_TITLES})\.(?!\w)",
                r"\d+(?:[.,:]\d+)+",
                r"\w+?(?=n['’]t\b)",
                rf"{letter}+(?:(?:{inside}){letter}+)*",
                r"\.{2,}",
                r"-{2,}",
                rf"[^\w\s][{marks}]*",
            ]
        ),
        re.IGNORECASE,
    )


@cache
def _marks() -> str:
    r"""The combining marks (accents, vowel signs), which `\w` has not, as the inside of a character class."""
    marks = [code for code in range(_MARKS_END) if unicodedata.category(chr(code))[0] == "M"]
    starts = [code for code in marks if not unicodedata.category(chr(code - 1)).startswith("M")]
    ends = [code for code in marks if not unicodedata.category(chr(code + 1)).startswith("M")]
    return "".join(f"{chr(start)}-{chr(end)}" for start, end in zip(starts, ends, strict=True))
