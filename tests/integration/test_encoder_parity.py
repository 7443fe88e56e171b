"""The default encoder against plain transformers and sentence-transformers' recipe, on real and awkward texts."""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from flowdex.documents import DocumentBatch
from flowdex_executors import BertEncoder, DocumentColumns
from flowdex_executors.encoder.model_files import find_model

Vectors = npt.NDArray[np.float32]

CRANFIELD = Path(__file__).resolve().parents[3] / "shared" / "data" / "cranfield" / "corpus.jsonl"

OWN_TEXTS = [
    "a",
    "?",
    "Hello, world!",
    "東京都は日本の首都です。",
    "中文没有空格，但仍然要编码。",
    "Größe, Übermaß, straße; naïve café",
    "Это предложение на русском языке.",
    "هذه جملة عربية.",
    "👩‍👩‍👧‍👦 🇩🇪 emoji",
    "\u200b\u00ad",
    "tabs\tand\nlines\r\nand   spaces",
    "x" * 5000,
    "QU+/" * 900,
    "one two three " * 84 + "four",  # 253 tokens and the two special ones: one short of the limit
    "one two three " * 84 + "four five",  # exactly the limit
    "one two three " * 85,
    "sentence after sentence, and then another. " * 400,
]


def some_texts() -> list[str]:
    if CRANFIELD.is_file():
        lines = CRANFIELD.read_text(encoding="utf-8").splitlines()
        more = [json.loads(line)["text"] for line in random.Random(0).sample(lines, 60)]
    else:
        from pydoc_data.topics import topics

        more = list(topics.values())[:60]
    return OWN_TEXTS + [text for text in more if text.strip()][:36]


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return some_texts()


@pytest.fixture(scope="module")
def expected(texts: list[str]) -> Vectors:
    """One text at a time: no padding, no batch, nothing of ours."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    folder = str(find_model(None)[0])
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    rows = []
    with torch.inference_mode():
        for text in texts:
            tokens = tokenizer(text, truncation=True, max_length=256, return_tensors="pt")
            mean = model(**tokens).last_hidden_state[0].mean(0)
            rows.append(torch.nn.functional.normalize(mean, dim=0).numpy())
    return np.stack(rows)


@pytest.fixture(scope="module", params=["packed", "transformers"])
def encoder(request: pytest.FixtureRequest) -> Iterator[BertEncoder]:
    encoder = BertEncoder(backend=request.param)
    yield encoder
    encoder.close()


async def encode(encoder: BertEncoder, texts: list[str]) -> Vectors:
    reply = await encoder.encode(docs=DocumentColumns(DocumentBatch.from_columns(texts=texts)))
    vectors = reply.batch.embeddings
    assert vectors is not None
    return vectors


def test_there_are_enough_texts_and_the_long_ones_are_at_the_limit(texts: list[str]) -> None:
    encoder = BertEncoder()
    sequences = encoder.tokenise(texts)
    assert len(texts) > 50
    assert [len(sequence) for sequence in sequences[13:17]] == [255, 256, 256, 256]
    assert [bool(sequence.dropped) for sequence in sequences[13:17]] == [False, False, True, True]


async def test_vectors_equal_plain_transformers(encoder: BertEncoder, texts: list[str], expected: Vectors) -> None:
    vectors = await encode(encoder, texts)
    assert (vectors.shape, vectors.dtype) == ((len(texts), 384), np.float32)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert (vectors * expected).sum(1).min() >= 0.99999


async def test_company_does_not_change_a_vector(texts: list[str], expected: Vectors) -> None:
    encoder = BertEncoder(batch_tokens=300)

    async def caller(seed: int) -> None:
        order = random.Random(seed).sample(range(len(texts)), 12)
        vectors = await encode(encoder, [texts[index] for index in order])
        np.testing.assert_allclose(vectors, expected[order], atol=2e-5)

    await asyncio.gather(*(caller(seed) for seed in range(8)))
    encoder.close()


def test_the_default_path_needs_no_transformers() -> None:
    script = (
        "import sys; from flowdex_executors import BertEncoder\n"
        "encoder = BertEncoder(); encoder.warm_up(); encoder.close()\n"
        "print([name for name in ('transformers', 'sentence_transformers', 'huggingface_hub') if name in sys.modules])"
    )
    done: Any = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr
