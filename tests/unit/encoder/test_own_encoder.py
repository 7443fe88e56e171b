"""An encoder of one's own: the example of docs/encoders.md, through the worker's loader, and what the base gives it."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flowdex.documents import DocumentBatch
from flowdex.errors import ConfigurationError, ExecutorError, InvalidInput
from flowdex_executors import DocumentColumns
from flowdex_executors.encoder import Encoder
from flowdex_orchestrator.flow import load_flow
from flowdex_orchestrator.worker.load import load_executor

ROOT = Path(__file__).resolve().parents[3]
EXAMPLE = ROOT / "examples" / "encoder"


@pytest.fixture(scope="module")
def encoder() -> Iterator[Any]:
    flow = load_flow(EXAMPLE / "flow.yml")
    encoder = load_executor(flow.executor("encoder"), EXAMPLE)
    encoder.warm_up()
    yield encoder
    encoder.close()


def columns(texts: list[str | None]) -> DocumentColumns:
    return DocumentColumns(DocumentBatch.from_columns(ids=[f"d{i}" for i in range(len(texts))], texts=texts))


async def encode(encoder: Any, texts: list[str | None], **parameters: Any) -> Any:
    return (await encoder.encode(docs=columns(texts), parameters=parameters)).batch


def test_the_page_shows_the_example() -> None:
    page = (ROOT / "docs" / "encoders.md").read_text(encoding="utf-8")
    (block,) = [each for each in re.findall(r"^```python\n(.*?)^```$", page, re.M | re.S) if "(Encoder):" in each]
    assert block.strip() in (EXAMPLE / "ngram_encoder.py").read_text(encoding="utf-8")
    body = block[block.index("class ") :].strip().splitlines()
    assert len([line for line in body if line.strip()]) <= 15


async def test_the_example(encoder: Any) -> None:
    texts = ["the cat sat on the mat", "a cat sat on a mat", "quantum chromodynamics"]
    vectors = (await encode(encoder, texts)).embeddings
    assert vectors.shape == (3, 1024)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2] + 0.3
    status = await encoder.status()
    assert status["dimensions"] == 1024
    assert json.loads(status["fingerprint"])["buckets"] == 1024


async def test_what_every_encoder_can_do(encoder: Any) -> None:
    texts = [f"text number {number}" for number in range(20)]
    full = (await encode(encoder, texts, normalize=False)).embeddings
    assert full.sum(1).tolist() == [len(text) + 2 for text in texts], "counts"
    for batch in await asyncio.gather(*(encode(encoder, texts[n:] + texts[:n], normalize=False) for n in range(5))):
        np.testing.assert_array_equal(np.sort(batch.embeddings.sum(1)), np.sort(full.sum(1)))
    cut = await encode(encoder, texts, dimensions=64, dtype="int8", receipt=True)
    assert cut.column("embedding")[0].shape == (64,)
    assert {"queue_ms", "compute_ms", "fingerprint"} == set(cut.column("receipt")[0])
    indexed = (await encoder.index(docs=columns(["hello"]))).batch
    assert json.loads(indexed.column("fingerprint")[0])["model"] == "NgramEncoder"
    for parameters, message in [({"dimensions": 2000}, "the vectors have 1024"), ({"dtype": "int4"}, "dtype")]:
        with pytest.raises(InvalidInput, match=message):
            await encode(encoder, texts, **parameters)
    with pytest.raises(InvalidInput, match=r"document 1 \(id 'd1'\) has a blank text"):
        await encode(encoder, ["a", " "])


class Shapes(Encoder):
    """Gives what it is told to."""

    def __init__(self, answer: Any, **options: Any) -> None:
        super().__init__(threads=1, **options)
        self.answer = answer

    def encode_batch(self, batch: list[Any]) -> Any:
        return self.answer(batch)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (lambda batch: np.ones((len(batch) + 1, 3)), "ValueError"),
        (lambda batch: np.ones(len(batch)), "ValueError"),
        (lambda batch: [[float("nan")]] * len(batch), "FloatingPointError"),
        (lambda batch: ["x"] * len(batch), "ValueError"),
    ],
)
async def test_what_is_no_answer_is_an_error(answer: Any, error: str) -> None:
    encoder = Shapes(answer)
    with pytest.raises(ExecutorError, match=f"failed with {error}"):
        await encode(encoder, ["a"])
    encoder.close()


async def test_lists_will_do_and_the_size_is_found_out() -> None:
    encoder = Shapes(lambda batch: [[len(text), 1] for text in batch])
    assert encoder.dimensions is None
    np.testing.assert_array_equal((await encode(encoder, ["abc", "a"])).embeddings, [[3, 1], [1, 1]])
    assert encoder.dimensions == 2
    encoder.close()


async def test_a_tokenizer_of_its_own() -> None:
    class Words(Shapes):
        def tokenise(self, texts: Any) -> Any:
            return [text.split() for text in texts]

    encoder = Words(lambda batch: [[len(words)] for words in batch])
    batch = await encode(encoder, ["one two three", "one"], receipt=True)
    assert batch.embeddings.tolist() == [[3], [1]]
    assert [each["tokens"] for each in batch.column("receipt")] == [3, 1]
    encoder.close()


def test_wrong_defaults() -> None:
    with pytest.raises(ConfigurationError, match="dtype: Input should be"):
        Shapes(len, dtype="float8")
