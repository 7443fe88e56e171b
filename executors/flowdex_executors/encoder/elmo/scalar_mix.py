"""The scalar mix of Peters et al., 2018: one vector a token from those of all layers.

    mix = gamma * sum over k of s_k * h_k,    s = softmax(w)

With w all equal and gamma 1, which is the default, it is the mean of the layers. A task that has learnt w and gamma
gives them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from flowdex.errors import ConfigurationError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["ScalarMix"]


class ScalarMix:
    """The equation above.

    Args:
        layers: How many layers there are.
        weights: w, one number a layer, before the softmax; None for equal ones.
        gamma: Scales the result.

    Attributes:
        shares: gamma * s, what each layer is multiplied by.

    Raises:
        ConfigurationError: There are not as many weights as layers, or a number is not finite.
    """

    def __init__(self, layers: int, weights: Sequence[float] | None = None, gamma: float = 1.0) -> None:
        if weights is None:
            weights = [0.0] * layers
        if isinstance(weights, str) or not isinstance(weights, Sequence) or len(weights) != layers:
            raise ConfigurationError(f"mix_weights must be a list of {layers} numbers, one a layer, got {weights!r}")
        for name, number in (("gamma", gamma), *(("mix_weights", weight) for weight in weights)):
            if isinstance(number, bool) or not isinstance(number, (int, float)) or not math.isfinite(number):
                raise ConfigurationError(f"{name} must be made of finite numbers, got {number!r}")
        largest = max(weights)
        powers = [math.exp(weight - largest) for weight in weights]
        self.shares = tuple(gamma * power / sum(powers) for power in powers)

    def __call__(self, layers: Sequence[Tensor]) -> Tensor:
        """Mix vectors.

        Args:
            layers: One tensor a layer, all of one shape.

        Returns:
            That shape.
        """
        mixed = layers[0] * self.shares[0]
        for share, values in zip(self.shares[1:], layers[1:], strict=True):
            mixed.add_(values, alpha=share)
        return mixed
