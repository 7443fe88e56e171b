"""Aggregation, MMR, late interaction and the rerank stage, by numbers worked by hand and by their properties."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowdex.errors import Unavailable
from flowdex_executors.ranker.aggregation import Hit, aggregate, group_by_document
from flowdex_executors.ranker.diversity import diversify
from flowdex_executors.ranker.flow_encoder import TokenMatrix
from flowdex_executors.ranker.late_interaction import VectorCache, match_score
from flowdex_executors.ranker.parameters import Aggregation, Reranking, SearchParameters
from flowdex_executors.ranker.rerank import Candidates, Scores, rerank

METHODS = ("max", "mean", "sum", "softmax")
scores_of = st.lists(st.floats(0, 100), min_size=1, max_size=8).map(lambda values: sorted(values, reverse=True))


# ---- passages to documents ----


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("max", [("a", 4.0), ("b", 3.0)]),
        ("mean", [("b", 3.0), ("a", 2.0)]),  # (4 + 1 + 1) / 3
        ("sum", [("b", 6.0), ("a", 5.0)]),  # of two: 3 + 3, 4 + 1
    ],
)
def test_documents_by_hand(method: str, expected: list[tuple[str, float]]) -> None:
    how = Aggregation(method=method, top=2)  # type: ignore[arg-type]
    hits = group_by_document(["a", "b", "a", "b", "a"], [4, 3, 1, 3, 1], how)
    assert [(hit.id, hit.score) for hit in hits] == expected
    assert {hit.id: hit.rows for hit in hits} == {"a": (0, 2, 4), "b": (1, 3)}


def test_softmax_by_hand() -> None:
    weight = math.exp(-2 / 2)  # two scores that are one deviation apart
    assert aggregate([3.0, 1.0], Aggregation(method="softmax"), 2.0) == pytest.approx((3 + weight) / (1 + weight))


@given(scores_of, st.sampled_from(METHODS), st.floats(0.01, 100), st.floats(0, 50))
def test_scores_lie_where_they_should(scores: list[float], method: str, temperature: float, deviation: float) -> None:
    value = aggregate(scores, Aggregation(method=method, temperature=temperature), deviation)  # type: ignore[arg-type]
    most = sum(scores[:3]) if method == "sum" else scores[0]
    assert scores[-1] - 1e-9 <= value <= most + 1e-9
    mean = sum(scores) / len(scores)
    if method in ("max", "softmax"):
        assert value >= mean - 1e-9
    assert aggregate(scores[:1], Aggregation(method=method), deviation) == scores[0]  # type: ignore[arg-type]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 9)), max_size=12), st.sampled_from(METHODS))
def test_every_passage_belongs_to_one_hit(passages: list[tuple[str, float]], method: str) -> None:
    hits = group_by_document([p for p, _ in passages], [s for _, s in passages], Aggregation(method=method))  # type: ignore[arg-type]
    assert sorted(row for hit in hits for row in hit.rows) == list(range(len(passages)))
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert all(passages[hit.rows[0]][1] == max(passages[row][1] for row in hit.rows) for hit in hits)


# ---- diversity ----


def test_mmr_by_hand() -> None:
    vectors = np.array([[1, 0], [1, 0], [0, 1]], dtype=np.float32)
    # After the first: 0.5 * 0.9 - 0.5 * 1 = -0.05 for its twin, 0.5 * 0 - 0 = 0 for the one that differs.
    assert diversify([1.0, 0.9, 0.0], vectors, 0.5) == [0, 2, 1]
    # 0.9 * 0.9 - 0.1 = 0.71 is more than 0.
    assert diversify([1.0, 0.9, 0.0], vectors, 0.1) == [0, 1, 2]


@given(st.lists(st.tuples(st.floats(-5, 5), st.floats(-1, 1), st.floats(-1, 1)), max_size=9), st.floats(0, 1))
def test_mmr_orders_all_and_without_weight_leaves_the_order(
    rows: list[tuple[float, float, float]], weight: float
) -> None:
    rows = sorted(rows, key=lambda row: -row[0])
    vectors = np.array([row[1:] for row in rows], dtype=np.float32).reshape(-1, 2)
    scores = [row[0] for row in rows]
    assert sorted(diversify(scores, vectors, weight)) == list(range(len(rows)))
    assert [scores[place] for place in diversify(scores, vectors, 0.0)] == scores


# ---- late interaction ----


def matrix(*rows: Sequence[float]) -> TokenMatrix:
    values = np.array(rows, dtype=np.float32)
    lengths = np.linalg.norm(values, axis=1)
    return TokenMatrix((values / lengths[:, None]).astype(np.float16), lengths.astype(np.float32))


def test_match_score_by_hand() -> None:
    query = matrix([3, 0], [0, 1])  # weights 3 and 1
    text = matrix([1, 0], [0, 2], [-1, 0], [0, -1]).vectors
    # One best match: 1 and 1. Three best: (1 + 0 + 0) / 3 for both.
    assert match_score(query, [text], matches=1)[0] == pytest.approx(1.0)
    assert match_score(query, [text], matches=3)[0] == pytest.approx(1 / 3)
    # A text of one token has one match: (3 * 1 + 1 * 0) / 4. One without tokens has none.
    assert match_score(query, [matrix([5, 0]).vectors, np.zeros((0, 2), np.float16)]).tolist() == [0.75, 0.0]


def test_the_cache_keeps_what_was_used_last_within_its_bytes() -> None:
    cache = VectorCache(3 * 16)
    cache.open("one")
    rows = np.ones((2, 4), np.float16)  # 16 bytes
    for text in "abc":
        cache.put(text, rows, "one")
    assert cache.get("a") is not None
    cache.put("d", rows, "one")
    assert [cache.get(text) is not None for text in "abcd"] == [True, False, True, True]
    assert cache.size == 48
    cache.put("big", np.ones((9, 9), np.float16), "one")
    cache.put("late", rows, "another encoder")
    assert cache.get("big") is None
    assert cache.get("late") is None
    assert cache.open("two")
    assert len(cache) == cache.size == 0


# ---- the stage ----


class Fixed:
    """Scores texts by the number that they are; a query may ask it to be slow or to fail."""

    def __init__(self, replaces: bool) -> None:
        self.replaces = replaces

    async def score(self, query: str, texts: Sequence[str], timeout: float) -> Scores:
        if query == "slow":
            await asyncio.sleep(60)
        if query == "fails":
            raise Unavailable("nobody is there")
        return np.array([float(text) for text in texts])


def candidates(query: str, texts: Sequence[str | None], scores: Sequence[float]) -> Candidates:
    hits = [Hit(str(place), score, (place,)) for place, score in enumerate(scores)]
    return Candidates(query, hits, texts, [{"score": score} for score in scores])


async def ids(scorer: Fixed, given: Candidates, **settings: float) -> list[str]:
    (outcome,) = await rerank(scorer, [given], Reranking(method="cross_encoder", **settings))  # type: ignore[arg-type]
    scores = [hit.score for hit in outcome.hits]
    assert scores == sorted(scores, reverse=True)
    return [hit.id for hit in outcome.hits]


async def test_a_cross_encoder_replaces_the_order_of_the_first() -> None:
    given = candidates("q", ["1", "2", "9", "7"], [0.4, 0.3, 0.2, 0.1])
    assert await ids(Fixed(replaces=True), given) == ["2", "3", "1", "0"]
    assert await ids(Fixed(replaces=True), given, top=2) == ["1", "0", "2", "3"]


async def test_late_interaction_is_weighed_with_what_is_known() -> None:
    # Both standardised alike: the places of the two are added up.
    given = candidates("q", ["1", "2", "4"], [4.0, 2.0, 1.0])
    (outcome,) = await rerank(Fixed(replaces=False), [given], Reranking(method="late_interaction"))
    by_id = {hit.id: hit.score for hit in outcome.hits}
    assert by_id["0"] == pytest.approx(by_id["2"])
    assert by_id["1"] < by_id["0"]
    assert [hit.rerank for hit in sorted(outcome.hits, key=lambda hit: hit.id)] == [1.0, 2.0, 4.0]


async def test_what_has_no_text_stays_below() -> None:
    assert await ids(Fixed(replaces=True), candidates("q", ["1", None, "2"], [0.9, 0.8, 0.1])) == ["2", "0", "1"]


async def test_each_query_is_reranked_wholly_or_not_at_all() -> None:
    given = [candidates(query, ["1", "2"], [0.2, 0.1]) for query in ("slow", "q", "fails")]
    outcomes = await rerank(Fixed(replaces=True), given, Reranking(method="cross_encoder", timeout=0.2))
    assert [[hit.id for hit in outcome.hits] for outcome in outcomes] == [["0", "1"], ["1", "0"], ["0", "1"]]
    assert outcomes[0].note is not None
    assert "was not done within 0.2 s" in outcomes[0].note
    assert outcomes[1].note is None
    assert outcomes[2].note == "not reranked: cross_encoder failed: nobody is there"


async def test_the_budget_of_the_request_comes_before_the_stages_own() -> None:
    given = [candidates("slow", ["1"], [0.2])]
    (outcome,) = await rerank(Fixed(replaces=True), given, Reranking(method="cross_encoder", timeout=60), 0.05)
    assert outcome.note is not None
    assert "0.05 s" in outcome.note


def test_a_request_changes_what_the_flow_has() -> None:
    default = Reranking(method="late_interaction", top=20, timeout=3)

    def of(**given: object) -> Reranking | None:
        return SearchParameters.of(given, Aggregation(), default).rerank

    assert of() == default
    assert of(rerank=None) is of(rerank="none") is None
    assert of(rerank={"top": 5}) == Reranking(method="late_interaction", top=5, timeout=3)
    assert of(rerank="cross_encoder") == Reranking(method="cross_encoder")
