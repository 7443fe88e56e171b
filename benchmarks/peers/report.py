"""What a run of the peers has found, as a table and a plot.

rounds: [{system: {measure: value}}], facts: {system: {start_s, memory_mb, idle_cores}}
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

__all__ = ["brief", "plot", "table"]

Rounds = Sequence[Mapping[str, Mapping[str, float]]]
MEASURES = (
    ("bulk_texts_s", "bulk texts/s", 1),
    ("sequential_p50_ms", "one at a time, p50 ms", -1),
    ("concurrent_rps", "32 in flight, requests/s", 1),
)
OURS = "flowdex"


def brief(found: Mapping[str, float]) -> str:
    """The figures of one round in a line."""
    return ", ".join(f"{label} {found[key]:.1f}" for key, label, _ in MEASURES)


def median(rounds: Rounds, name: str, key: str) -> float:
    """Of a measure over the rounds; NaN where it was not measured."""
    return statistics.median(each[name].get(key, float("nan")) for each in rounds)


def best_peer(rounds: Rounds, key: str, sign: int) -> str | None:
    """The system of others that is best in a measure."""
    names = [name for name in rounds[0] if not name.startswith((OURS, "in process"))]
    return max(names, key=lambda name: sign * median(rounds, name, key)) if names else None


def ratio(rounds: Rounds, name: str, other: str, key: str) -> float:
    """Median over the rounds of one system's value to another's."""
    return statistics.median(each[name][key] / each[other][key] for each in rounds)


def table(rounds: Rounds) -> str:
    """Markdown: the figures, then how ours stand to the best peer and to the same back end in process."""
    heads = [label for _, label, _ in MEASURES]
    lines = [
        f"| | {' | '.join(heads)} | p99 ms | least cosine | memory MB | start s |",
        "|---|" + "---:|" * (len(heads) + 4),
    ]
    for name in rounds[0]:
        values = [f"{median(rounds, name, key):.1f}" for key, _, _ in MEASURES]
        cosine = median(rounds, name, "cosine")
        values += [
            f"{median(rounds, name, 'concurrent_p99_ms'):.0f}",
            "-" if math.isnan(cosine) else f"{cosine:.5f}",
            f"{median(rounds, name, 'memory_mb'):.0f}",
            f"{median(rounds, name, 'start_s'):.1f}",
        ]
        lines.append(f"| {name} | {' | '.join(values)} |")
    lines += ["", "| | " + " | ".join(f"{head} : best peer" for head in heads) + " | bulk : in process |"]
    lines.append("|---|" + "---:|" * (len(heads) + 1))
    for name in (each for each in rounds[0] if each.startswith(OURS)):
        values = []
        for key, _, sign in MEASURES:
            peer = best_peer(rounds, key, sign)
            values.append(f"{ratio(rounds, name, peer, key):.2f} ({peer})" if peer else "-")
        inside = name.replace(OURS, "in process")
        values.append(f"{ratio(rounds, name, inside, 'bulk_texts_s'):.2f}" if inside in rounds[0] else "-")
        lines.append(f"| {name} | {' | '.join(values)} |")
    return "\n".join(lines) + "\n"


def plot(rounds: Rounds, target: Path) -> None:
    """Bars of each measure, and of memory."""
    from matplotlib.figure import Figure

    names = [name for name in rounds[0] if not name.startswith("in process")]
    colours = ["#1f6f6b" if name.startswith(OURS) else "#9aa5b1" for name in names]
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    panels = [(label, [median(rounds, name, key) for name in names]) for key, label, _ in MEASURES]
    panels.append(("memory, MB", [median(rounds, name, "memory_mb") for name in names]))
    for axes, (label, values) in zip(figure.subplots(1, len(panels), sharey=True), panels, strict=True):
        bars = axes.barh(names, values, color=colours)
        axes.bar_label(bars, fmt="%.0f", padding=2, fontsize=8)
        axes.margins(x=0.15)
        axes.invert_yaxis() if axes is figure.axes[0] else None
        axes.set_title(label, fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(target, dpi=110)
