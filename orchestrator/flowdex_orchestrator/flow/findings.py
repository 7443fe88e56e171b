"""What is wrong with a flow file, and where: the one type that reading, validation and checks report with.

load.py, check.py --> list[Finding] --> FlowFileError | `flowdex check` | editors (--json)

Everything that can be wrong is collected before anything is raised, so that one run shows all of it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from flowdex.errors import ConfigurationError

__all__ = ["Finding", "FlowFileError", "KeyPath", "format_key", "nearest"]

KeyPath = tuple[str | int, ...]
"""Where a value stands in a document: mapping keys and list indices from the root, `("executors", 1, "replicas")`."""


@dataclass(frozen=True)
class Finding:
    """One mistake or doubt.

    Attributes:
        message: What was expected and what was found, with the remedy.
        key: Dotted path of the key, such as `executors[1].replicas`; empty for the whole file.
        file: The file as the caller named it.
        line: Line, from 1; None where the flow was not read from a file.
        column: Column, from 1; None as above.
        severity: An error keeps the flow from starting, a warning does not.
    """

    message: str
    key: str = ""
    file: str = "<flow>"
    line: int | None = None
    column: int | None = None
    severity: Literal["error", "warning"] = "error"

    def __str__(self) -> str:
        place = self.file
        if self.line is not None:
            place += f":{self.line}:{self.column}"
        severity = "warning: " if self.severity == "warning" else ""
        key = f"{self.key}: " if self.key else ""
        return f"{place}: {severity}{key}{self.message}"

    def as_dict(self) -> dict[str, Any]:
        """The finding as plain JSON values."""
        return asdict(self)


class FlowFileError(ConfigurationError):
    """A flow file cannot be used. Its message lists every finding, one a line, in the order of the file.

    Args:
        findings: All that was found, at least one.
    """

    def __init__(self, findings: Sequence[Finding]) -> None:
        self.findings = sorted(findings, key=lambda finding: (finding.line or 0, finding.column or 0))
        super().__init__("\n".join(str(finding) for finding in self.findings))

    @property
    def name(self) -> str:
        """It travels as the public class it is a kind of."""
        return ConfigurationError.__name__


def format_key(path: KeyPath) -> str:
    """`("executors", 1, "replicas")` as `executors[1].replicas`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def nearest(word: str, known: Iterable[str]) -> str:
    """` (did you mean 'x'?)`, or the empty string where nothing known is close."""
    spellings = {name.lower(): name for name in known}
    matches = difflib.get_close_matches(word.lower(), list(spellings), n=1, cutoff=0.6)
    return f" (did you mean {spellings[matches[0]]!r}?)" if matches else ""
