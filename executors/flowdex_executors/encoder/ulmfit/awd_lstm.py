"""AWD-LSTM's forward pass, without dropout: a stack of LSTMs over embeddings (Merity et al., 2018).

    ids of n sequences -> embeddings of their tokens, first all first ones, then all second ones, ... (T, E)
      -> LSTM 1 (T, H) -> LSTM 2 (T, H) -> LSTM 3 (T, E), each over the sequences that are that long
      -> back in the order of the sequences

There is no padding, every sequence starts from a state of zeros, and none sees another: torch's packed sequences are
exact. A step computes one token of each sequence, so that batches of many sequences are fast.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from flowdex.errors import InvalidInput
from flowdex_executors.encoder.backend import TokenVectors, resolve_layers

if TYPE_CHECKING:
    from torch import Tensor

    from flowdex_executors.encoder.tokenising import TokenSequence
    from flowdex_executors.encoder.ulmfit.weights import AwdLstmWeights

__all__ = ["AwdLstm"]


class AwdLstm:
    """An AWD-LSTM in memory, in float32. Layer 0 is the embeddings, layer i the output of the i-th LSTM.

    Args:
        weights: The model's arrays.
        device: A torch device.
    """

    name = "awd-lstm"
    padded = False

    def __init__(self, weights: AwdLstmWeights, device: str = "cpu") -> None:
        import torch

        self._device = device
        self._embeddings = weights.embeddings.to(device)
        self._lstms = []
        for size, layer in zip(weights.sizes, weights.layers, strict=False):
            with torch.device("meta"):  # no memory, no random numbers: the arrays of the file take their places
                lstm = torch.nn.LSTM(size, layer["weight_hh_l0"].shape[1])
            lstm.load_state_dict({name: array.to(device) for name, array in layer.items()}, assign=True)
            lstm.requires_grad_(False).eval()
            lstm.flatten_parameters()
            self._lstms.append(lstm)
        self.dimensions = weights.sizes

    def forward(
        self, sequences: Sequence[TokenSequence], layers: Sequence[int] = (-1,), *, attention: bool = False
    ) -> TokenVectors:
        """Compute the vectors of all tokens; see `Backend.forward`."""
        import torch
        from torch.nn.utils.rnn import PackedSequence

        if attention:
            raise InvalidInput("attention: an LSTM has none; leave `attention` out")
        wanted = resolve_layers(layers, len(self.dimensions))
        with torch.inference_mode():
            lengths = torch.tensor([len(sequence) for sequence in sequences])
            ids = torch.tensor([token for sequence in sequences for token in sequence.ids])
            rows, alive = _by_step(lengths)
            values = self._embeddings[ids[rows].to(self._device)]
            computed = [values]
            for lstm in self._lstms[: max(wanted)]:
                packed, _ = lstm(PackedSequence(computed[-1], alive))
                computed.append(packed.data)
            back = torch.empty_like(rows)
            back[rows] = torch.arange(len(rows))
            back = back.to(self._device)
            return TokenVectors(tuple(computed[layer][back] for layer in wanted), lengths.to(self._device))


def _by_step(lengths: Tensor) -> tuple[Tensor, Tensor]:
    """The order in which LSTMs read the tokens of sequences.

    Args:
        lengths: int64, shape (sequences,).

    Returns:
        int64 of shape (total tokens,): which packed row comes when, those of the first step first, and in each step
        those of longer sequences first; and int64 of shape (longest,): how many sequences have each step.
    """
    import torch

    order = torch.argsort(lengths, descending=True, stable=True)
    starts = (torch.cumsum(lengths, 0) - lengths)[order]
    steps = torch.arange(int(lengths.max()))
    alive = lengths[order].unsqueeze(0) > steps.unsqueeze(1)  # (longest, sequences)
    return (starts.unsqueeze(0) + steps.unsqueeze(1))[alive], alive.sum(1)
