"""The two rules of protobuf's wire format that let us assemble large messages without copying them into one another.

Serialised fields may be concatenated, and a field that holds a message is its key, its length and its bytes
(https://protobuf.dev/programming-guides/encoding/). So the documents of a request are serialised one by one and joined.
"""

from __future__ import annotations

__all__ = ["delimited"]

_LENGTH_DELIMITED = 2


def delimited(number: int, length: int) -> bytes:
    """The key and the length that precede the `length` bytes of the message, string or bytes in field `number`."""
    return _varint(number << 3 | _LENGTH_DELIMITED) + _varint(length)


def _varint(value: int) -> bytes:
    """Encode an unsigned integer: seven bits a byte, the lowest first, the eighth says that more follow."""
    if value < 0x80:
        return bytes((value,))
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
