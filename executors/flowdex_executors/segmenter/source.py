r"""A document's text, whether it came as one or in fields.

{"title": ..., "body": ...} --compose--> Source: "title\n\nbody", where the title is, spans that weigh more or less
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from flowdex.fields import SEPARATOR, joined
from flowdex_executors.segmenter.splitting import Span, stripped

__all__ = ["Source", "compose"]


@dataclass(frozen=True, slots=True)
class Source:
    """What is cut.

    Attributes:
        text: The text.
        title: Where its title is, if it has one.
        weights: Spans of fields whose weight is not 1, with it.
    """

    text: str
    title: Span | None = None
    weights: tuple[tuple[Span, float], ...] = ()

    def weights_in(self, start: int, end: int) -> list[list[float]]:
        """[start, end, weight] of each weighted span in text[start:end], counted from `start`."""
        return [
            [max(span.start, start) - start, min(span.end, end) - start, weight]
            for span, weight in self.weights
            if span.start < end and start < span.end
        ]


def compose(fields: Mapping[str, str], weights: Mapping[str, float], title_field: str | None) -> Source:
    """Join the fields of a document."""
    spans: dict[str, Span] = {}
    position = 0
    for name, text in fields.items():
        spans[name] = Span(position, position + len(text))
        position += len(text) + len(SEPARATOR)
    text = joined(fields)
    title = spans.get(title_field) if title_field else None
    return Source(
        text,
        None if title is None else stripped(text, *title),
        tuple((span, weights[name]) for name, span in spans.items() if weights.get(name, 1) != 1 and span[0] < span[1]),
    )
