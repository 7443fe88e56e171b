"""Documents of docarray before 0.30: told from today's, read and written back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowdex import wire
from flowdex.documents import DocumentBatch
from flowdex.errors import InvalidInput
from flowdex.proto import flowdex_pb2 as pb
from flowdex.proto.encoding import delimited
from flowdex_orchestrator.gateway.old_documents import documents_field, downgrade, is_old, upgrade

words = st.text(max_size=20).filter(lambda text: text.isprintable())


def old_data(*docs: pb.OldDocumentProto) -> bytes:
    """The field `data` of a request with old documents."""
    content = pb.OldDocumentListProto(docs=docs).SerializeToString()
    content = delimited(1, len(content)) + content
    return delimited(4, len(content)) + content


def batch_of(data: bytes) -> DocumentBatch:
    return DocumentBatch.from_bytes(documents_field(data))


@given(st.lists(st.tuples(words, words), min_size=1, max_size=3), words)
def test_which_of_both_it_is(documents: list[tuple[str, str]], name: str) -> None:
    today = DocumentBatch.from_columns(ids=[id for id, _ in documents], texts=[text for _, text in documents])
    today.set_column(name or "x", [None] * len(documents))
    assert not is_old(wire.serialize_data(today))
    assert is_old(old_data(*(pb.OldDocumentProto(id=id or "x", text=text) for id, text in documents)))


@pytest.mark.parametrize("data", [b"", b"\x22\x00", b"\x22\x02\x0a\x00", b"\x22", b"\xff\xff", b"\x22\x05\x12\x03abc"])
def test_what_is_neither_is_left_alone(data: bytes) -> None:
    assert not is_old(data)


def test_there_and_back() -> None:
    old = pb.OldDocumentProto(id="a", text="hi", granularity=1, weight=0.5, uri="u", mime_type="text/plain")
    old.tags.update({"n": 2, "nested": {"x": [1, "y"]}})
    old.scores["score"].value = 0.25
    old.embedding.dense.CopyFrom(pb.DenseNdArrayProto(buffer=np.array([1, 2], "<f4").tobytes(), shape=[2], dtype="<f4"))
    old.matches.add(id="m", text="match").chunks.add(id="c", blob=b"\x00\xff")
    data = upgrade(old_data(old))
    assert not is_old(data)
    batch = batch_of(data)
    assert (batch.ids, batch.texts, batch.column("granularity")) == (["a"], ["hi"], [1])
    assert batch.tags == [{"n": 2, "nested": {"x": [1, "y"]}}]
    assert batch.column("scores") == [{"score": 0.25}]
    assert batch.embeddings is not None
    assert batch.embeddings.tolist() == [[1, 2]]
    assert batch.nested("matches")[0].nested("chunks")[0].column("blob") == [b"\x00\xff"]
    (back,) = pb.OldDocumentListProto.FromString(documents_field(downgrade(data))).docs
    back.embedding.cls_name = ""
    back.ClearField("metadata")
    back.matches[0].ClearField("metadata")
    back.matches[0].chunks[0].ClearField("metadata")
    assert back == old


def test_fields_without_a_place_travel_as_metadata() -> None:
    today = DocumentBatch.from_columns(ids=["a"], texts=["x"], highlights=[[[0, 1]]], error=["no"], location=[[0, 1]])
    today.set_column("scores", [{"score": 0.5, "explain": {"value": 0.1}, "why": "words", "bad": float("nan")}])
    (old,) = pb.OldDocumentListProto.FromString(documents_field(downgrade(wire.serialize_data(today)))).docs
    assert wire.dict_from_struct(old.metadata) == {"highlights": [[0, 1]], "error": "no"}
    assert list(old.location) == [0, 1]
    assert {name: score.value for name, score in old.scores.items()} == pytest.approx({"score": 0.5, "explain": 0.1})


def test_what_cannot_be_read() -> None:
    sparse = pb.OldDocumentProto(id="a")
    sparse.embedding.cls_name = "scipy"
    with pytest.raises(InvalidInput, match="sparse"):
        upgrade(old_data(sparse))
    with pytest.raises(InvalidInput):
        upgrade(b"\x22\x06\x0a\x04\x0a\x02\x0a\x09")


@given(st.binary(max_size=60))
def test_any_bytes_are_told_without_an_error(data: bytes) -> None:
    is_old(data)
    is_old(b"\x22" + delimited(1, len(data))[1:] + data)
