"""What the client's methods return: plain data classes that print well in a terminal and in a notebook.

    SearchResult (one query) -> Hit (a document) -> Passage (a piece of it that matched)
    IndexResult -> IndexFailure          FlowStatus -> ExecutorStatus

All of them turn into JSON-like dictionaries with `to_dict()`.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, overload

from flowdex.errors import FlowdexError
from flowdex.snippets import snippet

__all__ = [
    "ExecutorStatus",
    "FlowStatus",
    "Hit",
    "IndexFailure",
    "IndexResult",
    "Passage",
    "SearchResult",
    "Span",
]

Span = tuple[int, int]


# ---- search ----


@dataclass(frozen=True)
class Passage:
    """A piece of a document that matched.

    Attributes:
        id: Its own id, "<document id>#<number>".
        text: Its text.
        location: (start, end) character offsets into the document's text, end exclusive; None where unknown.
        score: How well it matches; higher is better.
        scores: All scores by name, as in `Hit`.
        explain: As in `Hit`.
    """

    id: str
    text: str
    location: Span | None = None
    score: float = 0.0
    scores: Mapping[str, float] = field(default_factory=dict)
    explain: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """As JSON-like values."""
        return {
            "id": self.id,
            "text": self.text,
            "location": _span(self.location),
            "score": self.score,
            "scores": dict(self.scores),
            **({"explain": dict(self.explain)} if self.explain else {}),
        }


@dataclass(frozen=True)
class Hit:
    """A document that matched; or a passage of it, where a search asks for passages.

    Attributes:
        id: Its id.
        score: How well it matches; higher is better.
        text: Its best passage.
        tags: The document's tags.
        location: (start, end) character offsets of `text` in the document's text, end exclusive; None where unknown.
        highlights: (start, end) character offsets into `text` of what matched, end exclusive.
        scores: All scores by name, those that are known: "score" (the one above), "dense", "sparse", "rerank".
        passages: Its matching passages, best first.
        explain: With `explain=True`, for each stage that ranked it ("dense", "sparse", "fusion", "rerank") its `rank`,
            from 1, and its `score`.
        parent_id: Of a passage, the id of its document.
    """

    id: str
    score: float
    text: str = ""
    tags: Mapping[str, Any] = field(default_factory=dict)
    location: Span | None = None
    highlights: Sequence[Span] = ()
    scores: Mapping[str, float] = field(default_factory=dict)
    passages: Sequence[Passage] = ()
    explain: Mapping[str, Any] = field(default_factory=dict)
    parent_id: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """As JSON-like values."""
        return {
            "id": self.id,
            "score": self.score,
            "text": self.text,
            "tags": dict(self.tags),
            "location": _span(self.location),
            "highlights": [list(each) for each in self.highlights],
            "scores": dict(self.scores),
            "passages": [each.to_dict() for each in self.passages],
            **({"explain": dict(self.explain)} if self.explain else {}),
            **({"parent_id": self.parent_id} if self.parent_id else {}),
        }


@dataclass(frozen=True)
class SearchResult:
    """The answer to one query: a sequence of hits, best first.

    Attributes:
        query: The query's text.
        hits: The documents found.
        took_ms: Milliseconds from sending the request to having its answer.
        notes: What to know of this answer, such as that there was no time to rerank.
    """

    query: str
    hits: list[Hit] = field(default_factory=list)
    took_ms: float = 0.0
    notes: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.hits)

    def __iter__(self) -> Iterator[Hit]:
        return iter(self.hits)

    @overload
    def __getitem__(self, index: int) -> Hit: ...
    @overload
    def __getitem__(self, index: slice) -> list[Hit]: ...
    def __getitem__(self, index: int | slice) -> Hit | list[Hit]:
        return self.hits[index]

    def to_dict(self) -> dict[str, Any]:
        """As JSON-like values."""
        return {
            "query": self.query,
            "hits": [hit.to_dict() for hit in self.hits],
            "took_ms": self.took_ms,
            "notes": list(self.notes),
        }

    def __str__(self) -> str:
        lines = [f"{self.query!r}: {counted(len(self.hits), 'hit')} in {self.took_ms:.0f} ms"]
        for rank, hit in enumerate(self.hits, 1):
            lines.append(f"{rank:>3}  {hit.score:.4f}  {hit.id}")
            shown = snippet(hit.text, hit.highlights).text
            lines.append(textwrap.fill(shown, 96, initial_indent=" " * 5, subsequent_indent=" " * 5))
        lines += [f"note: {note}" for note in self.notes]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        from html import escape

        rows = []
        for rank, hit in enumerate(self.hits, 1):
            shown = snippet(hit.text, hit.highlights)
            marked, at = "", 0
            for start, end in shown.highlights:
                marked += f"{escape(shown.text[at:start])}<mark>{escape(shown.text[start:end])}</mark>"
                at = end
            marked += escape(shown.text[at:])
            cells = (str(rank), f"{hit.score:.4f}", escape(hit.id), marked)
            rows.append("<tr>" + "".join(f'<td style="text-align:left">{cell}</td>' for cell in cells) + "</tr>")
        title = f"{escape(self.query)}: {counted(len(self.hits), 'hit')} in {self.took_ms:.0f} ms"
        head = "<tr>" + "".join(f"<th>{name}</th>" for name in ("", "score", "id", "passage")) + "</tr>"
        return f"<table><caption>{title}</caption><thead>{head}</thead><tbody>{''.join(rows)}</tbody></table>"


# ---- indexing ----


@dataclass(frozen=True)
class IndexFailure:
    """A document that was not indexed.

    Attributes:
        id: Its id, where one is known.
        position: Its position in the input, from 0.
        error: Why.
    """

    id: str | None
    position: int
    error: FlowdexError

    def to_dict(self) -> dict[str, Any]:
        """As JSON-like values."""
        return {"id": self.id, "position": self.position, "error": self.error.message}


@dataclass
class IndexResult:
    """What an `index` call has done.

    Attributes:
        documents: How many documents were stored.
        passages: How many passages they were split into.
        ids: Their ids, in the order of the input; empty with `return_ids=False`.
        failures: What was left out; always empty unless called with `on_error="collect"`.
        took_ms: Milliseconds from the first document read to the last answer.
        unchanged: How many were left alone with `resume=True`, because they are in the index as they are; they are not
            among `documents` and `ids`.
    """

    documents: int = 0
    passages: int = 0
    ids: list[str] = field(default_factory=list, repr=False)
    failures: list[IndexFailure] = field(default_factory=list)
    took_ms: float = 0.0
    unchanged: int = 0

    @property
    def failed(self) -> int:
        """How many documents are in `failures`."""
        return len(self.failures)

    def to_dict(self) -> dict[str, Any]:
        """As JSON-like values."""
        return {
            "documents": self.documents,
            "passages": self.passages,
            "ids": self.ids,
            "failures": [each.to_dict() for each in self.failures],
            "took_ms": self.took_ms,
            "unchanged": self.unchanged,
        }

    def __str__(self) -> str:
        done = f"{counted(self.documents, 'document')}, {counted(self.passages, 'passage')}"
        lines = [f"indexed {done} in {self.took_ms / 1e3:.1f} s"]
        if self.unchanged:
            lines.append(f"unchanged: {counted(self.unchanged, 'document')}")
        if self.failures:
            lines.append(f"not indexed: {counted(len(self.failures), 'document')}")
            lines += [f"  {each.id or each.position}: {each.error.message}" for each in self.failures[:10]]
        return "\n".join(lines)


# ---- status ----


@dataclass(frozen=True)
class ExecutorStatus:
    """One executor of a flow.

    Attributes:
        name: Its name in the flow file.
        uses: Its class.
        needs: The executors before it.
        replicas: One dictionary a replica: address, ready, in_flight.
        status: What the executor says about itself, such as its model and dimensions, or its counts.
    """

    name: str
    uses: str = ""
    needs: Sequence[str] = ()
    replicas: Sequence[Mapping[str, Any]] = ()
    status: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """As JSON-like values."""
        return {
            "name": self.name,
            "uses": self.uses,
            "needs": list(self.needs),
            "replicas": [dict(each) for each in self.replicas],
            "status": dict(self.status),
        }


@dataclass(frozen=True)
class FlowStatus:
    """A running flow.

    Attributes:
        name: The flow's name; empty where the gateway does not tell.
        version: flowdex's version there.
        uptime_s: Seconds since the gateway started.
        endpoints: The executors each endpoint visits.
        executors: The executors.
    """

    name: str = ""
    version: str = ""
    uptime_s: float = 0.0
    endpoints: Mapping[str, Any] = field(default_factory=dict)
    executors: Sequence[ExecutorStatus] = ()

    def to_dict(self) -> dict[str, Any]:
        """As JSON-like values."""
        return {
            "name": self.name,
            "version": self.version,
            "uptime_s": self.uptime_s,
            "endpoints": dict(self.endpoints),
            "executors": [each.to_dict() for each in self.executors],
        }

    def __str__(self) -> str:
        lines = [f"flow {self.name or '(unnamed)'}, flowdex {self.version or '?'}, up {self.uptime_s:.0f} s"]
        for each in self.executors:
            ready = sum(bool(replica.get("ready")) for replica in each.replicas)
            replicas = f"{ready}/{len(each.replicas)} ready  " if each.replicas else ""
            facts = ", ".join(f"{key} {value}" for key, value in sorted(each.status.items()))
            lines.append(f"  {each.name:<12} {replicas}{facts}".rstrip())
        return "\n".join(lines)


def counted(number: int, noun: str) -> str:
    """`number` with its noun: "1 hit", "2,000 hits"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _span(span: Span | None) -> list[int] | None:
    return None if span is None else list(span)
