"""The encoder of examples/encoder in a process without memory for large batches, and a text for which there is none."""

from __future__ import annotations

import resource
import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples" / "encoder"))

from ngram_encoder import NgramEncoder

__all__ = ["HungryEncoder"]

MEBIBYTE = 2**20
POISON = "poison"


class HungryEncoder(NgramEncoder):  # type: ignore[misc]  # an example, without types
    """Takes so many MiB for each text of a batch while it computes, and much more for a poisonous one."""

    def __init__(self, spare: int = 400, each: int = 24, **options: Any) -> None:
        super().__init__(**options)
        self._spare, self._each = spare, each

    def warm_up(self) -> None:
        """Limit the memory of the process to what it has by now, and some."""
        super().warm_up()
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + self._spare * MEBIBYTE
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    def encode_batch(self, batch: list[str]) -> np.ndarray:
        """Vectors of some texts, a row each; raises MemoryError where there is none."""
        wanted = sum(100 * self._spare if POISON in text else self._each for text in batch)
        room = np.ones(wanted * MEBIBYTE, dtype=np.uint8)  # written to: it is there
        vectors: np.ndarray = super().encode_batch(batch)
        del room
        return vectors
