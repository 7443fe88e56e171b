"""Reports: the table of an evaluation, and the comparison of two.

Evaluation --table--> one row a setting: metrics, latencies
Evaluation, Evaluation --compare--> Comparison --table--> one row a setting and metric: both, difference, p
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flowdex.errors import InvalidInput
from flowdex.evaluation.experiment import Evaluation, Setting
from flowdex.evaluation.metrics import Metric, p_value
from flowdex.results import counted

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["Comparison", "Difference", "compare", "comparison_table", "evaluation_table", "summary"]

_PERCENTILES = (50, 95, 99)
_SIGNIFICANT = 0.05


def evaluation_table(evaluation: Evaluation) -> Table:
    """One row a setting; the best value of each metric in bold."""
    from rich.text import Text

    metrics = list(evaluation.runs[0].values)
    best = {metric: max(run.means[metric] for run in evaluation.runs) for metric in metrics}
    table = _table("mode", "reranker")
    for title in [metric.title for metric in metrics] + [f"p{percent} ms" for percent in _PERCENTILES]:
        table.add_column(title, justify="right")
    for run in evaluation.runs:
        cells = [
            Text(f"{value:.4f}", style="bold" if value == best[metric] and len(evaluation.runs) > 1 else "")
            for metric, value in run.means.items()
        ]
        cells += [Text(f"{run.latency(percent):.1f}") for percent in _PERCENTILES]
        table.add_row(run.setting.mode, run.setting.reranker, *cells)
    return table


def summary(evaluation: Evaluation) -> list[str]:
    """What was measured, in lines: the collection, the indexing, remarks."""
    queries = len(evaluation.dataset.queries)
    lines = [f"{evaluation.dataset.name}: {counted(queries, 'query') if queries == 1 else f'{queries:,} queries'}"]
    if evaluation.indexing is not None:
        done = evaluation.indexing
        lines[0] += (
            f", {counted(done.documents, 'document')} ({counted(done.passages, 'passage')}) indexed in "
            f"{done.seconds:.1f} s, {done.documents / max(done.seconds, 1e-9):,.0f}/s"
        )
    return [*lines, *(f"Note: {remark}." for remark in evaluation.remarks)]


# ---- two flows ----


@dataclass(frozen=True)
class Difference:
    """One metric of one setting, for two flows.

    Attributes:
        setting: The way to search.
        metric: What is measured.
        first: The mean of the first flow.
        second: The mean of the second.
        p: How likely a difference at least this large is by chance; see `metrics.p_value`.
    """

    setting: Setting
    metric: Metric
    first: float
    second: float
    p: float

    @property
    def delta(self) -> float:
        """Second less first."""
        return self.second - self.first


@dataclass(frozen=True)
class Comparison:
    """Two flows over one collection."""

    first: Evaluation
    second: Evaluation
    differences: Sequence[Difference]

    def to_dict(self) -> dict[str, Any]:
        """As JSON-like values."""
        return {
            "first": self.first.to_dict(),
            "second": self.second.to_dict(),
            "differences": [
                {
                    "mode": each.setting.mode,
                    "rerank": each.setting.rerank,
                    "metric": str(each.metric),
                    "first": each.first,
                    "second": each.second,
                    "delta": each.delta,
                    "p": each.p,
                }
                for each in self.differences
            ],
        }


def compare(first: Evaluation, second: Evaluation) -> Comparison:
    """Put two evaluations of the same collection, settings and metrics side by side.

    Raises:
        InvalidInput: They are not of the same.
    """
    if [run.setting for run in first.runs] != [run.setting for run in second.runs]:
        raise InvalidInput("only evaluations of the same settings can be compared")
    differences = [
        Difference(one.setting, metric, one.means[metric], two.means[metric], p_value(values, two.values[metric]))
        for one, two in zip(first.runs, second.runs, strict=True)
        for metric, values in one.values.items()
    ]
    return Comparison(first, second, differences)


def comparison_table(comparison: Comparison) -> Table:
    """One row a setting and metric, a significant difference in bold; then the median latencies and the indexing."""
    from rich.text import Text

    first, second = comparison.first, comparison.second
    table = _table("mode", "reranker", "")
    for title in (first.flow, second.flow, "difference", "p"):
        table.add_column(title, justify="right", overflow="fold")
    for each in comparison.differences:
        style = ("green" if each.delta > 0 else "red") if each.p < _SIGNIFICANT else ""
        table.add_row(
            each.setting.mode,
            each.setting.reranker,
            each.metric.title,
            f"{each.first:.4f}",
            f"{each.second:.4f}",
            Text(f"{each.delta:+.4f}", style=style),
            Text(f"{each.p:.3f}", style=style),
        )
    for one, two in zip(first.runs, second.runs, strict=True):
        table.add_row(one.setting.mode, one.setting.reranker, "p50 ms", *_pair(one.latency(50), two.latency(50)))
    if first.indexing is not None and second.indexing is not None:
        rates = [each.documents / max(each.seconds, 1e-9) for each in (first.indexing, second.indexing)]
        table.add_row("", "", "documents/s", *_pair(*rates))
    return table


def _pair(first: float, second: float) -> tuple[str, str, str]:
    return f"{first:.1f}", f"{second:.1f}", f"{second - first:+.1f}"


def _table(*columns: str) -> Table:
    from rich.table import Table

    return Table(*columns, box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
