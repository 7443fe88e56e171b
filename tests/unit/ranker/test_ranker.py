"""The ranker: passages to documents."""

from __future__ import annotations

from typing import Any

import pytest

from flowdex.documents import DocumentBatch
from flowdex.errors import InvalidInput
from flowdex_executors import DocumentColumns, Ranker


def query(passages: list[tuple[str, str, float]], text: str = "fox") -> DocumentBatch:
    """A query whose matches are (parent, text, score)."""
    batch = DocumentBatch.from_columns(ids=["q"], texts=[text])
    matches = DocumentBatch.from_columns(
        ids=[f"{parent}#{row}" for row, (parent, _, _) in enumerate(passages)],
        parent_id=[parent for parent, _, _ in passages],
        texts=[content for _, content, _ in passages],
        location=[[10 * row, 10 * row + 5] for row in range(len(passages))],
        tags=[{"of": parent} for parent, _, _ in passages],
        scores=[{"score": score} for _, _, score in passages],
    )
    batch.set_nested("matches", [matches])
    return batch


async def rank(batch: DocumentBatch, **parameters: Any) -> list[DocumentBatch]:
    docs = await Ranker().search(DocumentColumns(batch), parameters)
    return docs.batch.nested("matches")


async def test_passages_become_documents_with_the_best_passage() -> None:
    (hits,) = await rank(query([("a", "one fox", 0.5), ("b", "two foxes", 0.9), ("a", "no", 0.7), ("c", "red", 0.1)]))
    assert hits.ids == ["b", "a", "c"]
    assert hits.texts == ["two foxes", "no", "red"]
    assert hits.tags == [{"of": "b"}, {"of": "a"}, {"of": "c"}]
    assert hits.column("location") == [[10, 15], [20, 25], [30, 35]]
    assert [scores["score"] for scores in hits.column("scores")] == [0.9, 0.7, 0.1]
    assert hits.column("highlights") == [[[4, 9]], [], []]
    chunks = hits.nested("chunks")[1]
    assert chunks.ids == ["a#2", "a#0"]
    assert chunks.column("parent_id") == ["a", "a"]
    assert chunks.column("highlights") == [[], [[4, 7]]]
    assert [scores["score"] for scores in chunks.column("scores")] == [0.7, 0.5]


async def test_equal_scores_are_ordered_by_id() -> None:
    passages = [("c", "x", 0.5), ("a", "x", 0.5), ("b", "x", 0.5)]
    assert (await rank(query(passages)))[0].ids == (await rank(query(passages[::-1])))[0].ids == ["a", "b", "c"]


async def test_limit_and_offset_count_documents_and_numbers_come_as_doubles() -> None:
    passages = [(parent, "x", score) for score, parent in ((0.9, "a"), (0.8, "a"), (0.7, "b"), (0.6, "c"), (0.5, "d"))]
    assert (await rank(query(passages), limit=2.0, offset=1.0))[0].ids == ["b", "c"]
    assert (await rank(query(passages), limit=10, offset=4))[0].ids == []
    (hits,) = await rank(query(passages), passages=1.0)
    assert hits.nested("chunks")[0].ids == ["a#0"]


async def test_queries_without_matches_stay_without() -> None:
    batch = DocumentBatch.from_columns(ids=["q", "p"], texts=["fox", None])
    assert [len(hits) for hits in await rank(batch)] == [0, 0]


async def test_a_match_without_parent_is_a_document_itself() -> None:
    batch = query([("", "x", 0.5)])
    batch.nested("matches")[0].ids = ["own"]
    assert (await rank(batch))[0].ids == ["own"]


@pytest.mark.parametrize("parameters", [{"limit": 0}, {"limit": 1.5}, {"offset": -1}, {"limit": "many"}])
async def test_wrong_parameters_are_named(parameters: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match=next(iter(parameters))):
        await rank(query([("a", "x", 0.5)]), **parameters)


async def test_a_match_without_score_is_refused() -> None:
    batch = query([("a", "x", 0.5)])
    batch.nested("matches")[0].drop("scores")
    with pytest.raises(InvalidInput, match="'a#0' has no scores"):
        await rank(batch)
