"""Points as columns, which is how the embedded engine takes them; a server takes `PointStruct`s, made of the same.

    ids        one a point
    payloads   one a point
    dense      {"dense": float32 (points, size)}
    sparse     {"bm25": (indices uint32, values float32, offsets int64)}: those of point i are offsets[i]:offsets[i + 1]

One object and two lists of numbers a point cost more than all else that is done to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from qdrant_client import models

__all__ = ["PointColumns", "SparseColumns"]

SparseColumns: TypeAlias = tuple[npt.NDArray[np.uint32], npt.NDArray[np.float32], npt.NDArray[np.int64]]
"""Indices and values of all rows, one after the other, and where each row begins and the last one ends."""


@dataclass(frozen=True)
class PointColumns:
    """Some points; see above for the attributes."""

    ids: list[str]
    payloads: list[dict[str, Any]]
    dense: dict[str, npt.NDArray[np.float32]] = field(default_factory=dict)
    sparse: dict[str, SparseColumns] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def from_points(cls, points: Sequence[models.PointStruct]) -> PointColumns:
        """Read points, all of which have the same named vectors."""
        vectors: list[dict[str, Any]] = [point.vector for point in points]  # type: ignore[misc]  # always named here
        dense, sparse = {}, {}
        for name, example in vectors[0].items() if vectors else ():
            column = [vector[name] for vector in vectors]
            if isinstance(example, models.SparseVector):
                sparse[name] = join_sparse((vector.indices, vector.values) for vector in column)
            else:
                dense[name] = np.asarray(column, dtype=np.float32)
        return cls([str(point.id) for point in points], [point.payload or {} for point in points], dense, sparse)

    def points(self) -> list[models.PointStruct]:
        """The points one by one."""
        vectors: list[dict[str, Any]] = [{} for _ in self.ids]
        for name, values in self.dense.items():
            for vector, row in zip(vectors, values.tolist(), strict=True):
                vector[name] = row
        for name, (flat_indices, flat_values, offsets) in self.sparse.items():
            indices, numbers, bounds = flat_indices.tolist(), flat_values.tolist(), offsets.tolist()
            for row, vector in enumerate(vectors):
                span = slice(bounds[row], bounds[row + 1])
                vector[name] = models.SparseVector.model_construct(indices=indices[span], values=numbers[span])
        return [
            # Validated before; pydantic would look at each number of each vector again.
            models.PointStruct.model_construct(id=point_id, vector=vector, payload=payload)
            for point_id, vector, payload in zip(self.ids, vectors, self.payloads, strict=True)
        ]

    def select(self, rows: Sequence[int]) -> PointColumns:
        """Some of the points, in the given order."""
        return PointColumns(
            [self.ids[row] for row in rows],
            [self.payloads[row] for row in rows],
            {name: values[rows] for name, values in self.dense.items()},
            {
                name: join_sparse(
                    (indices[offsets[row] : offsets[row + 1]], values[offsets[row] : offsets[row + 1]]) for row in rows
                )
                for name, (indices, values, offsets) in self.sparse.items()
            },
        )


def join_sparse(
    rows: Iterable[tuple[Sequence[int] | npt.NDArray[Any], Sequence[float] | npt.NDArray[Any]]],
) -> SparseColumns:
    """Put sparse vectors, as (indices, values), one after the other."""
    rows = list(rows)
    offsets = np.zeros(len(rows) + 1, dtype=np.int64)
    np.cumsum([len(indices) for indices, _ in rows], out=offsets[1:])
    size = int(offsets[-1])
    indices = np.fromiter(chain.from_iterable(indices for indices, _ in rows), np.uint32, size)
    values = np.fromiter(chain.from_iterable(values for _, values in rows), np.float32, size)
    return indices, values, offsets
