"""What comes back from `encode`, put together: rows of one array, or the caller's documents with their vectors.

replies, batch by batch --Rows--> float32 (n, dim)         --with_embeddings--> documents of the caller's class
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from flowdex.documents import DocumentBatch
from flowdex.errors import InternalError, InvalidInput
from flowdex.inputs import Document, to_docarray

__all__ = ["Rows", "check_takes_embedding", "same_class", "with_embeddings"]

Vectors = npt.NDArray[np.float32]


class Rows:
    """Collects rows into one array, without a second copy where their number is known beforehand."""

    def __init__(self, total: int | None) -> None:
        self._total = total
        self._array: Vectors | None = None
        self._parts: list[Vectors] = []
        self._count = 0

    def add(self, rows: Vectors) -> None:
        """Append rows, shape (k, dim)."""
        if self._total is None:
            self._parts.append(rows)
        else:
            if self._array is None:
                self._array = np.empty((self._total, rows.shape[1]), dtype=np.float32)
            try:
                self._array[self._count : self._count + len(rows)] = rows
            except ValueError:
                raise InternalError(
                    f"the flow answered vectors of {rows.shape[1]} values after vectors of {self._array.shape[1]}"
                ) from None
        self._count += len(rows)

    def array(self) -> Vectors:
        """All rows, shape (n, dim)."""
        if self._array is not None:
            return self._array
        try:
            return np.concatenate(self._parts)
        except ValueError:
            raise InternalError("the flow answered vectors of different sizes") from None


def vectors_of(reply: DocumentBatch) -> Vectors:
    """The vectors of a reply, shape (n, dim)."""
    try:
        vectors = reply.embeddings
    except InvalidInput as error:
        raise InternalError(f"the flow answered wrong vectors: {error.message}") from None
    if vectors is None:
        raise InternalError("the flow answered no vectors: does an executor of it bind /encode?")
    return vectors


def with_embeddings(items: Sequence[Any], reply: DocumentBatch) -> list[Any]:
    """Copies of the caller's documents as the flow answered them: docarray's of the same class, or `Document`s."""
    documents: list[Any] = []
    for index, (item, message) in enumerate(zip(items, reply, strict=True)):
        if isinstance(item, Document):
            documents.append(replace(item, embedding=vectors_of(reply.select([index]))[0]))
        else:
            documents.append(to_docarray(message, type(item)))
    return documents


def check_takes_embedding(item: Any, position: int) -> None:
    """Refuse a docarray document that has no field for its vector, or for chunks, before it is sent.

    Raises:
        InvalidInput: Its class would drop what `encode` is called for.
    """
    fields = getattr(type(item), "model_fields", None) or getattr(type(item), "__fields__", {})
    extra = getattr(type(item), "model_config", {}).get("extra")
    if not {"embedding", "chunks"} & set(fields) and extra != "allow":
        raise InvalidInput(
            f"document {position}: class {type(item).__name__} has no field 'embedding' to put the vector into; "
            "add `embedding: NdArray | None = None`"
        )


def same_class(content: Any, documents: list[Any]) -> Any:
    """`documents` as a DocList of the class of `content`, if that is one."""
    module = sys.modules.get("docarray")
    if module is not None and isinstance(content, module.DocList):
        return type(content)(documents)
    return documents
