"""Vectors that were computed before, by encoder and text, within a bound of memory; the least recently used go."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["Key", "VectorCache", "key_of"]

Vector: TypeAlias = npt.NDArray[np.float32]
Key: TypeAlias = bytes

_OVERHEAD = 300  # bytes of an entry besides its numbers: the array object, the key, the entry


def key_of(encoder: str, role: str, text: str, context: str = "") -> Key:
    """What a vector depends on.

    Args:
        encoder: Its fingerprint.
        role: What the text is encoded as, such as `query`.
        text: The text.
        context: What is encoded before it.
    """
    parts = (part.encode() for part in (encoder, role, context, text))
    return hashlib.blake2b(b"".join(len(part).to_bytes(8, "big") + part for part in parts), digest_size=16).digest()


class VectorCache:
    """A cache of vectors.

    Args:
        capacity: Bytes, about.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._vectors: OrderedDict[Key, Vector] = OrderedDict()
        self._size = 0

    def __len__(self) -> int:
        return len(self._vectors)

    def get(self, key: Key) -> Vector | None:
        """The vector of this key, if it is there."""
        found = self._vectors.get(key)
        if found is not None:
            self._vectors.move_to_end(key)
        return found

    def put(self, key: Key, vector: Vector) -> None:
        """Keep a vector."""
        if key in self._vectors:
            return
        self._vectors[key] = np.array(vector, dtype=np.float32)  # a copy: a row would keep the whole batch alive
        self._size += vector.size * 4 + _OVERHEAD
        while self._size > self._capacity:
            _, gone = self._vectors.popitem(last=False)
            self._size -= gone.nbytes + _OVERHEAD
