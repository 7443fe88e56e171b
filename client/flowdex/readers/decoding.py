"""From the bytes of a file to text: which encoding, and whether it is text at all.

first bytes --is_binary, encoding_of-->  bytes --decode--> str | Unreadable
"""

from __future__ import annotations

import codecs

__all__ = ["HEAD", "UTF16", "Unreadable", "decode", "encoding_of", "is_binary"]

HEAD = 8192  # bytes to judge a file by
UTF16 = "utf-16"
_UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_CONTROL = bytes(set(range(32)) - set(b"\t\n\r\f\b\x1b"))


class Unreadable(Exception):
    """A file or row is given up; the message is the reason."""


def is_binary(head: bytes) -> bool:
    """Whether a file that starts so is anything but text: it has a NUL, or more than 2 % control characters."""
    if head.startswith(_UTF16_MARKS):
        return False
    return b"\0" in head or len(head) - len(head.translate(None, _CONTROL)) > len(head) // 50


def encoding_of(head: bytes, otherwise: str) -> str:
    """The encoding that a byte order mark names, or else `otherwise`."""
    if head.startswith(_UTF16_MARKS):
        return UTF16
    return "utf-8-sig" if head.startswith(codecs.BOM_UTF8) else otherwise


def decode(data: bytes, encoding: str) -> str:
    """Decode strictly.

    Raises:
        Unreadable: The bytes are not text of that encoding.
    """
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise Unreadable(
            f"not {encoding.removesuffix('-sig').upper()} text (byte {error.start}): name its encoding with --encoding"
        ) from None
