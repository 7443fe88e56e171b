"""mosec around sentence-transformers, with its dynamic batching.

MODEL_DIR=FOLDER python mosec_server.py --port PORT
"""

from __future__ import annotations

import os
from typing import Any

from mosec import Server, Worker


class Embeddings(Worker):
    """Requests of several texts each; a batch is all texts of its requests."""

    def __init__(self) -> None:
        import torch
        from sentence_transformers import SentenceTransformer

        torch.set_num_threads(os.cpu_count() or 1)
        self.model = SentenceTransformer(os.environ["MODEL_DIR"], device="cpu")

    def forward(self, data: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Encode the texts of all requests of a batch."""
        requests = [[each["input"]] if isinstance(each["input"], str) else each["input"] for each in data]
        texts = [text for request in requests for text in request]
        vectors = self.model.encode(texts, batch_size=32, normalize_embeddings=True, show_progress_bar=False).tolist()
        replies, start = [], 0
        for request in requests:
            rows = vectors[start : start + len(request)]
            replies.append({"data": [{"index": index, "embedding": row} for index, row in enumerate(rows)]})
            start += len(request)
        return replies


if __name__ == "__main__":
    server = Server()
    server.append_worker(Embeddings, num=1, max_batch_size=32, max_wait_time=5, timeout=60, route="/v1/embeddings")
    server.run()
