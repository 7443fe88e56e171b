"""The part of a text that is worth showing: a window around its highlights, on one line.

    text, highlights --best window--> cut at words --white space collapsed--> Snippet(text, highlights)

Offsets are in characters, ends exclusive, as everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Snippet", "snippet"]

_LEAD = 40  # characters shown before the first highlight, where the text goes on to the left
_WORD = 24  # how far a cut may move to meet white space; Chinese has none


@dataclass(frozen=True)
class Snippet:
    """A piece of text on one line.

    Attributes:
        text: The piece, with "…" where it was cut.
        highlights: (start, end) offsets into `text`, end exclusive, in order.
    """

    text: str
    highlights: tuple[tuple[int, int], ...] = ()


def snippet(text: str, highlights: Sequence[tuple[int, int]] = (), *, length: int = 240) -> Snippet:
    """Take about `length` characters of `text` that hold as much highlighted text as possible."""
    spans = sorted((max(0, start), min(end, len(text))) for start, end in highlights)
    spans = [(start, end) for start, end in spans if start < end]
    start, end = _window(text, spans, length)
    # Collapse white space; `places[i]` is where character start + i of the text went.
    pieces: list[str] = []
    places: list[int] = []
    size = 0
    for character in text[start:end]:
        places.append(size)
        if not character.isspace():
            pieces.append(character)
        elif pieces and pieces[-1] != " ":
            pieces.append(" ")
        else:
            continue
        size += 1
    places.append(size)
    line = "".join(pieces).rstrip()
    before, after = "…" if start > 0 else "", "…" if end < len(text) and text[end:].strip() else ""
    moved = []
    for left, right in spans:
        if right > start and left < end:
            new = places[max(left, start) - start], min(places[min(right, end) - start], len(line))
            if new[0] < new[1]:
                moved.append((new[0] + len(before), new[1] + len(before)))
    return Snippet(before + line + after, tuple(moved))


def _window(text: str, spans: Sequence[tuple[int, int]], length: int) -> tuple[int, int]:
    if len(text) <= length:
        return 0, len(text)
    best, most = 0, 0
    for first, _ in spans:
        start = 0 if first < length // 2 else first - _LEAD
        covered = sum(max(0, min(right, start + length) - max(left, start)) for left, right in spans)
        if covered > most:
            best, most = start, covered
    start = min(best, len(text) - length)
    end = start + length
    if start > 0:
        start = next((at for at in range(start, min(start + _WORD, end)) if text[at - 1].isspace()), start)
    if end < len(text):
        end = next((at for at in range(end, max(end - _WORD, start), -1) if text[at].isspace()), end)
    return start, end
