"""Cases that are code, for what cannot be recorded as data: protocols other than HTTP.

@coded("name", rule, requests) def case(connection) -> Iterator[Problem]    one function a case
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from flowdex.conformance.model import Problem
from flowdex.conformance.relations import Broken

__all__ = ["CodedCase", "coded", "unless"]

C = TypeVar("C")


@dataclass(frozen=True)
class CodedCase(Generic[C]):
    """See `model.Case`; `check` asks through a connection of its contract."""

    name: str
    rule: str
    requests: int
    check: Callable[[C], Iterator[Problem]]


def coded(name: str, rule: str, requests: int = 1) -> Callable[[Callable[[C], Iterator[Problem]]], CodedCase[C]]:
    """Make a case of a function."""
    return lambda check: CodedCase(name, rule, requests, check)


def unless(broken: Broken | None, where: str) -> Iterator[Problem]:
    """The problem of a relation that does not hold."""
    if broken is not None:
        yield Problem(where, broken.expected, broken.got)
