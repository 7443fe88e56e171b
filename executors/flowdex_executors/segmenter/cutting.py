"""From a document's text to its passages, each with its context, within the budget of the encoder.

    Source --mode--> sections --cut within room(context)--> spans --check--> [Passage(text, start, end, context, ...)]

    | prompt | context, line break | text |      all of it together has at most max_tokens
             |  at most a quarter  |

What the encoder reads before a passage is counted with it. A passage that shows a title or heading itself does not have
it as context too, so the first passage of a section usually has more room than the next ones: where the context grows,
cutting starts anew with less room.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, NamedTuple, TypeAlias, get_args

from flowdex_executors.segmenter.budget import Budget
from flowdex_executors.segmenter.markdown import Block, Heading, pack, read_outline
from flowdex_executors.segmenter.sections import Section, find_sections
from flowdex_executors.segmenter.sentences import find_sentences
from flowdex_executors.segmenter.source import Source
from flowdex_executors.segmenter.splitting import Span, fits, split, split_exactly, stripped
from flowdex_executors.segmenter.tokens import LocatedTokens, TokenCounter

__all__ = ["MODES", "Cutter", "Mode", "Passage"]

Mode: TypeAlias = Literal["passage", "sentence", "markdown", "document"]
MODES: tuple[Mode, ...] = get_args(Mode)


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of a document: `text == source[start:end]`, without white space around it.

    Attributes:
        text: Its text.
        start: Where it is in the document's text.
        end: Where it ends, exclusive.
        context: What to encode before it; empty for nothing.
        weights: [start, end, weight] of spans of its text that weigh more or less than 1.
    """

    text: str
    start: int
    end: int
    context: str = ""
    weights: list[list[float]] = field(default_factory=list)


@dataclass(frozen=True)
class Cutter:
    """Cuts texts; one instance may be used from several threads.

    Attributes:
        counter: Counts tokens as the encoder does.
        max_tokens: Most tokens of a passage with its context and the prompt, special tokens not counted.
        overlap: Most tokens that a passage repeats from the one before it, in the mode "passage".
        sentences: Sentences of a passage, in the mode "sentence".
        sentence_overlap: How many of them it repeats from the one before it; less than `sentences`.
        language: Of the sentences' abbreviations.
    """

    counter: TokenCounter
    max_tokens: int
    overlap: int = 0
    sentences: int = 1
    sentence_overlap: int = 0
    language: str = "en"

    def cut(self, source: Source, mode: Mode, prompt: str = "") -> list[Passage]:
        """The passages of a text in order; together they hold all of it that is not white space.

        Args:
            source: The text.
            mode: How to cut it.
            prompt: What the encoder reads before each passage.

        Raises:
            InvalidInput: The prompt leaves no room.
        """
        text = source.text
        if mode == "document":
            whole = stripped(text, 0, len(text))
            found = [] if whole is None else [_Found(whole, "")]
        else:
            tokens = self.counter.locate(text)
            budget = Budget(self.counter, self.max_tokens, prompt)
            sections, spans_of = self._plan(source, tokens, mode)
            found = [each for section in sections for each in _cut_section(source, section, spans_of, budget)]
            found = _with_tokens(_checked(found, tokens, budget), tokens, self.counter)
        return [
            Passage(text[slice(*span)], *span, context=context, weights=source.weights_in(*span))
            for span, context in found
        ]

    def _plan(self, source: Source, tokens: LocatedTokens, mode: Mode) -> tuple[list[Section], _Spans]:
        """The sections of a text, and what cuts them."""
        text = source.text
        if mode == "markdown":
            headings, blocks = read_outline(text)
            if source.title is not None and not text[: source.title.start].strip():
                # The headings that follow a title at once stay with it.
                headings = [Heading(0, source.title, ""), *(each for each in headings if each.span > source.title)]
            return find_sections(text, headings), partial(
                _packed, tokens=tokens, blocks=blocks, starts=[each.span.start for each in blocks]
            )
        sections = [Section(Span(0, len(text)), Span(0, 0))]
        if mode == "sentence":
            sentences = find_sentences(text, self.language)
            return sections, partial(
                _windows, tokens=tokens, sentences=sentences, size=self.sentences, overlap=self.sentence_overlap
            )
        return sections, partial(_passages, tokens=tokens, overlap=self.overlap, title=source.title)


class _Found(NamedTuple):
    span: Span
    context: str


# ---- the modes: spans of text[start:end] of at most so many tokens ----

_Spans: TypeAlias = Callable[[int, int, int], Iterator[Span]]


def _passages(
    start: int, end: int, max_tokens: int, *, tokens: LocatedTokens, overlap: int, title: Span | None
) -> Iterator[Span]:
    """As much as fits; a title before the text is no passage by itself, but begins the first one."""
    overlap = min(overlap, max_tokens - 1)
    if title is not None and not tokens.text[start : title.start].strip() and start <= title.start:
        room = max_tokens - tokens.count(*title)
        if room > max_tokens // 2:
            spans = split(tokens, title.end, end, room, min(overlap, room - 1))
            yield Span(title.start, next(spans, title).end)
            rest = next(spans, None)
            if rest is None:
                return
            start = rest.start
    yield from split(tokens, start, end, max_tokens, overlap)


def _windows(
    start: int, end: int, max_tokens: int, *, tokens: LocatedTokens, sentences: Sequence[Span], size: int, overlap: int
) -> Iterator[Span]:
    """As many sentences as are wanted and fit; one that does not fit by itself in parts."""
    first = bisect_right(sentences, (start, len(tokens.text)))
    if first and sentences[first - 1].end > start:
        first -= 1  # the rest of a sentence that was begun
    while first < len(sentences) and sentences[first].start < end:
        begin, last = max(sentences[first].start, start), first
        while last + 1 < min(first + size, len(sentences)) and fits(tokens, begin, sentences[last + 1].end, max_tokens):
            last += 1
        if fits(tokens, begin, sentences[last].end, max_tokens):
            yield Span(begin, sentences[last].end)
        else:
            yield from split(tokens, begin, sentences[last].end, max_tokens)
        if last + 1 == len(sentences):
            return
        first = max(first + 1, last + 1 - overlap)


def _packed(
    start: int, end: int, max_tokens: int, *, tokens: LocatedTokens, blocks: Sequence[Block], starts: Sequence[int]
) -> Iterator[Span]:
    first = max(0, bisect_right(starts, start) - 1)
    return pack(blocks[first : bisect_left(starts, end)], tokens, start, end, max_tokens)


# ---- contexts ----


def _cut_section(source: Source, section: Section, spans_of: _Spans, budget: Budget) -> Iterator[_Found]:
    """Cut a section, anew from where the context changes to one that leaves less room."""

    def context_of(span: Span) -> str:
        path = section.above if span.covers(section.head) else section.below
        if source.title is None or span.covers(source.title):
            return budget.context(path)
        title = " ".join(source.text[slice(*source.title)].split())
        return budget.context(path if path[:1] == (title,) else (title, *path))

    position: int | None = section.span.start
    room = budget.room("")
    while position is not None:
        again = None
        for span in spans_of(position, section.span.end, room):
            context = context_of(span)
            needed = budget.room(context)
            if needed < room:
                again, room = span.start, needed
                break
            yield _Found(span, context)
        position = again


# ---- checks ----


def _checked(found: Sequence[_Found], tokens: LocatedTokens, budget: Budget) -> list[_Found]:
    """Split again what, tokenised by itself, has more tokens than it has as a part of its text."""
    prefixes = [budget.prefix(each.context) for each in found]
    doubtful = [
        index
        for index, (each, prefix) in enumerate(zip(found, prefixes, strict=True))
        if not tokens.is_exact(*each.span) or (prefix and not prefix[-1].isspace())
    ]
    if not doubtful:
        return list(found)
    counts = budget.counter.counts([prefixes[index] + tokens.text[slice(*found[index].span)] for index in doubtful])
    too_long = {index for index, count in zip(doubtful, counts, strict=True) if count > budget.max_tokens}
    checked: list[_Found] = []
    for index, each in enumerate(found):
        if index in too_long:

            def count(part: str, prefix: str = prefixes[index]) -> int:
                return budget.counter.count(prefix + part)

            parts = split_exactly(tokens.text, each.span, count, budget.max_tokens)
            checked += (each._replace(span=part) for part in parts)
        else:
            checked.append(each)
    return sorted(checked)  # where passages overlap, a part may start after the next one does


def _with_tokens(found: Sequence[_Found], tokens: LocatedTokens, counter: TokenCounter) -> list[_Found]:
    """Join what has no token, such as a lone control character, to its neighbour: an encoder cannot work on it."""
    joined: list[_Found] = []
    was_empty = False
    for each in found:
        is_empty = not tokens.count(*each.span) and not counter.count(tokens.text[slice(*each.span)])
        if joined and (is_empty or was_empty):
            last = joined.pop()
            span = Span(last.span.start, max(last.span.end, each.span.end))
            joined.append(_Found(span, last.context if is_empty else each.context))
            was_empty = was_empty and is_empty
        else:
            joined.append(each)
            was_empty = is_empty
    return joined
