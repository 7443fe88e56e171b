"""ELMo's bidirectional language model: LSTMs with projection, clipping and residual connections, without padding.

One direction of one layer, for step t of a sequence, with x_t its input and h_0 = c_0 = 0 (or what a text before left):

    i, f, o = sigmoid(x_t W + h_(t-1) U + b)          g = tanh(the same, with its own W, U and b)
    c_t = clip(f * c_(t-1) + i * g)                   3, where the options say so
    h_t = clip((o * tanh(c_t)) V)                     the projection, from C to P
    output_t = h_t + x_t                              x_t from the second layer on, where the options say so

The directions never meet: forwards reads forwards, and layer k of each reads layer k-1 of its own.

Sequences of different lengths go through together, longest first, packed by step, so that the active ones of step t are
the first `sizes[t]` rows of the state and nothing is computed for one that has ended:

    step:      0      1      2    3            sequences  a b c d
    rows:      a e h  b f i  c g  d                       e f g
    sizes:     3      3      2    1                       h i

For the other direction each sequence is reversed first; then the loop is the same. Only h_(t-1) U waits for the step
before: x_t W is one large product for all steps at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

    from flowdex_executors.encoder.elmo.weights import CellWeights, ElmoOptions, ElmoWeights

__all__ = ["BidirectionalLstm", "State"]

_ROWS_AT_ONCE = 1024  # tokens whose x_t W is in memory: 64 KiB each with a memory of 4,096


class State(NamedTuple):
    """What the LSTMs remember of each sequence, at its end.

    Attributes:
        hidden: Shape (layers, 2, sequences, P); the second axis is the direction.
        memory: Shape (layers, 2, sequences, C).
    """

    hidden: Tensor
    memory: Tensor


@dataclass(frozen=True)
class _Cell:
    """One LSTM of one direction; see `CellWeights`."""

    inputs: Tensor
    state: Tensor
    bias: Tensor
    projection: Tensor


class BidirectionalLstm:
    """The stack of LSTMs in memory. Holds no state: may be called from several threads at the same time.

    Args:
        options: The model's sizes and limits.
        weights: The model's arrays.
        device: A torch device.
    """

    def __init__(self, options: ElmoOptions, weights: ElmoWeights, device: str) -> None:
        import torch

        def cell(found: CellWeights) -> _Cell:
            return _Cell(*(torch.as_tensor(array, device=device) for array in found))

        self._layers = [(cell(forwards), cell(backwards)) for forwards, backwards in weights.cells]
        self._residual = options.residual
        self._cell_clip = options.cell_clip
        self._projection_clip = options.projection_clip
        self._cell_size = options.cell
        self._size = options.projection
        self._device = device

    def zero_state(self, sequences: int) -> State:
        """The state of sequences before which there was nothing."""
        import torch

        return State(
            torch.zeros(len(self._layers), 2, sequences, self._size, device=self._device),
            torch.zeros(len(self._layers), 2, sequences, self._cell_size, device=self._device),
        )

    def __call__(
        self, tokens: Tensor, lengths: Sequence[int], state: State | None = None
    ) -> tuple[list[Tensor], State]:
        """Read sequences in both directions.

        Args:
            tokens: Token embeddings of all sequences, one after the other, float of shape (total tokens, P).
            lengths: Tokens of each sequence, each at least 1.
            state: What was before each sequence; None for nothing.

        Returns:
            The output of each layer, shape (total tokens, 2 P): forwards, then backwards. And the state at the end of
            the sequences, which is the start of the text for the direction that reads backwards.
        """
        import torch

        order = sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True)
        before = self.zero_state(len(lengths)) if state is None else state
        after = State(torch.empty_like(before.hidden), torch.empty_like(before.memory))
        outputs = [tokens.new_empty(len(tokens), 2 * self._size) for _ in self._layers]
        rows = torch.tensor(order, device=self._device)
        for direction in (0, 1):
            positions, sizes = _by_step(lengths, order, backwards=direction == 1)
            index = positions.to(self._device)
            values = tokens[index]
            columns = slice(direction * self._size, (direction + 1) * self._size)
            for layer, cells in enumerate(self._layers):
                hidden = before.hidden[layer, direction, rows]
                memory = before.memory[layer, direction, rows]
                read = self._read(cells[direction], values, sizes, hidden, memory)
                values = read.add_(values) if layer and self._residual else read
                outputs[layer][index, columns] = values
                after.hidden[layer, direction, rows] = hidden
                after.memory[layer, direction, rows] = memory
        return outputs, after

    def _read(self, cell: _Cell, values: Tensor, sizes: Sequence[int], hidden: Tensor, memory: Tensor) -> Tensor:
        """Run one LSTM over all steps: (T, P) -> (T, P). Leaves the last state of each row in `hidden` and `memory`."""
        import torch

        outputs = torch.empty_like(values)
        size = self._cell_size
        first = 0  # row of `values` at which the step starts
        for part in _parts(sizes):
            end = first + sum(part)
            gates_of_inputs = torch.addmm(cell.bias, values[first:end], cell.inputs)
            start = 0
            for active in part:
                h, c = hidden[:active], memory[:active]
                gates = gates_of_inputs[start : start + active].addmm_(h, cell.state)
                i, f, o = gates[:, : 3 * size].sigmoid_().chunk(3, dim=1)
                c.mul_(f).addcmul_(i, gates[:, 3 * size :].tanh_())
                if self._cell_clip is not None:
                    c.clamp_(-self._cell_clip, self._cell_clip)
                torch.mm(c.tanh().mul_(o), cell.projection, out=h)
                if self._projection_clip is not None:
                    h.clamp_(-self._projection_clip, self._projection_clip)
                outputs[first + start : first + start + active] = h
                start += active
            first = end
        return outputs


def _by_step(lengths: Sequence[int], order: Sequence[int], *, backwards: bool) -> tuple[Tensor, list[int]]:
    """Where the rows of each step are, step by step, and how many each has; `order` is longest first."""
    import torch

    starts = torch.tensor([0, *accumulate(lengths)])[torch.tensor(order)]
    lengths_in_order = torch.tensor([lengths[index] for index in order])
    steps = torch.arange(int(lengths_in_order[0])).unsqueeze(1)
    active = steps < lengths_in_order
    positions = starts + (lengths_in_order - 1 - steps if backwards else steps)
    return positions[active], active.sum(1).tolist()


def _parts(sizes: Sequence[int]) -> list[list[int]]:
    """Steps in parts of about `_ROWS_AT_ONCE` rows."""
    parts: list[list[int]] = [[]]
    rows = 0
    for size in sizes:
        if parts[-1] and rows + size > _ROWS_AT_ONCE:
            parts.append([])
            rows = 0
        parts[-1].append(size)
        rows += size
    return parts
