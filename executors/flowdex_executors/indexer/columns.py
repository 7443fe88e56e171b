"""Points without the price of `models.PointStruct`, and many of them as columns.

    Point (rows of arrays)  --as_columns-->      PointColumns    for the embedded engine
                            --point_structs-->   models.PointStruct (lists of numbers)  for a server

Two lists of numbers and two pydantic objects a point cost more than all else that is done to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
from qdrant_client import models

__all__ = ["Point", "PointColumns", "SparseColumns", "SparseRow", "as_columns", "point_structs"]

SparseColumns: TypeAlias = tuple[npt.NDArray[np.uint32], npt.NDArray[np.float32], npt.NDArray[np.int64]]
"""Indices and values of all rows, one after the other, and where each row begins and the last one ends."""


class SparseRow(NamedTuple):
    """A sparse vector: `indices`, uint32, and as many `values`, float32."""

    indices: npt.NDArray[np.uint32]
    values: npt.NDArray[np.float32]


@dataclass(slots=True)
class Point:
    """What a `models.PointStruct` holds.

    Attributes:
        id: A UUID.
        vector: By name, a dense one as float32 of shape (size,), or a `SparseRow`.
        payload: JSON.
    """

    id: str
    vector: dict[str, npt.NDArray[np.float32] | SparseRow]
    payload: dict[str, Any]


@dataclass(frozen=True)
class PointColumns:
    """Many points.

    Attributes:
        ids: One a point.
        payloads: One a point.
        dense: By name, float32 of shape (points, size).
        sparse: By name, those of point i are `offsets[i]:offsets[i + 1]`.
    """

    ids: list[str]
    payloads: list[dict[str, Any]]
    dense: dict[str, npt.NDArray[np.float32]] = field(default_factory=dict)
    sparse: dict[str, SparseColumns] = field(default_factory=dict)


def as_columns(points: Sequence[Point | models.PointStruct]) -> PointColumns:
    """Join points, all of which have the same named vectors."""
    vectors: list[dict[str, Any]] = [point.vector for point in points]  # type: ignore[misc]  # always named here
    dense, sparse = {}, {}
    for name, example in vectors[0].items() if vectors else ():
        column = [vector[name] for vector in vectors]
        if hasattr(example, "indices"):
            sparse[name] = _join_sparse(column)
        else:
            dense[name] = np.asarray(column, dtype=np.float32)
    return PointColumns([str(point.id) for point in points], [point.payload or {} for point in points], dense, sparse)


def _join_sparse(rows: Sequence[Any]) -> SparseColumns:
    offsets = np.zeros(len(rows) + 1, dtype=np.int64)
    np.cumsum([len(row.indices) for row in rows], out=offsets[1:])
    indices = np.concatenate([np.asarray(row.indices, np.uint32) for row in rows])
    values = np.concatenate([np.asarray(row.values, np.float32) for row in rows])
    return indices, values, offsets


def point_structs(points: Sequence[Point | models.PointStruct]) -> list[models.PointStruct]:
    """The points as Qdrant's client takes them."""
    return [
        # Validated before; pydantic would look at each number of each vector again.
        models.PointStruct.model_construct(
            id=point.id,
            vector={
                name: models.SparseVector.model_construct(indices=row.indices.tolist(), values=row.values.tolist())
                if isinstance(row, SparseRow)
                else row.tolist()
                for name, row in point.vector.items()
            },
            payload=point.payload,
        )
        if isinstance(point, Point)
        else point
        for point in points
    ]
