"""Many dimensions to two, for people to look at: principal component analysis (Pearson 1901, Hotelling 1933).

    vectors (n, dim) --fit--> Projection: their mean, the two axes along which they vary most
    vectors (m, dim) --Projection.place--> coordinates (m, 2), of those and of any others

The axes are eigenvectors of the covariance, which have no sign of their own: the largest loading of each is made
positive, so that the same vectors give the same picture.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Projection", "fit"]

AXES = 2


@dataclass(frozen=True)
class Projection:
    """A plane in the space of vectors.

    Attributes:
        mean: Its origin, float64 of shape (dim,).
        axes: Its directions, orthonormal, the one of the greatest variance first; float64 of shape (2, dim). An axis
            along which nothing varies is zero.
        variance: What share of all variance lies along each axis, float64 of shape (2,).
    """

    mean: npt.NDArray[np.float64]
    axes: npt.NDArray[np.float64]
    variance: npt.NDArray[np.float64]

    def place(self, vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Where vectors of shape (n, dim) are in the plane: float32 of shape (n, 2)."""
        places: npt.NDArray[np.float32] = ((vectors - self.mean) @ self.axes.T).astype(np.float32)
        return places


def fit(vectors: npt.NDArray[np.float32]) -> Projection:
    """The plane that keeps most of the variance of vectors.

    Args:
        vectors: float32 of shape (n, dim), n and dim at least 1.
    """
    count, size = vectors.shape
    mean = vectors.mean(axis=0, dtype=np.float64)
    centred = vectors - mean
    # The smaller of the two Gram matrices has the same eigenvalues, and costs the cube of its size at most.
    if size <= count:
        values, found = np.linalg.eigh(centred.T @ centred)
        directions = found[:, ::-1].T[:AXES]
    else:
        values, found = np.linalg.eigh(centred @ centred.T)
        directions = found[:, ::-1].T[:AXES] @ centred
    values = np.maximum(values[::-1], 0.0)
    total = float(values.sum())
    axes, variance = np.zeros((AXES, size)), np.zeros(AXES)
    for row, (direction, value) in enumerate(zip(directions, values, strict=False)):
        length = float(np.linalg.norm(direction))
        if value > total * np.finfo(np.float32).eps:  # less is rounding, and its direction is anything
            axes[row] = direction / length * np.sign(direction[np.abs(direction).argmax()])
            variance[row] = value / total
    return Projection(mean, axes, variance)
