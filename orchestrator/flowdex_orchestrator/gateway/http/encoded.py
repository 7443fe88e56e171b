"""POST /encode beyond one float32 vector a text: its texts as documents, and its reply as JSON.

    texts, pairs, words --text_documents--> DocumentBatch --flow--> reply --encode_content--> columns of the response

A vector is a list of numbers, or base64 of its little-endian bytes. What has more dimensions (token vectors, attention)
is nested lists, or an object {"dtype", "shape", "data"} with the bytes as base64.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from flowdex import wire
from flowdex.documents import DocumentBatch
from flowdex.errors import ExecutorError
from flowdex.proto import flowdex_pb2 as pb

__all__ = ["encode_content", "text_documents"]


def text_documents(texts: Sequence[str | Mapping[str, Any]]) -> DocumentBatch:
    """The texts of a request as documents."""
    items = [{"text": text} if isinstance(text, str) else text for text in texts]
    batch = DocumentBatch.from_columns(
        texts=[item["text"] if "text" in item else " ".join(item["words"]) for item in items]
    )
    for name in ("text_pair", "words"):
        values = [item.get(name) for item in items]
        if any(value is not None for value in values):
            batch.set_column(name, values)
    return batch


def encode_content(reply: pb.DataRequestProto, count: int, as_base64: bool) -> dict[str, Any]:
    """The response to /encode, but for its time: what a reply does not hold is left out.

    Raises:
        ExecutorError: There is not one vector for each of `count` texts.
    """
    batch = wire.documents_of(reply)
    held = batch.select(range(min(1, len(batch)))).fields()  # all documents of a request get the same fields
    vectors = _vectors(batch)
    if len(vectors) != count:
        raise ExecutorError(f"the flow answered {len(vectors)} vectors to {count} texts")
    content: dict[str, Any] = {
        "embeddings": [_written(vector, as_base64) for vector in vectors],
        "dimensions": vectors[0].shape[-1],
        "dtype": _dtype(vectors[0]),
        "count": count,
    }
    if "scale" in held:
        content["scales"] = [_listed(scale) for scale in batch.column("scale")]
    if "token_texts" in held:
        columns = (batch.column(f"token_{name}") for name in ("texts", "spans", "vectors"))
        content["tokens"] = [
            {"texts": texts, "spans": _listed(spans), "vectors": _written(rows, as_base64)}
            for texts, spans, rows in zip(*columns, strict=True)
        ]
    if "attention" in held:
        content["attentions"] = [_written(array, as_base64) for array in batch.column("attention")]
    if "receipt" in held:
        content["receipts"] = batch.column("receipt")
    return content


def _vectors(batch: DocumentBatch) -> Sequence[npt.NDArray[Any]]:
    """The vectors, each of shape (dim,) or (tokens, dim); none where a document has none."""
    found = batch.column("embedding")
    if all(isinstance(vector, np.ndarray) and vector.ndim in (1, 2) for vector in found):
        return found
    vectors = batch.embeddings  # such as lists of numbers, from an executor of one's own
    return [] if vectors is None else list(vectors)


def _kind(array: npt.NDArray[Any]) -> np.dtype[Any]:
    """The number type to answer in: encoders give these, and of whatever else an executor gives, float32 will do."""
    return array.dtype if array.dtype in (np.float16, np.int8, np.uint8) else np.dtype(np.float32)


def _dtype(array: npt.NDArray[Any]) -> str:
    """What a request calls it: the bytes of a binary vector are uint8."""
    return "binary" if array.dtype == np.uint8 else str(_kind(array))


def _written(array: Any, as_base64: bool) -> Any:
    if not isinstance(array, np.ndarray):
        return array
    kind = _kind(array)
    values = np.ascontiguousarray(array, dtype=kind.newbyteorder("<"))
    if not as_base64:
        return values.astype(np.float32) if kind == np.float16 else values
    data = base64.b64encode(values.tobytes()).decode()
    return data if values.ndim == 1 else {"dtype": str(kind), "shape": list(values.shape), "data": data}


def _listed(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray) else value
