"""An encoder of one's own: counts of character trigrams, hashed into buckets."""

import zlib

import numpy as np

from flowdex_executors.encoder import Encoder


class NgramEncoder(Encoder):
    """A text is how often each three letters follow each other in it."""

    def __init__(self, buckets: int = 512, **options):
        super().__init__(normalize=True, fingerprint_parts={"buckets": buckets}, **options)
        self.dimensions = buckets

    def encode_batch(self, batch):
        """Vectors of some texts, a row each."""
        vectors = np.zeros((len(batch), self.dimensions), dtype=np.float32)
        for row, text in enumerate(batch):
            padded = f"  {text.lower()}  "
            for start in range(len(padded) - 2):
                vectors[row, zlib.crc32(padded[start : start + 3].encode()) % self.dimensions] += 1
        return vectors
