"""Limits of what a request may ask of the index: each is named in its error, and settable."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from flowdex.documents import DocumentBatch
from flowdex.errors import ConfigurationError, InvalidInput
from flowdex_executors.indexer.executor import QdrantIndexer
from flowdex_executors.indexer.filters import compile_filter
from flowdex_executors.indexer.limits import IndexLimits
from flowdex_executors.indexer.points import read_documents
from flowdex_executors.indexer.search_parameters import SearchParameters

FILTERS: dict[str, Any] = {
    "filter_depth": {"$not": {"$not": {"a": 1}}},
    "filter_conditions": {"a": 1, "b": 2, "c": 3},
    "filter_values": {"a": {"$in": ["x", "y", "z"]}},
}


@pytest.mark.parametrize("name", FILTERS)
def test_filters(name: str) -> None:
    compile_filter(FILTERS[name], IndexLimits(**{name: 3}))
    with pytest.raises(InvalidInput, match=rf"the most allowed is 2 \(limits\.{name} in uses_with of the indexer\)"):
        compile_filter(FILTERS[name], IndexLimits(**{name: 2}))


@pytest.mark.parametrize("name", ["limit", "offset"])
def test_searches(name: str) -> None:
    IndexLimits(**{name: 5000}).check_search(SearchParameters(**{name: 5000}))
    with pytest.raises(InvalidInput, match=rf"{name}: 1001 is too many; the most allowed is 1000 \(limits\.{name} in"):
        IndexLimits().check_search(SearchParameters(**{name: 1001}))


def test_ids() -> None:
    batch = DocumentBatch.from_columns(ids=["a" * 9], texts=["a"], embeddings=np.ones((1, 3), np.float32))
    assert not read_documents(batch, max_passages=9, limits=IndexLimits(id_characters=9))[1]
    _, failures = read_documents(batch, max_passages=9, limits=IndexLimits(id_characters=8))
    assert "limits.id_characters" in failures[0].message


@pytest.mark.parametrize("limits", [{"limit": 0}, {"filter_depth": 100}, {"unknown": 1}, "many"])
def test_limits_that_are_none(limits: Any) -> None:
    with pytest.raises(ConfigurationError, match="limits"):
        QdrantIndexer(uri="memory://", limits=limits)
