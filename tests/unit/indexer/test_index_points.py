"""Documents to points: validation before anything is written, and what a point holds."""

from __future__ import annotations

import uuid
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from qdrant_client import models

from flowdex.documents import DocumentBatch
from flowdex.errors import FlowdexError, InvalidInput, TooLarge
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


def read(batch: DocumentBatch, max_passages: int = 100, dimensions: int | None = None) -> Any:
    """The passages of documents of which none fails."""
    passages, failures = read_documents(batch, max_passages=max_passages, dimensions=dimensions)
    assert failures == {}
    return passages


def refusal(batch: DocumentBatch, row: int, max_passages: int = 100, dimensions: int | None = None) -> FlowdexError:
    """Why the one document that fails does; the others are read."""
    passages, failures = read_documents(batch, max_passages=max_passages, dimensions=dimensions)
    assert list(failures) == [row]
    assert passages.document_ids == [name for index, name in enumerate(batch.ids) if index != row]
    assert len(passages) == len(passages.vectors) == len(passages.spans) == passages.offsets[-1]
    return failures[row]


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
        "original": {"passages": 2, "length": 0, "text": None},
    }
    assert list(second.vector["dense"]) == [5.0, 6.0, 7.0, 8.0]  # type: ignore[index, call-overload, arg-type]
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
        (broken("context", 1), "context must be a string"),
        (broken("weights", [[1, 2]]), "weights must be"),
        (broken("weights", [[0, 1, -1.0]]), "weights must be"),
        (broken("location", "here"), "location must be"),
        (broken("location", [0, float("inf")]), "location must be"),
        (broken("location", [0, 1e300]), "location must be"),
        (documents(("a", 1), digest=[7]), "'a': 'digest' must be a string"),
        (documents(("a", 1), segment=[{"size": {"x"}}]), r"'a': segment\.size: .*set"),
        (documents(("a", 1), tags=[{"x": {"y": [float("inf")]}}]), r"'a': tags\.x\.y\[0\]: .*float inf"),
        (documents(("a", 1), tags=[{"x": np.zeros(2)}]), r"tags\.x: .*ndarray"),
        (documents(("a", 1), tags=[{"x": b"raw"}]), r"tags\.x: .*bytes"),
    ],
)
def test_refuses(batch: DocumentBatch, message: str) -> None:
    bad = batch.ids.index("b") if "b" in batch.ids else 0
    with pytest.raises(InvalidInput, match=message):
        raise refusal(batch, bad)


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
        raise refusal(batch, 1)


def test_refuses_a_passage_without_vector_and_vectors_of_two_sizes() -> None:
    batch = documents(("a", 2), ("b", 2))
    next(iter(batch.nested("chunks")[1])).data.pop("embedding")
    with pytest.raises(InvalidInput, match="passage 0 of document 'b' has no embedding; put an encoder"):
        raise refusal(batch, 1)
    batch = documents(("a", 2), ("b", 2))
    batch.nested("chunks")[1].embeddings = np.ones((2, 5), np.float32)
    with pytest.raises(InvalidInput, match="document 'b': its vectors have 5 dimensions, not 4"):
        raise refusal(batch, 1)
    with pytest.raises(InvalidInput, match="document 'a': its vectors have 4 dimensions, not 5"):
        raise refusal(batch, 0, dimensions=5)


def test_refuses_too_many_passages() -> None:
    with pytest.raises(TooLarge, match="'b' has 11 passages, at most 10"):
        raise refusal(documents(("a", 1), ("b", 11), ("c", 1)), 1, max_passages=10)


def test_tags_nested_too_deeply() -> None:
    tags: dict[str, Any] = {}
    for _ in range(18):
        tags = {"x": tags}
    with pytest.raises(InvalidInput, match="nested deeper"):
        raise refusal(documents(("a", 1), tags=[tags]), 0)


def test_what_failed_before_is_left_out_and_not_reported_again() -> None:
    batch = documents(("a", 1), ("b", 0), ("c", 1), error=[None, {"name": "TooLarge", "message": "x"}, None])
    assert read(batch).document_ids == ["a", "c"]


def test_where_the_last_of_equal_ids_fails_none_is_stored() -> None:
    batch = documents(("a", 1), ("b", 1), ("a", 0))
    passages, failures = read_documents(batch, max_passages=100)
    assert (passages.document_ids, list(failures)) == (["b"], [2])


def test_a_document_that_is_no_document_fails_alone() -> None:
    batch = documents(("a", 1), ("b", 1), ("c", 1))
    batch.select([1]).set_column("chunks", ["not documents"])
    with pytest.raises(InvalidInput, match="must hold documents"):
        raise refusal(batch, 1)
    batch = documents(("a", 1), ("b", 1))
    batch.select([0]).set_column("tags", [["not", "a", "dictionary"]])
    with pytest.raises(InvalidInput, match="must be a dictionary"):
        raise refusal(batch, 0)


def test_context_weights_and_what_gives_the_text_back() -> None:
    batch = documents(("a", 2), texts=["a 0 -- a 1."], digest=["abc"])
    chunks = batch.nested("chunks")[0]
    chunks.set_column("location", [[0, 3], [7, 10]])
    chunks.set_column("context", ["Title", None])
    chunks.set_column("weights", [None, [[0, 1, 2.0]]])
    passages = read(batch)
    assert passages.contexts == ["Title", None]
    assert passages.weights == [None, [(0, 1, 2.0)]]
    sparse = [models.SparseVector(indices=[], values=[])] * 2
    first, second = (point.payload for point in make_points(passages, slice(0, 1), sparse, 1))
    assert first is not None and second is not None
    assert (first["context"], "context" in second) == ("Title", False)
    assert ("before" in first, second["before"]) == (False, " -- ")
    assert first["original"] == {"passages": 2, "length": 11, "end": ".", "digest": "abc"}
    assert "original" not in second


@given(st.text(st.characters(exclude_categories=("Cs",)), min_size=1), st.integers(0, 2**63))
def test_ids_of_points_are_uuids_of_document_generation_and_ordinal(name: str, generation: int) -> None:
    passages = read(documents((name, 2)))
    sparse: list[Any] = [None, None]
    namespace = uuid.UUID("6f1c4b1e-9d0f-5b7a-8a53-0d2f7d1c7e55")
    assert [point.id for point in make_points(passages, slice(0, 1), sparse, generation)] == [
        str(uuid.uuid5(namespace, f"{generation}/{ordinal}/{name}")) for ordinal in (0, 1)
    ]


def test_tags_are_bounded_and_fail_alone() -> None:
    batch = documents(("a", 1), ("b", 1))
    batch.tags = [{"t": "x" * 100}, {"t": "é" * 30}]
    passages, failures = read_documents(batch, max_passages=10, max_tag_bytes=80)
    assert passages.document_ids == ["b"]
    assert isinstance(failures[0], TooLarge)
    assert "max_tag_bytes" in failures[0].message
