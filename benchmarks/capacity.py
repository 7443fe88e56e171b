"""The capacity model beside what it predicts: the embedded index at some sizes, predicted and measured.

    python benchmarks/capacity.py [--points 5000,20000,50000] [--dimensions 384] [--graph]

Bytes are those of files and of the engine's memory, times are CPU milliseconds of the engine's process. "Predicted" is
what `flowdex plan` computes with the costs it comes with, so a column that is off on another machine says which cost to
measure there. Linux only, as it reads /proc.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from pathlib import Path

from flowdex_orchestrator.capacity.costs import REFERENCE
from flowdex_orchestrator.capacity.flow import IndexShape
from flowdex_orchestrator.capacity.index import engine_ms, size_index
from flowdex_orchestrator.capacity.measure import IndexFigures, measure_index
from flowdex_orchestrator.capacity.plan import Demand

MIB = 2**20


def compared(figures: IndexFigures, *, graph: bool) -> list[tuple[float, float]]:
    """(predicted, measured) of each column."""
    index, cost = IndexShape(exact_up_to=0 if graph else 10**9), REFERENCE.index
    points, dimensions = figures.points, figures.dimensions
    size = size_index(index, cost, passages=points, dimensions=dimensions, text=figures.text, terms=figures.terms)
    demand = Demand(documents=points, term_share=figures.term_share)
    search = engine_ms(index, cost, demand, shard=points, passages=points, dimensions=dimensions)
    heap = cost.base_memory / 2 + points * (cost.heap_fixed + figures.terms * cost.term_heap)
    return [
        (size.disk / MIB, figures.disk / MIB),
        (heap / MIB, figures.heap / MIB),
        (search, figures.hybrid_ms),
        (cost.write_ms, figures.write_ms),
    ]


async def run(settings: argparse.Namespace) -> None:
    print(f"{settings.dimensions} dimensions, {'by the graph' if settings.graph else 'each vector compared'}:\n")
    names = ("disk, MiB", "memory of the engine, MiB", "hybrid search, ms", "a passage in, ms")
    print(f"| passages | {' | '.join(f'{name}: predicted | measured' for name in names)} |")
    print("|---:" * 9 + "|")
    for points in (int(each) for each in settings.points.split(",")):
        with tempfile.TemporaryDirectory(prefix="benchmark-capacity-") as name:
            figures = await measure_index(
                Path(name) / "index",
                points,
                dimensions=settings.dimensions,
                vocabulary=settings.vocabulary,
                graph=settings.graph,
            )
        pairs = compared(figures, graph=settings.graph)
        cells = [f"{value:,.{digits}f}" for pair, digits in zip(pairs, (0, 0, 1, 2), strict=True) for value in pair]
        print(f"| {points:,} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", default="5000,20000,50000", help="default: %(default)s")
    parser.add_argument("--dimensions", type=int, default=384, help="default: %(default)s")
    parser.add_argument(
        "--vocabulary", type=int, default=2000, help="words that texts are made of; default: %(default)s"
    )
    parser.add_argument("--graph", action="store_true", help="build the graph, and search by it: takes minutes")
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
