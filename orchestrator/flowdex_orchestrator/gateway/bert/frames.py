"""The frames of bert-as-service's protocol: bytes to requests, answers to bytes. Pure, no sockets.

    [identity, JSON of texts | command, request id, number of texts]  --read_request--> Request
    [identity, JSON {dtype, shape, tokens}, array, request id]        <--vectors_reply-- float32 array
    [identity, JSON, b"", request id]                                 <--json_reply-- status
    [identity, JSON {dtype: message, shape, error}, b"", request id]  <--error_reply-- FlowdexError

The protocol has no frame for errors, and a client waits until something with its request id comes. What it does with
every reply of vectors is `numpy.dtype(info["dtype"])`, so a reply whose dtype is the error's message makes it raise
a TypeError or ValueError with that message, and the next request works. (A client in another language finds the same in
`error`.)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import orjson

from flowdex.errors import FlowdexError, InvalidInput

__all__ = [
    "SHOW_CONFIG",
    "SHOW_STATUS",
    "TERMINATION",
    "Address",
    "Frames",
    "Request",
    "Text",
    "error_reply",
    "json_reply",
    "read_address",
    "read_request",
    "read_texts",
    "vectors_reply",
]

SHOW_CONFIG = b"SHOW_CONFIG"
SHOW_STATUS = b"SHOW_STATUS"
TERMINATION = b"TERMINATION"
_COMMANDS = (SHOW_CONFIG, SHOW_STATUS, TERMINATION)
_LONGEST_IDENTITY = 256
_MOST_DIGITS = 18

Frames: TypeAlias = "list[bytes]"
Text: TypeAlias = "str | list[str]"
"""A text, or one that is cut into tokens already."""


class Address(NamedTuple):
    """Where a reply goes: the client's topic, and which of its requests this answers."""

    identity: bytes
    request_id: bytes


class Request(NamedTuple):
    """One request.

    Attributes:
        address: Where its reply goes.
        command: One of the control messages, None for texts.
        payload: The texts, as JSON.
    """

    address: Address
    command: bytes | None
    payload: bytes


def read_address(frames: Sequence[bytes]) -> Address | None:
    """Whom to answer; None where the frames do not say, so that nobody can be."""
    if len(frames) < 3:
        return None
    address = Address(bytes(frames[0]), bytes(frames[2]))
    if not 0 < len(address.identity) <= _LONGEST_IDENTITY or not _is_number(address.request_id):
        return None
    return address


def read_request(frames: Sequence[bytes]) -> Request:
    """Read a request.

    Raises:
        InvalidInput: It has not four frames, or one is not what it must be.
    """
    address = read_address(frames)
    if address is None or len(frames) != 4:
        raise InvalidInput(
            "expected the frames identity, payload, request id, number of texts (as of bert-serving-client 1.10), "
            f"got {len(frames)} of which not all can be read"
        )
    payload = bytes(frames[1])
    if not _is_number(frames[3]):
        raise InvalidInput("the fourth frame, the number of texts, must be a number in digits")
    return Request(address, payload if payload in _COMMANDS else None, payload)


def read_texts(payload: bytes) -> list[Text]:
    """Read the texts of a request.

    Raises:
        InvalidInput: They are no JSON list of texts or of lists of tokens, or one is blank.
    """
    try:
        texts = orjson.loads(payload)
    except orjson.JSONDecodeError:
        raise InvalidInput("the texts are not JSON in UTF-8") from None
    return check_texts(texts)


def check_texts(texts: Any) -> list[Text]:
    """The value, which must be a list of texts or of lists of tokens.

    Raises:
        InvalidInput: It is not, it is empty, or a text is blank.
    """
    if not isinstance(texts, list) or not texts:
        raise InvalidInput("texts must be a list of strings or of lists of strings, with at least one")
    for index, text in enumerate(texts):
        parts = text if isinstance(text, list) else [text]
        if not parts or not all(isinstance(part, str) for part in parts):
            raise InvalidInput(f"text {index} must be a string or a list of strings with at least one")
        if not any(part.strip() for part in parts):
            raise InvalidInput(f"text {index} must not be blank")
    return texts


def vectors_reply(address: Address, vectors: npt.NDArray[np.float32], tokens: list[list[str]] | None) -> Frames:
    """The reply with vectors, of shape (B, D) or (B, T, D); `tokens` is None where clients do not get them."""
    values = np.ascontiguousarray(vectors, dtype="<f4")
    info = {"dtype": "float32", "shape": list(values.shape), "tokens": "" if tokens is None else tokens}
    return [address.identity, orjson.dumps(info), values.tobytes(), address.request_id]


def json_reply(address: Address, content: dict[str, Any]) -> Frames:
    """The reply to a request for the configuration or the status."""
    return [address.identity, orjson.dumps(content), b"", address.request_id]


def error_reply(address: Address, error: FlowdexError) -> Frames:
    """The reply that makes a client raise; see the module."""
    message = f"flowdex.{error.name}: {error.message}".encode(errors="replace").decode()
    info = {"dtype": message, "shape": [0], "tokens": "", "error": {"name": error.name, "message": message}}
    return [address.identity, orjson.dumps(info), b"", address.request_id]


def _is_number(frame: bytes) -> bool:
    return bytes(frame).isdigit() and len(frame) <= _MOST_DIGITS
