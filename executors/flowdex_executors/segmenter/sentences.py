"""Sentences of a text, in the languages it is written in.

    text --windows--> sentencex: where sentences end --a few corrections--> spans

sentencex (Wikimedia's) knows abbreviations, quotations, numbers, lists and the full stops of some 300 languages, and
rather leaves two sentences together than cuts one in two. What is corrected here are its few mistakes that show in
mixed Chinese, Japanese and English text; tests/unit/segmenter/test_sentences.py measures it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from flowdex_executors.segmenter.splitting import Span, stripped

__all__ = ["find_sentences"]

_WINDOW = 8192  # characters; the library's time grows with the square of a paragraph full of opening quotes
_WINDOW_GROWTH = 4

# No end of a sentence: a quotation that goes on into who said it, and a reference that lacks its number.
_QUOTED = re.compile(r"[」』”’]\s*\Z")
_GOES_ON = re.compile(r"\s*(?:と|って|という|との|[^\s，。！？]{0,3}[说說问問喊答道])")
_REFERENCE = re.compile(r"\b(?:Eqn?s?|Figs?|Secs?|Refs?|Tabs?|Chs?|Vols?|Nos?|pp?)\.\s*\Z", re.IGNORECASE)
_NUMBER = re.compile(r"\s*[(\[]?\d")
# An end that the library sees only where a Chinese character or a capital follows.
_FULL_STOP = re.compile(r"[。｡！？][”’」』）)\]]*(?=[a-z0-9])")
_PAIRS = (("“", "”"), ("「", "」"), ("『", "』"), ("（", "）"))


def find_sentences(text: str, language: str = "en") -> list[Span]:
    """The sentences in their order, without the white space between them.

    Args:
        text: The text.
        language: ISO 639 code of the language whose abbreviations count. Full stops of all languages always do.
    """
    spans: list[Span] = []
    for start, end in _corrected(text, _boundaries(text, language)):
        span = stripped(text, start, end)
        if span is None:
            continue
        if spans and not any(map(str.isalnum, text[span.start : span.end])):  # a lone mark belongs to what it ends
            spans[-1] = Span(spans[-1].start, span.end)
        else:
            spans.append(span)
    return spans


def _boundaries(text: str, language: str) -> Iterator[int]:
    """Where sentences end by the library."""
    from sentencex import get_sentence_boundaries  # type: ignore[import-untyped]

    position, size = 0, _WINDOW
    while position < len(text):
        window = text[position : position + size]
        is_last = position + size >= len(text)
        ends = [each["end_index"] for each in get_sentence_boundaries(language, window)]
        if not is_last:
            ends.pop()  # the window's end, which says nothing
            if not ends:
                size *= _WINDOW_GROWTH
                continue
        yield from (position + end for end in ends)
        position += ends[-1]
        size = _WINDOW


def _corrected(text: str, ends: Iterator[int]) -> Iterator[tuple[int, int]]:
    start = seen = 0
    for end in ends:
        for stop in _FULL_STOP.finditer(text, seen, end):
            if not _is_open(text[start : stop.end()]):
                yield start, stop.end()
                start = stop.end()
        seen = end
        if end == len(text) or not _is_within(text, start, end):
            yield start, end
            start = end
    if start < len(text):
        yield start, len(text)


def _is_within(text: str, start: int, end: int) -> bool:
    """Whether a boundary is none."""
    before = text[max(start, end - 16) : end]
    if _QUOTED.search(before):
        return _GOES_ON.match(text, end) is not None
    return _REFERENCE.search(before) is not None and _NUMBER.match(text, end) is not None


def _is_open(text: str) -> bool:
    """Whether the text ends inside of a quotation."""
    return any(text.count(left) > text.count(right) for left, right in _PAIRS)
