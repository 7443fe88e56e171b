"""LitServe around sentence-transformers, with its dynamic batching: MODEL_DIR=FOLDER python litserve_server.py PORT."""

# No `from __future__ import annotations` here: LitServe reads the annotations, and takes strings for query parameters.

import os
import sys
from typing import Any

import litserve


class Embeddings(litserve.LitAPI):
    """Requests of several texts each; a batch is all texts of its requests."""

    def setup(self, device: str) -> None:
        """Load the model, once a worker."""
        from sentence_transformers import SentenceTransformer

        self.model = SentenceTransformer(os.environ["MODEL_DIR"], device="cpu")

    def decode_request(self, request: dict[str, Any]) -> list[str]:
        """The texts of a request."""
        return [request["input"]] if isinstance(request["input"], str) else request["input"]

    def batch(self, inputs: list[list[str]]) -> list[str]:
        """All texts of a batch."""
        self.sizes = [len(texts) for texts in inputs]
        return [text for texts in inputs for text in texts]

    def predict(self, texts: list[str]) -> Any:
        """Their vectors."""
        return self.model.encode(texts, batch_size=32, normalize_embeddings=True, show_progress_bar=False)

    def unbatch(self, output: Any) -> list[Any]:
        """The vectors of each request."""
        parts, start = [], 0
        for size in self.sizes:
            parts.append(output[start : start + size])
            start += size
        return parts

    def encode_response(self, output: Any) -> dict[str, Any]:
        """As OpenAI's API has it."""
        return {"data": [{"index": index, "embedding": vector} for index, vector in enumerate(output.tolist())]}


if __name__ == "__main__":
    api = Embeddings(max_batch_size=8, batch_timeout=0.005, api_path="/v1/embeddings")
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False, log_level="warning")
