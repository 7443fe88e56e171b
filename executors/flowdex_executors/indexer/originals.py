"""What is stored beside a document's passages so that the document comes back exactly as it was sent.

    text "Eins.  Zwei. Drei. "      passages "Eins.", "Zwei. Drei."        --gaps_between-->  "", "  ", end " "
    passages with their gaps        --join-->                              the same text

Passages hold nearly all of a text already: what they leave out, white space mostly, is stored with the passage that
follows it, and what they repeat (overlap) is known from their places. So an original costs next to nothing on disk, and
a search, which reads passages, never reads it. Where passages are not pieces of the text (a caller's own
chunks), the whole text is stored with the first one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from flowdex.fields import SEPARATOR, joined
from flowdex_executors.indexer.payload import BEFORE, ORIGINAL

__all__ = ["Gaps", "fields_of", "gaps_between", "original_of", "text_of"]

Span: TypeAlias = tuple[int, int]
Gaps: TypeAlias = list[str]
"""The text before each passage that no earlier one holds, and at the end the text after the last."""


def gaps_between(text: str, passages: Sequence[str], spans: Sequence[Span]) -> Gaps | None:
    """Find what of a text its passages leave out; None where they are not pieces of it."""
    gaps: Gaps = []
    end = 0
    for passage, (start, stop) in zip(passages, spans, strict=True):
        if start < 0 or text[start:stop] != passage or stop - start != len(passage):
            return None
        gaps.append(text[end:start])
        end = max(end, stop)
    return [*gaps, text[end:]]


def original_of(
    text: str | None, fields: Mapping[str, str] | None, *, passages: int, gaps: Gaps | None, own: bool, **kept: Any
) -> dict[str, Any]:
    """What the first passage's payload says about its document, beyond the obvious; empty for the simplest one.

    Args:
        text: Of the document.
        fields: Of the document.
        passages: How many it has.
        gaps: As `gaps_between` found them.
        own: Whether its vector was the caller's own.
        **kept: What else is kept as it came (`digest`, `segment`), where it is not None.
    """
    original: dict[str, Any] = {}
    if passages > 1:
        original["passages"] = passages
        original["length"] = len(text or "")
    if gaps is None:
        original["text"] = text
    elif gaps[-1]:
        original["end"] = gaps[-1]
    if fields:
        as_joined = joined(fields) == text
        original["fields"] = [[name, len(value) if as_joined else value] for name, value in fields.items()]
    original |= {name: value for name, value in kept.items() if value is not None}
    if own:
        original["own"] = True
    return original


def text_of(payloads: Iterable[Mapping[str, Any]]) -> str | None:
    """The text of a document, from the payloads of all its passages, in order."""
    parts: list[str] = []
    length = 0
    original: Mapping[str, Any] = {}
    for number, payload in enumerate(payloads):
        if number == 0:
            original = payload.get(ORIGINAL) or {}
            if "text" in original:
                text: str | None = original["text"]
                return text
        before = payload.get(BEFORE) or ""
        known = max(0, length + len(before) - int(payload["start"]))
        parts += (before, payload["text"][known:])
        length += len(before) + max(0, len(payload["text"]) - known)
    return "".join([*parts, original.get("end") or ""])


def fields_of(original: Mapping[str, Any], text: str | None) -> dict[str, str] | None:
    """The fields of a document whose text is known; None where it had none."""
    if "fields" not in original:
        return None
    fields: dict[str, str] = {}
    start = 0
    for name, value in original["fields"]:
        if isinstance(value, str):
            fields[name] = value
        else:
            fields[name] = (text or "")[start : start + int(value)]
            start += int(value) + len(SEPARATOR)
    return fields
