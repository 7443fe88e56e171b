"""An encoder whose cost is known: a wait of 20 ms for each batch of 64 texts, one batch at a time, and no work."""

import asyncio
from typing import ClassVar

from jina import Executor, requests
from numpy import float32, ones

from flowdex_executors import DocumentColumns

BATCH = 64
SECONDS = 0.02


class FixedCostEncoder(Executor):
    """Gives every document the same vector."""

    concurrent: ClassVar[bool] = True
    splittable: ClassVar[frozenset[str]] = frozenset({"/encode"})

    def __init__(self, **kwargs) -> None:
        super().__init__(**kwargs)
        self._turn = asyncio.Lock()

    @requests(on="/encode")
    async def encode(self, docs: DocumentColumns, **kwargs) -> DocumentColumns:
        """Wait, and write vectors."""
        for _ in range(0, len(docs.batch), BATCH):
            async with self._turn:
                await asyncio.sleep(SECONDS)
        docs.batch.embeddings = ones((len(docs.batch), 8), dtype=float32)
        return docs
