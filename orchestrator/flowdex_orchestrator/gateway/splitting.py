"""One large request as several, for several replicas, and their replies as one: on bytes, no document is parsed.

    data: DataContentProto{docs: [doc doc doc doc doc doc]} --cut--> {docs: [doc doc doc]}, {docs: [doc doc doc]}
    replies of the parts, in order                          --join--> one field after the other, which protobuf merges

A part is a run of whole documents. Parts are of like size in bytes, which for texts is close to like work.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import pairwise

from flowdex.proto.encoding import delimited

__all__ = ["count_documents", "cut", "join", "worth_cutting"]

_DATA_FIELD = 4  # of DataRequestProto
_DOCS_FIELD = 1  # of DataContentProto, and the documents in it of DocListProto
_DATA_TAG, _DOCS_TAG = 0x22, 0x0A
_SMALLEST = 8  # bytes of a document that says anything


def cut(data: bytes | memoryview, parts: int, least: int) -> list[bytes]:
    """Cut the documents of a message into parts.

    Args:
        data: Its `data` field, tag and all, as `frame.split` gives it.
        parts: How many at most.
        least: Documents that a part has at least.

    Returns:
        The parts, each a `data` field again; none where there are too few documents for two, or where `data` is
        something else than a list of documents.
    """
    if parts < 2 or not worth_cutting(data, least):
        return []
    message = bytes(data)
    try:
        ends = list(_documents(message))
    except (IndexError, ValueError):
        return []  # whoever parses it says what is wrong with it
    starts, count = [start for start, _ in ends], len(ends)
    parts = min(parts, count // least)
    if parts < 2:
        return []
    return [_wrap(message, ends[first:last]) for first, last in pairwise(_cuts(starts, parts, least, len(message)))]


def count_documents(data: bytes | memoryview, most: int) -> int:
    """How many documents a message has, from its `data` field; it stops counting at `most`.

    Returns:
        The count; of a message that is damaged or holds something else, what was counted up to there.
    """
    message, count = bytes(data), 0
    try:
        for _ in _documents(message):
            count += 1
            if count >= most:
                break
    except (IndexError, ValueError):
        pass  # whoever parses it says what is wrong with it
    return count


def worth_cutting(data: bytes | memoryview, least: int) -> bool:
    """Whether it may hold documents enough for two parts: tells at once for the usual small request."""
    return len(data) >= 2 * least * _SMALLEST


def join(parts: Sequence[bytes | memoryview]) -> bytes:
    """The `data` fields of several messages as that of one; protobuf merges fields that come several times."""
    return b"".join(parts)


def _cuts(starts: Sequence[int], parts: int, least: int, size: int) -> list[int]:
    """Indexes of documents at which parts begin, and the end: near to equal bytes, at least `least` documents each."""
    cuts = [0]
    first, count = starts[0], len(starts)
    for number in range(1, parts):
        wanted = bisect_left(starts, first + (size - first) * number // parts)
        cuts.append(min(max(wanted, cuts[-1] + least), count - (parts - number) * least))
    return [*cuts, count]


def _documents(message: bytes) -> Iterator[tuple[int, int]]:
    """Start and end of each document, tag and all.

    Raises:
        ValueError: There is something else than documents.
        IndexError: It ends in the middle of a field.
    """
    for data_start, data_end in _fields(message, 0, len(message), _DATA_TAG):
        for docs_start, docs_end in _fields(message, data_start, data_end, _DOCS_TAG):
            position = docs_start
            for _, end in _fields(message, docs_start, docs_end, _DOCS_TAG):
                yield position, end
                position = end


def _fields(message: bytes, position: int, end: int, tag: int) -> Iterator[tuple[int, int]]:
    """Start and end of the content of each field; all of them must have this tag."""
    while position < end:
        if message[position] != tag:
            raise ValueError("another field")
        length = message[position + 1]
        position += 2
        if length > 0x7F:
            length &= 0x7F
            shift = 7
            while True:
                byte = message[position]
                position += 1
                length |= (byte & 0x7F) << shift
                if byte <= 0x7F:
                    break
                shift += 7
        yield position, position + length
        position += length
    if position != end:
        raise ValueError("it ends in the middle of a field")


def _wrap(message: bytes, documents: Sequence[tuple[int, int]]) -> bytes:
    """A `data` field of some of a message's documents."""
    content = message[documents[0][0] : documents[-1][1]]
    if len(content) != sum(end - start for start, end in documents):  # they were in several pieces
        content = b"".join(message[start:end] for start, end in documents)
    inner = delimited(_DOCS_FIELD, len(content))
    return b"".join((delimited(_DATA_FIELD, len(inner) + len(content)), inner, content))
