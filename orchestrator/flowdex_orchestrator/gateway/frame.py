"""A message of the protocol cut into its top-level fields, without reading what is inside of them.

    DataRequestProto bytes --split--> Frame(header, parameters, data) --join--> DataRequestProto bytes
                                            |
                                            +--head--> header and parameters, parsed

A `DataRequestProto` has four fields, all length-delimited, so that cutting it takes a few steps whatever its size, and
joining is one copy (https://protobuf.dev/programming-guides/encoding/). Routes are dropped on the way: whoever forwards
a message writes them anew.
"""

from __future__ import annotations

from typing import NamedTuple

from google.protobuf.message import DecodeError

from flowdex.errors import InvalidInput
from flowdex.proto import flowdex_pb2 as pb

__all__ = ["Frame", "split"]

_LENGTH_DELIMITED = 2
_HEADER, _PARAMETERS, _ROUTES, _DATA = 0x0A, 0x12, 0x1A, 0x22  # tags of fields 1 to 4
_MAX_TAG = 0x7F


class Frame(NamedTuple):
    """The fields of one message, each with its tag in front: joined, they are a message again."""

    header: bytes
    parameters: bytes
    data: bytes | memoryview
    route: bytes = b""
    """The last one, which is no part of what is joined."""

    def head(self) -> pb.DataRequestProtoWoData:
        """Parse the header and the parameters.

        Raises:
            InvalidInput: They are not what the protocol says.
        """
        return _parse(self.header + self.parameters)

    def header_only(self) -> pb.DataRequestProtoWoData:
        """Parse the header; raises as `head` does."""
        return _parse(self.header)

    def join(self, *more: bytes) -> bytes:
        """Serialise again; `more` are further serialised fields, such as routes."""
        return b"".join((self.header, self.parameters, *more, self.data))


def split(message: bytes) -> Frame:
    """Cut a serialised `DataRequestProto` (or `SingleDocumentRequestProto`, which is laid out alike).

    Raises:
        InvalidInput: The bytes are not one.
    """
    header = parameters = route = b""
    data: bytes | memoryview = b""
    position, end = 0, len(message)
    try:
        while position < end:
            start = position
            tag = message[position]
            if tag & 7 != _LENGTH_DELIMITED or tag > _MAX_TAG:
                raise InvalidInput("the request could not be decoded: not a DataRequestProto")
            position += 1
            length = message[position]
            position += 1
            if length > _MAX_TAG:
                length &= 0x7F
                shift = 7
                while True:
                    byte = message[position]
                    position += 1
                    length |= (byte & 0x7F) << shift
                    if byte <= _MAX_TAG:
                        break
                    shift += 7
            position += length
            # A field may come in several pieces, which together are one (protobuf merges them).
            if tag == _DATA:
                piece = memoryview(message)[start:position]
                data = b"".join((data, piece)) if data else piece
            elif tag == _HEADER:
                header += message[start:position]
            elif tag == _PARAMETERS:
                parameters += message[start:position]
            elif tag == _ROUTES:
                route = message[start:position]
    except IndexError:
        position = end + 1
    if position > end:
        raise InvalidInput("the request could not be decoded: it ends in the middle of a field")
    return Frame(header, parameters, data, route)


def _parse(fields: bytes) -> pb.DataRequestProtoWoData:
    try:
        return pb.DataRequestProtoWoData.FromString(fields)
    except DecodeError:
        raise InvalidInput("the request could not be decoded: its header or parameters are damaged") from None
