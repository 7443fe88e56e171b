"""Principal components: against NumPy's own decomposition, by shapes that are known, and the same each time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from flowdex_executors.indexer.projection import fit


def cloud(count: int, size: int, seed: int = 0) -> Any:
    """Points that vary differently along each direction."""
    random = np.random.default_rng(seed)
    turned, _ = np.linalg.qr(random.standard_normal((size, size)))
    return (random.standard_normal((count, size)) * np.linspace(4, 0.1, size) @ turned + 3).astype(np.float32)


@pytest.mark.parametrize(("count", "size"), [(300, 20), (20, 300), (50, 50)])
def test_the_axes_are_those_of_the_singular_value_decomposition(count: int, size: int) -> None:
    vectors = cloud(count, size)
    centred = vectors.astype(float) - vectors.mean(axis=0, dtype=float)
    _, values, directions = np.linalg.svd(centred, full_matrices=False)

    projection = fit(vectors)
    np.testing.assert_allclose(np.abs(projection.axes @ directions[:2].T), np.eye(2), atol=1e-6)
    np.testing.assert_allclose(projection.variance, values[:2] ** 2 / (values**2).sum(), rtol=1e-6)
    np.testing.assert_allclose(np.abs(projection.place(vectors)), np.abs(centred @ directions[:2].T), atol=1e-4)
    assert projection.place(vectors).dtype == np.float32


def test_a_line_in_space_lies_on_the_first_axis() -> None:
    along = np.array([3.0, 0.0, 4.0]) / 5
    steps = np.array([-2.0, -1.0, 0.0, 1.0, 2.0])
    projection = fit((steps[:, None] * along + [1, 1, 1]).astype(np.float32))
    np.testing.assert_allclose(projection.axes[0], along, atol=1e-6)
    assert not projection.axes[1].any(), "nothing varies along it, so it is no direction"
    np.testing.assert_allclose(projection.variance, [1, 0], atol=1e-6)
    np.testing.assert_allclose(projection.place(np.array([[1, 1, 1]], np.float32)), [[0, 0]], atol=1e-6)
    np.testing.assert_allclose(projection.place((5 * along + 1).astype(np.float32)[None]), [[5, 0]], atol=1e-5)


def test_a_rectangle_keeps_its_sides() -> None:
    corners = np.array([[0, 0, 0, 0], [4, 0, 0, 0], [0, 0, 2, 0], [4, 0, 2, 0]], np.float32)
    projection = fit(corners)
    np.testing.assert_allclose(projection.place(corners), [[-2, -1], [2, -1], [-2, 1], [2, 1]], atol=1e-6)
    np.testing.assert_allclose(projection.variance, [0.8, 0.2])


def test_the_picture_depends_on_neither_order_nor_day() -> None:
    vectors = cloud(200, 30)
    again = np.random.default_rng(1).permutation(len(vectors))
    first, second = fit(vectors), fit(vectors[again])
    np.testing.assert_array_equal(first.place(vectors), fit(vectors.copy()).place(vectors))
    np.testing.assert_allclose(first.place(vectors), second.place(vectors), atol=1e-4)
    for axis in first.axes:
        assert axis[np.abs(axis).argmax()] > 0


@pytest.mark.parametrize("shape", [(1, 5), (3, 1), (1, 1)])
def test_what_is_too_little_for_a_plane_is_placed_all_the_same(shape: tuple[int, int]) -> None:
    vectors = cloud(*shape)
    projection = fit(vectors)
    places = projection.place(vectors)
    assert places.shape == (shape[0], 2)
    assert np.isfinite(places).all() and np.isfinite(projection.variance).all()


def test_equal_vectors_fall_on_one_point() -> None:
    projection = fit(np.ones((4, 6), np.float32))
    assert not projection.axes.any() and not projection.variance.any()
