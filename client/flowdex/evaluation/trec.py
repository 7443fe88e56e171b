"""TREC run files: rankings that trec_eval, ranx and other tools read.

rankings --write_run--> "query Q0 document rank score tag" lines
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

__all__ = ["run_files", "write_run"]


def write_run(path: Path, rankings: Mapping[str, Sequence[tuple[str, float]]], tag: str) -> None:
    """Write rankings, best first.

    Tools sort by the score again, in single precision: where the flow's scores do not fall from rank to rank (ties, or
    a reranker that scored only the first), they are lowered by as little as keeps the order.
    """
    import numpy as np

    with path.open("w", encoding="utf-8") as file:
        for query, ranking in rankings.items():
            above = np.float32(np.inf)
            for rank, (document, score) in enumerate(ranking, 1):
                above = min(np.float32(score), np.nextafter(above, np.float32(-np.inf)))
                file.write(f"{query} Q0 {document} {rank} {float(above)!r} {tag}\n")


def run_files(path: Path, tags: Sequence[str]) -> list[Path]:
    """The file of each run: `path` itself for a single one, else with the run's tag before the ending."""
    if len(tags) == 1:
        return [path]
    return [path.with_name(f"{path.stem}.{tag}{path.suffix}") for tag in tags]
