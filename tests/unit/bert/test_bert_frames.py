"""The frames of bert-as-service's protocol: what BertClient sends and can read, and anything else."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowdex.errors import FlowdexError, InvalidInput
from flowdex_orchestrator.gateway.bert import frames
from flowdex_orchestrator.gateway.bert.frames import Address

IDENTITIES = st.binary(min_size=1, max_size=256)
REQUEST_IDS = st.integers(0, 10**17).map(lambda number: b"%d" % number)
TEXTS = st.lists(st.text(min_size=1).filter(str.strip), min_size=1, max_size=5)
TOKENS = st.lists(TEXTS, min_size=1, max_size=4)


@given(IDENTITIES, REQUEST_IDS, TEXTS | TOKENS)
def test_a_request_comes_out_as_it_went_in(identity: bytes, number: bytes, texts: list[object]) -> None:
    payload = json.dumps(texts).encode()
    request = frames.read_request([identity, payload, number, b"%d" % len(texts)])
    assert request == (Address(identity, number), None, payload)
    if "\\ud" not in payload.decode():  # lone surrogates are no text
        assert frames.read_texts(request.payload) == texts


@pytest.mark.parametrize("command", [frames.SHOW_CONFIG, frames.SHOW_STATUS, frames.TERMINATION])
def test_control_messages(command: bytes) -> None:
    assert frames.read_request([b"me", command, b"1", b"0"]).command == command


@given(st.lists(st.binary(max_size=40), max_size=6))
def test_any_frames_are_read_or_refused(received: list[bytes]) -> None:
    address = frames.read_address(received)
    try:
        request = frames.read_request(received)
    except InvalidInput:
        return
    assert request.address == address
    assert len(received) == 4


@given(st.binary(max_size=200) | st.recursive(st.none() | st.text() | st.integers(), st.lists).map(json.dumps))
def test_any_payload_is_a_list_of_texts_or_refused(payload: bytes | str) -> None:
    data = payload.encode() if isinstance(payload, str) else payload
    try:
        texts = frames.read_texts(data)
    except InvalidInput:
        return
    assert texts
    assert all(text if isinstance(text, list) else text.strip() for text in texts)


@pytest.mark.parametrize(
    ("received", "answered"),
    [
        ([], False),
        ([b"me", b"[]"], False),
        ([b"", b"[]", b"1", b"1"], False),
        ([b"x" * 257, b"[]", b"1", b"1"], False),
        ([b"me", b"[]", b"one", b"1"], False),
        ([b"me", b"[]", "²".encode(), b"1"], False),
        ([b"me", b"[]", b"1"], True),
        ([b"me", b"[]", b"1", b"many"], True),
        ([b"me", b"[]", b"1", b"1", b"more"], True),
    ],
)
def test_wrong_frames_are_answered_where_somebody_can_be(received: list[bytes], answered: bool) -> None:
    with pytest.raises(InvalidInput):
        frames.read_request(received)
    assert (frames.read_address(received) is not None) == answered


@given(st.lists(st.integers(1, 4), min_size=1, max_size=3))
def test_vectors_as_the_client_reads_them(shape: list[int]) -> None:
    values = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    identity, info, data, number = frames.vectors_reply(Address(b"me", b"7"), values, [["[CLS]"]])
    read = json.loads(info)
    assert (identity, number, read["tokens"]) == (b"me", b"7", [["[CLS]"]])
    assert np.array_equal(np.frombuffer(data, dtype=str(read["dtype"])).reshape(read["shape"]), values)


@given(st.text())
@pytest.mark.parametrize("start", ["", "float32", "f4,", "i4, (2,3)f8"])
def test_an_error_makes_the_client_raise_its_message(start: str, message: str) -> None:
    """What BertClient does with each reply: no message may be read as a type of numbers."""
    error = InvalidInput(start + message)
    _, info, data, number = frames.error_reply(Address(b"me", b"7"), error)
    read = json.loads(info)
    assert number == b"7"
    assert read["error"]["name"] == "InvalidInput"
    with pytest.raises((TypeError, ValueError, SyntaxError)):
        np.frombuffer(data, dtype=str(read["dtype"])).reshape(read["shape"])


def test_the_message_of_an_error_is_in_what_the_client_raises() -> None:
    _, info, _, _ = frames.error_reply(Address(b"me", b"7"), FlowdexError("max_length: 512 is more, lower it"))
    with pytest.raises((TypeError, ValueError), match="max_length: 512 is more"):
        np.dtype(str(json.loads(info)["dtype"]))
