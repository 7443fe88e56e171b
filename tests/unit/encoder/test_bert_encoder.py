"""BertEncoder as an executor: endpoints, errors, options, and vectors that do not depend on the company."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowdex.documents import DocumentBatch
from flowdex.errors import ConfigurationError, ExecutorError, InvalidInput
from flowdex_executors import BertEncoder, DocumentColumns
from flowdex_executors.encoder.base import available_cores

TEXTS = ["hello world", "the flow of search", "東京 日本", "a", "vectors!", "neural " * 30, "b c d e f g", "ü"]


@pytest.fixture(scope="module")
def folder(make_model: Any) -> Path:
    return make_model("bert")


@pytest.fixture(scope="module")
def encoder(folder: Path) -> Iterator[BertEncoder]:
    encoder = BertEncoder(str(folder), threads=2, batch_tokens=64)
    yield encoder
    encoder.close()


def columns(texts: list[str | None], **fields: Any) -> DocumentColumns:
    ids = [f"d{index}" for index in range(len(texts))]
    return DocumentColumns(DocumentBatch.from_columns(ids=ids, texts=texts, **fields))


async def vectors_of(encoder: BertEncoder, texts: list[str]) -> np.ndarray[Any, Any]:
    reply = await encoder.encode(docs=columns(texts))
    vectors = reply.batch.embeddings
    assert vectors is not None
    return vectors


def expected_vectors(folder: Path, texts: list[str], limit: int = 64) -> np.ndarray[Any, Any]:
    """Mean pooling the plain way: one text at a time through AutoModel."""
    import torch
    from transformers import AutoModel, PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    model = AutoModel.from_pretrained(folder).eval()
    rows = []
    with torch.no_grad():
        for text in texts:
            ids = tokenizer(text, truncation=True, max_length=limit, padding=False)["input_ids"]
            rows.append(model(torch.tensor([ids])).last_hidden_state[0].mean(0).numpy())
    return np.stack(rows)


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "mpnet"])
@pytest.mark.parametrize("backend", ["auto", "transformers"])
async def test_families_and_backends_equal_automodel(make_model: Any, family: str, backend: str) -> None:
    folder = make_model(family)
    encoder = BertEncoder(str(folder), backend=backend, threads=1)
    vectors = await vectors_of(encoder, TEXTS)
    status = await encoder.status()
    encoder.close()
    assert status["backend"] == ("packed and onnx" if backend == "auto" and family != "mpnet" else "transformers")
    expected = expected_vectors(folder, TEXTS, status["max_tokens"])
    np.testing.assert_allclose(vectors, expected, rtol=1e-4, atol=1e-5)


@settings(deadline=None, max_examples=25)
@given(st.lists(st.sampled_from(TEXTS), min_size=1, max_size=20), st.integers(1, 5))
def test_a_batch_equals_its_singles_in_any_company(encoder: BertEncoder, texts: list[str], callers: int) -> None:
    async def together() -> list[np.ndarray[Any, Any]]:
        starts = [caller % len(texts) for caller in range(callers)]
        rolled = [texts[start:] + texts[:start] for start in starts]
        return await asyncio.gather(*(vectors_of(encoder, texts) for texts in rolled))

    async def alone() -> np.ndarray[Any, Any]:
        return np.concatenate([await vectors_of(encoder, [text]) for text in texts])

    singles = asyncio.run(alone())
    for caller, vectors in enumerate(asyncio.run(together())):
        np.testing.assert_allclose(vectors, np.roll(singles, -caller, axis=0), rtol=1e-5, atol=1e-6)


async def test_documents_keep_their_fields_and_order(encoder: BertEncoder) -> None:
    docs = columns(["hello", "world"], tags=[{"n": 1}, {"n": 2}])
    reply = (await encoder.encode(docs=docs)).batch
    assert (reply.ids, reply.texts, [tags["n"] for tags in reply.tags]) == (["d0", "d1"], ["hello", "world"], [1, 2])
    assert reply.embeddings is not None and reply.embeddings.shape == (2, 32)


async def test_chunks_are_encoded_in_the_place_of_their_document(encoder: BertEncoder) -> None:
    docs = columns(["x" * 10, "world"])
    docs.batch.set_nested("chunks", [DocumentBatch.from_columns(texts=["hello", "flow"]), DocumentBatch()])
    reply = (await encoder.index(docs=docs)).batch
    chunks, offsets = reply.flatten("chunks")
    assert offsets.tolist() == [0, 2, 2]
    np.testing.assert_allclose(chunks.embeddings, await vectors_of(encoder, ["hello", "flow"]), atol=1e-6)
    assert reply.column("embedding")[0] is None
    np.testing.assert_allclose(reply.column("embedding")[1], (await vectors_of(encoder, ["world"]))[0], atol=1e-6)


async def test_vectors_of_the_callers_own(encoder: BertEncoder) -> None:
    own = np.ones((1, 32), dtype=np.float32)
    kept = (await encoder.index(docs=columns([None], embeddings=own))).batch
    assert kept.embeddings is not None and (kept.embeddings == 1).all()
    replaced = (await encoder.encode(docs=columns(["hello"], embeddings=own))).batch
    np.testing.assert_allclose(replaced.embeddings, await vectors_of(encoder, ["hello"]), atol=1e-6)


async def test_no_documents(encoder: BertEncoder) -> None:
    assert len(await encoder.encode(docs=columns([]))) == 0


@pytest.mark.parametrize("blank", ["", "   ", "\n\t", None])
async def test_blank_texts_are_named_before_anything_runs(encoder: BertEncoder, blank: str | None) -> None:
    before = (await encoder.status())["documents_encoded"]
    with pytest.raises(InvalidInput, match=r"document 1 \(id 'd1'\) has (a blank|no) text"):
        await encoder.encode(docs=columns(["hello", blank]))
    assert (await encoder.status())["documents_encoded"] == before


@pytest.mark.parametrize("blank", ["", "   ", None])
async def test_in_indexing_a_document_that_cannot_be_encoded_fails_alone(
    encoder: BertEncoder, blank: str | None
) -> None:
    docs = columns(["hello", "marked", "chunked", "world", blank])
    docs.batch.set_column("error", [None, {"name": "TooLarge", "message": "before"}, None, None, None])
    passages = DocumentBatch.from_columns(texts=["hello", blank])
    docs.batch.set_nested("chunks", [DocumentBatch(), DocumentBatch(), passages, DocumentBatch(), DocumentBatch()])
    batch = (await encoder.index(docs=docs)).batch
    messages = [error and error["message"] for error in batch.column("error")]
    assert messages[:2] == [None, "before"]
    assert messages[3] is None
    assert "document 2 (id 'd2'), chunk 1 has" in messages[2]
    assert "document 4 (id 'd4') has" in messages[4]
    assert batch.select([0, 3]).embeddings is not None
    assert batch.select([1, 4]).embeddings is None
    assert [print_ is not None for print_ in batch.column("fingerprint")] == [True, False, False, True, False]


async def test_a_text_the_model_fails_on_is_named_and_fails_alone(folder: Path) -> None:
    encoder = BertEncoder(str(folder), threads=1)
    forward = encoder.backend.forward

    def poisoned(sequences: Any, *args: Any, **kwargs: Any) -> Any:
        if any(len(sequence) == 6 for sequence in sequences):
            raise RuntimeError("secret internals")
        return forward(sequences, *args, **kwargs)

    encoder.backend.forward = poisoned  # type: ignore[method-assign]
    good, bad = await asyncio.gather(
        encoder.encode(docs=columns(["hello"])),
        encoder.encode(docs=columns(["world", "a b c d"])),
        return_exceptions=True,
    )
    encoder.close()
    assert isinstance(good, DocumentColumns) and good.batch.embeddings is not None
    assert isinstance(bad, ExecutorError)
    assert bad.message.startswith("document 1 (id 'd1') cannot be encoded")
    assert "secret" not in bad.message


async def test_vectors_that_are_not_finite_are_an_error(folder: Path) -> None:
    encoder = BertEncoder(str(folder), threads=1)
    forward = encoder.backend.forward

    def poisoned(*args: Any, **kwargs: Any) -> Any:
        computed = forward(*args, **kwargs)
        return computed._replace(layers=tuple(layer * float("nan") for layer in computed.layers))

    encoder.backend.forward = poisoned  # type: ignore[method-assign]
    with pytest.raises(ExecutorError, match="FloatingPointError"):
        await encoder.encode(docs=columns(["hello"]))
    encoder.close()


async def test_options(folder: Path) -> None:
    encoder = BertEncoder(str(folder), pooling=["cls", "max"], normalize=True, max_length=8, threads=1)
    encoder.warm_up()
    vectors = await vectors_of(encoder, TEXTS)
    status = await encoder.status()
    encoder.close()
    assert vectors.shape == (len(TEXTS), 64)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    assert {key: status[key] for key in ("dimensions", "max_tokens", "pooling", "normalize", "threads", "queue")} == {
        "dimensions": 64,
        "max_tokens": 8,
        "pooling": ["cls", "max"],
        "normalize": True,
        "threads": 1,
        "queue": 0,
    }
    assert status["documents_encoded"] == len(TEXTS)
    json.dumps(status)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_length": 65}, "more than the 64 positions"),
        ({"max_length": 2}, "at least 3 tokens"),
        ({"pooling": "median"}, "'median' is unknown"),
        ({"backend": "openvino"}, "'openvino' is unknown"),
        ({"compute_dtype": "float64"}, "'float64' is unknown"),
        ({"layers": [4]}, "there is no layer 4"),
        ({"truncation": "middle"}, "truncation: Input should be"),
        ({"dimensions": 33}, "the vectors have 32"),
        ({"prompt": "query"}, "none of the prompts"),
        ({"threads": 0}, "threads must be a whole number"),
        ({"batch_tokens": "many"}, "batch_tokens must be a whole number"),
        ({"device": "tpu:x"}, "'tpu:x' is unknown"),
    ],
)
def test_wrong_options(folder: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        BertEncoder(str(folder), **options)


def test_describe_and_check(folder: Path, make_model: Any, tmp_path: Path) -> None:
    assert BertEncoder.describe({}) == {
        "model": "all-MiniLM-L6-v2",
        "dimensions": 384,
        "max_tokens": 256,
        "pooling": ["mean"],
        "normalize": True,
    }
    described = BertEncoder.describe({"model": str(folder), "pooling": ["mean", "max"], "max_length": 9})
    assert (described["dimensions"], described["max_tokens"]) == (64, 9)
    assert BertEncoder.describe({"model": "someone/not-downloaded"}) == {"model": "someone/not-downloaded"}
    with pytest.raises(ConfigurationError, match="no model folder"):
        BertEncoder.describe({"model": "./nowhere"})
    assert BertEncoder.check({}) == []
    problems = BertEncoder.check({"model": str(make_model("mpnet")), "backend": "packed", "threads": -1})
    assert [problem.split(":")[0] for problem in problems] == ["threads", "backend"]
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    assert BertEncoder.check({"model": str(tmp_path)})[0].startswith(f"model: {tmp_path} holds no weights")
    with pytest.raises(ConfigurationError, match="holds no weights"):
        (tmp_path / "tokenizer.json").write_text((folder / "tokenizer.json").read_text())
        BertEncoder(str(tmp_path))


def test_cores_are_those_that_may_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert available_cores() >= 1
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert available_cores() == 3
