"""Quantiles from a histogram's buckets."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowdex_orchestrator.observability.durations import BOUNDS, Durations


def durations(*seconds: float, failed: int = 0) -> Durations:
    found = Durations()
    for index, each in enumerate(seconds):
        found.observe(each, index < failed)
    return found


def test_nothing_has_no_quantiles() -> None:
    assert durations().quantile(0.5) is None
    assert durations().summary() == {
        "count": 0, "failed": 0, "mean_ms": None, "p50_ms": None, "p95_ms": None, "p99_ms": None,
        "buckets": [0] * (len(BOUNDS) + 1),
    }  # fmt: skip


def test_a_summary_counts_in_milliseconds() -> None:
    found = durations(0.02, 0.02, 0.02, 0.4, failed=1).summary()
    assert (found["count"], found["failed"], sum(found["buckets"])) == (4, 1, 4)
    assert found["mean_ms"] == pytest.approx(115)
    assert found["p50_ms"] == pytest.approx(10 + 15 * 2 / 3)
    assert 250 < found["p99_ms"] <= 500


def test_of_those_beyond_all_bounds_only_that_is_known() -> None:
    assert durations(100.0).quantile(0.5) == BOUNDS[-1]


@given(st.lists(st.floats(0, 29), min_size=1, max_size=60), st.floats(0.01, 1))
def test_a_quantile_lies_in_the_bucket_of_the_true_one(seconds: list[float], share: float) -> None:
    true = float(np.quantile(seconds, share, method="inverted_cdf"))
    index = next(index for index, bound in enumerate(BOUNDS) if true <= bound)
    low = BOUNDS[index - 1] if index else 0.0
    found = durations(*seconds).quantile(share)
    assert found is not None
    assert low - 1e-9 <= found <= BOUNDS[index] + 1e-9
