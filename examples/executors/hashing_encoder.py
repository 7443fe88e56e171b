"""A columnar executor: an encoder that counts words in hashed buckets, fast and without a model."""

import zlib
from typing import Any

import numpy as np
from jina import Executor, requests

from flowdex.errors import InvalidInput
from flowdex_executors import DocumentColumns


class HashingEncoder(Executor):
    """Encodes a text as the normalised counts of its words, each in the bucket of its hash.

    Args:
        dimensions: Number of buckets.
    """

    concurrent = True  # many calls at a time: this class keeps nothing between them

    def __init__(self, dimensions: int = 256, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.dimensions = dimensions

    @requests(on="/encode")
    def encode(self, docs: DocumentColumns, parameters: dict, **kwargs: Any) -> DocumentColumns:
        """Give every document the vector of its text; the parameter `lower` (default true) ignores case."""
        lower = parameters.get("lower", True)
        if not isinstance(lower, bool):
            raise InvalidInput(f"lower must be true or false, not {lower!r}")
        vectors = np.zeros((len(docs), self.dimensions), dtype=np.float32)
        for row, text in enumerate(docs.batch.texts):
            if not text:
                raise InvalidInput(f"document {row} has no text to encode")
            for word in (text.lower() if lower else text).split():
                vectors[row, zlib.crc32(word.encode()) % self.dimensions] += 1
        docs.batch.embeddings = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return docs

    @requests(on="/status", response_schema=DocumentColumns)
    def status(self, docs: DocumentColumns, **kwargs: Any):
        """Tell what the flow's status shows about this executor."""
        return {"dimensions": self.dimensions}
