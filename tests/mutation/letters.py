"""An encoder that costs next to nothing, so that a run's time is spent on reading requests."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from flowdex_executors.encoder import Encoder


class Letters(Encoder):
    """A text is how often it has each byte, modulo the dimensions."""

    dimensions = 64

    def __init__(self, **options: object) -> None:
        super().__init__(normalize=True, fingerprint_parts={"counts": "bytes"}, **options)  # type: ignore[arg-type]

    def encode_batch(self, batch: Sequence[str]) -> npt.NDArray[np.float32]:
        """Vectors, float32 of shape (len(batch), dimensions)."""
        counts = [np.bincount(np.frombuffer(text.encode(), np.uint8) % self.dimensions, minlength=64) for text in batch]
        return np.array(counts, np.float32).reshape(-1, self.dimensions)
