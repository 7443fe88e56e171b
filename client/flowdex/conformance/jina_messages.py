"""Jina 3's messages, as the cases of its protocols write and read them.

texts --request--> bytes of a DataRequestProto --server--> bytes --reply--> DataRequestProto, or NoReply

The messages are flowdex's own, which are wire-compatible: neither jina nor docarray is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flowdex import wire
from flowdex.conformance.model import shown
from flowdex.documents import DocumentBatch
from flowdex.errors import FlowdexError
from flowdex.proto import flowdex_pb2 as pb

__all__ = ["ENCODE", "TEXTS", "NoReply", "documents", "parsed", "reply", "request", "vectors"]

ENCODE = "/encode"
TEXTS = ["Apollo 11 landed on the Moon.", "Bread is made of flour.", "x"]


class NoReply(Exception):
    """No answer that can be read; the message says what came instead."""


def documents(texts: Sequence[str]) -> DocumentBatch:
    """A document for each text."""
    return DocumentBatch.from_columns(ids=[f"id-{index}" for index in range(len(texts))], texts=texts)


def request(batch: DocumentBatch, request_id: str) -> bytes:
    """A request of /encode, with these documents."""
    message = pb.DataRequestProto()
    message.header.request_id = request_id
    message.header.exec_endpoint = ENCODE
    message.data.docs.CopyFrom(batch.to_proto())
    return message.SerializeToString()


def reply(data: bytes) -> pb.DataRequestProto:
    """A reply whose status is SUCCESS, with documents.

    Raises:
        NoReply: It is not.
    """
    message: pb.DataRequestProto = parsed(pb.DataRequestProto, data)
    if message.header.status.code != wire.SUCCESS:
        raise NoReply(f"status ERROR: {shown(message.header.status.description)}")
    try:
        wire.documents_of(message)
    except FlowdexError as error:
        raise NoReply(error.message) from None
    return message


def parsed(message: Any, data: bytes) -> Any:
    """The message that the bytes are.

    Raises:
        NoReply: They are none.
    """
    from google.protobuf.message import DecodeError

    try:
        return message.FromString(data)
    except DecodeError:
        raise NoReply(f"{len(data)} bytes that are no {message.DESCRIPTOR.name}") from None


def vectors(batch: DocumentBatch) -> list[Any]:
    """The embedding of each document.

    Raises:
        NoReply: One has none.
    """
    found = batch.column("embedding")
    if not found or any(getattr(vector, "ndim", 0) != 1 for vector in found):
        raise NoReply("documents whose `embedding` is not a vector")
    return found
