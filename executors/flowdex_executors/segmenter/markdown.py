"""The structure of a Markdown text: its headings, and its blocks with what they are made of.

    text --markdown-it, blocks only--> tokens with line numbers --> Outline(headings, blocks) in characters

Any CommonMark, and tables. Headings count where they stand at the top level: one in a quotation or in a code block is
none of the document's. A YAML front matter is a block.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, NamedTuple

from flowdex_executors.segmenter.splitting import Span, fits, split, stripped

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.token import Token

    from flowdex_executors.segmenter.tokens import LocatedTokens

__all__ = ["Block", "Heading", "Outline", "pack", "read_outline"]

_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n|\Z)")
_FRONT_MATTER = re.compile(r"\A---[ \t]*(?:\r?\n)[^\r\n]*:.*?^(?:---|\.\.\.)[ \t]*$", re.DOTALL | re.MULTILINE)


class Heading(NamedTuple):
    """A heading.

    Attributes:
        level: 1 for the highest.
        span: Where it is, its marks included.
        title: Its text without marks.
    """

    level: int
    span: Span
    title: str


@dataclass(frozen=True, slots=True)
class Block:
    """A paragraph, list, table, code block, ...

    Attributes:
        span: Its lines.
        children: What it is made of: the items of a list, the rows of a table; nothing for most.
    """

    span: Span
    children: tuple[Block, ...] = ()


class Outline(NamedTuple):
    """The headings and the blocks of a text, headings included, in order."""

    headings: list[Heading]
    blocks: list[Block]


def read_outline(text: str) -> Outline:
    """Read the structure of a text; of one that is no Markdown, paragraphs."""
    parser = _parser()
    lines = _LINE.findall(text)
    starts = list(accumulate(map(len, lines), initial=0))
    matter = _FRONT_MATTER.match(text)
    # Lines keep their numbers, so only their number matters.
    source = "\n".join(line.rstrip("\r\n") for line in lines)
    if matter:
        source = "\n" * matter[0].replace("\r\n", "\n").count("\n") + source[len(matter[0].replace("\r\n", "\n")) :]
    tokens: list[Token] = []
    parser.block.parse(source, parser, {}, tokens)
    headings: list[Heading] = []
    blocks = [Block(Span(0, matter.end()))] if matter else []
    blocks += _blocks(iter(tokens), starts)
    for token, content in pairwise(tokens):
        if token.type == "heading_open" and token.level == 0:
            lines_of = _span(token, starts)
            span = None if lines_of is None else stripped(text, *lines_of)
            if span is not None:
                headings.append(Heading(int(token.tag[1:]), span, _plain(parser, content.content)))
    return Outline(headings, blocks)


def _parser() -> MarkdownIt:
    from markdown_it import MarkdownIt

    return MarkdownIt("commonmark").enable("table")


def _blocks(tokens: Iterator[Token], starts: list[int]) -> Iterator[Block]:
    """Blocks up to the end of the one that is open."""
    for token in tokens:
        if token.nesting < 0:
            return
        children = tuple(_blocks(tokens, starts)) if token.nesting > 0 else ()
        span = _span(token, starts)
        if token.type == "inline":
            continue
        if span is None:
            yield from children
        else:
            yield Block(span, children)


def _span(token: Token, starts: list[int]) -> Span | None:
    if token.map is None:
        return None
    first, last = token.map
    return Span(starts[first], starts[min(last, len(starts) - 1)])


def _plain(parser: MarkdownIt, content: str) -> str:
    (inline,) = parser.parseInline(content)
    words = (child.content if child.content else " " for child in inline.children or () if child.nesting == 0)
    return " ".join("".join(words).split())


def pack(blocks: Iterable[Block], tokens: LocatedTokens, start: int, end: int, max_tokens: int) -> Iterator[Span]:
    """The spans of text[start:end]: as many blocks as fit in each, and blocks in parts only where they do not fit."""
    current: Span | None = None
    for span in _units(blocks, tokens, start, end, max_tokens):
        if current is None:
            current = span
        elif fits(tokens, current.start, span.end, max_tokens):
            current = Span(current.start, span.end)
        else:
            yield current
            current = span
    if current is not None:
        yield current


def _units(blocks: Iterable[Block], tokens: LocatedTokens, start: int, end: int, max_tokens: int) -> Iterator[Span]:
    """The largest blocks that fit, and parts of those that have none."""
    for block in _covering(blocks, start, end):
        span = stripped(tokens.text, *block.span)
        if span is None:
            continue
        if fits(tokens, span.start, span.end, max_tokens):
            yield span
        elif block.children:
            yield from _units(block.children, tokens, span.start, span.end, max_tokens)
        else:
            yield from split(tokens, span.start, span.end, max_tokens)


def _covering(blocks: Iterable[Block], start: int, end: int) -> Iterator[Block]:
    """The blocks within text[start:end], and blocks for what is in none, such as the definitions of links."""
    position = start
    for block in blocks:
        first, last = max(block.span.start, position), min(block.span.end, end)
        if last <= first:
            continue
        if first > position:
            yield Block(Span(position, first))
        yield Block(Span(first, last), block.children)
        position = last
    if position < end:
        yield Block(Span(position, end))
