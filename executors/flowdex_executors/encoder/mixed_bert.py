"""BERT by two backends over the same weights: ONNX Runtime for few tokens, packed torch for many.

sequences --few tokens--> onnx    (sooner: nothing of Python's between the operations, and a team of threads)
--many-------> packed   (cheaper: no padding in attention)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from flowdex_executors.encoder.backend import TokenVectors
from flowdex_executors.encoder.onnx_backend import OnnxBert
from flowdex_executors.encoder.packed_bert import PackedBert

if TYPE_CHECKING:
    from flowdex_executors.encoder.model_files import ModelFiles
    from flowdex_executors.encoder.tokenising import TokenSequence

__all__ = ["MixedBert"]

_FEW = 512  # tokens of a batch; docs/performance.md has what either costs around it


class MixedBert:
    """A model of the families of `PackedBert` on the CPU, computed by what is the faster for each batch.

    Args:
        files: The model's folder; `PackedBert.supports` must hold.

    Raises:
        ConfigurationError: A package or a weight is missing.
    """

    name = "packed and onnx"
    padded = False

    def __init__(self, files: ModelFiles) -> None:
        self._packed = PackedBert(files)
        self._onnx = OnnxBert(files, weights=self._packed.weights)
        self.dimensions = self._packed.dimensions
        self.attention_shape = self._packed.attention_shape

    def use_cores(self, cores: int) -> None:
        """See `UsesCores`. The batches for which a team is formed are ONNX Runtime's."""
        self._onnx.use_cores(cores)

    def forward(
        self, sequences: Sequence[TokenSequence], layers: Sequence[int] = (-1,), *, attention: bool = False
    ) -> TokenVectors:
        """Compute the vectors of all tokens; see `Backend.forward`."""
        few = not attention and sum(map(len, sequences)) <= _FEW
        if few:
            return self._onnx.forward(sequences, layers)
        return self._packed.forward(sequences, layers, attention=attention)
