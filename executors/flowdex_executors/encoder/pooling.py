"""Pooling: the vectors of a text's tokens to one vector.

Token vectors come packed, as `values` of shape (total tokens, dim) and `lengths` of shape (sequences,): sequence i has
the rows from `sum(lengths[:i])` on. With t_1 ... t_n for the n token vectors of one text, special tokens included:

    mean           sum(t_i) / n                  Sentence-BERT (Reimers and Gurevych, 2019)
    max            max over i, by component      InferSent (Conneau et al., 2017)
    cls            t_1                           BERT (Devlin et al., 2019)
    last           t_n                           decoders, whose last token has seen all others
    weighted_mean  sum(i * t_i) / sum(i)         SGPT (Muennighoff, 2022)
    mean_sqrt_len  sum(t_i) / sqrt(n)            deep averaging networks (Iyyer et al., 2015)

Several modes are concatenated in the order given.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from flowdex.errors import ConfigurationError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["POOLING_MODES", "check_pooling", "normalize", "pool"]

POOLING_MODES = ("mean", "max", "cls", "last", "weighted_mean", "mean_sqrt_len")


def check_pooling(modes: str | Sequence[str]) -> tuple[str, ...]:
    """The modes as a tuple.

    Raises:
        ConfigurationError: One is unknown, or there is none.
    """
    names = (modes,) if isinstance(modes, str) else tuple(modes)
    for name in names:
        if name not in POOLING_MODES:
            raise ConfigurationError(f"pooling {name!r} is unknown; choose from {', '.join(POOLING_MODES)}")
    if not names:
        raise ConfigurationError(f"pooling must name at least one of {', '.join(POOLING_MODES)}")
    return names


def pool(values: Tensor, lengths: Tensor, modes: Sequence[str]) -> Tensor:
    """Pool packed token vectors.

    Args:
        values: Float, shape (total tokens, dim).
        lengths: int64, shape (sequences,); each at least 1.
        modes: Names from `POOLING_MODES`.

    Returns:
        Shape (sequences, dim * len(modes)), of the dtype of `values`.
    """
    import torch

    pooled = [_pool_one(values, lengths, mode) for mode in modes]
    return pooled[0] if len(pooled) == 1 else torch.cat(pooled, dim=1)


def _pool_one(values: Tensor, lengths: Tensor, mode: str) -> Tensor:
    import torch

    ends = torch.cumsum(lengths, 0)
    if mode == "cls":
        return values[ends - lengths]
    if mode == "last":
        return values[ends - 1]
    if mode in ("mean", "max"):
        return torch.segment_reduce(values, mode, lengths=lengths, axis=0)
    if mode == "mean_sqrt_len":
        return torch.segment_reduce(values, "sum", lengths=lengths, axis=0) / lengths.sqrt().unsqueeze(1)
    if mode == "weighted_mean":
        starts = torch.repeat_interleave(ends - lengths, lengths)
        weights = (torch.arange(len(values), device=values.device) - starts + 1).to(values.dtype)
        totals = torch.segment_reduce(weights, "sum", lengths=lengths, axis=0)
        sums = torch.segment_reduce(values * weights.unsqueeze(1), "sum", lengths=lengths, axis=0)
        return sums / totals.unsqueeze(1)
    raise ValueError(f"unknown pooling {mode!r}: this is a bug, check_pooling comes first")


def normalize(vectors: Tensor) -> Tensor:
    """Scale each row to length 1; a row of zeros stays."""
    import torch

    return torch.nn.functional.normalize(vectors, dim=1)
