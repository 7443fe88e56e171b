"""Fusion of rankings, and what search makes of the points that an index answers: one order, paged without gaps."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowdex.errors import InvalidInput
from flowdex_executors.indexer.fusion import Fusion, fuse
from flowdex_executors.indexer.search import (
    Query,
    best_hits,
    explanation,
    ranked,
    read_rankings,
    requests_for,
)
from flowdex_executors.indexer.search_parameters import SearchParameters
from flowdex_executors.parameters import parse_parameters

DENSE = [("a", 0.9), ("b", 0.8), ("c", 0.1)]
SPARSE = [("c", 7.0), ("a", 3.0), ("d", 2.0)]
RANKINGS = {"dense": DENSE, "sparse": SPARSE}


# ---- the arithmetic ----


def test_rrf_by_hand() -> None:
    assert fuse(RANKINGS, Fusion("rrf", k=60)) == pytest.approx(
        {"a": 1 / 60 + 1 / 61, "b": 1 / 61, "c": 1 / 62 + 1 / 60, "d": 1 / 62}
    )
    weighted = fuse(RANKINGS, Fusion("rrf", k=2, weights={"sparse": 3}))
    assert weighted == pytest.approx({"a": 1 / 2 + 3 / 3, "b": 1 / 3, "c": 1 / 4 + 3 / 2, "d": 3 / 4})


def test_dbsf_by_hand() -> None:
    # dense: mean 0.6, sample deviation sqrt((0.09 + 0.04 + 0.25) / 2); sparse: mean 4, deviation sqrt(14 / 2)
    dense, sparse = (0.38 / 2) ** 0.5, 7**0.5
    expected = {
        "a": 0.3 / (6 * dense) + 0.5 - 1 / (6 * sparse) + 0.5,
        "b": 0.2 / (6 * dense) + 0.5,
        "c": -0.5 / (6 * dense) + 0.5 + 3 / (6 * sparse) + 0.5,
        "d": -2 / (6 * sparse) + 0.5,
    }
    assert fuse(RANKINGS, Fusion("dbsf")) == pytest.approx(expected)
    assert fuse({"dense": DENSE}, Fusion("dbsf", weights={"dense": 2}))["b"] == pytest.approx(2 * expected["b"])


@pytest.mark.parametrize("scores", [[3.0], [0.3, 0.3, 0.3], [0.1 + 0.2, 0.3], [0.0, 0.0]])
def test_dbsf_without_a_spread_counts_a_half(scores: list[float]) -> None:
    fused = fuse({"dense": [(str(index), score) for index, score in enumerate(scores)]}, Fusion("dbsf"))
    assert list(fused.values()) == [0.5] * len(scores)


def test_the_engine_fuses_alike(tmp_path: Path) -> None:
    import qdrant_edge as edge

    size = edge.EdgeVectorParams(size=6, distance=edge.Distance.Dot)
    shard = edge.EdgeShard.create(str(tmp_path), edge.EdgeConfig(vectors={"one": size, "two": size}))
    rng = np.random.default_rng(0)
    vectors = {name: rng.standard_normal((60, 6)).astype(np.float32) for name in ("one", "two")}
    queries = {name: rng.standard_normal(6).astype(np.float32) for name in vectors}
    rows = [{name: column[row].tolist() for name, column in vectors.items()} for row in range(60)]
    shard.update(edge.UpdateOperation.upsert_points([edge.Point(row, vector, {}) for row, vector in enumerate(rows)]))
    prefetches = [
        edge.Prefetch(limit=25, query=edge.Query.Nearest(query.tolist(), using=name)) for name, query in queries.items()
    ]
    found = {}
    for name, column in vectors.items():
        scores = (column @ queries[name]).tolist()
        found[name] = [(row, scores[row]) for row in sorted(range(60), key=lambda row: -scores[row])[:25]]
    for theirs, ours in ((edge.Fusion.Rrf(60), Fusion("rrf", 60)), (edge.Fusion.Dbsf(), Fusion("dbsf"))):
        points = shard.query(edge.QueryRequest(limit=100, query=theirs, prefetches=prefetches))
        assert fuse(found, ours) == pytest.approx({int(point.id): point.score for point in points}, abs=1e-5)
    shard.close()


rankings = st.dictionaries(
    st.sampled_from(["dense", "sparse"]),
    st.dictionaries(st.integers(0, 30), st.floats(-100, 100), max_size=20).map(
        lambda found: sorted(found.items(), key=lambda item: -item[1])
    ),
)
fusions = st.builds(
    Fusion,
    st.sampled_from(["rrf", "dbsf"]),
    st.floats(1, 1000),
    st.dictionaries(st.sampled_from(["dense", "sparse"]), st.floats(0, 10)),
)


@given(rankings, fusions)
def test_everything_is_scored_and_nothing_depends_on_the_order_of_rankings(found: Any, fusion: Fusion) -> None:
    fused = fuse(found, fusion)
    assert set(fused) == {key for ranking in found.values() for key, _ in ranking}
    turned = fuse(dict(reversed(found.items())), fusion)
    assert turned == pytest.approx(fused)


@given(rankings, fusions)
def test_who_is_ahead_in_every_ranking_is_ahead(found: Any, fusion: Fusion) -> None:
    fused = fuse(found, fusion)
    places = {name: {key: rank for rank, (key, _) in enumerate(ranking)} for name, ranking in found.items()}
    everywhere = [key for key in fused if all(key in place for place in places.values())]
    for first in everywhere:
        for second in everywhere:
            if all(place[first] < place[second] for place in places.values()):
                assert fused[first] >= fused[second] - 1e-12


@given(rankings, st.floats(0.5, 4))
def test_dbsf_does_not_heed_the_unit_of_scores(found: Any, factor: float) -> None:
    whole = {name: [(key, round(score)) for key, score in ranking] for name, ranking in found.items()}
    scaled = {name: [(key, 3 + factor * score) for key, score in ranking] for name, ranking in whole.items()}
    assert fuse(scaled, Fusion("dbsf")) == pytest.approx(fuse(whole, Fusion("dbsf")), abs=1e-6)


# ---- parameters ----


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, Fusion("rrf", 60)),
        ({"fusion": None}, Fusion("rrf", 60)),
        ({"fusion": "rrf"}, Fusion("rrf", 60)),
        ({"fusion": "dbsf"}, Fusion("dbsf", 60)),
        ({"fusion": {"k": 5.0, "weights": {"sparse": 0.5}}}, Fusion("rrf", 5, {"sparse": 0.5})),
    ],
)
def test_fusion_is_read(given: dict[str, Any], expected: Fusion) -> None:
    assert parse_parameters(SearchParameters, given).fusion.fusion(60) == expected


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"fusion": "max"}, r"fusion\.method.*'rrf' or 'dbsf'"),
        ({"fusion": {"method": "rrf", "kk": 3}}, r"fusion\.kk"),
        ({"fusion": {"k": 0}}, r"fusion\.k"),
        ({"fusion": {"method": "dbsf", "k": 3}}, "k is the constant"),
        ({"fusion": {"weights": {"bm25": 1}}}, r"fusion\.weights\.bm25"),
        ({"fusion": {"weights": {"dense": -1}}}, r"fusion\.weights\.dense"),
        ({"fusion": {"weights": {"dense": 0, "sparse": 0}}}, "one of the weights must be more than 0"),
        ({"group": "page"}, "group"),
        ({"candidates": 0}, "candidates"),
    ],
)
def test_wrong_parameters_are_named(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        parse_parameters(SearchParameters, given)


@pytest.mark.parametrize(
    ("given", "units", "passages"),
    [
        ({}, 10, 5),
        ({"limit": 20, "offset": 40}, 60, 5),
        ({"rerank": "late_interaction"}, 50, 5),
        ({"rerank": {"method": "cross_encoder", "top": 20}, "limit": 5}, 20, 5),
        ({"diversity": 0.5}, 50, 5),
        ({"diversity": {"weight": 0.5, "candidates": 80}}, 80, 5),
        ({"aggregate": "max", "passages": 2}, 10, 2),
        ({"aggregate": "sum", "passages": 2}, 50, 5),
        ({"aggregate": {"method": "sum", "top": 8}}, 50, 8),
        ({"candidates": 30, "rerank": "cross_encoder"}, 30, 5),
        ({"candidates": 5, "limit": 10, "offset": 10}, 20, 5),
        ({"group": "passage", "aggregate": "sum"}, 10, None),
        ({"group": "passage", "passages": 1}, 10, 1),
    ],
)
def test_how_much_is_handed_on(given: dict[str, Any], units: int, passages: int | None) -> None:
    wanted = parse_parameters(SearchParameters, given)
    assert (wanted.units, wanted.passages_each) == (units, passages)


def test_a_ranking_without_weight_is_not_asked_for() -> None:
    from qdrant_client import models

    query = Query([1.0], models.SparseVector(indices=[1], values=[1.0]))
    asked = requests_for(
        query, 10, None, SearchParameters(fusion={"weights": {"sparse": 0}}), models.SearchParams(exact=True)
    )
    assert list(asked) == ["dense"]
    only = requests_for(
        Query([1.0]), 10, None, SearchParameters(fusion={"weights": {"dense": 0}}), models.SearchParams(exact=True)
    )
    assert list(only) == ["dense"]


# ---- points to hits ----


def point(name: str, score: float, generation: int = 1) -> Any:
    """A point named by document and ordinal, such as a0."""
    payload = {"document_id": name[0], "ordinal": int(name[1:]), "generation": generation}
    return SimpleNamespace(id=f"{name}/{generation}", score=score, payload=payload)


def names(hits: list[Any]) -> list[str]:
    return [f"{hit.document_id}{hit.ordinal}" for hit in hits]


def best(points: list[Any], **parameters: Any) -> list[str]:
    hits = ranked(read_rankings({"dense": points}, higher_is_better=True), 100, None)
    return names(best_hits(hits, SearchParameters(**parameters)))


def test_the_passages_of_the_best_documents() -> None:
    points = [point("a0", 0.9), point("b0", 0.8), point("a1", 0.7), point("c0", 0.6), point("b1", 0.5)]
    assert best(points, limit=2) == ["a0", "b0", "a1", "b1"]
    assert best(points, limit=2, passages=1) == ["a0", "b0"]
    assert best(points, limit=1, offset=1) == ["a0", "b0", "a1", "b1"]
    assert best(points) == ["a0", "b0", "a1", "c0", "b1"]
    assert best(points, group="passage", limit=3) == ["a0", "b0", "a1"]
    assert best(points, group="passage", limit=3, passages=1) == ["a0", "b0", "c0"]


def test_ties_are_broken_by_document_and_place() -> None:
    points = [point("b0", 0.5), point("a1", 0.5), point("a0", 0.5)]
    assert best(points) == best(points[::-1]) == ["a0", "a1", "b0"]
    both = {"dense": points, "sparse": points[::-1]}
    hits = ranked(read_rankings(both, higher_is_better=True), 100, Fusion())
    assert names(hits) == ["a0", "a1", "b0"]


def test_only_the_newest_generation_of_a_document_counts() -> None:
    points = [point("a0", 0.9, generation=1), point("a1", 0.5, generation=2), point("b0", 0.4, generation=1)]
    assert best(points) == ["a1", "b0"]
    rankings = read_rankings({"dense": points[:1], "sparse": points[1:]}, higher_is_better=True)
    assert {name: names([hit for hit, _ in ranking]) for name, ranking in rankings.items()} == {
        "dense": [],
        "sparse": ["a1", "b0"],
    }


def test_distances_become_scores() -> None:
    rankings = read_rankings(
        {"dense": [point("a0", 0.1), point("b0", 3.0)], "sparse": [point("b0", 2.0)]}, higher_is_better=False
    )
    hits = {hit.document_id: hit for hit in ranked(rankings, 100, Fusion())}
    assert hits["a"].components["dense"].score == -0.1
    assert hits["b"].components["dense"].score == -3.0
    assert hits["b"].components["sparse"].score == 2.0


def test_an_explanation_has_rank_and_score_of_each_component() -> None:
    points = {"dense": [point("a0", 0.9), point("b0", 0.8)], "sparse": [point("b0", 7.0)]}
    hits = ranked(read_rankings(points, higher_is_better=True), 100, Fusion())
    assert explanation(hits[0], SearchParameters()) == {
        "dense": {"rank": 2, "score": 0.8},
        "sparse": {"rank": 1, "score": 7.0},
        "fusion": {"rank": 1, "score": pytest.approx(1 / 61 + 1 / 60), "method": "rrf"},
    }
    assert explanation(hits[1], SearchParameters(mode="dense")) == {"dense": {"rank": 1, "score": 0.9}}


scored = st.lists(st.tuples(st.integers(0, 400), st.integers(0, 30)), max_size=900, unique_by=lambda item: item[0])


@given(scored, scored, st.sampled_from([Fusion(), Fusion("dbsf"), Fusion("rrf", 2, {"sparse": 3})]))
def test_a_deeper_look_only_adds_at_the_end(dense: Any, sparse: Any, fusion: Fusion) -> None:
    def payload(number: int) -> dict[str, Any]:
        return {"document_id": f"{number:03}", "ordinal": 0, "generation": 1}

    def points(found: Any, depth: int) -> list[Any]:
        best = sorted(found, key=lambda item: (-item[1], item[0] * depth % 401))[: depth + 1]
        return [
            SimpleNamespace(
                id=str(number),
                score=float(score),
                payload={"document_id": f"{number:03}", "ordinal": 0, "generation": 1},
            )
            for number, score in best
        ]

    looks = [
        ranked(
            read_rankings({"dense": points(dense, depth), "sparse": points(sparse, depth)}, higher_is_better=True),
            depth,
            fusion,
        )
        for depth in (100, 400, 1600)
    ]
    for shallow, deep in pairwise(looks):
        assert [hit.id for hit in deep[: len(shallow)]] == [hit.id for hit in shallow]
        assert [hit.score for hit in deep[: len(shallow)]] == [hit.score for hit in shallow]
        assert not shallow or all(hit.score < shallow[-1].score for hit in deep[len(shallow) :])
    scores = [hit.score for hit in looks[-1]]
    assert scores == sorted(scores, reverse=True)
