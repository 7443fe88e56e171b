"""The capacity model against the embedded index itself, at two sizes that a test has time for.

Bytes are compared as they are, within 30 %. Times are not, because other work on the machine moves them: what is
compared is how they grow between the two sizes.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from flowdex_orchestrator.capacity.costs import REFERENCE
from flowdex_orchestrator.capacity.flow import IndexShape
from flowdex_orchestrator.capacity.index import IndexSize, engine_ms, size_index
from flowdex_orchestrator.capacity.measure import IndexFigures, measure_encoder, measure_index
from flowdex_orchestrator.capacity.plan import Demand
from flowdex_orchestrator.flow.load import load_flow

ROOT = Path(__file__).resolve().parents[2]
SMALL, LARGE = 5_000, 20_000
INDEX = IndexShape()

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="memory and CPU time of processes are read from /proc"),
    pytest.mark.timeout(400),  # the first test waits for both indexes to be filled
]


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[int, IndexFigures]:
    """Both sizes; each index is measured once for all tests."""

    async def measure() -> dict[int, IndexFigures]:
        folder = tmp_path_factory.mktemp("capacity")
        return {points: await measure_index(folder / str(points), points, searches=50) for points in (SMALL, LARGE)}

    return asyncio.run(measure())


def predicted(figures: IndexFigures) -> IndexSize:
    return size_index(
        INDEX,
        REFERENCE.index,
        passages=figures.points,
        dimensions=figures.dimensions,
        text=figures.text,
        terms=figures.terms,
    )


@pytest.mark.parametrize("points", [SMALL, LARGE])
def test_bytes_on_disk(measured: dict[int, IndexFigures], points: int) -> None:
    figures = measured[points]
    assert predicted(figures).disk == pytest.approx(figures.disk, rel=0.3)
    assert figures.log <= 1.5 * REFERENCE.index.log


def test_memory_grows_as_predicted(measured: dict[int, IndexFigures]) -> None:
    """What the engine allocates for a passage; the process's own share is in the difference of neither."""
    small, large = measured[SMALL], measured[LARGE]
    grown = large.heap - small.heap
    cost = REFERENCE.index
    expected = (LARGE - SMALL) * (cost.heap_fixed + large.terms * cost.term_heap)
    assert 0.4 < expected / grown < 2.5
    # All of it resident, files included, is no more than the plan gives the process, but for the log and the texts.
    texts = predicted(large).payload + predicted(large).words
    assert large.resident < 1.3 * (predicted(large).memory + cost.base_memory + texts + 2 * cost.log)


def test_time_grows_as_predicted(measured: dict[int, IndexFigures]) -> None:
    """Comparing all vectors is linear in their number."""
    small, large = measured[SMALL], measured[LARGE]
    demand = Demand(documents=1, term_share=large.term_share)

    def expected(figures: IndexFigures) -> float:
        points, dimensions = figures.points, figures.dimensions
        return engine_ms(INDEX, REFERENCE.index, demand, shard=points, passages=points, dimensions=dimensions)

    assert small.dense_ms < large.dense_ms
    assert 0.2 < (expected(large) - expected(small)) / (large.dense_ms - small.dense_ms) < 5.0
    assert 0.2 < (expected(large) / expected(small)) / (large.hybrid_ms / small.hybrid_ms) < 5.0


def test_the_default_encoder_is_measured() -> None:
    """`--measure`: the figures are of this machine, so only their order is known."""
    flow = load_flow(ROOT / "flow.yml")
    cost, dimensions = measure_encoder(flow, "encoder")
    assert dimensions == 384
    assert 100 < cost.tokens_per_second < 1_000_000
    assert 0.1 < cost.query_ms < 1000
    assert "measured here" in cost.source
