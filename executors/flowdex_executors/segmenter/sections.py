"""Sections: the stretches of a text that have one context, which are its headings.

title, headings, text --find_sections--> [Section(span, head, above, below)]

# Guide            +- a section: headings without text between them begin one together
## Install         |  head; `above` it is nothing
Run this.          +  `below` it is ("Guide", "Install")
## Use             +- `above`: ("Guide",)
...                   `below`: ("Guide", "Use")
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from flowdex_executors.segmenter.markdown import Heading
from flowdex_executors.segmenter.splitting import Span

__all__ = ["Section", "find_sections"]


class Section(NamedTuple):
    """A stretch of text.

    Attributes:
        span: All of it.
        head: Its headings, at its start; empty for a text before the first heading.
        above: Titles of the headings over it, outermost first: the context of what contains the head.
        below: The same with its own: the context of the rest.
    """

    span: Span
    head: Span
    above: tuple[str, ...] = ()
    below: tuple[str, ...] = ()


def find_sections(text: str, headings: Sequence[Heading]) -> list[Section]:
    """Cut a text at its headings; those with nothing between them stay together."""
    sections: list[Section] = []
    path: list[Heading] = []
    first, *ends = (*(each.span.start for each in headings), len(text))
    if not headings or text[:first].strip():
        sections.append(Section(Span(0, first), Span(0, 0)))
    for heading, end in zip(headings, ends, strict=True):
        path = [each for each in path if each.level < heading.level]
        above = tuple(each.title for each in path if each.title)
        path.append(heading)
        section = Section(
            Span(heading.span.start, end), heading.span, above, (*above, heading.title) if heading.title else above
        )
        if sections and _is_only_head(text, sections[-1]):
            last = sections.pop()
            shared = [one for one, other in zip(last.above, above, strict=False) if one == other]
            section = section._replace(
                span=Span(last.span.start, end),
                head=Span(last.head.start, section.head.end),
                above=last.above[: len(shared)],
            )
        sections.append(section)
    return sections


def _is_only_head(text: str, section: Section) -> bool:
    return bool(section.head.end) and not text[section.head.end : section.span.end].strip()
