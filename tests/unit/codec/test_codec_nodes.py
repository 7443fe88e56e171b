"""Values survive the wire, and what cannot is refused with a reason."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from flowdex.errors import InvalidInput
from flowdex.nodes import MAX_DEPTH, array_from_node, as_array, node_to_value, set_array, set_value
from flowdex.proto import flowdex_pb2 as pb

Same = Callable[[Any, Any], bool]

NUMERIC = st.one_of(
    npst.boolean_dtypes(),
    npst.integer_dtypes(endianness="?"),
    npst.unsigned_integer_dtypes(endianness="?"),
    npst.floating_dtypes(endianness="?", sizes=(16, 32, 64)),
    npst.complex_number_dtypes(endianness="?", sizes=(64, 128)),
)
ARRAYS = npst.arrays(NUMERIC, npst.array_shapes(min_dims=0, min_side=0, max_dims=4, max_side=4))
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**31), 2**31 - 1), st.floats(), TEXT, st.binary(max_size=30)
)
VALUES = st.recursive(
    SCALARS | ARRAYS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(TEXT, inner, max_size=4),
        st.sets(st.integers(-9, 9) | TEXT, max_size=4),
    ),
    max_leaves=12,
)


def travelled(value: Any) -> Any:
    """`value`, written to bytes and read from them."""
    node = pb.NodeProto()
    set_value(node, value)
    return node_to_value(pb.NodeProto.FromString(node.SerializeToString()))


@settings(deadline=None)
@given(VALUES)
def test_values_survive(same: Same, value: Any) -> None:
    assert same(travelled(value), value)


@settings(deadline=None)
@given(ARRAYS, st.data())
def test_arrays_survive_whatever_their_layout(same: Same, array: np.ndarray, data: st.DataObject) -> None:
    axes = data.draw(st.permutations(range(array.ndim)))
    view = array.transpose(axes)[(slice(None, None, -1),) * array.ndim] if array.ndim else array
    node = pb.NodeProto()
    set_array(node, view)
    assert same(array_from_node(node), np.array(view, order="C"))
    assert node.type == "ndarray"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_finite_passes_unchanged(value: float, same: Same) -> None:
    assert same(travelled(value), value)
    assert same(travelled(np.array([value, 1], "f4")), np.array([value, 1], "f4"))


@pytest.mark.parametrize(
    ("value", "read"),
    [
        (np.bool_(True), True),
        (np.int64(7), 7),
        (np.uint8(255), 255),
        (np.float32(0.5), 0.5),
        (np.str_("é"), "é"),
        (bytearray(b"ab"), b"ab"),
        (memoryview(b"ab"), b"ab"),
        (frozenset({1}), {1}),
        (2**31 - 1, 2**31 - 1),
        (-(2**31), -(2**31)),
        (2**31, 2.0**31),  # beyond int32, which is all the wire has: a float that is exact
        (-(2**53), -(2.0**53)),
        ([], []),
        ({}, {}),
        ((), ()),
    ],
)
def test_values_read_as_their_nearest_python_type(value: Any, read: Any, same: Same) -> None:
    assert same(travelled(value), read)


def test_an_integer_beyond_53_bits_is_refused() -> None:
    with pytest.raises(InvalidInput, match="send it as a string"):
        travelled({"n": [2**53 + 1]})


def test_tensors_count_as_arrays(same: Same) -> None:
    torch = pytest.importorskip("torch")
    assert same(travelled(torch.arange(3, dtype=torch.int16)), np.arange(3, dtype="i2"))
    with pytest.raises(InvalidInput, match="numbers only"):
        travelled(torch.zeros(2, requires_grad=True))


@pytest.mark.parametrize("text", ["\ud800", "good \udfff"])
@pytest.mark.parametrize("wrap", [lambda t: t, lambda t: [t], lambda t: {t: 1}, lambda t: {"a": (t,)}])
def test_surrogates_are_refused_with_a_remedy(text: str, wrap: Callable[[str], Any]) -> None:
    with pytest.raises(InvalidInput, match=r"surrogate \(U\+D[8F].*errors='replace'"):
        travelled(wrap(text))


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (object(), "type object"),
        (Decimal(1), "type Decimal"),
        (1 + 2j, "type complex"),
        ({1: 2}, "keys must be strings"),
        (np.array([object()]), "dtype object"),
        (np.array(["a"]), "dtype <U1"),
        (np.array(["2020-01-01"], "M8[D]"), "datetime64"),
        (np.datetime64("2020-01-01"), "datetime64"),
        (np.zeros(2, "i4,f4"), "numbers"),
    ],
)
def test_other_types_are_refused_by_name(value: Any, reason: str) -> None:
    with pytest.raises(InvalidInput, match=reason):
        travelled(value)


def test_ragged_lists_are_no_array() -> None:
    with pytest.raises(InvalidInput, match="rectangular"):
        as_array([[1, 2], [3]])


def nested(depth: int, wrap: Callable[[Any], Any]) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = wrap(value)
    return value


@pytest.mark.parametrize("wrap", [lambda v: [v], lambda v: {"k": v}, lambda v: (v,)])
def test_nesting_has_a_limit_that_a_reader_shares(wrap: Callable[[Any], Any], same: Same) -> None:
    deepest = nested(MAX_DEPTH, wrap)
    assert same(travelled(deepest), deepest)
    request = pb.DataRequestProto()
    chunk = request.data.docs.docs.add().data["chunks"].doc_array.docs.add().data["chunks"].doc_array.docs.add()
    set_value(chunk.data["tags"], deepest)
    assert pb.DataRequestProto.FromString(request.SerializeToString()) == request
    with pytest.raises(InvalidInput, match=f"more than {MAX_DEPTH} deep"):
        travelled(wrap(deepest))


def test_a_value_that_contains_itself_is_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(InvalidInput, match="deep"):
        travelled(loop)


# ---- what a hostile sender may claim ----


def array_node(buffer: bytes, shape: list[int], dtype: str) -> pb.NodeProto:
    node = pb.NodeProto()
    node.ndarray.dense.buffer = buffer
    node.ndarray.dense.shape.extend(shape)
    node.ndarray.dense.dtype = dtype
    return node


@pytest.mark.parametrize(
    ("buffer", "shape", "dtype"),
    [
        (b"", [2**31, 2**31], "<f4"),  # docarray would allocate zeros for it
        (b"", [2**31], "<f8"),
        (b"\0" * 4, [2**31, 2**31], "<f4"),
        (b"", [0, 2**32 - 1, 2**32 - 1, 2**32 - 1], "<f8"),
        (b"\0" * 4, [1] * 65, "<f4"),
        (b"", [2**32 - 1] * 200_000, "<f4"),
        (b"\0" * 7, [2], "<f4"),
        (b"\0" * 8, [3], "<f4"),
        (b"\0" * 8, [], "<f4"),
        (b"", [], ""),
        (b"\0" * 8, [1], "O"),
        (b"\0" * 8, [1], "|O8"),
        (b"\0" * 8, [1], "V8"),
        (b"\0" * 8, [1], "i4,i4"),
        (b"\0" * 8, [1], "(1000000000,)i4"),
        (b"\0" * 4, [1], "<f3"),
        (b"\0" * 4, [1], "<U1"),
        (b"\0" * 4, [1], "(" * 10_000),
        (b"\0" * 4, [1], "float32\n"),
    ],
)
def test_false_claims_are_refused_and_allocate_nothing(buffer: bytes, shape: list[int], dtype: str) -> None:
    node = array_node(buffer, shape, dtype)
    tracemalloc.start()
    try:
        with pytest.raises(InvalidInput, match="an array of"):
            array_from_node(node)
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


@settings(deadline=None)
@given(
    st.binary(max_size=64),
    st.lists(st.integers(0, 4) | st.integers(0, 2**32 - 1), max_size=5),
    st.sampled_from(["<f4", ">i2", "|b1", "?", "=u1", "f16", "<c32", "O", "S", "", "<f4 "]) | TEXT,
)
def test_any_claim_is_read_or_refused(buffer: bytes, shape: list[int], dtype: str) -> None:
    try:
        array = array_from_node(array_node(buffer, shape, dtype))
    except InvalidInput:
        return
    assert array is not None
    assert array.tobytes() == buffer
    assert list(array.shape) == shape


def test_a_list_of_numbers_reads_as_an_array(same: Same) -> None:
    node = pb.NodeProto()
    set_value(node, [[1, 2], [3, 4.5]])
    assert same(array_from_node(node), np.array([[1, 2], [3, 4.5]]))


@pytest.mark.parametrize("value", [["1", "2"], [None], [[1], [2, 3]], "text", {"a": 1}, 3, b"bytes"])
def test_what_is_no_array_is_refused_as_one(value: Any) -> None:
    node = pb.NodeProto()
    set_value(node, value)
    with pytest.raises(InvalidInput):
        array_from_node(node)


def test_an_empty_node_is_nothing() -> None:
    assert node_to_value(pb.NodeProto()) is None
    assert array_from_node(pb.NodeProto()) is None


def test_a_set_of_lists_is_refused() -> None:
    node = pb.NodeProto()
    set_value(node.set.data.add(), [1])
    with pytest.raises(InvalidInput, match="members of a set"):
        node_to_value(node)
