"""BERT on ONNX Runtime: the same vectors as `packed_bert`, sooner for a single short text.

    sequences --neighbours of like length--> one run of the graph each --> packed token vectors

The graph is `onnx_graph`'s. Where it does not know the architecture, the folder's own .onnx file is taken.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from flowdex.errors import ConfigurationError
from flowdex_executors.encoder.backend import Backend, TokenVectors, resolve_layers
from flowdex_executors.encoder.onnx_graph import bert_graph
from flowdex_executors.encoder.onnx_runtime import require_onnxruntime, start_session
from flowdex_executors.encoder.packed_bert import PackedBert, read_bert

if TYPE_CHECKING:
    from flowdex_executors.encoder.model_files import ModelFiles
    from flowdex_executors.encoder.packed_bert import BertWeights
    from flowdex_executors.encoder.tokenising import TokenSequence

__all__ = ["OnnxBert", "load_onnx"]

_LONGEST_TO_SHORTEST = 2  # within a run; more would compute too much attention on padding


class OnnxBert:
    """A model of the families of `PackedBert` on ONNX Runtime.

    Args:
        files: The model's folder; `PackedBert.supports` must hold.
        device: "cpu", "cuda" or "cuda:N".
        int8: Whether to compute matrix products in 8 bits.
        weights: The model's, where they are in memory already; on the CPU, as float32.

    Attributes:
        lossy: Whether vectors differ from the model's own by more than float noise.

    Raises:
        ConfigurationError: A package or a weight is missing, or the device cannot do it.
    """

    padded = False

    def __init__(
        self, files: ModelFiles, device: str = "cpu", *, int8: bool = False, weights: BertWeights | None = None
    ) -> None:
        if int8 and device != "cpu":
            raise ConfigurationError("quantization int8 is for the CPU; leave it out, or set device: cpu")
        require_onnxruntime()
        model = weights or read_bert(files)
        graph, arrays = bert_graph(model, int8=int8)
        # The sessions look at the arrays where they lie.
        self._graph, self._device, self._weights = graph, device, arrays
        self._sessions = {1: start_session(graph, device, arrays)}
        self._starting = threading.Lock()
        self._chosen = threading.local()
        self._has_types = model.second_type is not None
        self._first_position = model.first_position
        self.name = "onnx int8" if int8 else "onnx"
        self.lossy = int8
        self.dimensions = (files.hidden_size,) * (len(model.layers) + 1)

    def use_cores(self, cores: int) -> None:
        """See `UsesCores`. The threads of a session are fixed, so that another number is another session."""
        with self._starting:
            if cores not in self._sessions:
                self._sessions[cores] = start_session(self._graph, self._device, self._weights, threads=cores)
        self._chosen.session = self._sessions[cores]

    def forward(
        self, sequences: Sequence[TokenSequence], layers: Sequence[int] = (-1,), *, attention: bool = False
    ) -> TokenVectors:
        """Compute the vectors of all tokens; see `Backend.forward`. It has no attention to give."""
        import torch

        wanted = resolve_layers(layers, len(self.dimensions))
        names = [f"layer_{layer}" for layer in wanted]
        lengths = np.array([len(sequence) for sequence in sequences])
        session = getattr(self._chosen, "session", self._sessions[1])
        runs = [
            session.run(names, self._inputs(sequences[start:end], lengths[start:end])) for start, end in _runs(lengths)
        ]
        return TokenVectors(
            tuple(torch.from_numpy(np.concatenate(parts)) for parts in zip(*runs, strict=True)),
            torch.from_numpy(lengths),
        )

    def _inputs(self, sequences: Sequence[TokenSequence], lengths: npt.NDArray[Any]) -> dict[str, npt.NDArray[Any]]:
        steps = np.arange(lengths.max())
        real = steps < lengths[:, None]
        starts = np.cumsum(lengths) - lengths
        inputs = {
            "ids": np.array([token for sequence in sequences for token in sequence.ids]),
            "positions": np.broadcast_to(steps + self._first_position, real.shape)[real],
            "rows": np.where(real, starts[:, None] + steps, 0),
            "tokens": np.flatnonzero(real),
            "lengths": lengths.astype(np.int32),
        }
        if self._has_types:
            inputs["types"] = np.array(
                [kind for sequence in sequences for kind in sequence.type_ids or [0] * len(sequence)]
            )
        return inputs


def _runs(lengths: npt.NDArray[Any]) -> Iterator[tuple[int, int]]:
    """Neighbours of like length, as (first, end); each has at least one sequence."""
    start = 0
    shortest = longest = int(lengths[0])
    for index, length in enumerate(lengths.tolist()):
        shortest, longest = min(shortest, length), max(longest, length)
        if longest > _LONGEST_TO_SHORTEST * shortest:
            yield start, index
            start, shortest, longest = index, length, length
    yield start, len(lengths)


def load_onnx(files: ModelFiles, device: str = "cpu", *, int8: bool = False) -> Backend:
    """The model on ONNX Runtime: by our own graph where that can be, else by the folder's file.

    Raises:
        ConfigurationError: Neither can be, or a package is missing.
    """
    if PackedBert.supports(files):
        return OnnxBert(files, device, int8=int8)
    path = files.onnx_file
    if path is None or int8:
        raise ConfigurationError(
            f"the onnx backend cannot compute model {files.name!r} ({files.model_type})"
            + (" in int8; leave quantization out" if int8 else ": put an export of it into its folder as model.onnx")
            + ", or use backend: transformers"
        )
    from flowdex_executors.encoder.padded_model import OnnxModel

    return OnnxModel(path, device, padding=int(files.config.get("pad_token_id") or 0))
