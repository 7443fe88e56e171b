"""Pooling: the vectors of a text's tokens to one vector.

Token vectors come packed, as `values` of shape (total tokens, dim) and `lengths` of shape (sequences,): sequence i has
the rows from `sum(lengths[:i])` on. With t_1 ... t_n for the n token vectors of one text, special tokens included:

    mean           sum(t_i) / n                  Sentence-BERT (Reimers and Gurevych, 2019)
    max            max over i, by component      InferSent (Conneau et al., 2017)
    cls            t_1                           BERT (Devlin et al., 2019)
    sep            t_s, s the last special token bert-as-service (Xiao, 2018)
    last           t_n                           decoders, whose last token has seen all others
    weighted_mean  sum(i * t_i) / sum(i)         SGPT (Muennighoff, 2022)
    mean_sqrt_len  sum(t_i) / sqrt(n)            deep averaging networks (Iyyer et al., 2015)
    idf            sum(w_i * t_i) / sum(w_i)     w_i are the family's weights of words (Arora et al., 2017)

Several modes are concatenated in the order given; `mean_max` is short for mean and max. `none` stands alone: the token
vectors themselves are the answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from flowdex.errors import ConfigurationError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["NO_POOLING", "POOLING_MODES", "check_pooling", "normalize", "pool"]

POOLING_MODES = ("mean", "max", "cls", "sep", "last", "weighted_mean", "mean_sqrt_len", "idf")
NO_POOLING = "none"
_SHORT = {"mean_max": ("mean", "max")}
_NAMES = (*POOLING_MODES, *_SHORT, NO_POOLING)


def check_pooling(modes: str | Sequence[str]) -> tuple[str, ...]:
    """The modes as a tuple: names from `POOLING_MODES`, or `NO_POOLING` alone.

    Raises:
        ConfigurationError: One is unknown, or there is none.
    """
    given = (modes,) if isinstance(modes, str) else tuple(modes)
    names: list[str] = []
    for name in given:
        if name not in _NAMES:
            raise ConfigurationError(f"pooling {name!r} is unknown; choose from {', '.join(_NAMES)}")
        names.extend(_SHORT.get(name, (name,)))
    if not names:
        raise ConfigurationError(f"pooling must name at least one of {', '.join(_NAMES)}")
    if NO_POOLING in names and len(names) > 1:
        raise ConfigurationError(f"pooling {NO_POOLING!r} cannot be combined with others")
    return tuple(names)


def pool(
    values: Tensor,
    lengths: Tensor,
    modes: Sequence[str],
    *,
    separators: Tensor | None = None,
    weights: Tensor | None = None,
) -> Tensor:
    """Pool packed token vectors.

    Args:
        values: Float, shape (total tokens, dim).
        lengths: int64, shape (sequences,); each at least 1.
        modes: Names from `POOLING_MODES`.
        separators: For "sep": position of each sequence's last special token, int64, shape (sequences,).
        weights: For "idf": weight of each token, shape (total tokens,). Where all of a sequence are 0, its vector is.

    Returns:
        Shape (sequences, dim * len(modes)), of the dtype of `values`.
    """
    import torch

    pooled = [_pool_one(values, lengths, mode, separators, weights) for mode in modes]
    return pooled[0] if len(pooled) == 1 else torch.cat(pooled, dim=1)


def _pool_one(  # noqa: PLR0911 - one return a mode
    values: Tensor, lengths: Tensor, mode: str, separators: Tensor | None, weights: Tensor | None
) -> Tensor:
    import torch

    ends = torch.cumsum(lengths, 0)
    if mode == "cls":
        return values[ends - lengths]
    if mode == "sep" and separators is not None:
        return values[ends - lengths + separators]
    if mode == "last":
        return values[ends - 1]
    if mode in ("mean", "max"):
        return torch.segment_reduce(values, mode, lengths=lengths, axis=0)
    if mode == "mean_sqrt_len":
        return torch.segment_reduce(values, "sum", lengths=lengths, axis=0) / lengths.sqrt().unsqueeze(1)
    if mode == "weighted_mean":
        starts = torch.repeat_interleave(ends - lengths, lengths)
        return _weighted(values, lengths, torch.arange(len(values), device=values.device) - starts + 1)
    if mode == "idf" and weights is not None:
        return _weighted(values, lengths, weights)
    raise ValueError(f"pooling {mode!r} is unknown, or lacks what it needs: this is a bug of the caller")


def _weighted(values: Tensor, lengths: Tensor, weights: Tensor) -> Tensor:
    import torch

    weights = weights.to(values.dtype)
    totals = torch.segment_reduce(weights, "sum", lengths=lengths, axis=0)
    sums = torch.segment_reduce(values * weights.unsqueeze(1), "sum", lengths=lengths, axis=0)
    return sums / totals.clamp_min(torch.finfo(values.dtype).tiny).unsqueeze(1)


def normalize(vectors: Tensor) -> Tensor:
    """Scale each row to length 1; a row of zeros stays."""
    import torch

    return torch.nn.functional.normalize(vectors, dim=1)
