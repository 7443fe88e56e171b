"""Requests cut into parts, and replies joined, without parsing a document."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowdex import wire
from flowdex.documents import DocumentBatch
from flowdex.proto import flowdex_pb2 as pb
from flowdex_orchestrator.gateway.frame import split
from flowdex_orchestrator.gateway.splitting import cut, join


def data_of(*texts: str) -> bytes:
    message = wire.build_request("/encode", DocumentBatch.from_columns(texts=list(texts)))
    return bytes(split(message).data)


def parsed(data: bytes) -> list[str | None]:
    return wire.documents_of(pb.DataRequestProto.FromString(data)).texts


@given(
    st.lists(st.text(max_size=300), min_size=0, max_size=60),
    st.integers(1, 9),
    st.integers(1, 12),
)
def test_parts_are_the_whole_in_order(texts: list[str], parts: int, least: int) -> None:
    data = data_of(*texts)
    found = cut(data, parts, least)
    assert len(found) != 1
    assert len(found) <= parts
    if found:
        sizes = [len(parsed(part)) for part in found]
        assert min(sizes) >= least
        assert [text for part in found for text in parsed(part)] == parsed(data)
        assert parsed(join(found)) == parsed(data)
    elif parts > 1:
        assert len(texts) // least < 2 or len(data) < 16 * least


@given(st.lists(st.text(max_size=100), min_size=8, max_size=40), st.integers(2, 4), st.integers(2, 4))
def test_what_was_joined_can_be_cut_again(texts: list[str], first: int, second: int) -> None:
    whole = join(cut(data_of(*texts), first, 2))
    assert [text for part in cut(whole, second, 2) for text in parsed(part)] == texts


def test_parts_are_of_like_size() -> None:
    data = data_of(*["x" * 10] * 3000, *["y" * 1000] * 100)
    found = cut(data, 4, 10)
    sizes = [len(part) for part in found]
    assert max(sizes) < 1.1 * min(sizes)
    assert len(parsed(found[0])) > 10 * len(parsed(found[-1]))


def test_documents_that_are_all_in_one_place_still_leave_some_for_every_part() -> None:
    data = data_of("z" * 10_000, *["a"] * 9)
    assert [len(parsed(part)) for part in cut(data, 5, 2)] == [2, 2, 2, 2, 2]


@given(st.binary(max_size=200))
def test_anything_else_is_left_alone(data: bytes) -> None:
    try:
        expected = parsed(data)
    except Exception:
        expected = None
    found = cut(data, 3, 1)
    if found and expected is not None:
        assert [text for part in found for text in parsed(part)] == expected


@pytest.mark.parametrize(
    "content",
    [
        pb.DataRequestProto.DataContentProto(docs_bytes=b"x" * 500),
        pb.DataRequestProto.DataContentProto(),
    ],
)
def test_other_contents_are_not_cut(content: pb.DataRequestProto.DataContentProto) -> None:
    assert cut(pb.DataRequestProto(data=content).SerializeToString(), 3, 1) == []


def test_it_is_cheap() -> None:
    data = data_of(*["a sentence of eleven words, which is as long as most"] * 4096)
    began = time.perf_counter()
    assert len(cut(data, 8, 64)) == 8
    assert time.perf_counter() - began < 0.25  # some milliseconds on a machine with nothing else to do
