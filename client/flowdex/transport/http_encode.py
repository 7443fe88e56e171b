"""POST /encode as the client speaks it: documents to a body, and a reply to the fields of the same documents.

    DocumentBatch --encode_body--> {"texts", "encoding": "base64", "parameters"} --> reply --write_reply--> its fields

Numbers travel as base64 of their little-endian bytes: a vector as a string, an array of more dimensions as an object
{"dtype", "shape", "data"}.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from flowdex.documents import DocumentBatch
from flowdex.errors import InternalError, InvalidInput

__all__ = ["encode_body", "read_array", "write_reply"]

_DTYPES = {"float32": "<f4", "float16": "<f2", "int8": "|i1", "uint8": "|u1", "binary": "|u1"}


def encode_body(batch: DocumentBatch, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The body for documents with texts, pairs or words.

    Raises:
        InvalidInput: A document has chunks, which the HTTP API does not take.
    """
    if any(batch.nested("chunks")):
        raise InvalidInput("documents with chunks are not encoded over HTTP: use a grpc:// address")
    columns = zip(batch.texts, batch.column("text_pair"), batch.column("words"), strict=True)
    return {"texts": [_text(*row) for row in columns], "encoding": "base64", "parameters": dict(parameters)}


def write_reply(reply: Mapping[str, Any], batch: DocumentBatch) -> None:
    """Write what a reply holds into the documents that were sent.

    Raises:
        InternalError: It is not the answer of a flowdex gateway to these.
    """
    try:
        vectors = [read_array(row, reply.get("dtype", "float32")) for row in _column(reply, "embeddings", len(batch))]
        if len({vector.shape for vector in vectors}) == 1:
            batch.embeddings = np.stack(vectors)
        else:
            batch.set_column("embedding", vectors)
        if "scales" in reply:
            scales = _column(reply, "scales", len(batch))
            batch.set_column(
                "scale", [np.array(each, dtype=np.float32) if isinstance(each, list) else each for each in scales]
            )
        if "tokens" in reply:
            tokens = _column(reply, "tokens", len(batch))
            batch.set_column("token_texts", [each["texts"] for each in tokens])
            batch.set_column("token_spans", [np.array(each["spans"], dtype=np.int32) for each in tokens])
            batch.set_column("token_vectors", [read_array(each["vectors"]) for each in tokens])
        if "attentions" in reply:
            batch.set_column("attention", [read_array(each) for each in _column(reply, "attentions", len(batch))])
        if "receipts" in reply:
            batch.set_column("receipt", _column(reply, "receipts", len(batch)))
    except (binascii.Error, KeyError, TypeError, ValueError) as error:
        raise InternalError(f"/encode answered what a flowdex gateway does not ({type(error).__name__})") from None


def _text(text: str | None, pair: str | None, words: list[str] | None) -> Any:
    if words is not None:
        return {"words": words}
    return text if pair is None else {"text": text, "text_pair": pair}


def _column(reply: Mapping[str, Any], name: str, count: int) -> list[Any]:
    values = reply.get(name) or []
    if len(values) != count:
        raise InternalError(f"/encode answered {len(values)} {name} to {count} texts")
    return list(values)


def read_array(value: str | Mapping[str, Any], dtype: str = "float32") -> npt.NDArray[Any]:
    """An array of a reply.

    Raises:
        KeyError, TypeError, ValueError: It is none.
    """
    if isinstance(value, str):
        return np.frombuffer(base64.b64decode(value, validate=True), dtype=_DTYPES[dtype])
    kind = np.dtype(_DTYPES[value["dtype"]])
    data, shape = base64.b64decode(value["data"], validate=True), tuple(map(int, value["shape"]))
    if math.prod(shape) * kind.itemsize != len(data):
        raise ValueError(shape)
    return np.frombuffer(data, dtype=kind).reshape(shape)
