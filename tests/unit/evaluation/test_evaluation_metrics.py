"""The metrics against values worked out by hand, and the paired test against all of its resamples."""

from __future__ import annotations

import math
import random
import sys
from itertools import product

import pytest

from flowdex.errors import ConfigurationError, InvalidInput
from flowdex.evaluation.metrics import Metric, mean, measure, optional_import, p_value

pytest.importorskip("pytrec_eval")


def values(ranking: list[str], judgements: dict[str, int], *names: str) -> list[float]:
    metrics = [Metric.parse(name) for name in names]
    found = measure({"q": ranking}, {"q": judgements}, metrics)
    return [found[metric]["q"] for metric in metrics]


def discount(rank: int) -> float:
    return 1 / math.log2(1 + rank)


def test_by_hand() -> None:
    """Ranking x a c b, relevant a (1), b (2) and d (1), c judged as not relevant, x unjudged."""
    judgements = {"a": 1, "b": 2, "c": 0, "d": 1}
    best = 2 * discount(1) + discount(2) + discount(3)
    found = values(["x", "a", "c", "b"], judgements, "ndcg@10", "recall@10", "precision@4", "map@10", "mrr@10")
    assert found == pytest.approx([(discount(2) + 2 * discount(4)) / best, 2 / 3, 2 / 4, (1 / 2 + 2 / 4) / 3, 1 / 2])


def test_cut_offs() -> None:
    judgements = {"a": 1, "b": 2}
    ranking = ["x", "y", "a", "b"]
    assert values(ranking, judgements, "recall@3", "recall@2", "recall@100") == [0.5, 0, 1]
    assert values(ranking, judgements, "mrr@3", "mrr@2") == pytest.approx([1 / 3, 0])
    assert values(ranking, judgements, "success@3", "success@2") == [1, 0]
    assert values(ranking, judgements, "map@3", "map@2") == pytest.approx([1 / 3 / 2, 0])
    # The best sum for the first 3 has both documents: a document that is left out costs.
    expected = discount(3) / (2 * discount(1) + discount(2))
    assert values(ranking, judgements, "ndcg@3") == pytest.approx([expected])


def test_the_best_sum_is_cut_off_too() -> None:
    judgements = dict.fromkeys("abcde", 1)
    assert values(["a", "b"], judgements, "ndcg@2", "recall@2", "precision@5") == pytest.approx([1, 2 / 5, 2 / 5])


def test_fewer_hits_than_asked_for() -> None:
    assert values(["a"], {"a": 1, "b": 1}, "recall@10", "recall@100", "precision@10") == pytest.approx([0.5, 0.5, 0.1])


def test_the_order_given_counts_and_not_the_ids() -> None:
    """trec_eval by itself ranks what ties by descending id; here there are no scores to tie."""
    for first, second in (("a", "z"), ("z", "a")):
        assert values([first, second], {first: 1}, "mrr@10") == [1]
        assert values([first, second], {second: 1}, "mrr@10") == [0.5]
    many = [f"d{number}" for number in range(1000)]
    assert values(many, {"d999": 1}, "mrr@1000", "mrr@999") == pytest.approx([1 / 1000, 0])


def test_a_document_twice_counts_where_it_comes_first() -> None:
    assert values(["a", "a", "b"], {"a": 1, "b": 1}, "recall@2", "precision@2", "ndcg@10") == [1, 1, 1]


def test_queries_without_results_or_relevant_documents() -> None:
    metrics = [Metric.parse(name) for name in ("ndcg@10", "recall@10", "mrr@10")]
    qrels = {"answered": {"a": 1}, "empty": {"a": 1}, "missing": {"a": 1}, "hopeless": {"a": 0}}
    found = measure({"answered": ["a"], "empty": [], "hopeless": ["a"], "not judged": ["a"]}, qrels, metrics)
    for metric in metrics:
        assert found[metric] == {"answered": 1, "empty": 0, "missing": 0, "hopeless": 0}
        assert mean(found[metric]) == 0.25


def test_negative_judgements_are_not_relevant() -> None:
    assert values(["junk", "a"], {"junk": -1, "a": 1}, "mrr@10", "recall@10") == [0.5, 1]


def test_agrees_with_the_definitions_on_random_rankings() -> None:
    source = random.Random(7)
    for _ in range(50):
        documents = [f"d{number}" for number in range(30)]
        judgements = {name: source.choice([0, 0, 1, 2, 3]) for name in source.sample(documents, 12)} | {"d0": 1}
        ranking = source.sample(documents, source.randint(0, 30))
        gains = [max(0, judgements.get(name, 0)) for name in ranking]
        ideal = sorted(judgements.values(), reverse=True)
        relevant = sum(value > 0 for value in judgements.values())
        hits = [rank for rank, gain in enumerate(gains, 1) if gain]
        expected = [
            sum(gain * discount(rank) for rank, gain in enumerate(gains[:10], 1))
            / sum(gain * discount(rank) for rank, gain in enumerate(ideal[:10], 1)),
            sum(rank <= 10 for rank in hits) / relevant,
            1 / hits[0] if hits and hits[0] <= 10 else 0,
            sum((number + 1) / rank for number, rank in enumerate(hits) if rank <= 10) / relevant,
        ]
        assert values(ranking, judgements, "ndcg@10", "recall@10", "mrr@10", "map@10") == pytest.approx(expected)


@pytest.mark.parametrize("text", ["ndcg", "ndcg@0", "ndcg@", "ndgc@10", "recall@99999", "mrr@1.5", ""])
def test_names_that_are_none(text: str) -> None:
    with pytest.raises(InvalidInput, match="ndcg@10, recall@10"):
        Metric.parse(text)


def test_names() -> None:
    assert (str(Metric.parse("NDCG@5")), Metric.parse("ndcg@5").title) == ("ndcg@5", "nDCG@5")


def test_p_value_of_few_queries_is_exact() -> None:
    first = {"a": 0.1, "b": 0.5, "c": 0.2, "d": 0.9, "same": 0.4}
    second = {"a": 0.4, "b": 0.6, "c": 0.1, "d": 1.0, "same": 0.4}
    differences = [second[query] - first[query] for query in "abcd"]
    sums = [
        abs(sum(sign * each for sign, each in zip(signs, differences, strict=True)))
        for signs in product((1, -1), repeat=4)
    ]
    expected = sum(each >= abs(sum(differences)) - 1e-12 for each in sums) / len(sums)
    assert p_value(first, second) == pytest.approx(expected)


def test_p_value() -> None:
    source = random.Random(1)
    first = {str(number): source.random() for number in range(200)}
    assert p_value(first, first) == 1
    noisy = {query: value + source.gauss(0, 0.2) for query, value in first.items()}
    better = {query: value + source.gauss(0.1, 0.2) for query, value in first.items()}
    assert p_value(first, noisy) > 0.05
    assert p_value(first, better) < 0.001
    assert p_value(first, better) == p_value(first, better)
    with pytest.raises(InvalidInput, match="same queries"):
        p_value(first, {"other": 1.0})


def test_a_missing_library_is_named_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pytrec_eval", None)
    with pytest.raises(ConfigurationError, match=r"needs pytrec_eval, .* pip install 'flowdex\[eval\]'"):
        optional_import("pytrec_eval")
