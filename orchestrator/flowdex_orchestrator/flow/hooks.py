"""What an executor class may say about itself before it is started, for `flowdex check`.

    class MyEncoder(jina.Executor):
        @classmethod
        def describe(cls, uses_with) -> dict: ...            facts, compared between executors
        @classmethod
        def check(cls, uses_with, context) -> Iterable[str]: ...     problems, one sentence each

Both are optional and cheap: they read configuration files, never weights, and open no connection. `describe` may raise
`ConfigurationError` where the arguments are wrong. A problem that starts with the name of an argument and a colon,
`"model: no such folder"`, is reported at that argument's line.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

__all__ = ["CheckContext", "Facts"]


@dataclass(frozen=True)
class CheckContext:
    """Where and how the executor would be started.

    Attributes:
        name: The executor's name in the flow.
        folder: The folder its processes run in, which relative paths in its arguments start from.
        replicas: How many processes.
    """

    name: str
    folder: Path
    replicas: int


class Facts(TypedDict, total=False):
    """The entries of a description that `flowdex check` understands; others are welcome.

    An encoder gives `model` and `dimensions`, an index gives `dimensions` (None where any will do) and no `model`.
    """

    dimensions: int | None
    """Length of the vectors it makes or stores."""
    model: str
    """Name of the model that makes them."""
    max_tokens: int
    """Longest text it takes, in tokens."""
    path: str
    """Folder of its files."""
    embedded: bool
    """Whether its data live in its own process, so that there cannot be two of it."""


Description = dict[str, Any]
"""What `describe` returns: `Facts` and anything else that can be written as JSON."""
