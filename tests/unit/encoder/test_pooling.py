"""Pooling of packed token vectors against numpy, one sequence at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flowdex.errors import ConfigurationError
from flowdex_executors.encoder.pooling import POOLING_MODES, check_pooling, normalize, pool

REFERENCE = {
    "mean": lambda t: t.mean(0),
    "max": lambda t: t.max(0),
    "cls": lambda t: t[0],
    "sep": lambda t: t[-1],
    "last": lambda t: t[-1],
    "weighted_mean": lambda t: np.average(t, axis=0, weights=np.arange(1, len(t) + 1)),
    "mean_sqrt_len": lambda t: t.sum(0) / np.sqrt(len(t)),
    "idf": lambda t: np.average(t, axis=0, weights=range(len(t), 0, -1)),
}


def test_every_mode_has_a_reference() -> None:
    assert set(REFERENCE) == set(POOLING_MODES)


@settings(deadline=None, max_examples=30)
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=6),
    modes=st.lists(st.sampled_from(POOLING_MODES), min_size=1, max_size=3),
)
def test_pooling(lengths: list[int], modes: list[str]) -> None:
    values = np.random.default_rng(sum(lengths)).normal(size=(sum(lengths), 5)).astype(np.float32)
    pooled = pool(
        torch.from_numpy(values),
        torch.tensor(lengths),
        modes,
        separators=torch.tensor(lengths) - 1,
        weights=torch.tensor([weight for length in lengths for weight in range(length, 0, -1)]),
    ).numpy()
    sequences = np.split(values, np.cumsum(lengths)[:-1])
    expected = np.stack([np.concatenate([REFERENCE[mode](t) for mode in modes]) for t in sequences])
    np.testing.assert_allclose(pooled, expected, rtol=1e-5, atol=1e-6)


def test_normalize() -> None:
    vectors = normalize(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
    assert vectors.tolist() == [[pytest.approx(0.6), pytest.approx(0.8)], [0.0, 0.0]]


def test_check_pooling() -> None:
    assert check_pooling("cls") == ("cls",)
    assert check_pooling(["mean", "max"]) == check_pooling("mean_max") == ("mean", "max")
    assert check_pooling("none") == ("none",)
    with pytest.raises(ConfigurationError, match="cannot be combined"):
        check_pooling(["none", "mean"])
    with pytest.raises(ConfigurationError, match="'median' is unknown; choose from mean"):
        check_pooling("median")
    with pytest.raises(ConfigurationError, match="at least one"):
        check_pooling([])
