"""Segmenter as an executor: the passages of documents, and whose text is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flowdex.documents import DocumentBatch
from flowdex.errors import ConfigurationError, InvalidInput
from flowdex_executors import DocumentColumns, Segmenter
from flowdex_executors.encoder.model_files import find_model

LONG = "A sentence of some words, one of many. " * 60


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    return Segmenter()


def cut(segmenter: Segmenter, **fields: Any) -> DocumentBatch:
    return segmenter.segment(docs=DocumentColumns(DocumentBatch.from_columns(**fields))).batch


def test_passages(segmenter: Segmenter) -> None:
    reply = cut(segmenter, ids=["a", "b"], texts=[LONG, "東京都は日本の首都です。"], tags=[{"n": 1}, {"n": 2}])
    assert (reply.ids, reply.texts[0], [tags["n"] for tags in reply.tags]) == (["a", "b"], LONG, [1, 2])
    passages, offsets = reply.flatten("chunks")
    assert offsets.tolist() == [0, 3, 4]
    assert passages.ids == ["a#0", "a#1", "a#2", "b#0"]
    assert passages.column("parent_id") == ["a", "a", "a", "b"]
    assert passages.fields() == ["id", "location", "parent_id", "text"]
    for passage, (start, end) in zip(passages.texts, passages.column("location"), strict=True):
        assert passage in (LONG[int(start) : int(end)], "東京都は日本の首都です。")


def test_a_document_without_an_id_gets_one(segmenter: Segmenter) -> None:
    reply = cut(segmenter, ids=[""], texts=["hello"])
    assert len(reply.ids[0]) == 32
    assert reply.nested("chunks")[0].column("parent_id") == reply.ids


def test_chunks_and_vectors_of_the_callers_own_are_left_alone(segmenter: Segmenter) -> None:
    batch = DocumentBatch.from_columns(ids=["cut", "vector"], texts=[LONG, LONG])
    batch.select([0]).set_nested("chunks", [DocumentBatch.from_columns(texts=["mine"])])
    batch.select([1]).embeddings = np.ones((1, 3), dtype=np.float32)
    reply = segmenter.segment(docs=DocumentColumns(batch)).batch
    assert [chunks.texts for chunks in reply.nested("chunks")] == [["mine"], []]


def test_blank_texts_are_named_and_nothing_is_cut(segmenter: Segmenter) -> None:
    before = segmenter.status()["documents_segmented"]
    with pytest.raises(InvalidInput, match=r"documents 1 \(id 'b'\), 2 \(id 'c'\) without text"):
        cut(segmenter, ids=["a", "b", "c"], texts=["fine", " \n", None])
    with pytest.raises(InvalidInput, match=r"0 \(id 'd0'\).* and 3 more"):
        cut(segmenter, ids=[f"d{index}" for index in range(8)], texts=[""] * 8)
    assert segmenter.status()["documents_segmented"] == before


def test_no_documents(segmenter: Segmenter) -> None:
    assert len(cut(segmenter)) == 0


def test_options_and_status(tmp_path: Path) -> None:
    small = Segmenter("default", max_tokens=10, overlap=2)
    small.warm_up()
    reply = cut(small, texts=["one two three four five six seven eight nine ten eleven twelve"])
    assert len(reply.nested("chunks")[0]) == 2
    status = small.status()
    assert (status["max_tokens"], status["overlap"], status["documents_segmented"], status["passages"]) == (10, 2, 1, 2)
    json.dumps(status)
    assert Segmenter().status()["max_tokens"] == 254, "the model's 256 without its two special tokens"
    (tmp_path / "tokenizer.json").write_bytes((find_model(None)[0] / "tokenizer.json").read_bytes())
    assert Segmenter(str(tmp_path), max_tokens=12).status()["tokenizer"] == tmp_path.name
    with pytest.raises(ConfigurationError, match=r"no config\.json"):
        Segmenter(str(tmp_path))


@pytest.mark.parametrize("options", [{"max_tokens": "a"}, {"max_tokens": 0}, {"overlap": 254}, {"overlap": True}])
def test_wrong_options(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=f"{next(iter(options))} must be"):
        Segmenter(**options)


def test_describe() -> None:
    assert Segmenter.describe({}) == {"tokenizer": "all-MiniLM-L6-v2", "max_tokens": 256}
    assert Segmenter.describe({"max_tokens": 100})["max_tokens"] == 100
    with pytest.raises(ConfigurationError):
        Segmenter.describe({"tokenizer": "./nowhere"})
