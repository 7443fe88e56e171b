"""What one request may carry, on its bytes."""

from __future__ import annotations

import tracemalloc
from collections.abc import Sequence
from functools import partial

import numpy as np
import pytest
from google.protobuf.message import DecodeError, Message
from hypothesis import given
from hypothesis import strategies as st

from flowdex import wire
from flowdex.documents import DocumentBatch
from flowdex.errors import InvalidInput, TooLarge
from flowdex.proto import flowdex_pb2 as pb
from flowdex.proto.encoding import delimited
from flowdex_orchestrator.gateway.fields import check_fields
from flowdex_orchestrator.gateway.frame import Frame, split
from flowdex_orchestrator.gateway.limits import (
    check_documents,
    check_head,
    check_parameters,
    check_single_document,
    needs_check,
)
from flowdex_orchestrator.gateway.settings import GatewaySettings
from flowdex_orchestrator.gateway.splitting import count_documents

LIMITS = GatewaySettings(max_texts=3, max_text_characters=10, max_parameters=2, max_parameter_bytes=100)


def frame_of(batch: DocumentBatch, **parameters: object) -> Frame:
    return split(wire.build_request("/x", batch, parameters=parameters))


def refused(batch: DocumentBatch) -> str | None:
    """The limit that the documents break, as the router checks them."""
    frame = frame_of(batch)
    try:
        if needs_check(frame, LIMITS):
            check_documents(frame, LIMITS)
    except TooLarge as error:
        return error.message
    return None


@given(st.lists(st.text(alphabet="aé漢😀", max_size=12), max_size=5))
def test_a_request_is_refused_exactly_when_it_breaks_a_limit(texts: list[str]) -> None:
    message = refused(DocumentBatch.from_columns(ids=["id"] * len(texts), texts=texts))
    if len(texts) > 3:
        assert message is not None
        assert "max_texts" in message
    elif any(len(text) > 10 for text in texts):
        assert message is not None
        assert "max_text_characters" in message
    else:
        assert message is None


@pytest.mark.parametrize(
    "columns",
    [
        {"text_pair": ["x" * 11]},
        {"words": [["a", "x" * 11]]},
        {"fields": [{"body": "x" * 11}]},
        {"tags": [{"a": [{"b": "x" * 11}]}]},
    ],
)
def test_texts_are_found_wherever_they_stand(columns: dict[str, list[object]]) -> None:
    message = refused(DocumentBatch.from_columns(ids=["a"], **columns))
    assert message is not None
    assert "document 0 has a text of 11 characters, more than the 10 allowed" in message


def test_texts_of_nested_documents_count_too() -> None:
    batch = DocumentBatch.from_columns(ids=["a", "b"])
    batch.set_nested("chunks", [DocumentBatch(), DocumentBatch.from_columns(ids=["c"], texts=["x" * 11])])
    message = refused(batch)
    assert message is not None
    assert message.startswith("document 1 ")


def test_a_single_document_is_bound_too() -> None:
    request = pb.SingleDocumentRequestProto()
    request.document.data["text"].text = "x" * 10
    check_single_document(split(request.SerializeToString()), LIMITS)
    request.document.data["text"].text = "x" * 11
    with pytest.raises(TooLarge, match="max_text_characters"):
        check_single_document(split(request.SerializeToString()), LIMITS)


@pytest.mark.parametrize(
    ("parameters", "limit"),
    [({"a": 1, "b": 2}, None), ({"a": 1, "b": 2, "c": 3}, "max_parameters"), ({"a": "x" * 90}, "max_parameter_bytes")],
)
def test_parameters_are_bound(parameters: dict[str, object], limit: str | None) -> None:
    frame = frame_of(DocumentBatch(), **parameters)
    if limit is None:
        check_head(frame, LIMITS)
        check_parameters(frame.head().parameters, LIMITS)
        return
    with pytest.raises(TooLarge, match=f"uses_with.{limit}\\)"):
        check_head(frame, LIMITS)
        check_parameters(frame.head().parameters, LIMITS)


def test_a_header_is_bound() -> None:
    frame = split(wire.build_request("/" + "x" * 70_000))
    with pytest.raises(TooLarge, match=r"uses_with.max_header_bytes\)"):
        check_head(frame, GatewaySettings())


def test_a_text_of_sixteen_million_characters_may_pass_by_default() -> None:
    frame = frame_of(DocumentBatch.from_columns(texts=["é" * (16 << 20)]))
    assert needs_check(frame, GatewaySettings())
    check_documents(frame, GatewaySettings())
    with pytest.raises(TooLarge, match="16777217 characters"):
        check_documents(frame_of(DocumentBatch.from_columns(texts=["é" * ((16 << 20) + 1)])), GatewaySettings())


def test_millions_of_empty_documents_are_counted_no_further_than_needed() -> None:
    documents = delimited(1, 0) * 4_000_000
    content = delimited(1, len(documents)) + documents
    data = delimited(4, len(content)) + content
    tracemalloc.start()
    try:
        assert count_documents(data, 1000) == 1000
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
    with pytest.raises(TooLarge, match="65536 documents"):
        check_documents(Frame(b"", b"", data), GatewaySettings())


@given(st.binary(max_size=60))
def test_counting_any_bytes_ends(data: bytes) -> None:
    assert 0 <= count_documents(data, 10) <= 10


def nested(content: bytes, times: int, *numbers: int) -> bytes:
    """The content several times in a field, that in another field, ..., from the inside out."""
    found = (delimited(numbers[0], len(content)) + content) * times
    for number in numbers[1:]:
        found = delimited(number, len(found)) + found
    return found


# Fields: of a list (1), in it of a node (9) with a list, of a document's map (2, 1), of documents, of the request.
EMPTY_VALUES = partial(nested, b"", 50_000, 1, 9, 2, 1, 1, 1, 4)


def test_empty_values_are_counted_without_being_parsed() -> None:
    data = EMPTY_VALUES()
    assert len(pb.DataRequestProto.FromString(data).data.docs.docs[0].data[""].list.data) == 50_000
    tracemalloc.start()
    try:
        check_fields(data, most=50_006, longest=1)
        with pytest.raises(TooLarge, match=r"more than the 50005 fields .*uses_with.max_fields\)"):
            check_fields(data, most=50_005, longest=1)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
    with pytest.raises(TooLarge, match="max_fields"):
        check_documents(Frame(b"", b"", data), GatewaySettings(max_fields=40_000))


@given(st.binary(max_size=200))
def test_any_bytes_are_counted_or_refused(data: bytes) -> None:
    """And what protobuf takes is counted: nothing that it reads gets past the limits by being odd."""
    message = nested(data, 1, 2, 1, 1, 1, 4)
    try:
        check_fields(message, most=300, longest=300)
    except InvalidInput:
        with pytest.raises(DecodeError):
            if b"\x03" not in bytes(each & 7 for each in data):  # a group, which no writer makes any more
                pb.DataRequestProto.FromString(message)
            raise DecodeError from None


def test_fields_are_those_that_protobuf_reads() -> None:
    batch = DocumentBatch.from_columns(
        ids=["a"], texts=["x"], tags=[{"a": [1, {"b": "y"}]}], embeddings=np.ones((1, 3), np.float32)
    )
    batch.set_nested("chunks", [batch.copy()])
    data = bytes(frame_of(batch).data)
    fields = _count(pb.DataRequestProto.FromString(data).data)
    check_fields(data, most=fields + 1, longest=1)
    with pytest.raises(TooLarge, match="max_fields"):
        check_fields(data, most=fields, longest=1)


def _count(message: Message) -> int:
    """The fields in a message, by protobuf's reflection: those that are set, entries of maps with key and value."""
    found = 0
    for field, value in message.ListFields():
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            found += sum(3 + _count(each) for each in value.values())
        elif field.message_type is not None:
            found += sum(1 + _count(each) for each in (value if isinstance(value, Sequence) else [value]))
        else:
            found += 1
    return found
