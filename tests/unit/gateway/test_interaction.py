"""Token meets token: cosines, what counts as a token, weights."""

from __future__ import annotations

import numpy as np
import pytest

from flowdex_orchestrator.gateway.http.interaction import TokenVectors, meet


def tokens(*rows: tuple[str, int, int, list[float]], dropped: int | None = None) -> TokenVectors:
    return TokenVectors(
        [row[0] for row in rows],
        np.array([row[1:3] for row in rows]).reshape(-1, 2),
        np.array([row[3] for row in rows], dtype=np.float32).reshape(len(rows), -1),
        dropped,
    )


def test_cosines_of_the_tokens_that_have_a_place() -> None:
    query = tokens(("[CLS]", 0, 0, [9, 9]), ("moon", 0, 4, [2, 0]), ("dust", 5, 9, [0, 6]), ("[SEP]", 0, 0, [1, 1]))
    text = tokens(("[CLS]", 0, 0, [5, 5]), ("moon", 3, 7, [1, 0]), ("rock", 8, 12, [1, 1]), dropped=7)
    content = meet(query, text)
    assert content["query"]["texts"] == ["moon", "dust"]
    assert content["query"]["spans"] == [[0, 4], [5, 9]]
    assert content["query"]["weights"] == pytest.approx([0.25, 0.75])
    assert content["query"]["dropped"] is None
    assert (content["text"]["texts"], content["text"]["dropped"]) == (["moon", "rock"], 7)
    half = 0.5**0.5
    assert content["cosines"] == pytest.approx(np.array([[1, half], [0, half]]))
    assert content["cosines"].dtype == np.float32


def test_a_side_without_tokens_has_no_cosines() -> None:
    nothing = tokens(("[CLS]", 0, 0, [1, 0]), ("[SEP]", 0, 0, [1, 0]))
    some = tokens(("moon", 0, 4, [1, 0]))
    assert meet(nothing, some)["cosines"].shape == (0, 1)
    assert meet(some, nothing)["cosines"].shape == (1, 0)
    assert meet(some, nothing)["text"] == {"texts": [], "spans": [], "weights": pytest.approx([]), "dropped": None}


def test_a_vector_of_zeros_is_near_nothing() -> None:
    content = meet(tokens(("a", 0, 1, [0, 0])), tokens(("b", 0, 1, [1, 0])))
    assert content["cosines"].tolist() == [[0.0]]
    assert content["query"]["weights"].tolist() == [0.0]
