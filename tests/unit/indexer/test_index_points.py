"""Documents to points: validation before anything is written, and what a point holds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from qdrant_client import models

from flowdex.documents import DocumentBatch
from flowdex.errors import InvalidInput, TooLarge
from flowdex_executors.indexer.points import make_points, read_documents, tag_fields


def documents(*chunked: tuple[str, int], dimensions: int = 4, **columns: Any) -> DocumentBatch:
    """Documents with so many chunks each."""
    batch = DocumentBatch.from_columns(ids=[name for name, _ in chunked], **columns)
    batch.set_nested(
        "chunks",
        [
            DocumentBatch.from_columns(
                ids=[f"{name}#{row}" for row in range(count)],
                texts=[f"{name} {row}" for row in range(count)],
                location=[[row * 10, row * 10 + 5] for row in range(count)],
                embeddings=np.arange(1, count * dimensions + 1, dtype=np.float32).reshape(count, dimensions),
            )
            for name, count in chunked
        ],
    )
    return batch


def read(batch: DocumentBatch, max_passages: int = 100) -> Any:
    return read_documents(batch, max_passages=max_passages)


def test_columns() -> None:
    passages = read(documents(("a", 2), ("b", 1), tags=[{"x": 1}, {}]))
    assert passages.document_ids == ["a", "b"]
    assert passages.texts == ["a 0", "a 1", "b 0"]
    assert passages.spans == [(0, 5), (10, 15), (0, 5)]
    assert passages.tags == [{"x": 1}, {}]
    assert passages.counts() == {"a": 2, "b": 1}
    assert passages.vectors.shape == (3, 4)


def test_the_last_of_equal_ids_counts() -> None:
    passages = read(documents(("a", 2), ("b", 1), ("a", 3)))
    assert passages.document_ids == ["b", "a"]
    assert passages.counts() == {"b": 1, "a": 3}


def test_a_document_with_a_vector_of_its_own_is_one_passage() -> None:
    passages = read(DocumentBatch.from_columns(ids=["a"], texts=["whole"], embeddings=np.ones((1, 3), np.float32)))
    assert (passages.texts, passages.spans) == (["whole"], [(0, 5)])


def test_parts_keep_documents_whole() -> None:
    passages = read(documents(("a", 3), ("b", 3), ("c", 9), ("d", 1)))
    assert [(part.start, part.stop) for part in passages.parts(6)] == [(0, 2), (2, 3), (3, 4)]
    assert [(part.start, part.stop) for part in passages.parts(1)] == [(0, 1), (1, 2), (2, 3), (3, 4)]
    assert list(read(DocumentBatch()).parts(6)) == []


def test_points() -> None:
    passages = read(documents(("a", 1), ("b", 2), tags=[{}, {"draft": True, "deep": {"ok": False}, "n": [1, True]}]))
    sparse = [models.SparseVector(indices=[row], values=[1.0]) for row in range(2)]
    first, second = make_points(passages, slice(1, 2), sparse, 7)
    assert first.payload == {
        "document_id": "b",
        "generation": 7,
        "ordinal": 0,
        "text": "b 0",
        "start": 0,
        "end": 5,
        "tags": {"draft": True, "deep": {"ok": False}, "n": [1, True]},
        "flags": ["deep.ok=false", "draft=true", "n=true"],
    }
    assert second.vector["dense"] == [5.0, 6.0, 7.0, 8.0]  # type: ignore[index, call-overload]
    assert second.vector["bm25"].indices == [1]  # type: ignore[index, call-overload]
    assert first.id != second.id
    again, _ = make_points(passages, slice(1, 2), sparse, 8)
    assert again.id != first.id  # a new generation never overwrites the old


def test_tag_fields() -> None:
    passages = read(
        documents(
            ("a", 1), tags=[{"s": "x", "n": 1, "b": True, "none": None, "l": ["x"], "o": [{"p q": 2.5}], 'bad"': 1}]
        )
    )
    assert tag_fields(passages) == {
        "tags.s": models.PayloadSchemaType.KEYWORD,
        "tags.n": models.PayloadSchemaType.FLOAT,
        "tags.l": models.PayloadSchemaType.KEYWORD,
        'tags.o[]."p q"': models.PayloadSchemaType.FLOAT,
    }


def broken(field: str, value: Any) -> DocumentBatch:
    batch = documents(("a", 2), ("b", 2))
    batch.nested("chunks")[1].set_column(field, [None, value])
    return batch


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (documents(("", 1)), "document 0 has no id"),
        (documents(("x" * 3000, 1)), "the id has 3000 characters"),
        (documents(("a", 0)), "'a' has neither passages nor a vector"),
        (DocumentBatch.from_columns(ids=["a"], texts=["no vector"]), "'a' has neither passages nor a vector"),
        (broken("location", [1]), "location must be"),
        (broken("location", "here"), "location must be"),
        (documents(("a", 1), tags=[{"x": {"y": [float("inf")]}}]), r"'a': tags\.x\.y\[0\]: .*float inf"),
        (documents(("a", 1), tags=[{"x": np.zeros(2)}]), r"tags\.x: .*ndarray"),
        (documents(("a", 1), tags=[{"x": b"raw"}]), r"tags\.x: .*bytes"),
    ],
)
def test_refuses(batch: DocumentBatch, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        read(batch)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.nan, r"passage 1 of document 'b' holds NaN"),
        (np.inf, r"passage 1 of document 'b' holds NaN or an infinity"),
        (1e30, r"passage 1 of document 'b' is too large"),
    ],
)
def test_refuses_vectors_that_would_never_be_found(value: float, message: str) -> None:
    batch = documents(("a", 2), ("b", 2))
    vectors = np.ones((2, 4), np.float32)
    vectors[1, 2] = value
    batch.nested("chunks")[1].embeddings = vectors
    with pytest.raises(InvalidInput, match=message):
        read(batch)


def test_refuses_a_passage_without_vector_and_vectors_of_two_sizes() -> None:
    batch = documents(("a", 2), ("b", 2))
    next(iter(batch.nested("chunks")[1])).data.pop("embedding")
    with pytest.raises(InvalidInput, match="passage 0 of document 'b' has no embedding; put an encoder"):
        read(batch)
    batch = documents(("a", 2), ("b", 2))
    batch.nested("chunks")[1].embeddings = np.ones((2, 5), np.float32)
    with pytest.raises(InvalidInput, match="has 5 values, the first has 4"):
        read(batch)


def test_refuses_too_many_passages() -> None:
    with pytest.raises(TooLarge, match="'a' has 11 passages, at most 10"):
        read(documents(("a", 11)), max_passages=10)


def test_tags_nested_too_deeply() -> None:
    tags: dict[str, Any] = {}
    for _ in range(18):
        tags = {"x": tags}
    with pytest.raises(InvalidInput, match="nested deeper"):
        read(documents(("a", 1), tags=[tags]))
