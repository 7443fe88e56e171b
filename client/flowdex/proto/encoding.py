"""The few rules of protobuf's wire format that let us work on serialised messages without parsing them.

    message = field*    field = key (number, wire type) + payload

Two rules carry everything built on this module (https://protobuf.dev/programming-guides/encoding/): fields may be
concatenated in any order, and a message or string is its length followed by its bytes. So a large field can be cut out
of a message, copied into another one, or appended to it, at the price of a memory copy.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from google.protobuf.message import DecodeError

__all__ = ["Field", "delimited", "iter_fields", "varint"]

_VARINT, _FIXED64, _DELIMITED, _FIXED32 = 0, 1, 2, 5
_MAX_FIELD_NUMBER = 2**29 - 1


class Field(NamedTuple):
    """Where one top-level field lies in a serialised message: `data[start:end]`, its key included."""

    number: int
    start: int
    end: int


def varint(value: int) -> bytes:
    """Encode an unsigned integer, seven bits a byte, the lowest first."""
    if value < 0x80:
        return bytes((value,))
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def delimited(number: int, length: int) -> bytes:
    """The key and length that precede the `length` bytes of a message, string or bytes field."""
    return varint(number << 3 | _DELIMITED) + varint(length)


def iter_fields(data: bytes) -> Iterator[Field]:
    """Find the top-level fields of a serialised message, in order, without reading what is in them.

    Raises:
        DecodeError: The bytes are not a message (or use groups, which proto3 does not have).
    """
    at, size = 0, len(data)
    while at < size:
        start = at
        key, at = _read_varint(data, at)
        number, wire_type = key >> 3, key & 7
        if wire_type == _DELIMITED:
            length, at = _read_varint(data, at)
            at += length
        elif wire_type == _VARINT:
            _, at = _read_varint(data, at)
        elif wire_type == _FIXED64:
            at += 8
        elif wire_type == _FIXED32:
            at += 4
        else:
            raise DecodeError(f"wire type {wire_type} at byte {start}")
        if at > size or not 0 < number <= _MAX_FIELD_NUMBER:
            raise DecodeError(f"truncated or invalid field at byte {start}")
        yield Field(number, start, at)


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    try:
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value, at
            shift += 7
            if shift >= 70:
                raise DecodeError(f"varint longer than ten bytes at byte {at}")
    except IndexError:
        raise DecodeError("truncated") from None
