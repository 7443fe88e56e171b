"""Rankings side by side, worked out by hand; and the vectors that are kept for them."""

from __future__ import annotations

import numpy as np
import pytest

from flowdex_orchestrator.gateway.http.comparison import Ranking, agreement, rank
from flowdex_orchestrator.gateway.http.vector_cache import VectorCache, key_of


def ranking(ids: str) -> Ranking:
    return Ranking(list(ids), [1 - place / 10 for place in range(len(ids))])


def test_rank_is_by_cosine_and_not_by_length() -> None:
    vectors = np.array([[10, 10], [0, 0], [1, 0], [-1, 0], [0, 5]], np.float32)
    found = rank(["diagonal", "nothing", "same", "opposite", "across"], vectors, np.array([3, 0], np.float32))
    assert found.ids == ["same", "diagonal", "nothing", "across", "opposite"], "what is equal keeps its order"
    np.testing.assert_allclose(found.scores, [1, np.sqrt(0.5), 0, 0, -1], atol=1e-6)
    assert found.ranks == {"same": 1, "diagonal": 2, "nothing": 3, "across": 4, "opposite": 5}


def test_a_query_of_zeros_ranks_all_alike() -> None:
    found = rank(["a", "b"], np.eye(2, dtype=np.float32), np.zeros(2, np.float32))
    assert (found.ids, found.scores) == (["a", "b"], [0, 0])


@pytest.mark.parametrize(
    ("orders", "limit", "expected"),
    [
        (("abcd", "abcd"), 4, (4, 1.0, 1.0, 4)),
        (("abcd", "dcba"), 4, (4, 1.0, -1.0, 4)),
        (("abcd", "dcba"), 2, (0, 0.0, -1.0, 4)),
        # ranks 1 2 3 4 against 2 1 4 3: squares 4 x 1, so 1 - 6 * 4 / (4 * 15)
        (("abcd", "badc"), 3, (2, 2 / 3, 0.6, 4)),
        # b, c and e are common: in one order 1 2 3, in the other 3 1 2: squares 4 + 1 + 1, 1 - 6 * 6 / (3 * 8)
        (("abcde", "xceyb"), 5, (3, 0.6, -0.5, 3)),
        (("ab", "bcde"), 4, (1, 0.25, None, 1)),
        (("ab", "cd"), 2, (0, 0.0, None, 0)),
        (("", ""), 5, (0, 0.0, None, 0)),
    ],
)
def test_agreement(orders: tuple[str, str], limit: int, expected: tuple[int, float, float | None, int]) -> None:
    """Shared hits, their share, Spearman's correlation, how many both rank."""
    shared, overlap, correlation, common = expected
    for one, other in (orders, orders[::-1]):
        found = agreement(ranking(one), ranking(other), limit)
        assert (found.shared, found.common) == (shared, common)
        assert found.overlap == pytest.approx(overlap)
        assert found.correlation == (None if correlation is None else pytest.approx(correlation))


def test_keys_tell_apart_whatever_makes_another_vector() -> None:
    keys = {
        key_of("bert", "passage", "text"),
        key_of("glove", "passage", "text"),
        key_of("bert", "query", "text"),
        key_of("bert", "passage", "text", "context"),
        key_of("bert", "passage", "texts"),
        key_of("bert", "passage", "b", "a"),
        key_of("bert", "passage", "", "ab"),
    }
    assert len(keys) == 7
    assert key_of("bert", "query", "text") == key_of("bert", "query", "text")


def test_the_cache_keeps_to_its_bound_and_lets_go_of_what_was_used_longest_ago() -> None:
    cache = VectorCache(10 * 800)
    vectors = np.arange(2000, dtype=np.float32).reshape(20, 100)  # 400 bytes of numbers each, and what goes with them
    for row in range(8):
        cache.put(b"%d" % row, vectors[row])
    assert cache.get(b"0") is not None
    for row in range(8, 18):
        cache.put(b"%d" % row, vectors[row])
        cache.get(b"0")
    assert 5 <= len(cache) <= 12
    assert cache.get(b"1") is None
    kept = cache.get(b"0")
    assert kept is not None and kept.base is None
    np.testing.assert_array_equal(kept, vectors[0])
