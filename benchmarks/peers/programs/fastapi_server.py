"""FastAPI and sentence-transformers as most people begin: no batching across requests, threads of the pool.

MODEL_DIR=FOLDER uvicorn fastapi_server:app --port PORT
"""

from __future__ import annotations

import os
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel
from sentence_transformers import SentenceTransformer

model = SentenceTransformer(os.environ["MODEL_DIR"], device="cpu")
app = FastAPI()


class Embeddings(BaseModel):
    """A request of OpenAI's embeddings API."""

    input: list[str] | str
    model: str = "model"


@app.post("/v1/embeddings")
def embeddings(request: Embeddings) -> dict[str, Any]:
    """Encode its texts."""
    texts = [request.input] if isinstance(request.input, str) else request.input
    vectors = model.encode(texts, batch_size=32, normalize_embeddings=True, show_progress_bar=False)
    return {"data": [{"index": index, "embedding": vector} for index, vector in enumerate(vectors.tolist())]}
