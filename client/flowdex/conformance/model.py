"""What the parts of the suite hand to each other: a server, contracts of cases, and what came of them.

Server --Contract.session--> Check --Check(case)--> [Problem] --> CaseResult --> ContractResult --> Report
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias

from flowdex.transport.target import Target

__all__ = [
    "Absent",
    "Case",
    "CaseResult",
    "Check",
    "Contract",
    "ContractResult",
    "Outcome",
    "Problem",
    "Report",
    "Server",
    "Skipped",
    "shown",
]

Outcome: TypeAlias = Literal["passed", "failed", "skipped"]
_LONGEST = 100


class Absent(Exception):
    """A server does not offer a contract; the message says how that was found out."""


class Skipped(Exception):
    """A case cannot be told of this server, as it is set up; the message says why."""


@dataclass(frozen=True)
class Server:
    """What is tested: at least one of its addresses.

    Attributes:
        http: Of its HTTP contracts.
        grpc: Of its gRPC contracts.
        bert: Host, port and port_out of bert-as-service's protocol.
        timeout: Seconds for a request.
        variables: Values for the variables of recorded cases, such as the name of a model.
    """

    http: Target | None = None
    grpc: Target | None = None
    bert: tuple[str, int, int] | None = None
    timeout: float = 30.0
    variables: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        bert = f"bert {self.bert[0]}:{self.bert[1]}:{self.bert[2]}" if self.bert else None
        return ", ".join(str(each) for each in (self.http, self.grpc, bert) if each)


@dataclass(frozen=True)
class Problem:
    """One thing that was not as the contract has it.

    Attributes:
        where: The request, and the place in its answer.
        expected: By the contract.
        got: Came instead.
    """

    where: str
    expected: str
    got: str


class Case(Protocol):
    """One rule of a contract, and how to see whether it is kept."""

    @property
    def name(self) -> str:
        """Short, in its contract only once."""

    @property
    def rule(self) -> str:
        """The section of the contract that it comes from, and what that says."""

    @property
    def requests(self) -> int:
        """Requests that it sends at most."""


Check: TypeAlias = Callable[[Any], Sequence[Problem]]
"""Runs a case of the contract against the server; no problems: it is kept. May raise `Skipped`."""


class Contract(ABC):
    """Cases that belong together: a server offers all of a contract, or nothing of it.

    Attributes:
        name: By which it is chosen.
        title: Whose it is.
        probes: Requests that find out whether it is offered, at most.
    """

    name: str
    title: str
    probes: int

    @property
    @abstractmethod
    def cases(self) -> Sequence[Case]:
        """In the order in which they run."""

    @abstractmethod
    def session(self, server: Server) -> AbstractContextManager[Check]:
        """Connect, and find out whether the server offers this.

        Raises:
            Absent: It does not.
            FlowdexError: It cannot be reached, or refuses the key.
        """

    @property
    def requests(self) -> int:
        """Requests that it sends at most."""
        return self.probes + sum(case.requests for case in self.cases)


@dataclass(frozen=True)
class CaseResult:
    """What came of a case.

    Attributes:
        name: The case.
        rule: Where it comes from.
        problems: None where the server keeps it.
        seconds: That it took.
        skipped: Why it was not run; None where it was.
    """

    name: str
    rule: str
    problems: Sequence[Problem]
    seconds: float
    skipped: str | None = None

    @property
    def outcome(self) -> Outcome:
        """What came of it, in a word."""
        return "skipped" if self.skipped is not None else "failed" if self.problems else "passed"


@dataclass(frozen=True)
class ContractResult:
    """What came of a contract.

    Attributes:
        name: The contract.
        title: Whose it is.
        absent: Why the server counts as not offering it; None where it does.
        results: Of its cases, as many as were run.
    """

    name: str
    title: str
    absent: str | None
    results: Sequence[CaseResult]

    def of(self, outcome: Outcome) -> Sequence[CaseResult]:
        """The cases with this outcome."""
        return [result for result in self.results if result.outcome == outcome]


@dataclass(frozen=True)
class Report:
    """What came of a run.

    Attributes:
        server: What was tested.
        contracts: In the order of the run.
        required: Names of the contracts that were asked for by name; empty where all were tried.
        complete: Whether the run came to its end.
    """

    server: str
    contracts: Sequence[ContractResult]
    required: Sequence[str] = ()
    complete: bool = True

    @property
    def passed(self) -> bool:
        """Whether all offered contracts are kept, at least one is, and none that was asked for by name is absent."""
        offered = [each for each in self.contracts if each.absent is None]
        missing = [each for each in self.contracts if each.absent is not None and each.name in self.required]
        return self.complete and bool(offered) and not missing and not any(each.of("failed") for each in offered)

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "server": self.server,
            "passed": self.passed,
            "complete": self.complete,
            "contracts": [
                {
                    "name": each.name,
                    "title": each.title,
                    "absent": each.absent,
                    "cases": [
                        {
                            "name": result.name,
                            "rule": result.rule,
                            "outcome": result.outcome,
                            "skipped": result.skipped,
                            "seconds": round(result.seconds, 3),
                            "problems": [vars(problem) for problem in result.problems],
                        }
                        for result in each.results
                    ],
                }
                for each in self.contracts
            ],
        }


def shown(value: Any) -> str:
    """A value as short text: JSON, cut where it is long."""
    import json

    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 4]} ..."
