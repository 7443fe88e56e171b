"""Words of a text, with the characters they cover, for the families whose vocabulary is words.

    "Don't panic, Dr. Who's well-known!" -> Do n't panic , Dr. Who 's well-known !

The conventions are those of the Penn Treebank, which the vocabularies of GloVe, ELMo and ULMFiT were made with (by the
Stanford tokenizer, by spaCy): punctuation stands by itself, contractions are split before their clitic, abbreviations
and numbers stay whole. Nothing is lowered or rewritten: a word is a slice of the text. White space is in no word.

It is one regular expression that looks ahead a bounded way, so that no text takes more than linear time.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flowdex_executors.encoder.tokenising import Span

__all__ = ["split_words", "word_spans"]

_CLITIC = r"(?:s|m|d|ll|re|ve)\b"
_TITLES = "mr|mrs|ms|dr|prof|rev|gen|sen|rep|gov|capt|col|lt|sgt|st|jr|sr|inc|ltd|co|corp|vs|etc"
_JOINED = r"['’](?!" + _CLITIC + r"|t\b)"  # inside of a word: O'Neill, rock'n'roll

_WORDS = re.compile(
    "|".join(
        [
            r"(?:https?://|www\.)[^\s<>\"]{0,1000}[\w/]",
            r"[\w.+]{1,64}@\w{1,64}(?:[.-]\w{1,64})+",
            r"n['’]t\b",
            r"['’]" + _CLITIC,
            r"\b(?:can(?=not\b)|gon(?=na\b)|got(?=ta\b))",
            r"\b(?:[^\W\d_]\.){2,}",  # U.S., e.g.
            r"\b(?:" + _TITLES + r")\.(?!\w)",
            r"\d+(?:[.,:]\d+)+",
            r"\w+?(?=n['’]t\b)",
            r"\w+(?:(?:{hyphen}" + _JOINED + r")\w+)*",
            r"\.{2,}",
            r"-{2,}",
            r"[^\w\s]",
        ]
    ).replace("{hyphen}", "-|"),
    re.IGNORECASE,
)
_WORDS_WITHOUT_HYPHENS = re.compile(_WORDS.pattern.replace("(?:-|['’]", "(?:['’]"), re.IGNORECASE)


def word_spans(text: str, *, split_hyphens: bool = False) -> list[Span]:
    """[start, end) of each word, in characters.

    Args:
        text: Any text.
        split_hyphens: Whether "well-known" is three words, as spaCy has it, or one, as the Stanford tokenizer does.
    """
    pattern = _WORDS_WITHOUT_HYPHENS if split_hyphens else _WORDS
    return [match.span() for match in pattern.finditer(text)]


def split_words(text: str, *, split_hyphens: bool = False) -> list[str]:
    """The words themselves; see `word_spans`."""
    return [text[start:end] for start, end in word_spans(text, split_hyphens=split_hyphens)]
