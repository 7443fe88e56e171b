"""What goes into the embedded index and comes out again: documents as they were sent, page by page, whatever happens.

The same promises on every backend are in test_indexer_contract.py; here are the ones that need odd documents or races.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flowdex.documents import DocumentBatch
from flowdex.errors import Conflict, InvalidInput, TooLarge
from flowdex.fields import read_fields, write_fields
from flowdex_executors import DocumentColumns, QdrantIndexer
from flowdex_executors.encoder.fingerprint import fingerprint

DIMENSIONS = 4


@pytest.fixture
async def indexer(tmp_path: Path) -> AsyncIterator[QdrantIndexer]:
    indexer = QdrantIndexer(uri=f"edge://{tmp_path / 'index'}", max_passages=50)
    await indexer.warm_up()
    yield indexer
    indexer.close()


def vectors(count: int) -> Any:
    return np.random.default_rng(count).standard_normal((count, DIMENSIONS)).astype(np.float32)


def document(name: str, text: str = "One.  Two. Three.\n", *spans: tuple[int, int], **columns: Any) -> DocumentBatch:
    """A document with passages at these places."""
    batch = DocumentBatch.from_columns(ids=[name], texts=[text], **{key: [value] for key, value in columns.items()})
    spans = spans or ((0, 4), (6, 10), (8, 17))
    chunks = DocumentBatch.from_columns(
        texts=[text[start:end] for start, end in spans],
        location=[list(span) for span in spans],
        embeddings=vectors(len(spans)),
    )
    batch.set_nested("chunks", [chunks])
    return batch


async def index(indexer: QdrantIndexer, *documents: DocumentBatch) -> DocumentBatch:
    reply: DocumentColumns = await indexer.index(DocumentColumns(DocumentBatch.concatenate(documents)))
    return reply.batch


async def get(indexer: QdrantIndexer, *ids: str, **parameters: Any) -> DocumentBatch:
    reply = await indexer.get(DocumentColumns(DocumentBatch.from_columns(ids=list(ids))), parameters)
    return reply.batch


async def scroll(indexer: QdrantIndexer, **parameters: Any) -> list[list[str]]:
    """The ids of all pages."""
    pages: list[list[str]] = []
    cursor: str | None = None
    while True:
        reply = await indexer.scroll(DocumentColumns(), {**parameters, "cursor": cursor})
        pages.append(reply.batch.ids)
        cursor = next(reversed(reply.batch.column("cursor")), None)
        if cursor is None:
            return pages


# ---- by id ----


async def test_documents_come_back_as_they_were_sent(indexer: QdrantIndexer) -> None:
    tags = {"n": 1, "f": 0.5, "b": True, "none": None, "deep": {"l": [1, "x", {"y": []}]}}
    await index(indexer, document("a", tags=tags, digest="d1"), document("b", "x" * 9, (0, 9)), document("c"))
    found = await get(indexer, "c", "unknown", "a", "b", "a")
    assert found.ids == ["c", "a", "b"]
    assert found.texts == ["One.  Two. Three.\n", "One.  Two. Three.\n", "x" * 9]
    assert found.tags[1] == tags
    assert found.column("digest") == [None, "d1", None]
    assert found.column("passages") == [3, 3, 1]
    assert set(found.fields()) == {"id", "text", "tags", "digest", "passages"}


async def test_fields_come_back_in_their_order(indexer: QdrantIndexer) -> None:
    fields = {"title": "Zeppelin", "body": "It flew.\n\nThen not.", "empty": "", "appendix": "z"}
    text = "\n\n".join(fields.values())
    batch = document("a", text, (0, 8), (10, 28))
    write_fields(batch, [fields])
    await index(indexer, batch)
    found = await get(indexer, "a")
    (read,) = read_fields(found)
    assert read is not None
    assert list(read.items()) == list(fields.items())
    assert found.texts == [text]


async def test_passages_and_vectors_where_asked_for(indexer: QdrantIndexer) -> None:
    own = DocumentBatch.from_columns(ids=["own"], texts=["own text"], embeddings=np.asarray([[3, 0, 4, 0]], np.float32))
    await index(indexer, document("a"), own)
    found = await get(indexer, "a", "own", passages=True, embeddings=True)
    a, mine = found.nested("chunks")
    assert a.ids == ["a#0", "a#1", "a#2"]
    assert a.texts == ["One.", "Two.", "o. Three."]
    assert a.column("location") == [[0, 4], [6, 10], [8, 17]]
    expected = vectors(3) / np.linalg.norm(vectors(3), axis=1, keepdims=True)
    np.testing.assert_allclose(a.embeddings, expected, atol=1e-6)
    np.testing.assert_allclose(mine.embeddings, [[0.6, 0, 0.8, 0]], atol=1e-6)
    assert found.select([0]).embeddings is None
    np.testing.assert_allclose(found.select([1]).embeddings, [[0.6, 0, 0.8, 0]], atol=1e-6)
    assert "embedding" not in (await get(indexer, "own")).fields()
    assert "chunks" not in (await get(indexer, "own", embeddings=True)).fields()


async def test_without_content(indexer: QdrantIndexer) -> None:
    await index(indexer, document("a", digest="d", tags={"x": 1}))
    found = await get(indexer, "a", content=False)
    assert found.fields() == ["digest", "id", "passages", "tags"]
    assert found.column("passages") == [3]


async def test_odd_documents(indexer: QdrantIndexer) -> None:
    foreign = document("foreign", "the text itself")
    foreign.nested("chunks")[0].texts = ["other", "words", "entirely"]
    chunks_only = document("chunks")
    chunks_only.drop("text")
    vector_only = DocumentBatch.from_columns(ids=["vector"], embeddings=vectors(1))
    await index(indexer, foreign, chunks_only, vector_only)
    found = await get(indexer, "foreign", "chunks", "vector", passages=True)
    assert found.texts == ["the text itself", None, None]
    assert [len(each) for each in found.nested("chunks")] == [3, 3, 1]


async def test_ids_are_checked(indexer: QdrantIndexer) -> None:
    assert len(await get(indexer, "a")) == 0, "nothing was ever indexed"
    with pytest.raises(InvalidInput, match="document 1 has no id"):
        await get(indexer, "a", "")
    with pytest.raises(TooLarge, match="1001 ids"):
        await get(indexer, *map(str, range(1001)))


# ---- page by page ----


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 100])
async def test_a_scroll_goes_through_all_documents_once_in_the_order_of_writes(
    indexer: QdrantIndexer, limit: int
) -> None:
    assert await scroll(indexer, limit=limit) == [[]]
    writes = [["a"], ["b", "c", "d", "e", "f"], ["g", "h"], ["i"]]
    for names in writes:
        await index(indexer, *(document(name, tags={"vowel": name in "aei"}) for name in names))
    pages = await scroll(indexer, limit=limit)
    assert all(0 < len(page) <= limit for page in pages)
    found = [name for page in pages for name in page]
    assert [sorted(found[:1]), sorted(found[1:6]), sorted(found[6:8]), found[8:]] == writes
    pages = await scroll(indexer, limit=limit, filter={"vowel": True})
    assert [name for page in pages for name in page] == ["a", "e", "i"]


async def test_no_document_is_missed_while_others_write(indexer: QdrantIndexer) -> None:
    names = [f"d{number}" for number in range(40)]
    await index(indexer, *(document(name) for name in names))
    done = False

    async def rewrite() -> None:
        number = 0
        while not done:
            await index(indexer, document(names[number % 40], f"Version {number}. Two."))
            number += 7

    writing = asyncio.create_task(rewrite())
    for _ in range(5):
        found: list[str] = []
        cursor = None
        while len(found) < 1000:
            reply = (await indexer.scroll(DocumentColumns(), {"limit": 3, "cursor": cursor})).batch
            for text in reply.texts:
                assert text is not None and text.endswith(("Two.", "Three.\n")), "never half of one, half of another"
            found += reply.ids
            cursor = next(reversed(reply.column("cursor")), None)
            if cursor is None:
                break
        assert set(found) >= set(names)
    done = True
    await writing


async def test_long_documents_make_short_pages(indexer: QdrantIndexer) -> None:
    long = "x" * 3_000_000
    for name in "abcd":
        await index(indexer, document(name, long, (0, 1_500_000), (1_500_000, 3_000_000)))
    assert await scroll(indexer) == [["a", "b"], ["c"], ["d"]]
    assert await scroll(indexer, content=False) == [["a", "b", "c", "d"]]
    with pytest.raises(TooLarge, match="ask for fewer"):
        await get(indexer, *"abcd")
    assert (await get(indexer, "c")).texts == [long]


@pytest.mark.parametrize("cursor", ["", "x", "1.2", "x.00000000-0000-0000-0000-000000000000"])
async def test_wrong_cursors(indexer: QdrantIndexer, cursor: str) -> None:
    with pytest.raises(InvalidInput, match="cursor"):
        await indexer.scroll(DocumentColumns(), {"cursor": cursor})


async def test_count(indexer: QdrantIndexer) -> None:
    assert await indexer.count() == {"documents": 0, "passages": 0}
    marked = document("b", tags={"x": 1}, fingerprint="f")
    await index(indexer, document("a", fingerprint="f"), marked)
    assert await indexer.count() == {"documents": 2, "passages": 6}
    assert await indexer.count(parameters={"filter": {"x": 1}}) == {"documents": 1, "passages": 3}
    assert await indexer.count(parameters={"filter": {"x": {"$ne": 1}}}) == {"documents": 1, "passages": 3}


# ---- failures ----


def broken(name: str, what: str) -> DocumentBatch:
    batch = document(name)
    chunks = batch.nested("chunks")[0]
    if what == "nan":
        rows = vectors(3)
        rows[1, 1] = np.nan
        chunks.embeddings = rows
    elif what == "size":
        chunks.embeddings = np.ones((3, 9), np.float32)
    elif what == "two sizes":
        chunks.select([1]).embeddings = np.ones((1, 9), np.float32)
    elif what == "no vector":
        chunks.drop("embedding")
    elif what == "no passages":
        batch.drop("chunks")
    elif what == "too many":
        batch = document(name, "x" * 100, *((row, row + 1) for row in range(51)))
    elif what == "tags":
        batch.tags = [{"x": float("inf")}]
    elif what == "marked":
        batch.set_column("error", [{"name": "TooLarge", "message": "said before"}])
    else:
        batch.ids = [""]
    return batch


WAYS = ["nan", "size", "two sizes", "no vector", "no passages", "too many", "tags", "marked", "no id"]


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("what", WAYS)
async def test_a_document_fails_alone(indexer: QdrantIndexer, what: str, first: bool) -> None:
    if not first:
        await index(indexer, document("before"))
    reply = await index(indexer, document("a"), broken("bad", what), document("b"))
    assert reply.column("passages") == [3, None, 3]
    error = reply.column("error")[1]
    assert error["name"] in ("InvalidInput", "TooLarge")
    assert error["message"]
    assert reply.column("error")[::2] == [None, None]
    assert (await get(indexer, "a", "bad", "b")).ids == ["a", "b"]
    assert (await indexer.count())["documents"] == 2 + (not first)


async def test_all_ways_at_once(indexer: QdrantIndexer) -> None:
    reply = await index(indexer, document("good"), *(broken(what, what) for what in WAYS))
    assert [error is None for error in reply.column("error")] == [True] + [False] * len(WAYS)
    assert (await indexer.count())["documents"] == 1
    await index(indexer, *(broken(what, what) for what in WAYS))
    assert (await indexer.count())["documents"] == 1


async def test_what_was_stored_stays_where_its_new_version_fails(indexer: QdrantIndexer) -> None:
    await index(indexer, document("a", "The old text."[:13], (0, 13)))
    reply = await index(indexer, broken("a", "nan"), document("b"))
    assert reply.column("error")[0]["message"].endswith("holds NaN or an infinity")
    assert (await get(indexer, "a")).texts == ["The old text."]


async def test_vectors_of_another_encoder_fail_the_request(indexer: QdrantIndexer) -> None:
    one, two = (fingerprint({"model": name, "dimensions": DIMENSIONS}) for name in ("one", "two"))
    await index(indexer, document("a", fingerprint=one))
    with pytest.raises(Conflict, match="model is"):
        await index(indexer, document("b", fingerprint=one), document("c", fingerprint=two))
    failed = broken("c", "marked")
    failed.set_column("fingerprint", [two])
    assert (await index(indexer, document("b", fingerprint=one), failed)).column("passages") == [3, None]


async def test_sparse_vectors_can_be_had_by_themselves(indexer: QdrantIndexer) -> None:
    reply = await indexer.embed_sparse(
        DocumentColumns(DocumentBatch.from_columns(texts=["Moon rocks", "the", "Moon Moon"]))
    )
    indices, values = reply.batch.column("sparse_indices"), reply.batch.column("sparse_values")
    assert [len(row) for row in indices] == [len(row) for row in values] == [2, 0, 1]
    assert (indices[0].dtype, values[0].dtype) == (np.uint32, np.float32)
    assert indices[2][0] in indices[0]
    assert await indexer.count() == {"documents": 0, "passages": 0}
    with pytest.raises(InvalidInput, match="document 1 has no text"):
        await indexer.embed_sparse(DocumentColumns(DocumentBatch.from_columns(texts=["a", None])))
