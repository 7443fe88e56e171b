"""From computed vectors to what a document carries: size, length, number type.

    vectors (n, D) float32 --leading dimensions--> --L2 norm--> --dtype--> field `embedding` (and `scale`)

A cut vector is normalised after the cut, as models trained for it (Kusupati et al., 2022) want it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from flowdex.documents import DocumentBatch
from flowdex.errors import InvalidInput

__all__ = [
    "Dtype",
    "OutputParameters",
    "Vectors",
    "cast",
    "check_finite",
    "quantise",
    "shape_vectors",
    "write_embeddings",
    "write_receipts",
]

Dtype: TypeAlias = Literal["float32", "float16", "int8", "binary"]
Vectors: TypeAlias = npt.NDArray[np.float32]

_FLOATS = ("float32", "float16")


class OutputParameters(BaseModel):
    """What every encoder lets a request choose; an encoder's constructor takes the defaults.

    Attributes:
        normalize: Whether to scale vectors to length 1.
        dimensions: How many leading dimensions to keep; None for all.
        dtype: "float32", "float16", "int8" (the vector is about `embedding * scale`, of which `scale` is a further
            field), or "binary" (uint8: the signs, eight to a byte, first in the highest bit; 1 for above zero).
        receipt: Whether each document gets a field `receipt`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    normalize: bool = False
    dimensions: int | None = Field(default=None, ge=1)
    dtype: Dtype = "float32"
    receipt: bool = False


def shape_vectors(vectors: Vectors, options: OutputParameters) -> Vectors:
    """Cut and normalise the rows; a row of zeros stays.

    Raises:
        InvalidInput: More dimensions are wanted than there are.
    """
    wanted = options.dimensions
    if wanted is not None:
        if wanted > vectors.shape[1]:
            raise InvalidInput(f"dimensions: {wanted} are asked for, but the vectors have {vectors.shape[1]}")
        vectors = vectors[:, :wanted]
    if options.normalize:
        lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
        vectors = vectors / np.maximum(lengths, np.float32(1e-12))[:, None]
    return vectors


def quantise(vectors: Vectors, dtype: Dtype) -> tuple[npt.NDArray[Any], Vectors | None]:
    """Rows as another number type; and for "int8" the scale of each row, float32 of shape (n,)."""
    if dtype in _FLOATS:
        return cast(vectors, dtype), None
    if dtype == "binary":
        return np.packbits(vectors > 0, axis=1), None
    largest = np.abs(vectors).max(axis=1)
    scales = np.where(largest > 0, largest / np.float32(127), np.float32(1)).astype(np.float32)
    return np.rint(vectors / scales[:, None]).astype(np.int8), scales


def cast(values: npt.NDArray[Any], dtype: Dtype) -> npt.NDArray[Any]:
    """Vectors beside the embedding (of tokens, attention), which are float32 or float16.

    Raises:
        InvalidInput: The values do not fit float16.
    """
    if dtype != "float16":
        return values
    with np.errstate(over="ignore"):
        half = values.astype(np.float16)
    if not np.isfinite(half).all():
        raise InvalidInput("dtype: the vectors have components beyond 65504, which float16 cannot hold; use float32")
    return half


def check_finite(vectors: Vectors) -> None:
    """Refuse vectors that hold NaN or an infinity.

    Raises:
        FloatingPointError: One does.
    """
    if not np.isfinite(vectors).all():
        raise FloatingPointError("the model gave a vector that is not finite")


def write_embeddings(targets: DocumentBatch, vectors: Vectors | Sequence[Vectors], options: OutputParameters) -> None:
    """Give the documents their embedding.

    Args:
        targets: The documents.
        vectors: Their vectors, of shape (n, D), or for each a matrix of shape (tokens, D).
        options: What to make of them.
    """
    if isinstance(vectors, np.ndarray):
        values, scales = quantise(shape_vectors(vectors, options), options.dtype)
        targets.embeddings = values
        if scales is not None:
            targets.set_column("scale", scales.tolist())
        return
    matrices = [quantise(shape_vectors(matrix, options), options.dtype) for matrix in vectors]
    for index, (values, scales) in enumerate(matrices):
        target = targets.select([index])
        target.embeddings = values[None]
        if scales is not None:
            target.set_column("scale", [scales])


def write_receipts(
    targets: DocumentBatch,
    timing: Any,
    fingerprint: str,
    tokens: Sequence[int] | None = None,
    dropped: Sequence[int] | None = None,
) -> None:
    """Give the documents a `receipt`: what was done for them, and how long their request took.

    Args:
        targets: The documents.
        timing: Has `queue_ms` and `compute_ms` of the request (see `batching.Pending`), or has not: then it had no
            queue to wait in.
        fingerprint: Short hash of what made the vectors.
        tokens: Tokens computed for each document, special tokens included; None where that is not known.
        dropped: Tokens of each document that truncation has cut off.
    """
    shared = {
        "queue_ms": round(getattr(timing, "queue_ms", 0.0), 3),
        "compute_ms": round(getattr(timing, "compute_ms", 0.0), 3),
        "fingerprint": fingerprint,
    }
    counts: list[dict[str, Any]] = [{} for _ in targets]
    for name, values in (("tokens", tokens), ("dropped", dropped)):
        for count, value in zip(counts, values or (), strict=False):
            count[name] = value
    targets.set_column("receipt", [{**count, **shared} for count in counts])
