"""Samples and maps of the embedded index: even, the same in any number of shards, and read once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flowdex.documents import DocumentBatch
from flowdex.errors import InvalidInput
from flowdex_executors import DocumentColumns, QdrantIndexer
from flowdex_executors.encoder.fingerprint import fingerprint
from flowdex_executors.indexer.projection import fit

SIZE = 6
COUNT = 400


@pytest.fixture
async def indexer(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[QdrantIndexer]:
    indexer = QdrantIndexer(uri=f"edge://{tmp_path / 'index'}", shards=getattr(request, "param", 1))
    await indexer.warm_up()
    yield indexer
    indexer.close()


def vectors(count: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal((count, SIZE)).astype(np.float32)


async def fill(indexer: QdrantIndexer, count: int = COUNT, first: int = 0, made_by: str | None = None) -> Any:
    """Index documents of one passage each; their vectors, of length 1 as the index keeps them."""
    rows = vectors(count, first)
    batch = DocumentBatch.from_columns(
        ids=[f"d{first + row}" for row in range(count)],
        texts=[f"text number {first + row}" for row in range(count)],
        tags=[{"even": row % 2 == 0} for row in range(count)],
        embeddings=rows,
    )
    if made_by is not None:
        batch.set_column("fingerprint", [made_by] * count)
    reply = await indexer.index(DocumentColumns(batch))
    assert not any(reply.batch.column("error"))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


async def draw(indexer: QdrantIndexer, query: DocumentBatch | None = None, **parameters: Any) -> DocumentBatch:
    batch = query if query is not None else DocumentBatch()
    reply = await indexer.map(DocumentColumns(batch), parameters)
    return reply.batch


async def sample(indexer: QdrantIndexer, **parameters: Any) -> DocumentBatch:
    reply = await indexer.sample(DocumentColumns(DocumentBatch()), parameters)
    return reply.batch


@pytest.mark.parametrize("indexer", [1, 3], indirect=True, ids="{} shards".format)
async def test_a_map_of_all_and_of_a_sample(indexer: QdrantIndexer) -> None:
    await an_empty_index_has_an_empty_map(indexer)
    stored = await fill(indexer)
    await all_passages_are_drawn_where_there_is_room(indexer, stored)
    await a_sample_is_even_and_the_same_each_time(indexer)
    await what_is_outside_of_the_sample_has_a_place_too(indexer, stored)


async def an_empty_index_has_an_empty_map(indexer: QdrantIndexer) -> None:
    reply = await draw(indexer, DocumentBatch.from_columns(embeddings=vectors(1)), ids=["a#0"])
    assert (reply.column("total"), reply.column("shown"), reply.column("variance")) == ([0], [0], [[0.0, 0.0]])
    assert not reply.nested("matches")[0] and not (await sample(indexer)).nested("matches")[0]


async def all_passages_are_drawn_where_there_is_room(indexer: QdrantIndexer, stored: Any) -> None:
    reply = await draw(indexer, characters=6)
    points = reply.nested("matches")[0]
    assert reply.column("total") == [COUNT] == reply.column("shown")
    assert sorted(points.ids) == sorted(f"d{row}#0" for row in range(COUNT))
    assert set(points.texts) == {"text n"}
    assert points.column("location")[0] == [0, len("text number ") + len(points.column("parent_id")[0]) - 1]
    rows = [int(name[1:]) for name in points.column("parent_id")]
    projection = fit(stored[rows])
    np.testing.assert_allclose(reply.column("places")[0], projection.place(stored[rows]), atol=1e-3)
    np.testing.assert_allclose(reply.column("variance")[0], projection.variance, atol=1e-3)


async def a_sample_is_even_and_the_same_each_time(indexer: QdrantIndexer) -> None:
    drawn = (await sample(indexer, limit=100)).nested("matches")[0]
    again = (await sample(indexer, limit=100)).nested("matches")[0]
    assert drawn.ids == again.ids and len(set(drawn.ids)) == 100
    quarters = np.bincount([int(name[1:]) * 4 // COUNT for name in drawn.column("parent_id")], minlength=4)
    # Of 100 drawn at random, a quarter of the documents has 25, give or take 4 (standard deviation): 5 of them here.
    assert quarters.min() >= 25 - 5 * 4 and quarters.max() <= 25 + 5 * 4
    fewer = (await sample(indexer, limit=40)).nested("matches")[0]
    assert fewer.ids == drawn.ids[:40], "a smaller sample is part of a larger one"


async def test_it_is_read_again_only_after_a_write(indexer: QdrantIndexer, monkeypatch: pytest.MonkeyPatch) -> None:
    await fill(indexer)
    reads: list[int] = []
    collection = indexer._collection
    retrieve = collection.retrieve

    async def counted(ids: Any, fields: Any, *, vectors: bool) -> Any:
        reads.append(len(ids))
        return await retrieve(ids, fields, vectors=vectors)

    monkeypatch.setattr(collection, "retrieve", counted)
    first = await draw(indexer, limit=50)
    assert (await draw(indexer, limit=50)).nested("matches")[0].ids == first.nested("matches")[0].ids
    assert reads == [50]
    await fill(indexer, 1, first=COUNT)
    assert (await draw(indexer, limit=50)).column("total") == [COUNT + 1]
    assert reads == [50, 50]
    await indexer.delete(DocumentColumns(DocumentBatch.from_columns(ids=["d3"])))
    assert (await draw(indexer, limit=50)).column("total") == [COUNT]
    assert reads == [50, 50, 50]


async def what_is_outside_of_the_sample_has_a_place_too(indexer: QdrantIndexer, stored: Any) -> None:
    whole = await draw(indexer)
    points, places = whole.nested("matches")[0], whole.column("places")[0]
    part = (await draw(indexer, limit=50)).nested("matches")[0]
    inside = part.ids[0]
    outside = next(name for name in points.ids if name not in part.ids)

    query = DocumentBatch.from_columns(embeddings=7 * stored[[int(outside[1:-2])]])  # as long as an encoder makes it
    reply = await draw(indexer, query, limit=50, points=False, ids=[inside, outside, "gone#0", "d1#9"])
    assert not reply.nested("matches")[0]
    assert reply.nested("chunks")[0].ids == [outside], "the one inside has its place in the sample"
    np.testing.assert_allclose(reply.column("place")[0], reply.column("chunk_places")[0][0], atol=1e-5)

    at = places[points.ids.index(outside)]
    query = DocumentBatch.from_columns(embeddings=stored[[int(outside[1:-2])]])
    np.testing.assert_allclose((await draw(indexer, query)).column("place")[0], at, atol=1e-5)


async def test_vectors_and_who_made_them(indexer: QdrantIndexer) -> None:
    bert = fingerprint({"model": "bert"})
    stored = await fill(indexer, made_by=bert)
    for size, made_by in ((SIZE, fingerprint({"model": "glove"})), (SIZE + 1, None)):
        query = DocumentBatch.from_columns(embeddings=np.ones((1, size), np.float32), fingerprint=[made_by])
        reply = await draw(indexer, query)
        assert reply.column("place") == [None]
        assert "another encoder" in reply.column("notes")[0][0]

    reply = await sample(indexer, limit=10, vectors=True, ids=["d7#0", "d8#0"])
    assert reply.column("fingerprint") == [bert]
    passages = DocumentBatch.concatenate([*reply.nested("matches"), *reply.nested("chunks")])
    assert {"d7#0", "d8#0"} <= set(passages.ids) and len(set(passages.ids)) == len(passages)
    rows = [int(name[1:]) for name in passages.column("parent_id")]
    np.testing.assert_allclose(passages.embeddings, stored[rows], atol=1e-6)
    assert (await sample(indexer, limit=1)).nested("matches")[0].embeddings is None

    for wrong in ({"limit": 0}, {"limit": 10_001}, {"ids": ["no number"]}, {"ids": ["a#b"]}):
        with pytest.raises(InvalidInput):
            await draw(indexer, **wrong)
