"""Requests, parameters and errors as bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf import json_format, struct_pb2
from hypothesis import given, settings
from hypothesis import strategies as st

from flowdex import wire
from flowdex.documents import DocumentBatch
from flowdex.errors import ExecutorError, InvalidInput, NotFound
from flowdex.proto import flowdex_pb2 as pb

Same = Callable[[Any, Any], bool]
thorough = settings(deadline=None, max_examples=60)

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
EXACT = st.integers(-(2**53), 2**53)


def json_values(numbers: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    values = st.recursive(
        st.none() | st.booleans() | TEXT | numbers,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
        max_leaves=10,
    )
    return st.dictionaries(TEXT, values, max_size=4)


def as_doubles(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: as_doubles(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_doubles(item) for item in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


# ---- parameters ----


@thorough
@given(json_values(EXACT | st.floats()))
def test_parameters_survive_as_doubles(same: Same, values: dict[str, Any]) -> None:
    struct = struct_pb2.Struct.FromString(wire.struct_from_dict(values).SerializeToString())
    assert same(wire.dict_from_struct(struct), as_doubles(values))


@thorough
@given(json_values(EXACT | st.floats(allow_nan=False, allow_infinity=False)))
def test_parameters_are_protobufs_own_conversion(same: Same, values: dict[str, Any]) -> None:
    struct = struct_pb2.Struct()
    struct.update(values)
    assert wire.struct_from_dict(values) == struct
    # json_format gives whole numbers as 1.0 too; only the sign of zero is its own affair
    assert wire.dict_from_struct(struct) == json_format.MessageToDict(struct)


def test_no_parameters() -> None:
    assert wire.dict_from_struct(wire.struct_from_dict(None)) == {}
    assert wire.dict_from_struct(struct_pb2.Struct(fields={"a": struct_pb2.Value()})) == {"a": None}
    assert wire.dict_from_struct(wire.struct_from_dict({"t": (1, 2), "e": [], "d": {}})) == {
        "t": [1.0, 2.0],
        "e": [],
        "d": {},
    }


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"a": object()}, "JSON values, got a value of type object"),
        ({"a": [b"bytes"]}, "JSON values, got a value of type bytes"),
        ({"a": {1: 2}}, "a parameter's name must be a string, got int"),
        ({1: 2}, "a parameter's name must be a string, got int"),
        ({"a": "\ud800"}, "a parameter has an unpaired surrogate"),
        ({"\ud800": 1}, "a parameter's name has an unpaired surrogate"),
        ({"a": 2**53 + 1}, "send it as a string"),
        ({"a": 10**400}, "send it as a string"),
    ],
)
def test_parameters_that_cannot_be_sent(values: dict[Any, Any], reason: str) -> None:
    with pytest.raises(InvalidInput, match=reason):
        wire.struct_from_dict(values)


@pytest.mark.parametrize("wrap", [lambda value: {"k": value}, lambda value: {"k": [value]}])
def test_parameters_nested_too_deeply(wrap: Callable[[Any], Any]) -> None:
    values: dict[str, Any] = {}
    with pytest.raises(InvalidInput, match="deep"):
        for _ in range(100):
            values = wrap(values)
            data = wire.build_request("/x", parameters=values)
            assert wire.dict_from_struct(wire.read_head(data).parameters) == values
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(InvalidInput, match="deep"):
        wire.struct_from_dict({"a": loop})


# ---- requests ----


def test_a_request_is_what_one_message_would_be() -> None:
    batch = DocumentBatch.from_columns(ids=["a", "b"], texts=["x", "y"])
    data = wire.build_request("/index", batch, parameters={"a": 1}, request_id="r", target_executor="e")
    expected = pb.DataRequestProto()
    expected.header.request_id, expected.header.exec_endpoint, expected.header.target_executor = "r", "/index", "e"
    expected.parameters.update({"a": 1})
    expected.data.docs.CopyFrom(batch.to_proto())
    assert wire.read_request(data) == expected
    assert wire.documents_of(wire.read_request(data)).texts == ["x", "y"]


@pytest.mark.parametrize("documents", [None, DocumentBatch()])
def test_a_request_without_documents_has_an_empty_list(documents: DocumentBatch | None) -> None:
    request = wire.read_request(wire.build_request("/status", documents))
    assert request.data.WhichOneof("documents") == "docs"
    assert len(wire.documents_of(request)) == 0
    assert len(request.header.request_id) == 32
    assert not request.HasField("parameters")
    assert not request.header.HasField("target_executor")


def test_a_head_and_new_documents_make_a_reply() -> None:
    request = wire.build_request("/encode", DocumentBatch.from_columns(texts=["x"]), parameters={"a": 1})
    head = pb.DataRequestProtoWoData(header=wire.read_head(request).header)
    head.routes.add(executor="encoder")
    reply = head.SerializeToString() + wire.serialize_data(DocumentBatch.from_columns(ids=["new"]))
    read = wire.read_request(reply)
    assert [route.executor for route in read.routes] == ["encoder"]
    assert wire.documents_of(read).ids == ["new"]
    assert read.header.exec_endpoint == "/encode"


@pytest.mark.parametrize("name", ["endpoint", "request_id", "target_executor"])
def test_names_that_are_not_unicode(name: str) -> None:
    with pytest.raises(InvalidInput, match="unpaired surrogate"):
        wire.build_request(**{"endpoint": "/x", name: "\ud800"})  # type: ignore[arg-type]


# ---- errors ----


def test_an_error_travels_in_the_header() -> None:
    header = pb.HeaderProto()
    assert wire.error_of(header) is None
    wire.set_error(header, NotFound("no endpoint /x"), executor="encoder")
    error = wire.error_of(pb.HeaderProto.FromString(header.SerializeToString()))
    assert type(error) is NotFound
    assert (error.message, error.executor) == ("no endpoint /x", "encoder")
    assert not header.status.exception.stacks


def test_the_error_of_a_users_code_keeps_its_name() -> None:
    header = pb.HeaderProto()
    wire.set_error(header, KeyError("k"), executor="mine", stacks=["Traceback ..."])
    error = wire.error_of(header)
    assert type(error) is ExecutorError
    assert (error.message, error.executor) == ("KeyError: 'k'", "mine")
    assert list(header.status.exception.stacks) == ["Traceback ..."]


def test_an_error_replaces_the_one_before_it() -> None:
    header = pb.HeaderProto()
    wire.set_error(header, ValueError("first"), stacks=["s"])
    wire.set_error(header, NotFound("second"))
    assert str(wire.error_of(header)) == "second"
    assert list(header.status.exception.args) == ["second"]


def test_an_error_that_quotes_what_is_not_unicode_travels_nevertheless() -> None:
    header = pb.HeaderProto()
    wire.set_error(header, ValueError("bad \ud800"), stacks=["at \udfff"])
    assert header.status.description == "bad ?"
    assert list(header.status.exception.stacks) == ["at ?"]


def test_an_error_without_a_text_has_its_name() -> None:
    header = pb.HeaderProto()
    wire.set_error(header, AssertionError())
    assert header.status.description == "AssertionError"
    assert str(wire.error_of(header)) == "AssertionError"


def test_errors_of_other_servers() -> None:
    header = pb.HeaderProto()
    header.status.code = wire.ERROR
    assert str(wire.error_of(header)) == "the executor failed"
    header.status.description = "it broke"
    assert str(wire.error_of(header)) == "it broke"
    header.status.exception.name = "SomeError"
    assert str(wire.error_of(header)) == "SomeError: it broke"
