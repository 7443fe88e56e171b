"""What a check says, and how a list of them is shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["Check", "Verdict", "as_json", "print_checks", "worst"]


class Verdict(str, Enum):
    """How serious a finding is."""

    OK = "ok"
    WARNING = "warning"  # works, but not well, or not for long
    ERROR = "error"  # keeps a flow from starting


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: What.
        verdict: How it is.
        detail: What was found.
        remedy: What to do; empty where all is well.
    """

    name: str
    verdict: Verdict
    detail: str
    remedy: str = ""


_STYLES = {Verdict.OK: "green", Verdict.WARNING: "yellow", Verdict.ERROR: "bold red"}
_ORDER = list(Verdict)


def worst(checks: Sequence[Check]) -> Verdict:
    """The most serious verdict."""
    return max((check.verdict for check in checks), key=_ORDER.index, default=Verdict.OK)


def as_json(checks: Sequence[Check], flow: str | None) -> dict[str, Any]:
    """The checks as JSON values."""
    return {
        "flow": flow,
        "verdict": worst(checks).value,
        "checks": [{**asdict(check), "verdict": check.verdict.value} for check in checks],
    }


def print_checks(checks: Sequence[Check], out: Console) -> None:
    """Two lines a check at most, what to do on the second; then how many of each verdict."""
    from rich.text import Text

    width = max((len(check.name) for check in checks), default=0)
    for check in checks:
        line = Text(f"{check.verdict.value:<8}", style=_STYLES[check.verdict])
        line.append(f" {check.name:<{width}}  {check.detail}", style="default")
        out.print(line, soft_wrap=True)
        if check.remedy:
            out.print(Text(f"{'':<{width + 11}}{check.remedy}", style="cyan"), soft_wrap=True)
    out.print()
    out.print(_summary(checks), soft_wrap=True)


def _summary(checks: Sequence[Check]) -> str:
    counts = {verdict: sum(check.verdict is verdict for check in checks) for verdict in Verdict}
    errors, warnings = counts[Verdict.ERROR], counts[Verdict.WARNING]
    if errors:
        return f"{errors} of {len(checks)} checks {'keeps' if errors == 1 else 'keep'} the flow from starting."
    if warnings:
        return f"The flow can start; {warnings} of {len(checks)} checks would have it better."
    return "All is well."
