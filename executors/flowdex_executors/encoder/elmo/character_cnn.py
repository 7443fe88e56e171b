"""Words to vectors that know no context: ELMo's character CNN (Kim et al., 2016; Peters et al., 2018).

    ids (N, 50) -> embed (N, E, 50) -> for each width: convolve, max over positions, activation -> concatenate (N, F)
      -> highway layers, x = g * relu(x W + b) + (1 - g) * x, with g = sigmoid(x W' + b') -> project (N, P)

A word's vector is computed once for a batch, however often the word is there, and kept for the next: half of what a
text holds are the same few words.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING

from flowdex_executors.encoder.elmo.characters import PADDING, character_ids

if TYPE_CHECKING:
    from torch import Tensor

    from flowdex_executors.encoder.elmo.weights import ElmoOptions, ElmoWeights

__all__ = ["CharacterCnn"]

_AT_ONCE = 256  # words; bounds the memory of the convolutions' output (2,048 features at 50 positions)


class CharacterCnn:
    """The character CNN in memory. May be called from several threads at the same time.

    Args:
        options: The model's sizes.
        weights: The model's arrays.
        device: A torch device.
        cached_words: How many words to remember, the most recently used.
    """

    def __init__(self, options: ElmoOptions, weights: ElmoWeights, device: str, cached_words: int) -> None:
        import torch

        def tensor(array: object) -> Tensor:
            return torch.as_tensor(array, device=device)

        self._device = device
        self._width = options.characters_per_word
        self._widest = max(width for width, _ in options.filters)
        self._activation = torch.relu if options.activation == "relu" else torch.tanh
        self._characters = tensor(weights.characters)
        self._convolutions = [(tensor(kernel), tensor(bias)) for kernel, bias in weights.convolutions]
        self._highways = [tuple(tensor(array) for array in highway) for highway in weights.highways]
        self._projection = None if weights.projection is None else tuple(tensor(array) for array in weights.projection)
        self._cache: OrderedDict[str, Tensor] = OrderedDict()
        self._cached_words = cached_words
        self._lock = threading.Lock()

    def __call__(self, words: Sequence[str]) -> Tensor:
        """The vectors of words, float32 of shape (len(words), P)."""
        import torch

        numbers: dict[str, int] = {}
        rows = [numbers.setdefault(word, len(numbers)) for word in words]
        vectors = self._recall(list(numbers))
        new = sorted((word for word, vector in zip(numbers, vectors, strict=True) if vector is None), key=len)
        for start in range(0, len(new), _AT_ONCE):
            part = new[start : start + _AT_ONCE]
            computed = self._compute(part).unbind(0)
            self._remember(part, computed)
            for word, vector in zip(part, computed, strict=True):
                vectors[numbers[word]] = vector
        return torch.stack(vectors)[torch.tensor(rows, device=self._device)]  # type: ignore[arg-type]  # all are filled

    def _recall(self, words: list[str]) -> list[Tensor | None]:
        with self._lock:
            for word in words:
                if word in self._cache:
                    self._cache.move_to_end(word)
            return [self._cache.get(word) for word in words]

    def _remember(self, words: Sequence[str], vectors: Sequence[Tensor]) -> None:
        with self._lock:
            for word, vector in zip(words, vectors, strict=True):
                self._cache[word] = vector.clone()  # a row of its own: a view would keep its whole batch in memory
            while len(self._cache) > self._cached_words:
                self._cache.popitem(last=False)

    def _compute(self, words: Sequence[str]) -> Tensor:
        import torch
        from torch.nn import functional

        array = character_ids(words, self._width)
        # Positions that see nothing but padding all give the same: one of them, for the widest filter, is enough.
        longest = int((array != PADDING).sum(1).max())
        ids = torch.from_numpy(array[:, : longest + self._widest]).to(self._device)
        embedded = functional.embedding(ids, self._characters).transpose(1, 2)
        found = [functional.conv1d(embedded, kernel, bias).amax(2) for kernel, bias in self._convolutions]
        values = self._activation(torch.cat(found, dim=1))
        for carry, carry_bias, transform, transform_bias in self._highways:
            gate = torch.sigmoid(torch.addmm(carry_bias, values, carry))
            changed = torch.relu(torch.addmm(transform_bias, values, transform))
            values = torch.lerp(values, changed, gate)
        if self._projection is None:
            return values
        matrix, bias = self._projection
        return torch.addmm(bias, values, matrix)
