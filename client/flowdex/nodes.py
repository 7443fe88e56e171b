"""Values to and from `NodeProto`, the protocol's any-type: scalars, arrays, lists, dictionaries and documents.

    Python value  <-->  NodeProto        (docarray's own rules, see docarray/base_doc/mixins/io.py)

Two rules go beyond docarray's: an integer outside of 32 bits, which the wire cannot hold, becomes a float when that
float is exact and an error otherwise (docarray fails); and a node that holds nothing reads as None.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from flowdex.errors import InvalidInput
from flowdex.proto import flowdex_pb2 as pb

__all__ = ["EMBEDDING_TYPE", "ID_TYPE", "array_from_node", "node_to_value", "set_array", "set_value"]

ID_TYPE = "id"
EMBEDDING_TYPE = "ndarray_embedding"
NDARRAY_TYPE = "ndarray"
_INT32 = range(-(2**31), 2**31)
_EXACT_FLOAT = 2**53


def set_array(node: pb.NodeProto, array: npt.NDArray[Any], type_name: str = NDARRAY_TYPE) -> None:
    """Write an array of any numeric dtype and shape into `node`."""
    array = np.asarray(array)
    if array.dtype.hasobject:
        raise InvalidInput(f"an array of dtype {array.dtype} cannot be sent; use a numeric dtype")
    node.Clear()
    dense = node.ndarray.dense
    dense.buffer = array.tobytes()
    dense.shape.extend(array.shape)
    dense.dtype = array.dtype.str
    node.type = type_name


def array_from_node(node: pb.NodeProto) -> npt.NDArray[Any] | None:
    """Read an array (of the sender's dtype and shape; a list of numbers counts as one) or None for an empty node.

    Raises:
        InvalidInput: The node holds something else, or its bytes do not fit its shape and dtype.
    """
    kind = node.WhichOneof("content")
    if kind is None:
        return None
    if kind in ("list", "tuple"):
        try:
            array = np.asarray(node_to_value(node), dtype=np.float64)
        except (TypeError, ValueError):
            raise InvalidInput("an array sent as a list must be rectangular and hold numbers only") from None
        return array
    if kind != "ndarray":
        raise InvalidInput(f"expected an array, got a value of kind {kind!r}")
    dense = node.ndarray.dense
    shape = tuple(dense.shape)
    try:
        dtype = np.dtype(dense.dtype or "<f4")
        if dtype.hasobject:
            raise TypeError
        if not dense.buffer and 0 not in shape and shape:
            return np.zeros(shape, dtype)  # docarray omits nothing, but reads an absent buffer as zeros
        return np.frombuffer(dense.buffer, dtype=dtype).reshape(shape)
    except (TypeError, ValueError):
        raise InvalidInput(
            f"an array of {len(dense.buffer)} bytes does not fit its shape {list(shape)} and dtype {dense.dtype!r}"
        ) from None


def set_value(node: pb.NodeProto, value: Any) -> None:  # noqa: PLR0912 - one branch a wire type
    """Write any supported Python value into `node`.

    Raises:
        InvalidInput: The value has a type the wire does not know, or is an integer it cannot hold.
    """
    node.Clear()
    if value is None:
        return
    if isinstance(value, str):
        node.text = value
    elif isinstance(value, (bool, np.bool_)):
        node.boolean = bool(value)
    elif isinstance(value, (int, np.integer)):
        number = int(value)
        if number in _INT32:
            node.integer = number
        elif abs(number) <= _EXACT_FLOAT:
            node.float = float(number)
        else:
            raise InvalidInput(f"the integer {number} does not fit the wire (53 bits); send it as a string")
    elif isinstance(value, (float, np.floating)):
        node.float = float(value)
    elif isinstance(value, (bytes, bytearray, memoryview)):
        node.blob = bytes(value)
    elif isinstance(value, np.ndarray):
        set_array(node, value)
    elif isinstance(value, Mapping):
        data = node.dict
        data.SetInParent()
        for key, item in value.items():
            if not isinstance(key, str):
                raise InvalidInput(f"dictionary keys must be strings, got {key!r}")
            set_value(data.data[key], item)
    elif isinstance(value, (list, tuple, set, frozenset)):
        kind = "list" if isinstance(value, list) else "tuple" if isinstance(value, tuple) else "set"
        items: pb.ListOfAnyProto = getattr(node, kind)
        items.SetInParent()
        for item in value:
            set_value(items.data.add(), item)
    elif isinstance(value, pb.DocProto):
        node.doc.CopyFrom(value)
    elif isinstance(value, pb.DocListProto):
        node.doc_array.CopyFrom(value)
    else:
        raise InvalidInput(f"a value of type {type(value).__name__} cannot be sent")


def node_to_value(node: pb.NodeProto) -> Any:  # noqa: PLR0911 - one return a wire type
    """Read any node: documents inside stay protobuf messages, everything else becomes plain Python or numpy."""
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
