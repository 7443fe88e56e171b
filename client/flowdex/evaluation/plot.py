"""The plot of evaluations: bars of each metric on the left, latencies on the right, one colour a run.

{label: Run} --draw--> FILE.png (or .svg, .pdf: by the ending)
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from flowdex.errors import InvalidInput
from flowdex.evaluation.experiment import Run
from flowdex.evaluation.metrics import optional_import

__all__ = ["check_plot", "draw"]

_PERCENTILES = (50, 95, 99)
_GROUP_WIDTH = 0.8  # of the distance between two groups of bars


def check_plot(path: Path) -> None:
    """Find out before a long run that its plot could not be drawn.

    Raises:
        ConfigurationError: matplotlib is not installed.
        InvalidInput: There is no format of that ending, or no such folder.
    """
    optional_import("matplotlib")
    formats = optional_import("matplotlib.backend_bases").FigureCanvasBase.get_supported_filetypes()
    if path.suffix.removeprefix(".").lower() not in formats:
        raise InvalidInput(f"cannot draw a plot to {path}: give the file an ending such as .png, .svg or .pdf")
    if not path.absolute().parent.is_dir():
        raise InvalidInput(f"cannot draw a plot to {path}: there is no folder {path.absolute().parent}")


def draw(runs: Mapping[str, Run], path: Path, *, title: str) -> None:
    """Draw runs of the same metrics.

    Args:
        runs: Label in the legend -> run.
        path: The file to write.
        title: Above the plot.

    Raises:
        ConfigurationError: matplotlib is not installed.
    """
    # No pyplot: it keeps figures in global state and looks for a display.
    figure = optional_import("matplotlib.figure").Figure(figsize=(11, 4.5), layout="constrained")
    quality, latency = figure.subplots(1, 2, width_ratios=(3, 2))
    metrics = list(next(iter(runs.values())).values)
    width = _GROUP_WIDTH / len(runs)
    for number, (label, run) in enumerate(runs.items()):
        shift = (number - (len(runs) - 1) / 2) * width
        colour = f"C{number % 10}"
        means = [run.means[metric] for metric in metrics]
        bars = quality.bar([group + shift for group in range(len(metrics))], means, width, color=colour, label=label)
        if len(runs) * len(metrics) <= 24:
            quality.bar_label(bars, fmt="%.3f", fontsize=6, padding=1)
        times = [run.latency(percent) for percent in _PERCENTILES]
        latency.bar([group + shift for group in range(len(times))], times, width, color=colour)
    quality.set_xticks(range(len(metrics)), [metric.title for metric in metrics])
    quality.set_ylim(0, 1)
    quality.set_title("quality (higher is better)")
    latency.set_xticks(range(len(_PERCENTILES)), [f"p{percent}" for percent in _PERCENTILES])
    latency.set_ylabel("ms")
    latency.set_title("latency of a query (lower is better)")
    for axes in (quality, latency):
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_axisbelow(True)
        axes.grid(axis="y", alpha=0.3)
    figure.suptitle(title)
    figure.legend(loc="outside lower center", ncols=min(len(runs), 4), frameon=False)
    figure.savefig(path, dpi=150)
