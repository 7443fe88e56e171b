"""The faults by name, and what running one means."""

from __future__ import annotations

import math
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chaos.load import Tally

__all__ = ["FAULTS", "Fault", "Row", "Setting", "Skipped", "fault"]


class Skipped(Exception):
    """A fault that cannot be made on this machine; the message says why."""


@dataclass(frozen=True)
class Setting:
    """What a fault is given.

    Attributes:
        folder: An empty folder of its own.
        rounds: How often the harm is done.
        seed: Of what is left to chance.
        seconds: After which `kill` begins no further round.
    """

    folder: Path
    rounds: int
    seed: int = 0
    seconds: float = math.inf


@dataclass
class Row:
    """A line of the table.

    Attributes:
        name: What was done.
        times: How often.
        tally: What became of the requests.
        note: What else there is to say.
    """

    name: str
    times: int
    tally: Tally = field(default_factory=Tally)
    note: str = ""

    def add(self, other: Row) -> None:
        """Make it the row of both runs."""
        assert self.name == other.name, "runs of different faults"
        self.times += other.times
        self.tally.add(other.tally)
        self.note = other.note


Run = Callable[[Setting], Coroutine[Any, Any, list[Row]]]


@dataclass(frozen=True)
class Fault:
    """A fault: its name on the command line, what does it, how many rounds at most make sense."""

    name: str
    run: Run
    most: int


FAULTS: dict[str, Fault] = {}


def fault(name: str, *, most: int = 50) -> Callable[[Run], Run]:
    """Register a fault under its name."""

    def register(run: Run) -> Run:
        FAULTS[name] = Fault(name, run, most)
        return run

    return register
