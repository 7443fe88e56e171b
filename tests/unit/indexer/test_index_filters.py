"""The filter language: what compiles to what, and what is refused with which words. What filters select is tested
against the backends, in tests/integration/test_indexer_contract.py."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from qdrant_client import models

from flowdex.errors import InvalidInput
from flowdex_executors.indexer.filters import compile_filter
from flowdex_executors.indexer.limits import IndexLimits


def compiled(value: Any) -> Any:
    result = compile_filter(value)
    assert isinstance(result, models.Filter)
    return result.model_dump(exclude_none=True, mode="json")["must"]


@pytest.mark.parametrize("value", [None, {}])
def test_an_empty_filter_is_none(value: Any) -> None:
    assert compile_filter(value) is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"lang": "en"}, [{"key": "tags.lang", "match": {"value": "en"}}]),
        ({"id": "a"}, [{"key": "document_id", "match": {"value": "a"}}]),
        ({"year": 2020.0}, [{"key": "tags.year", "range": {"gte": 2020.0, "lte": 2020.0}}]),
        ({"draft": True}, [{"key": "flags", "match": {"value": "draft=true"}}]),
        ({"a.b": "x"}, [{"key": "tags.a.b", "match": {"value": "x"}}]),
        ({"a b.ü": "x"}, [{"key": 'tags."a b"."ü"', "match": {"value": "x"}}]),
        ({"authors[].name": "x"}, [{"key": "tags.authors[].name", "match": {"value": "x"}}]),
        ({"x": None}, [{"is_empty": {"key": "tags.x"}}]),
        ({"x": {"$exists": True}}, [{"must_not": [{"is_empty": {"key": "tags.x"}}]}]),
        ({"x": {"$in": ["a", "b"]}}, [{"key": "tags.x", "match": {"any": ["a", "b"]}}]),
        ({"x": {"$gt": 1, "$lte": 5}}, [{"key": "tags.x", "range": {"gt": 1.0, "lte": 5.0}}]),
        (
            {"x": {"$gte": "2024-05-31"}},
            [
                {
                    "must": [{"key": "tags.x", "range": {"gte": "2024-05-31T00:00:00Z"}}],
                    "must_not": [{"key": "tags.x", "range": {"gte": -sys.float_info.max}}],  # no numbers
                }
            ],
        ),
        ({"$not": {"x": "a"}}, [{"must_not": [{"must": [{"key": "tags.x", "match": {"value": "a"}}]}]}]),
    ],
)
def test_compiles(value: Any, expected: Any) -> None:
    assert compiled(value) == expected


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"year": {"$gtt": 3}}, r"filter\.year: unknown operator '\$gtt', did you mean \$gte?"),
        ({"$nott": {"a": 1}}, r"did you mean \$not"),
        ({"$gt": 3}, r"\$gt belongs into a field"),
        ({"a": {"$and": []}}, r"\$and belongs into an object of filters"),
        ({"a": {"b": 1}}, r"filter\.a: unknown operator 'b'"),
        ({"a": {}}, r"filter\.a: expected a value or an operator"),
        ({"a": {"$in": "abc"}}, r"filter\.a\.\$in: expected a list"),
        ({"a": {"$in": []}}, r"expected one value or more"),
        ({"a": {"$gt": "soon"}}, r"ISO 8601 date .*got 'soon'"),
        ({"a": {"$gt": True}}, r"expected a number"),
        ({"a": {"$gt": 1, "$lt": "2024-01-01"}}, r"either of numbers or of dates"),
        ({"a": {"$exists": 1}}, r"expected true or false"),
        ({"a": [1]}, r"filter\.a: expected a string, number or boolean"),
        ({"a": float("nan")}, r"expected a string, number or boolean"),
        ({"$or": []}, r"filter\.\$or: expected a list of filters"),
        ({"$or": {"a": 1}}, r"filter\.\$or: expected a list of filters"),
        ({"$and": [3]}, r"filter\.\$and\[0\]: expected an object"),
        ({'a"b': 1}, r"is not a path"),
        ({"a..b": 1}, r"is not a path"),
        ({"": 1}, r"is not a path"),
        ("year > 3", r"expected an object"),
        ([], r"expected an object"),
    ],
)
def test_refuses(value: Any, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        compile_filter(value)


def test_depth_and_size_are_bounded() -> None:
    deep: dict[str, Any] = {"a": 1}
    for _ in range(IndexLimits().filter_depth):
        deep = {"$not": deep}
    with pytest.raises(InvalidInput, match="nested deeper"):
        compile_filter(deep)
    with pytest.raises(InvalidInput, match="the most allowed is 1000"):
        compile_filter({"$or": [{"a": 1}] * 1001})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["$and", "$or", "$not", "$in", "$gt", "$eq", "$exists", "a", "a.b", "id"])
            | st.text(max_size=3),
            inner,
            max_size=3,
        )
    ),
    max_leaves=12,
)


@given(json_values)
def test_any_json_compiles_or_is_refused(value: Any) -> None:
    try:
        compile_filter(value)
    except InvalidInput as error:
        assert error.message.startswith("filter") or "the filter" in error.message
