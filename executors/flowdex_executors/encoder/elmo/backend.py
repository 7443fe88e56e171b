"""ELMo's forward pass: words in, vectors of every layer out.

    words -> <S> words </S> -> character CNN --+--> layer 0: (t, t)     the word's vector, once for each direction
                                               +--> LSTMs --> layer 1 ... n
    layers 0 ... n --scalar mix--> layer n + 1, the one on top

The boundaries of the sentence are read by the LSTMs and left out of what is returned: a token is a word.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from flowdex.errors import InvalidInput
from flowdex_executors.encoder.backend import TokenVectors, resolve_layers
from flowdex_executors.encoder.elmo.character_cnn import CharacterCnn
from flowdex_executors.encoder.elmo.characters import SENTENCE_END, SENTENCE_START
from flowdex_executors.encoder.elmo.lstm import BidirectionalLstm, State
from flowdex_executors.encoder.elmo.scalar_mix import ScalarMix
from flowdex_executors.encoder.elmo.weights import read_options, read_weights

if TYPE_CHECKING:
    from torch import Tensor

    from flowdex_executors.encoder.tokenising import TokenSequence

__all__ = ["ElmoBackend"]


class ElmoBackend:
    """A bidirectional language model in memory, in float32. The `ids` of its sequences are words.

    Args:
        options: The model's options.json.
        weights: Its weights.hdf5.
        mix_weights: The scalar mix's weight of each layer, before its softmax; None for equal ones.
        gamma: The scalar mix's scale.
        stateful: Whether sequence i of a call goes on from where sequence i of the calls before ended, as in the
            authors' implementation; otherwise every sequence starts from zero, so that a text has one vector.
        device: A torch device.
        cached_words: How many words' vectors to remember (4 P bytes each).

    Attributes:
        mix: The scalar mix.

    Raises:
        ConfigurationError: A file cannot be read or does not fit the other.
    """

    name = "elmo"
    padded = False

    def __init__(
        self,
        options: Path,
        weights: Path,
        *,
        mix_weights: Sequence[float] | None = None,
        gamma: float = 1.0,
        stateful: bool = False,
        device: str = "cpu",
        cached_words: int = 20_000,
    ) -> None:
        found = read_options(options)
        self.mix = ScalarMix(found.layers + 1, mix_weights, gamma)
        arrays = read_weights(weights, found)
        self._tokens = CharacterCnn(found, arrays, device, cached_words)
        self._lstm = BidirectionalLstm(found, arrays, device)
        self._device = device
        self._stateful = stateful
        self._state: State | None = None
        self._lock = threading.Lock()
        self.dimensions = (2 * found.projection,) * (found.layers + 2)

    def forward(
        self, sequences: Sequence[TokenSequence], layers: Sequence[int] = (-1,), *, attention: bool = False
    ) -> TokenVectors:
        """Compute the vectors of all words; see `Backend.forward`.

        Layer 0 is the character CNN's, the following ones are the LSTMs', and the last one is the scalar mix of all.
        """
        import torch

        if attention:
            raise InvalidInput("ELMo has no attention; leave `attention` out")
        wanted = resolve_layers(layers, len(self.dimensions))
        with torch.inference_mode():
            lengths = [len(sequence) + 2 for sequence in sequences]
            words = [word for sequence in sequences for word in (SENTENCE_START, *sequence.ids, SENTENCE_END)]
            tokens = self._tokens(words)
            inner = torch.tensor([word for n in lengths for word in (False, *[True] * (n - 2), False)])
            inner = inner.to(self._device)
            outputs = self._run(tokens, lengths) if self._stateful or any(wanted) else []
            found = [values[inner] for values in (tokens.repeat(1, 2), *outputs)]
            if self._top in wanted:
                found.append(self.mix(found))
            counts = torch.tensor([len(sequence) for sequence in sequences], device=self._device)
            return TokenVectors(tuple(found[layer] for layer in wanted), counts)

    def reset(self) -> None:
        """Forget what was before (`stateful`)."""
        with self._lock:
            self._state = None

    @property
    def _top(self) -> int:
        return len(self.dimensions) - 1

    def _run(self, tokens: Tensor, lengths: Sequence[int]) -> list[Tensor]:
        if not self._stateful:
            return self._lstm(tokens, lengths)[0]
        with self._lock:
            state = self._state or self._lstm.zero_state(0)
            known, count = state.hidden.shape[2], len(lengths)
            if known < count:  # rows that no call has had so far start from zero
                state = _join(state, self._lstm.zero_state(count - known))
            used = State(state.hidden[:, :, :count], state.memory[:, :, :count])
            outputs, after = self._lstm(tokens, lengths, used)
            # Rows that this call does not have keep what they had.
            self._state = _join(after, State(state.hidden[:, :, count:], state.memory[:, :, count:]))
            return outputs


def _join(first: State, second: State) -> State:
    import torch

    return State(torch.cat([first.hidden, second.hidden], dim=2), torch.cat([first.memory, second.memory], dim=2))
