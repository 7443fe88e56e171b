"""What a plan is made for, and what it is made of.

Demand + Node --model.make_plan--> Plan: lines with reasons, totals, warnings with remedies
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from flowdex_orchestrator.capacity.costs import CHARACTERS_PER_TOKEN, QUERY_TERMS

__all__ = ["GIB", "Demand", "Line", "Plan", "Totals", "Warn"]

GIB = 2**30


@dataclass(frozen=True)
class Demand:
    """What the flow has to do, and the machines to do it on.

    Attributes:
        documents: How many.
        rps: Searches a second.
        tokens: Of a document, on average.
        text_share: Characters of a document for each of its tokens.
        query_terms: Words of a query that are no stop words.
        term_share: Share of the passages that such a word is in.
        node_cpus: Cores of a node.
        node_memory: Bytes of memory of a node.
        headroom: Share of cores and memory that is kept free for peaks, failures and restarts.
        latency_ms: How long a search may take where nothing else is going on.
        index_within: Hours to index all documents in; None where it does not matter.
    """

    documents: int
    rps: float = 10.0
    tokens: float = 500.0
    text_share: float = CHARACTERS_PER_TOKEN
    query_terms: float = QUERY_TERMS
    term_share: float = 0.01
    node_cpus: float = 16.0
    node_memory: float = 64.0 * GIB
    headroom: float = 0.3
    latency_ms: float = 200.0
    index_within: float | None = None

    @property
    def usable(self) -> float:
        """The share of a machine that may be in use."""
        return 1.0 - self.headroom


@dataclass(frozen=True)
class Line:
    """One quantity.

    Attributes:
        key: Its name in JSON.
        label: Its name in the table.
        value: The number.
        unit: bytes, cores, ms, hours, or "" for a count.
        reason: How it came about.
        section: Heading it stands under.
    """

    key: str
    label: str
    value: float
    unit: str
    reason: str
    section: str


@dataclass(frozen=True)
class Warn:
    """What the flow as written cannot do.

    Attributes:
        problem: What does not fit.
        remedy: What to change, with its key in the flow file.
    """

    problem: str
    remedy: str


@dataclass(frozen=True)
class Totals:
    """Everything together, while searches are served.

    Attributes:
        cores: In use, with headroom.
        memory: Bytes, without the system's own.
        disk: Bytes.
        nodes: Machines.
        gpus: GPUs.
    """

    cores: float
    memory: float
    disk: float
    nodes: int
    gpus: int


@dataclass(frozen=True)
class Plan:
    """A plan.

    Attributes:
        lines: In the order of the table.
        totals: Everything together.
        warnings: What the flow as written cannot do.
        sources: Where the costs come from.
    """

    lines: tuple[Line, ...]
    totals: Totals
    warnings: tuple[Warn, ...] = ()
    sources: tuple[str, ...] = field(default=())

    def value(self, key: str) -> float:
        """The number of a line.

        Raises:
            KeyError: There is no such line.
        """
        for line in self.lines:
            if line.key == key:
                return line.value
        raise KeyError(key)

    def as_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "lines": [asdict(line) for line in self.lines],
            "totals": asdict(self.totals),
            "warnings": [asdict(each) for each in self.warnings],
            "sources": list(self.sources),
        }
