"""An encoder whose device has a known speed: the real queue and batches, and a wait in the place of work.

What it measures is the service, on a machine whose cores have other things to do.
"""

import time
from typing import ClassVar

import numpy as np

from flowdex_executors.encoder import Encoder

TOKENS_A_SECOND = 16_000


class TimedEncoder(Encoder):
    """Gives every text the same vector, after a while."""

    dimensions: ClassVar[int] = 8

    def __init__(self, **kwargs) -> None:
        super().__init__(**{"threads": 1, "batch_tokens": 512, **kwargs})

    def encode_batch(self, batch):
        """Wait as long as the device would take; a token is four characters."""
        time.sleep(sum(1 + len(text) // 4 for text in batch) / TOKENS_A_SECOND)
        return np.ones((len(batch), self.dimensions), dtype=np.float32)
