"""Texts in the order of how well they answer a query, without an index.

query, texts --to_batch--> one document with `matches` --/rank--> its matches, best first --from_batch--> RankedText
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from flowdex.documents import DocumentBatch
from flowdex.errors import InternalError

__all__ = ["RankMethod", "RankedText", "from_batch", "to_batch"]

RankMethod = Literal["late_interaction", "cross_encoder", "dense"]


@dataclass(frozen=True)
class RankedText:
    """A text, and how well it answers the query.

    Attributes:
        index: Its position among those that were sent, from 0.
        score: Higher is better; what it means depends on the method.
        text: Itself.
    """

    index: int
    score: float
    text: str

    def to_dict(self) -> dict[str, Any]:
        """As JSON-like values."""
        return {"index": self.index, "score": self.score, "text": self.text}


def to_batch(query: str, texts: Sequence[str]) -> DocumentBatch:
    """What is sent to /rank; the texts' positions are their ids."""
    batch = DocumentBatch.from_columns(texts=[query])
    batch.set_nested("matches", [DocumentBatch.from_columns(ids=[str(i) for i in range(len(texts))], texts=texts)])
    return batch


def from_batch(reply: DocumentBatch, texts: Sequence[str]) -> list[RankedText]:
    """Read the answer to `to_batch`.

    Raises:
        InternalError: It is none: an executor of the flow has changed what it should have passed on.
    """
    ranked = []
    for matches in reply.nested("matches")[:1]:
        for id_, scores in zip(matches.ids, matches.column("scores", {}), strict=True):
            if not id_.isdecimal() or int(id_) >= len(texts) or "score" not in scores:
                raise InternalError(f"/rank answered a text {id_!r} that was not sent, or that has no score")
            ranked.append(RankedText(int(id_), float(scores["score"]), texts[int(id_)]))
    return ranked
