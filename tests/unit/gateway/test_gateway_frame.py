"""Cutting messages into fields: any message comes back whole, anything else is refused."""

from __future__ import annotations

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from flowdex.errors import InvalidInput
from flowdex.proto import flowdex_pb2 as pb
from flowdex_orchestrator.gateway.frame import split

texts = st.text(max_size=300)


@st.composite
def requests(draw: st.DrawFn) -> pb.DataRequestProto:
    request = pb.DataRequestProto()
    request.header.request_id = draw(texts)
    if draw(st.booleans()):
        request.header.exec_endpoint = draw(texts)
    for key, value in draw(st.dictionaries(texts, st.floats(allow_nan=False) | texts, max_size=3)).items():
        request.parameters[key] = value
    for name in draw(st.lists(texts, max_size=2)):
        request.routes.add(executor=name)
    for text in draw(st.lists(texts, max_size=4)):
        request.data.docs.docs.add().data["text"].text = text
    return request


@given(requests())
def test_join_gives_the_message_back_without_its_routes(request_: pb.DataRequestProto) -> None:
    frame = split(request_.SerializeToString())
    again = pb.DataRequestProto.FromString(frame.join())
    expected = pb.DataRequestProto()
    expected.CopyFrom(request_)
    del expected.routes[:]
    assert again == expected
    assert frame.head().header == request_.header
    assert frame.head().parameters == request_.parameters
    assert frame.header_only().header == request_.header


@given(requests(), requests())
def test_a_field_in_pieces_is_one_field(first: pb.DataRequestProto, second: pb.DataRequestProto) -> None:
    together = first.SerializeToString() + second.SerializeToString()
    expected = pb.DataRequestProto.FromString(together)
    del expected.routes[:]
    assert pb.DataRequestProto.FromString(split(together).join()) == expected


@pytest.mark.parametrize("size", [0, 1, 127, 128, 16383, 16384, 2_100_000])
def test_lengths_of_every_varint_size(size: int) -> None:
    request = pb.DataRequestProto()
    request.data.docs.docs.add().data["text"].text = "x" * size
    request.header.request_id = "y" * size
    assert pb.DataRequestProto.FromString(split(request.SerializeToString()).join()) == request


def test_joining_adds_serialised_fields() -> None:
    request = pb.DataRequestProto()
    request.data.docs.docs.add()
    more = pb.DataRequestProtoWoData()
    more.routes.add(executor="gateway")
    again = pb.DataRequestProto.FromString(split(request.SerializeToString()).join(more.SerializeToString()))
    assert [route.executor for route in again.routes] == ["gateway"]
    assert len(again.data.docs.docs) == 1


@given(requests())
def test_a_message_cut_short_is_refused_where_protobuf_refuses_it(request_: pb.DataRequestProto) -> None:
    data = request_.SerializeToString()
    for end in range(0, len(data), max(1, len(data) // 20)):
        try:
            pb.DataRequestProto.FromString(data[:end])
        except DecodeError:
            with pytest.raises(InvalidInput):
                split(data[:end])
        else:
            split(data[:end])


@given(st.binary(max_size=200))
def test_arbitrary_bytes_never_break_it(data: bytes) -> None:
    try:
        split(data).head()
    except InvalidInput as error:
        assert "DataRequestProto" in str(error) or "decoded" in str(error)


@pytest.mark.parametrize(
    "data",
    [
        b"\x08\x01",  # field 1 as a number
        b"\xff\xff\xff",
        b"hello, this is text",
        b"\x0a",  # no length
        b"\x0a\x85",  # half a length
        b"\x0a\x05abc",  # shorter than its length
        b"\x22" + b"\xff" * 9 + b"\x01",  # a length beyond all memory
    ],
)
def test_what_is_not_a_request_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidInput):
        split(data)


def test_a_damaged_header_is_refused() -> None:
    with pytest.raises(InvalidInput):
        split(b"\x0a\x03\x0a\x09x").head()
