"""Values to and from `NodeProto`, the protocol's any-type: scalars, arrays, lists, dictionaries and documents.

    Python value  <-->  NodeProto        (docarray's own rules, see docarray/base_doc/mixins/io.py)

Where docarray fails or guesses, the rules here are: an integer outside of 32 bits, which the wire cannot hold, becomes
a float when that float is exact and an error otherwise; a node that holds nothing reads as None; an array whose bytes
do not fill its shape is an error, whatever shape a hostile sender claims; arrays hold numbers or booleans only.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from flowdex.errors import InvalidInput
from flowdex.proto import flowdex_pb2 as pb

__all__ = [
    "EMBEDDING_TYPE",
    "ID_TYPE",
    "array_from_node",
    "as_array",
    "checked_text",
    "node_to_value",
    "set_array",
    "set_value",
]

ID_TYPE = "id"
EMBEDDING_TYPE = "ndarray_embedding"
NDARRAY_TYPE = "ndarray"
# Values nested deeper than this are refused when written: protobuf refuses to read more than 100 messages inside each
# other, a dictionary costs three of them, and the request and its documents need some too.
MAX_DEPTH = 20
MAX_DIMENSIONS = 64  # numpy's own limit
_MIN_INT32, _MAX_INT32 = -(2**31), 2**31 - 1
_EXACT_FLOAT = 2**53
# numpy's dtype strings for booleans, integers, floats and complex numbers. Nothing else reaches `np.dtype`, whose
# little language (records, sub-arrays, objects) is no thing to offer to strangers.
_NUMERIC_DTYPE = re.compile(r"[<>=|]?(?:\?|b1|[iu][1248]|f(?:2|4|8|16)|c(?:8|16|32))")


def checked_text(value: object, what: str) -> str:
    """Check that `value` is a string the wire can hold; `what` names it in the error.

    Raises:
        InvalidInput: It is not a string, or has unpaired surrogates, which UTF-8 cannot encode.
    """
    if not isinstance(value, str):
        raise InvalidInput(f"{what} must be a string, got {type(value).__name__}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InvalidInput(
            f"{what} has an unpaired surrogate (U+{ord(value[error.start]):04X}) at character {error.start}, which "
            "UTF-8 cannot encode; decode its source with errors='replace'"
        ) from None
    return value


def as_array(values: Any, what: str = "an array") -> npt.NDArray[Any]:
    """Convert anything array-like (nested lists, a CPU tensor) to a C-contiguous array of numbers or booleans.

    Raises:
        InvalidInput: It is ragged, or holds something else.
    """
    try:
        array = np.asarray(values, order="C")
    except (TypeError, ValueError, RuntimeError) as error:  # RuntimeError: torch's tensors that have no numpy form
        raise InvalidInput(f"{what} must be rectangular and hold numbers only: {error}") from None
    if array.dtype.kind not in "biufc":
        raise InvalidInput(f"{what} must hold numbers, got dtype {array.dtype}")
    return array


def set_array(node: pb.NodeProto, array: npt.NDArray[Any], type_name: str = NDARRAY_TYPE) -> None:
    """Write an array of any numeric dtype, byte order and shape into `node`.

    Raises:
        InvalidInput: The array does not hold numbers or booleans.
    """
    array = as_array(array)
    node.Clear()
    dense = node.ndarray.dense
    dense.buffer = array.tobytes()
    dense.shape.extend(array.shape)
    dense.dtype = array.dtype.str
    node.type = type_name


def array_from_node(node: pb.NodeProto) -> npt.NDArray[Any] | None:
    """Read an array, or None from an empty node.

    Returns:
        A read-only array of the sender's dtype and shape; a list of numbers counts as one (float64).

    Raises:
        InvalidInput: The node holds something else, or its bytes do not fit its shape and dtype.
    """
    kind = node.WhichOneof("content")
    if kind is None:
        return None
    if kind in ("list", "tuple"):
        return as_array(node_to_value(node), "an array sent as a list").astype(np.float64)
    if kind != "ndarray":
        raise InvalidInput(f"expected an array, got a value of kind {kind!r}")
    dense = node.ndarray.dense
    buffer, shape, name = dense.buffer, tuple(dense.shape), dense.dtype
    if not _NUMERIC_DTYPE.fullmatch(name):
        raise InvalidInput(f"an array of dtype {name[:20]!r} is not read; send numbers or booleans")
    try:
        dtype = np.dtype(name)
        # The claimed shape is checked against the bytes there are, before anything is allocated for it.
        if len(shape) > MAX_DIMENSIONS or math.prod(shape) * dtype.itemsize != len(buffer):
            raise ValueError
        return np.frombuffer(buffer, dtype=dtype).reshape(shape)
    except (TypeError, ValueError):
        raise InvalidInput(
            f"an array of {len(buffer)} bytes does not fit its shape {list(shape[:8])} and dtype {name!r}"
        ) from None


def set_value(node: pb.NodeProto, value: Any) -> None:
    """Write any supported Python value into `node`.

    Strings, numbers, booleans, bytes, None, arrays, messages of documents, and lists, tuples, sets and dictionaries
    (with strings as keys) of these.

    Raises:
        InvalidInput: The value has a type the wire does not know, is an integer it cannot hold, a string that is not
            Unicode, or is nested too deeply.
    """
    node.Clear()
    try:
        _write(node, value, MAX_DEPTH)
    except UnicodeEncodeError as error:
        checked_text(error.object, "a string")
        raise


def _write(node: pb.NodeProto, value: Any, depth: int) -> None:  # noqa: PLR0912 - one branch a wire type
    if value is None:
        return
    if isinstance(value, str):
        node.text = value
    elif isinstance(value, (bool, np.bool_)):
        node.boolean = bool(value)
    elif isinstance(value, (int, np.integer)):
        number = int(value)
        if _MIN_INT32 <= number <= _MAX_INT32:
            node.integer = number
        elif abs(number) <= _EXACT_FLOAT:
            node.float = float(number)
        else:
            raise InvalidInput("an integer of more than 53 bits does not fit the wire; send it as a string")
    elif isinstance(value, (float, np.floating)):
        node.float = float(value)
    elif isinstance(value, (bytes, bytearray, memoryview)):
        node.blob = bytes(value)
    elif isinstance(value, np.ndarray):
        set_array(node, value)
    elif isinstance(value, (list, tuple, set, frozenset)):
        _check_depth(depth)
        kind = "list" if isinstance(value, list) else "tuple" if isinstance(value, tuple) else "set"
        items: pb.ListOfAnyProto = getattr(node, kind)
        items.SetInParent()
        for item in value:
            _write(items.data.add(), item, depth - 1)
    elif isinstance(value, (dict, Mapping)):
        _check_depth(depth)
        node.dict.SetInParent()
        data = node.dict.data
        for key, item in value.items():
            if not isinstance(key, str):
                raise InvalidInput(f"dictionary keys must be strings, got {key!r}")
            _write(data[key], item, depth - 1)
    elif isinstance(value, pb.DocProto):
        node.doc.CopyFrom(value)
    elif isinstance(value, pb.DocListProto):
        node.doc_array.CopyFrom(value)
    elif hasattr(value, "__array__"):
        set_array(node, value)
    else:
        raise InvalidInput(f"a value of type {type(value).__name__} cannot be sent")


def _check_depth(depth: int) -> None:
    if depth <= 0:
        raise InvalidInput(f"lists and dictionaries nested more than {MAX_DEPTH} deep cannot be sent")


def node_to_value(node: pb.NodeProto) -> Any:  # noqa: PLR0911 - one return a wire type
    """Read any node: documents inside stay protobuf messages, everything else becomes plain Python or numpy.

    Raises:
        InvalidInput: It holds an array that does not fit its shape, or a set of what cannot be in a set.
    """
    kind = node.WhichOneof("content")
    if kind is None:
        return None
    if kind == "ndarray":
        return array_from_node(node)
    if kind == "dict":
        return {key: node_to_value(item) for key, item in node.dict.data.items()}
    if kind == "list":
        return [node_to_value(item) for item in node.list.data]
    if kind == "tuple":
        return tuple(node_to_value(item) for item in node.tuple.data)
    if kind == "set":
        try:
            return {node_to_value(item) for item in node.set.data}
        except TypeError:
            raise InvalidInput("a set on the wire holds values that cannot be members of a set") from None
    return getattr(node, kind)
