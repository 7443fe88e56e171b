"""Messages between the indexer and its engine process: a JSON body and raw arrays, over a pipe.

    8 bytes   length of what follows, little-endian
    4 bytes   length of the head
    head      JSON: {"body": ..., "arrays": [[dtype, shape], ...]}
    arrays    their bytes, one after the other

JSON and arrays rather than pickle, because a frame is also written to disk (the engine's redo file), and reading a file
must never run code. orjson is five to ten times as fast at it as the standard library's json.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

__all__ = ["Array", "decode", "encode", "read_frame"]

Array = npt.NDArray[Any]
_LENGTH = struct.Struct("<Q")
_HEAD = struct.Struct("<I")


def encode(body: Any, arrays: Sequence[Array] = ()) -> bytes:
    """Build a whole frame, its length included.

    Raises:
        TypeError: The body is not JSON. (NaN and infinities become null: who makes a body has refused them.)
    """
    arrays = [np.ascontiguousarray(array) for array in arrays]
    head = orjson.dumps({"body": body, "arrays": [[array.dtype.str, array.shape] for array in arrays]})
    size = _HEAD.size + len(head) + sum(array.nbytes for array in arrays)
    return b"".join(
        [
            _LENGTH.pack(size),
            _HEAD.pack(len(head)),
            head,
            *(array.tobytes() for array in arrays if array.size),
        ]
    )


def decode(content: bytes) -> tuple[Any, list[Array]]:
    """Read a frame's content, which is what `read_frame` returns: the body and views of the arrays.

    Raises:
        ValueError: The content is not a frame's.
    """
    try:
        (head_size,) = _HEAD.unpack_from(content)
        offset = _HEAD.size + head_size
        head = orjson.loads(content[_HEAD.size : offset])
        arrays: list[Array] = []
        for dtype, shape in head["arrays"]:
            count = math.prod(shape)
            arrays.append(np.frombuffer(content, dtype=dtype, count=count, offset=offset).reshape(shape))
            offset += arrays[-1].nbytes
        return head["body"], arrays
    except (struct.error, KeyError, TypeError) as error:
        raise ValueError(f"not a frame: {error}") from None


def read_frame(read: Callable[[int], bytes]) -> bytes | None:
    """Read one frame's content; None at the end of the stream, also when it ends within a frame.

    Args:
        read: Returns up to that many bytes, none at the end of the stream.
    """
    length = _read_exactly(read, _LENGTH.size)
    if length is None:
        return None
    return _read_exactly(read, _LENGTH.unpack(length)[0])


def _read_exactly(read: Callable[[int], bytes], size: int) -> bytes | None:
    parts: list[bytes] = []
    while size:
        part = read(min(size, 1 << 20))
        if not part:
            return None
        parts.append(part)
        size -= len(part)
    return b"".join(parts)
