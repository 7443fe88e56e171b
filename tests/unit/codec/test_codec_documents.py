"""The columns of a batch: what they read, what they write, what they refuse, and what views share."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from flowdex.documents import DocumentBatch, new_id, new_ids
from flowdex.errors import InvalidInput
from flowdex.nodes import set_array
from flowdex.proto import flowdex_pb2 as pb


def batch_of(count: int) -> DocumentBatch:
    return DocumentBatch.from_columns(ids=[f"d{index}" for index in range(count)])


def test_ids_are_made_up_and_differ() -> None:
    ids = DocumentBatch.from_columns(texts=["x"] * 1000).ids
    assert len(set(ids)) == 1000
    assert {len(name) for name in [*ids, new_id(), *new_ids(3)]} == {32}
    assert new_ids(0) == []


def test_all_columns_at_once() -> None:
    vectors = np.arange(6, dtype="f4").reshape(2, 3)
    batch = DocumentBatch.from_columns(
        ids=["a", "b"], texts=["x", None], embeddings=vectors, tags=[{}, {"k": [1, None]}], parent_id=["p", "q"]
    )
    read = DocumentBatch.from_bytes(batch.to_bytes())
    assert (read.ids, read.texts, read.tags) == (["a", "b"], ["x", None], [{}, {"k": [1, None]}])
    assert read.column("parent_id") == ["p", "q"]
    assert np.array_equal(read.embeddings, vectors)
    assert read.fields() == ["embedding", "id", "parent_id", "tags", "text"]
    assert repr(read) == "DocumentBatch(2 documents, fields: embedding, id, parent_id, tags, text)"
    assert batch.to_proto() == read.to_proto()


def test_a_copy_is_written_by_itself() -> None:
    batch = DocumentBatch.from_columns(ids=["a"], texts=["x"], tags=[{"k": [1]}])
    before, copy = batch.to_bytes(), batch.copy()
    assert copy.to_proto() == batch.to_proto()
    copy.texts, copy.tags = ["y"], [{}]
    assert batch.to_bytes() == before


def test_has_tells_what_holds_something_without_adding_it() -> None:
    batch = DocumentBatch.from_columns(ids=["a", "b", "c"], texts=["x", "", None])
    before = batch.to_bytes()
    assert (batch.has("text"), batch.has("embedding")) == ([True, True, False], [False] * 3)
    assert batch.to_bytes() == before


def test_from_nothing() -> None:
    batch = DocumentBatch.from_columns()
    assert not batch
    assert batch.to_bytes() == b""
    assert (batch.embeddings, batch.ids, batch.nested("chunks"), batch.fields()) == (None, [], [], [])
    assert DocumentBatch.from_columns(texts=[], embeddings=np.zeros((0, 4))).embeddings is None
    flat, offsets = batch.flatten("chunks")
    assert (len(flat), offsets.tolist()) == (0, [0])


def test_large_batches_have_long_lengths() -> None:
    """Documents around the places where a length needs one more byte."""
    texts = ["x" * size for size in (0, 1, 100, 127, 128, 129, 16_383, 16_384, 16_500, 2_097_151, 2_100_000)]
    batch = DocumentBatch.from_columns(texts=texts)
    assert DocumentBatch.from_bytes(batch.to_bytes()).texts == texts
    assert pb.DocListProto.FromString(batch.to_bytes()) == batch.to_proto()


# ---- what is refused ----


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"ids": ["a"], "texts": ["x", "y"]}, "differ in length"),
        ({"ids": ["a"], "embeddings": np.zeros((2, 3))}, "differ in length"),
        ({"texts": "one text"}, "'texts' must be a list"),
        ({"texts": b"bytes"}, "'texts' must be a list"),
        ({"texts": (text for text in "ab")}, "'texts' must be a list"),
        ({"ids": [1]}, "document 0: field 'id' must be a string, got int"),
        ({"texts": ["x", 2.5]}, "document 1: field 'text' must be a string, got float"),
        ({"texts": ["x", b"\xff"]}, "document 1: field 'text' must be a string, got bytes"),
        ({"texts": ["x", "\ud800"]}, "document 1: field 'text' has an unpaired surrogate"),
        ({"ids": ["\udfff"]}, "document 0: field 'id' has an unpaired surrogate"),
        ({"tags": [{}, {"a": object()}]}, "document 1: field 'tags': a value of type object"),
        ({"tags": [{"\ud800": 1}]}, "document 0: field 'tags': .* unpaired surrogate"),
        ({"embeddings": [[1, 2], [3]]}, "must be rectangular"),
        ({"embeddings": [1.0, 2.0]}, "a row for each document"),
        ({"embeddings": [["a", "b"]]}, "must hold numbers"),
        ({"embeddings": [[None, 1.0]]}, "must hold numbers"),
        ({"\ud800": ["x"]}, "the name of a field has an unpaired surrogate"),
    ],
)
def test_columns_that_cannot_be_sent(columns: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidInput, match=reason):
        DocumentBatch.from_columns(**columns)


@pytest.mark.parametrize("name", ["ids", "texts", "tags", "embeddings"])
def test_a_column_of_another_length(name: str) -> None:
    values = np.zeros((3, 2)) if name == "embeddings" else [None] * 3
    with pytest.raises(InvalidInput, match="3 values for 2 documents"):
        setattr(batch_of(2), name, values)


@pytest.mark.parametrize("name", ["id", "text"])
def test_strings_of_another_kind(name: str) -> None:
    batch = batch_of(2)
    batch.set_column(name, ["a", 7])
    with pytest.raises(InvalidInput, match=f"document 1: field '{name}' must be a string, got a value of kind 'int"):
        batch.ids if name == "id" else batch.texts  # noqa: B018


def test_tags_of_another_kind() -> None:
    batch = batch_of(1)
    batch.set_column("tags", [["a"]])
    with pytest.raises(InvalidInput, match="document 0: field 'tags' must be a dictionary"):
        batch.tags  # noqa: B018


def test_nested_of_another_kind() -> None:
    batch = batch_of(1)
    batch.set_column("chunks", ["a"])
    with pytest.raises(InvalidInput, match="must hold documents, not a value of kind 'text'"):
        batch.nested("chunks")


# ---- reading ----


def test_empty_texts_are_texts() -> None:
    batch = DocumentBatch.from_columns(texts=["", None, "x"])
    assert batch.texts == ["", None, "x"]
    assert DocumentBatch([pb.DocProto()]).texts == [None]
    assert DocumentBatch([pb.DocProto()]).ids == [""]


def test_reading_inserts_nothing() -> None:
    doc = pb.DocProto()
    batch = DocumentBatch([doc])
    batch.ids, batch.texts, batch.tags, batch.embeddings, batch.column("x"), batch.nested("chunks"), batch.fields()
    assert not doc.data


def test_tags_are_one_dictionary_a_document() -> None:
    first, second = batch_of(2).tags
    first["a"] = 1
    assert second == {}


def test_a_text_that_replaces_another_type_takes_no_type_along() -> None:
    batch = batch_of(1)
    (doc,) = batch
    set_array(doc.data["text"], np.ones(2))
    batch.texts = ["x"]
    assert doc.data["text"] == pb.NodeProto(text="x")


# ---- vectors ----


def vectors_of(*rows: Any) -> DocumentBatch:
    batch = batch_of(len(rows))
    batch.set_column("embedding", list(rows))
    return batch


def test_vectors_of_other_types_become_float32() -> None:
    rows = [np.array([1, 2], "f8"), np.array([3, 4], ">i2"), np.array([True, False]), [5, 6.5], np.ones((1, 2), "f4")]
    array = vectors_of(*rows).embeddings
    assert array is not None
    assert array.dtype == np.dtype("f4")
    assert array.tolist() == [[1, 2], [3, 4], [1, 0], [5, 6.5], [1, 1]]


def test_vectors_are_a_new_array() -> None:
    batch = vectors_of(np.ones(2, "f4"), np.ones(2, "f4"))
    array = batch.embeddings
    assert array is not None
    array += 1
    assert batch.embeddings.tolist() == [[1, 1], [1, 1]]  # type: ignore[union-attr]


def test_what_is_not_finite_stays() -> None:
    rows = np.array([[np.nan, np.inf], [-np.inf, 0]], "f4")
    assert np.array_equal(DocumentBatch.from_columns(embeddings=rows).embeddings, rows, equal_nan=True)
    with np.errstate(all="raise"):
        assert vectors_of(np.array([1e300])).embeddings.tolist() == [[np.inf]]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([np.ones(2, "f4"), np.ones(3, "f4")], "document 1: 'embedding' has 3 values, the first has 2"),
        ([np.ones(2, "f4"), None], "document 1 has no 'embedding'"),
        ([None, np.ones(2, "f4")], "document 0 has no 'embedding'"),
        ([np.ones((2, 2), "f4")] * 2, "must be one-dimensional, got shape"),
        ([np.ones(4, "f4"), np.ones((2, 2), "f4")], "document 1: 'embedding' must be one-dimensional"),
        ([np.array(1.0)], "must be one-dimensional"),
        ([np.array([1j])], "must be a vector of numbers"),
        (["text"], "expected an array"),
        ([{"a": 1}], "expected an array"),
    ],
)
def test_vectors_that_make_no_array(rows: list[Any], reason: str) -> None:
    with pytest.raises(InvalidInput, match=reason):
        vectors_of(*rows).embeddings  # noqa: B018


def test_a_shape_that_lies_is_not_believed() -> None:
    batch = vectors_of(np.ones(4, "f4"), np.ones(4, "f4"))
    list(batch)[1].data["embedding"].ndarray.dense.shape[:] = [5]
    with pytest.raises(InvalidInput, match="does not fit its shape"):
        batch.embeddings  # noqa: B018


def test_rows_of_more_dimensions_can_be_sent() -> None:
    batch = batch_of(2)
    batch.set_vectors("token_vectors", np.arange(12).reshape(2, 3, 2))
    assert [array.shape for array in batch.column("token_vectors")] == [(3, 2), (3, 2)]


def test_vectors_replace_what_was_there() -> None:
    batch = vectors_of("text", [1, 2, 3])
    batch.embeddings = np.zeros((2, 2), "f4")
    assert batch.embeddings.tolist() == [[0, 0], [0, 0]]
    assert [array.dtype for array in batch.column("embedding")] == [np.dtype("f4")] * 2


# ---- nested documents and views ----


def test_nested_documents_are_views() -> None:
    batch = batch_of(3)
    batch.set_nested(
        "chunks",
        [DocumentBatch.from_columns(texts=["a", "b"]), DocumentBatch(), DocumentBatch.from_columns(texts=["c"])],
    )
    flat, offsets = batch.flatten("chunks")
    assert (flat.texts, offsets.tolist(), offsets.dtype) == (["a", "b", "c"], [0, 2, 2, 3], np.dtype("i8"))
    flat.embeddings = np.arange(6, dtype="f4").reshape(3, 2)
    read = DocumentBatch.from_bytes(batch.to_bytes())
    assert [chunks.texts for chunks in read.nested("chunks")] == [["a", "b"], [], ["c"]]
    assert read.nested("chunks")[2].embeddings.tolist() == [[4, 5]]  # type: ignore[union-attr]


def test_documents_in_a_list_are_nested_too() -> None:
    batch = batch_of(1)
    batch.set_column("chunks", [list(DocumentBatch.from_columns(texts=["a", "b"]))])
    assert batch.nested("chunks")[0].texts == ["a", "b"]


def test_nested_documents_can_be_reordered_in_place() -> None:
    """The batches put in are views of what they replace."""
    batch = batch_of(1)
    batch.set_nested("matches", [DocumentBatch.from_columns(texts=["a", "b", "c"])])
    (matches,) = batch.nested("matches")
    batch.set_nested("matches", [matches.select([2, 0])])
    assert batch.nested("matches")[0].texts == ["c", "a"]


def test_nested_documents_are_copies_of_what_was_put_in() -> None:
    chunks = DocumentBatch.from_columns(texts=["a"])
    batch = batch_of(1)
    batch.set_nested("chunks", [chunks])
    chunks.texts = ["changed"]
    assert batch.nested("chunks")[0].texts == ["a"]


def test_select_and_concatenate_share_documents() -> None:
    batch = batch_of(3)
    view = DocumentBatch.concatenate([batch.select([2]), batch.select([0])])
    assert view.ids == ["d2", "d0"]
    view.texts = ["two", "zero"]
    assert batch.texts == ["zero", None, "two"]


def test_drop_and_keep() -> None:
    batch = DocumentBatch.from_columns(ids=["a"], texts=["x"], tags=[{"a": 1}])
    batch.drop("tags", "absent")
    assert batch.fields() == ["id", "text"]
    batch.keep("id", "absent")
    assert batch.fields() == ["id"]
