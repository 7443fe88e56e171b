"""Filters select what a plain reading of their definition selects: random filters over random documents.

tags, filter --QdrantIndexer, embedded--> ids
tags, filter --matches, a few lines of Python--> ids
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flowdex.documents import DocumentBatch
from flowdex_executors import DocumentColumns, QdrantIndexer

COUNT = 150
Find = Callable[[dict[str, Any]], set[str]]

# ---- documents ----

SCALARS: list[Any] = ["a", "b", "", "1", "true", "ä b", 0, 1, 1.0, -3, 2.5, 10**9, True, False]
DATES = ["2023-01-01", "2024-05-31T12:00:00Z", "2024-05-31T14:00:00+02:00", "2025-02-28T23:59:59.5Z"]


def random_tags(choose: random.Random) -> dict[str, Any]:
    def scalar() -> Any:
        return choose.choice(SCALARS)

    makers: dict[str, Callable[[], Any]] = {
        "x": scalar,
        "y": lambda: [scalar() for _ in range(choose.randint(0, 3))],
        "n": lambda: choose.choice([choose.randint(-5, 5), choose.uniform(-5, 5)]),
        "when": lambda: choose.choice(DATES),
        "who": lambda: {"name": scalar(), "age": choose.randint(0, 5)},
        "odd key": scalar,
        "none": lambda: None,
        "authors": lambda: [{"name": scalar()} for _ in range(choose.randint(0, 2))],
    }
    return {name: make() for name, make in makers.items() if choose.random() < 0.7}


DOCUMENTS = {f"d{number}": random_tags(random.Random(number)) for number in range(COUNT)}

# ---- the oracle ----


def values(tags: dict[str, Any], path: str) -> list[Any]:
    """All values at a path; the elements of a list at its end."""
    found: list[Any] = [tags]
    for step in path.split("."):
        name = step.removesuffix("[]")
        found = [each[name] for each in found if isinstance(each, dict) and name in each]
        if step.endswith("[]"):
            found = [item for each in found if isinstance(each, list) for item in each]
    return [item for each in found for item in (each if isinstance(each, list) else [each]) if item is not None]


def equal(left: Any, right: Any) -> bool:
    return isinstance(left, bool) == isinstance(right, bool) and left == right


def moment(text: Any) -> datetime | None:
    try:
        found = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except (AttributeError, ValueError):
        return None
    return found if found.tzinfo else found.replace(tzinfo=timezone.utc)


COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "$gt": lambda left, right: left > right,
    "$gte": lambda left, right: left >= right,
    "$lt": lambda left, right: left < right,
    "$lte": lambda left, right: left <= right,
}


def in_range(value: Any, bounds: dict[str, Any]) -> bool:
    if any(isinstance(bound, str) for bound in bounds.values()):
        value, bounds = moment(value), {name: moment(bound) for name, bound in bounds.items()}
        return value is not None and all(COMPARE[name](value, bound) for name, bound in bounds.items())
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number and all(COMPARE[name](value, bound) for name, bound in bounds.items())


def field_matches(document_id: str, tags: dict[str, Any], path: str, condition: Any) -> bool:
    found = [document_id] if path == "id" else values(tags, path)
    if not isinstance(condition, dict):
        condition = {"$eq": condition}
    bounds = {name: value for name, value in condition.items() if name in COMPARE}

    def holds(operator: str, value: Any) -> bool:
        if operator in ("$eq", "$ne"):
            is_equal = not found if value is None else any(equal(each, value) for each in found)
            return is_equal == (operator == "$eq")
        if operator in ("$in", "$nin"):
            return any(equal(each, item) for each in found for item in value) == (operator == "$in")
        assert operator == "$exists"
        return bool(found) == value

    others = all(holds(name, value) for name, value in condition.items() if name not in COMPARE)
    return others and (not bounds or any(in_range(each, bounds) for each in found))


def matches(document_id: str, tags: dict[str, Any], condition: dict[str, Any]) -> bool:
    def one(key: str, value: Any) -> bool:
        if key == "$and":
            return all(matches(document_id, tags, each) for each in value)
        if key == "$or":
            return any(matches(document_id, tags, each) for each in value)
        if key == "$not":
            return not matches(document_id, tags, value)
        return field_matches(document_id, tags, key, value)

    return all(one(key, value) for key, value in condition.items())


# ---- filters ----

scalars = st.sampled_from(SCALARS)
numbers = st.sampled_from([-5, -1.5, 0, 1, 2.5, 4, 10**9])
paths = st.sampled_from(["x", "y", "n", "when", "who.name", "who.age", "odd key", "none", "authors[].name", "nowhere"])
ranges = st.dictionaries(st.sampled_from(list(COMPARE)), numbers, min_size=1, max_size=3)
date_ranges = st.dictionaries(st.sampled_from(list(COMPARE)), st.sampled_from(DATES), min_size=1, max_size=2)
conditions = st.one_of(
    scalars,
    st.none(),
    ranges,
    date_ranges,
    scalars.map(lambda value: {"$eq": value}),
    scalars.map(lambda value: {"$ne": value}),
    st.lists(scalars, min_size=1, max_size=4).map(lambda listed: {"$in": listed}),
    st.lists(scalars, min_size=1, max_size=4).map(lambda listed: {"$nin": listed}),
    st.booleans().map(lambda value: {"$exists": value}),
)
ids = st.sampled_from(["d0", "d7", "d149", "zzz"])
fields = st.dictionaries(paths, conditions, min_size=1, max_size=2) | ids.map(lambda value: {"id": value})
filters = st.recursive(
    fields,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(lambda listed: {"$and": listed}),
        st.lists(inner, min_size=1, max_size=3).map(lambda listed: {"$or": listed}),
        inner.map(lambda value: {"$not": value}),
    ),
    max_leaves=6,
)


@pytest.fixture(scope="module", params=[32, 0], ids=["indexed", "unindexed"])
def find(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Find]:
    loop = asyncio.new_event_loop()
    indexer = QdrantIndexer(uri=f"edge://{tmp_path_factory.mktemp('index')}", tag_indexes=request.param)
    vectors = np.random.default_rng(0).standard_normal((COUNT, 4)).astype(np.float32)
    batch = DocumentBatch.from_columns(
        ids=list(DOCUMENTS), texts=["word"] * COUNT, tags=list(DOCUMENTS.values()), embeddings=vectors
    )
    loop.run_until_complete(indexer.index(DocumentColumns(batch)))

    def search(condition: dict[str, Any]) -> set[str]:
        query = DocumentColumns(DocumentBatch.from_columns(texts=["word"], embeddings=vectors[:1]))
        parameters = {"filter": condition, "limit": COUNT, "mode": "dense"}
        reply = loop.run_until_complete(indexer.search(query, parameters))
        return set(reply.batch.nested("matches")[0].column("parent_id"))

    yield search
    closing = indexer.close()
    if closing is not None:
        loop.run_until_complete(closing)
    loop.close()


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(filters)
def test_a_filter_selects_what_its_definition_says(find: Find, condition: dict[str, Any]) -> None:
    expected = {name for name, tags in DOCUMENTS.items() if matches(name, tags, condition)}
    assert find(condition) == expected
