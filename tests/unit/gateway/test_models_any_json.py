"""Whatever JSON a body holds: a model or a validation error, and a model can be sent on or is refused by name."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from mutation.requests import HTTP
from pydantic import BaseModel, ValidationError

from flowdex import wire
from flowdex.documents import DocumentBatch
from flowdex.errors import InvalidInput
from flowdex_orchestrator.gateway.http import models
from flowdex_orchestrator.gateway.http.compat import tei_models
from flowdex_orchestrator.gateway.http.jina.messages import JinaRequest, documents_from_json

MODELS: list[type[BaseModel]] = [
    *(models.EncodeRequest, models.IndexRequest, models.SearchRequest, models.RankRequest, models.GetRequest),
    *(models.ScrollRequest, models.CountRequest, models.DeleteRequest, models.MapRequest, models.CompareRequest),
    *(models.AttentionRequest, models.InteractionRequest, JinaRequest, tei_models.EmbedRequest),
    *(tei_models.TeiRerankRequest, tei_models.TokenizeRequest, tei_models.DecodeRequest, tei_models.SimilarityRequest),
]
NAMES = sorted({name for model in MODELS for name in model.model_fields} | {"method", "k", "weights", "top", "text"})
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.sampled_from(["rrf", "none", "mean"])
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.one_of(st.sampled_from(NAMES), st.text(max_size=5)), inner, max_size=4),
    ),
    max_leaves=12,
)


def _nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = {"a": value}
    return value


@st.composite
def bodies(draw: st.DrawFn) -> tuple[type[BaseModel], Any]:
    """A model, and an object with some of its keys; the others are those of a valid request."""
    model = draw(st.sampled_from(MODELS))
    valid = [
        each.body for each in HTTP if isinstance(each.body, dict) and each.body.keys() <= model.model_fields.keys()
    ]
    body = dict(draw(st.sampled_from(valid))) if valid else {}
    return model, {**body, **draw(st.dictionaries(st.sampled_from(sorted(model.model_fields)), values, max_size=3))}


@settings(max_examples=400, deadline=None)
@given(bodies())
@example((models.SearchRequest, {"query": "a", "filter": _nested(900)}))
@example((models.SearchRequest, {"query": "a", "parameters": _nested(900)}))
@example((models.IndexRequest, {"documents": [{"text": "a", "tags": _nested(900)}]}))
@example((JinaRequest, {"data": [{"tags": _nested(900)}], "parameters": _nested(900), "execEndpoint": "/x"}))
@example((models.SearchRequest, {"query": "a", "filter": {"a": 2**70, "b": float("nan")}}))
def test_any_json(case: tuple[type[BaseModel], Any]) -> None:
    kind, body = case
    try:
        model = kind.model_validate(body)
    except ValidationError as error:
        assert error.errors(include_url=False)
        return
    try:
        if isinstance(model, JinaRequest):
            documents_from_json(model.data)
            wire.struct_from_dict(model.parameters or {})
        else:
            wire.build_request("/x", DocumentBatch(), parameters=model.model_dump(exclude_none=True))
    except InvalidInput as error:
        assert error.message


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"limit": 1, "limit": 2}', {"limit": 2}),  # of two keys the last counts
        ('{"a": 18446744073709551616}', {"a": 2.0**64}),  # beyond 64 bits a number is a float
        ('{"a": "\\u202e\\u0000e\\u0301"}', {"a": "\u202e\0e\u0301"}),  # any Unicode is a text
    ],
)
def test_what_is_odd_but_defined(text: str, value: Any) -> None:
    assert orjson.loads(text) == value


@pytest.mark.parametrize("text", ['{"a": NaN}', '{"a": Infinity}', '"\\ud800"', "[" * 2000 + "]" * 2000, "01", "'a'"])
def test_what_is_no_json(text: str) -> None:
    with pytest.raises(orjson.JSONDecodeError):
        orjson.loads(text)
