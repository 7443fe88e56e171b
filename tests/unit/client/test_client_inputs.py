"""What callers may hand in: checks, conversion, and cutting into batches."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowdex.documents import DocumentBatch
from flowdex.errors import InvalidInput
from flowdex.inputs import Batcher, Document, WrongType, check_text, to_message


@given(st.lists(st.integers(1, 50), min_size=1, max_size=60), st.integers(1, 10), st.integers(1, 100))
def test_batches_hold_everything_in_order_and_keep_their_limits(sizes: list[int], count: int, limit: int) -> None:
    batcher: Batcher[tuple[int, int]] = Batcher(count, limit)
    batches = []
    for index, size in enumerate(sizes):
        full = batcher.add((index, size), size)
        if full:
            batches.append(full)
    batches.append(batcher.rest())
    assert [item for batch in batches for item in batch] == list(enumerate(sizes))
    assert all(batches)
    for batch, following in zip(batches, [*batches[1:], None], strict=True):
        total = sum(size for _, size in batch)
        assert len(batch) <= count
        assert len(batch) == 1 or total <= limit
        if following is not None:  # no batch ends before it must
            assert len(batch) == count or total + following[0][1] > limit


@pytest.mark.parametrize("count", [0, -1, 2.5, "3", True, None])
def test_a_batch_size_must_be_a_positive_integer(count: object) -> None:
    with pytest.raises(InvalidInput, match="batch_size"):
        Batcher(count, 10)


@given(st.text())
def test_a_text_is_accepted_exactly_when_it_can_be_encoded_and_says_something(text: str) -> None:
    encodable = all(not 0xD800 <= ord(character) <= 0xDFFF for character in text)
    if encodable and text.strip():
        assert check_text(text, "x") == len(text.encode())
    else:
        with pytest.raises(InvalidInput, match="x"):
            check_text(text, "x")


def test_every_kind_of_document_becomes_the_same_message() -> None:
    for item in ({"id": "a", "text": "t", "tags": {"n": 1}}, Document("t", id="a", tags={"n": 1})):
        message, size = to_message(item, 0)
        batch = DocumentBatch([message])
        assert (batch.ids, batch.texts, batch.tags) == (["a"], ["t"], [{"n": 1}])
        assert size == message.ByteSize()
    ids = [DocumentBatch([to_message("t", 0)[0]]).ids[0] for _ in range(2)]
    assert ids[0] != ids[1]
    assert DocumentBatch([to_message({"text": "t", "id": None, "tags": None}, 0)[0]]).texts == ["t"]


@pytest.mark.parametrize(
    ("item", "match"),
    [
        (5, "document 4 must be a string"),
        (None, "document 4 must be a string"),
        ({"id": "a"}, "document 4 has no 'text'"),
        ({"text": 5}, "the text of document 4 must be a string, got int"),
        ({"text": "x", "id": 7}, "its id must be a string"),
        ({"text": "x", "tags": [1]}, "its tags must be a mapping"),
        ({"text": "x", "title": "y"}, "belong in tags"),
        ({"text": "x", "tags": {1: 2}}, "keys must be strings"),
        ({"text": "x", "tags": {"a": 2**80}}, "53 bits"),
        (Document("\n\t", id="q"), r"the text of document 4 \(id 'q'\) is blank"),
    ],
)
def test_a_refusal_names_the_document(item: object, match: str) -> None:
    with pytest.raises(InvalidInput, match=match):
        to_message(item, 4)


def test_wrong_types_are_type_errors_too() -> None:
    assert issubclass(WrongType, TypeError)
    assert issubclass(WrongType, ValueError)
    assert issubclass(WrongType, InvalidInput)


def test_equality_of_documents_leaves_the_vector_out() -> None:
    assert Document("a", embedding=np.zeros(3, np.float32)) == Document("a")
