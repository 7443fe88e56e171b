"""BM25 of our own on the engine's counts: equal to the engine's where nothing is weighted, BM25F where something is."""

from __future__ import annotations

from typing import Any

import pytest
import qdrant_edge as edge
from hypothesis import given, settings
from hypothesis import strategies as st

from flowdex_executors.indexer.sparse import SparseEncoder

AVERAGE = 20.0
ENCODER = SparseEncoder(AVERAGE)
REFERENCE = edge.Bm25(
    edge.Bm25Config(avg_len=AVERAGE, tokenizer=edge.TokenizerType.Multilingual, language="english", lowercase=True)
)
WORDS = st.sampled_from(
    ["fox", "foxes", "the", "Running", "runs", "搜索引擎", "naïve", "2024", "x-ray", "\n\n", "don't"]
)


def encode(text: str, context: str | None = None, weights: Any = None) -> dict[int, float]:
    (vector,) = ENCODER.passages([text], contexts=[context], weights=[weights])
    return dict(zip(vector.indices.tolist(), vector.values.tolist(), strict=True))


def term(word: str) -> int:
    (index,) = REFERENCE.embed_query(word).indices
    return int(index)


def bm25(count: float, length: float) -> float:
    return count * 2.2 / (count + 1.2 * (0.25 + 0.75 * length / AVERAGE))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(WORDS, max_size=60).map(" ".join), max_size=5))
def test_without_weights_it_is_the_engines_bm25_to_the_last_bit(texts: list[str]) -> None:
    for text, vector in zip(texts, ENCODER.passages(texts), strict=True):
        expected = REFERENCE.embed_document(text)
        assert dict(zip(vector.indices.tolist(), vector.values.tolist(), strict=True)) == dict(
            zip(expected.indices, expected.values, strict=True)
        )


def test_weights_of_1_and_blank_contexts_change_nothing() -> None:
    text = "red fox jumps over the red fence"
    assert encode(text, None, [[0, 7, 1.0]]) == pytest.approx(encode(text))
    assert encode(text, "", []) == encode(text)
    assert encode(text, " \n") == pytest.approx(encode(text))


def test_a_span_of_weight_w_counts_as_if_it_were_there_w_times() -> None:
    text = "Moon\n\nApollo landed on the Moon"
    found = encode(text, None, [[0, 4, 3.0]])
    assert found == pytest.approx(encode("Moon Moon Moon Apollo landed on the Moon"))
    assert found[term("moon")] == pytest.approx(bm25(4, 6), rel=1e-6)
    assert found[term("apollo")] == pytest.approx(bm25(1, 6), rel=1e-6)


def test_weights_are_not_repetitions_only() -> None:
    found = encode("Moon Apollo", None, [[0, 4, 2.5], [5, 11, 0.5]])
    assert found[term("moon")] == pytest.approx(bm25(2.5, 3), rel=1e-6)
    assert found[term("apollo")] == pytest.approx(bm25(0.5, 3), rel=1e-6)
    assert set(encode("Moon Apollo", None, [[0, 4, 0.0]])) == {term("apollo")}


def test_overlapping_spans_and_those_beyond_the_text() -> None:
    found = encode("Moon Apollo", None, [[0, 99, 2.0], [5, 11, 4.0], [40, 50, 9.0], [-5, 0, 9.0]])
    assert found[term("moon")] == pytest.approx(bm25(2, 6), rel=1e-6)
    assert found[term("apollo")] == pytest.approx(bm25(4, 6), rel=1e-6)


def test_a_context_counts_with_the_text() -> None:
    assert encode("landed on the Moon", "Apollo 11") == pytest.approx(encode("landed on the Moon Apollo 11"))


def test_texts_without_terms() -> None:
    assert encode("the") == {}
    assert encode("") == {}
    assert ENCODER.passages([]) == []
    assert ENCODER.query("the") is None
