"""The rows as a table in Markdown, and the page that it stands in."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Sequence
from pathlib import Path

from chaos.faults import Row
from chaos.load import Tally

__all__ = ["page", "table"]

_HEAD = (
    "fault",
    "rounds",
    "requests",
    "failed",
    "wrong",
    "untyped",
    "late",
    "lost",
    "twice",
    "recovery, median (most)",
    "longest pause",
    "",
)


def table(rows: Sequence[Row]) -> str:
    """A Markdown table."""
    lines = [_line(_HEAD), _line(["---"] + ["--:"] * (len(_HEAD) - 2) + ["---"])]
    for row in rows:
        tally = row.tally
        numbers = (len(tally.wrong), len(tally.untyped), tally.late, tally.lost, tally.duplicated)
        cells = [row.name, f"{row.times}", f"{tally.sent:,}", _failed(tally), *map(str, numbers), _recovery(tally)]
        lines.append(_line([*cells, f"{tally.gap:.1f} s" if tally.gap else "-", row.note]))
    return "\n".join(lines)


def page(template: str, rows: Sequence[Row], skipped: Sequence[str], command: str) -> str:
    """The page with the part between its two marks written anew."""
    head, _, rest = template.partition("<!-- measured -->\n")
    _, _, tail = rest.partition("<!-- end -->\n")
    machine = f"{os.cpu_count()} cores, {_memory()} GiB, {platform.system()}, Python {platform.python_version()}"
    parts = [f"`{command}` on {machine}:", table(rows)]
    if skipped:
        parts.append("Not made there: " + "; ".join(skipped) + ".")
    body = "\n\n".join(parts)
    return f"{head}<!-- measured -->\n{body}\n<!-- end -->\n{tail}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _failed(tally: Tally) -> str:
    total = sum(tally.failed.values())
    if not total:
        return "0"
    return f"{total:,}: " + ", ".join(f"{name} {count:,}" for name, count in sorted(tally.failed.items()))


def _recovery(tally: Tally) -> str:
    times = sorted(tally.recoveries)
    return f"{statistics.median(times):.1f} s ({times[-1]:.1f} s)" if times else "-"


def _memory() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemTotal:"):
            return round(int(line.split()[1]) / 2**20)
    return 0
