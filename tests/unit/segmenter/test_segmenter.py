"""Segmenter as an executor: the passages of documents, and whose text is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flowdex.documents import DocumentBatch
from flowdex.errors import ConfigurationError, InvalidInput, Unavailable
from flowdex.fields import write_fields
from flowdex_executors import BertEncoder, DocumentColumns, Segmenter
from flowdex_executors.encoder.model_files import find_model
from flowdex_executors.failures import mark

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


def test_a_document_that_cannot_be_cut_is_marked_and_the_others_go_on(segmenter: Segmenter) -> None:
    before = segmenter.status()
    batch = DocumentBatch.from_columns(ids=["a", "b", "c", "d", "e", "f"], texts=["fine", " \n", None, "x", None, "y"])
    batch.select([3]).set_column("fields", [{"title": "both"}])
    batch.select([4]).set_column("fields", [{"title": 3}])
    batch.select([5]).set_column("segment", ["chapter"])
    reply = segmenter.segment(docs=DocumentColumns(batch)).batch
    errors = reply.column("error")
    assert errors[0] is None
    assert {error["name"] for error in errors[1:]} == {"InvalidInput"}
    expected = ["no text", "no text", "a text or fields, not both", "must hold texts by their names", "got 'chapter'"]
    for error, part in zip(errors[1:], expected, strict=True):
        assert part in error["message"]
        assert "document 0" not in error["message"]
    assert [len(chunks) for chunks in reply.nested("chunks")] == [1, 0, 0, 0, 0, 0]
    after = segmenter.status()
    assert after["documents_segmented"] == before["documents_segmented"] + 1
    assert after["documents_failed"] == before["documents_failed"] + 5


def test_documents_that_failed_before_are_left_alone(segmenter: Segmenter) -> None:
    batch = DocumentBatch.from_columns(ids=["a"], texts=["fine"])
    mark(batch, {0: Unavailable("away")})
    reply = segmenter.segment(docs=DocumentColumns(batch)).batch
    assert (reply.column("error")[0]["name"], len(reply.nested("chunks")[0])) == ("Unavailable", 0)


def test_fields_become_the_text() -> None:
    segmenter = Segmenter(max_tokens=12, field_weights={"title": 2})
    batch = DocumentBatch.from_columns(ids=["a"])
    write_fields(batch, [{"title": "On wings", "body": "Lift grows with the speed. " * 4}])
    reply = segmenter.segment(docs=DocumentColumns(batch)).batch
    text = "On wings\n\n" + "Lift grows with the speed. " * 4
    assert reply.texts == [text]
    (chunks,) = reply.nested("chunks")
    assert [text[int(start) : int(end)] for start, end in chunks.column("location")] == chunks.texts
    assert chunks.column("context") == [None, *["On wings"] * (len(chunks) - 1)]
    assert chunks.column("weights") == [[[0, 8, 2]], *[None] * (len(chunks) - 1)]
    assert len(chunks) > 2


def test_fields_with_a_vector_of_the_callers_own() -> None:
    batch = DocumentBatch.from_columns(ids=["a"], embeddings=np.ones((1, 3), dtype=np.float32))
    write_fields(batch, [{"title": "On wings", "body": "Lift."}])
    reply = Segmenter(field_weights={"title": 2}).segment(docs=DocumentColumns(batch)).batch
    assert (reply.texts, reply.column("weights")) == (["On wings\n\nLift."], [[[0, 8, 2]]])
    assert not reply.nested("chunks")[0]


@pytest.mark.parametrize("own", [np.ones(2, np.float32), ["sentence"], {"sentence": 1}, 7])
def test_a_segment_of_any_type_is_refused_for_its_document(own: object) -> None:
    batch = DocumentBatch.from_columns(ids=["a", "b"], texts=["One.", "Two."])
    batch.select([1]).set_column("segment", [own])
    errors = Segmenter().segment(docs=DocumentColumns(batch)).batch.column("error")
    assert errors[0] is None
    assert "segment must be one of" in errors[1]["message"]


def test_the_document_decides_before_the_request_and_that_before_the_option() -> None:
    segmenter = Segmenter(mode="document", max_tokens=12)
    batch = DocumentBatch.from_columns(ids=["a", "b"], texts=["One. Two. Three.", "# One\n\nText.\n\n# Two\n\nMore."])
    batch.select([1]).set_column("segment", ["markdown"])

    def sizes(parameters: dict[str, Any] | None) -> list[int]:
        copy = DocumentBatch.from_bytes(batch.to_bytes())
        reply = segmenter.segment(docs=DocumentColumns(copy), parameters=parameters).batch
        return [len(chunks) for chunks in reply.nested("chunks")]

    assert sizes(None) == [1, 2]
    assert sizes({"segment": "sentence"}) == [3, 2]
    with pytest.raises(InvalidInput, match="segment"):
        sizes({"segment": "chapter"})


def test_truncation_is_noted() -> None:
    segmenter = Segmenter(mode="document", max_tokens=12)
    reply = cut(segmenter, ids=["a", "b"], texts=["short", "word " * 20])
    assert reply.column("notes") == [None, ["its vector is that of its first 12 of 20 tokens"]]
    assert segmenter.status()["documents_truncated"] == 1


async def test_no_passage_is_truncated_by_an_encoder_with_prompts() -> None:
    """By the encoder's own count of what it drops."""
    prompts = {"document": "a passage of text: "}
    encoder = BertEncoder(threads=1, max_length=64, prompts=prompts)
    for mode in ("passage", "sentence", "markdown"):
        segmenter = Segmenter(mode=mode, max_tokens=62, prompts=prompts)
        batch = DocumentBatch.from_columns(ids=["a"])
        write_fields(batch, [{"title": "Lift of wings", "body": "# Speed\n\n" + "At low speeds, it is small, " * 60}])
        docs = segmenter.segment(docs=DocumentColumns(batch))
        reply = (await encoder.index(docs=docs, parameters={"receipt": True})).batch
        receipts = reply.nested("chunks")[0].column("receipt")
        assert len(receipts) > 5
        assert {receipt["dropped"] for receipt in receipts} == {0}, mode
        assert max(receipt["tokens"] for receipt in receipts) > 60
    encoder.close()


def test_the_prompts_of_the_model_and_of_the_request(tmp_path: Path) -> None:
    folder = find_model(None)[0]
    for name in ("config.json", "tokenizer.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    content = {"prompts": {"query": "query: ", "passage": "passage: "}}
    (tmp_path / "config_sentence_transformers.json").write_text(json.dumps(content))
    segmenter = Segmenter(str(tmp_path), max_tokens=20)
    assert segmenter.status()["prompt"] == "passage: "

    def words(parameters: dict[str, Any] | None) -> int:
        docs = DocumentColumns(DocumentBatch.from_columns(ids=["a"], texts=["hello " * 50]))
        reply = segmenter.segment(docs=docs, parameters=parameters).batch
        return (reply.nested("chunks")[0].texts[0] or "").count("hello")

    assert words(None) == words({"prompt": "passage"}) == 18
    assert words({"prompt": ""}) == 20
    assert words({"prompt": "unknown"}) == 20, "the encoder knows it, or refuses it"


def test_a_prompt_that_leaves_no_room() -> None:
    with pytest.raises(ConfigurationError, match="raise max_tokens"):
        Segmenter(max_tokens=4, prompts={"document": "one two three four"})


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


@pytest.mark.parametrize(
    "options",
    [
        {"max_tokens": "a"},
        {"max_tokens": 0},
        {"overlap": 254},
        {"overlap": True},
        {"sentences": 0},
        {"sentence_overlap": 1},
        {"mode": "chapter"},
        {"language": ""},
        {"title_field": 3},
        {"field_weights": ["title"]},
        {"field_weights": {"title": -1}},
        {"field_weights": {"title": "2"}},
    ],
)
def test_wrong_options(options: dict[str, Any]) -> None:
    (name,) = options
    with pytest.raises(ConfigurationError, match=f"{name}.* must be"):
        Segmenter(**options)
    if options != {"overlap": 254}:  # needs the model's own limit
        assert [problem for problem in Segmenter.check(options) if problem.startswith(name)]


def test_options_that_are_right() -> None:
    assert Segmenter.check({"mode": "sentence", "sentences": 3, "sentence_overlap": 1, "tokenizer": "default"}) == []
    assert Segmenter.check({"mode": ["x"], "language": None})


def test_describe() -> None:
    assert Segmenter.describe({}) == {"tokenizer": "all-MiniLM-L6-v2", "max_tokens": 256}
    assert Segmenter.describe({"max_tokens": 100})["max_tokens"] == 100
    with pytest.raises(ConfigurationError):
        Segmenter.describe({"tokenizer": "./nowhere"})


def test_a_document_out_of_an_index_has_fields_and_the_text_that_they_make(segmenter: Segmenter) -> None:
    batch = DocumentBatch.from_columns(ids=["a", "b"], texts=["Title\n\nBody.", "Title\n\nOther."])
    write_fields(batch, [{"title": "Title", "body": "Body."}] * 2)
    replied = segmenter.segment(DocumentColumns(batch)).batch
    assert [error is None for error in replied.column("error")] == [True, False]
    assert replied.texts[0] == "Title\n\nBody."
    assert len(replied.nested("chunks")[0]) == 1
