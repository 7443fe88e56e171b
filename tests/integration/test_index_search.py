"""What a search hands on, on the embedded index: pages that fit together, explanations, passages as hits, vectors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flowdex.documents import DocumentBatch
from flowdex_executors import DocumentColumns, QdrantIndexer

DOCUMENTS, PASSAGES, DIMENSIONS = 120, 3, 16
WORDS = "moon orbit crater lander rocket probe dust ice ring launch".split()  # noqa: SIM905 - reads better


def corpus() -> DocumentBatch:
    """Documents of three passages; many of them tie, because texts and vectors repeat."""
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((DOCUMENTS * PASSAGES // 2, DIMENSIONS)).astype(np.float32).repeat(2, axis=0)
    texts = [" ".join(WORDS[each] for each in rng.integers(0, 10, 4)) for _ in range(DOCUMENTS * PASSAGES)]
    names = [f"d{number:03}" for number in range(DOCUMENTS)]
    batch = DocumentBatch.from_columns(ids=names, texts=["x"] * DOCUMENTS)
    chunks = []
    for number, name in enumerate(names):
        rows = slice(number * PASSAGES, (number + 1) * PASSAGES)
        ids = [f"{name}#{row}" for row in range(PASSAGES)]
        chunks.append(DocumentBatch.from_columns(ids=ids, texts=texts[rows], embeddings=vectors[rows]))
    batch.set_nested("chunks", chunks)
    return batch


@pytest.fixture
async def indexer(tmp_path: Path) -> AsyncIterator[QdrantIndexer]:
    indexer = QdrantIndexer(uri=f"edge://{tmp_path / 'index'}")
    await indexer.index(DocumentColumns(corpus()))
    yield indexer
    closing = indexer.close()
    if closing is not None:
        await closing


async def find(indexer: QdrantIndexer, text: str = "moon ice", **parameters: Any) -> DocumentBatch:
    vector = np.random.default_rng(7).standard_normal((1, DIMENSIONS)).astype(np.float32)
    query = DocumentColumns(DocumentBatch.from_columns(texts=[text], embeddings=vector))
    return (await indexer.search(query, parameters)).batch.nested("matches")[0]


def documents(matches: DocumentBatch) -> list[str]:
    return list(dict.fromkeys(matches.column("parent_id")))


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"mode": "dense"},
        {"mode": "sparse"},
        {"fusion": "dbsf"},
        {"fusion": {"k": 2, "weights": {"sparse": 3}}},
        {"filter": {"$not": {"id": "d003"}}},
    ],
)
async def test_pages_fit_together(indexer: QdrantIndexer, parameters: dict[str, Any]) -> None:
    everything = await find(indexer, limit=100, **parameters)
    scores = [scores["score"] for scores in everything.column("scores")]
    assert scores == sorted(scores, reverse=True)
    for count in (1, 10, 20, 26, 60):
        page = await find(indexer, limit=10, offset=count - 1, **parameters)
        wanted = min(count + 9, len(documents(everything)))
        assert documents(page) == documents(everything)[:wanted]


async def test_pages_of_equal_documents(indexer: QdrantIndexer) -> None:
    """More of them than the first look takes in: which are shown must not depend on where it ends."""
    names = [f"same{number:03}" for number in range(150)]
    vector = np.random.default_rng(7).standard_normal((1, DIMENSIONS)).astype(np.float32)
    batch = DocumentBatch.from_columns(ids=names[::-1], texts=["moon ice"] * 150, embeddings=vector.repeat(150, axis=0))
    await indexer.index(DocumentColumns(batch))
    for mode in ("dense", "sparse"):
        for offset in (0, 10, 60):
            page = await find(indexer, mode=mode, filter={"id": {"$in": names}}, limit=10, offset=offset)
            assert documents(page) == names[: offset + 10]


async def test_passages_as_hits(indexer: QdrantIndexer) -> None:
    first = await find(indexer, group="passage", limit=10)
    more = await find(indexer, group="passage", limit=10, offset=10)
    assert (len(first), len(more)) == (10, 20)
    assert more.ids[:10] == first.ids
    single = await find(indexer, group="passage", limit=20, passages=1)
    assert len(documents(single)) == 20


async def test_components_are_told_and_explained(indexer: QdrantIndexer) -> None:
    plain, told = await find(indexer, limit=30), await find(indexer, limit=30, explain=True)
    assert plain.ids == told.ids
    assert plain.column("explain") == [None] * len(plain)
    dense = await find(indexer, mode="dense", limit=100)
    cosines = dict(zip(dense.ids, [scores["score"] for scores in dense.column("scores")], strict=True))
    for name, scores, explain in zip(told.ids, told.column("scores"), told.column("explain"), strict=True):
        assert set(explain) == set(scores) - {"score"} | {"fusion"}
        assert explain["fusion"]["score"] == scores["score"]
        parts = sum(1 / (60 + part["rank"] - 1) for stage, part in explain.items() if stage != "fusion")
        assert scores["score"] <= parts + 1e-12  # less where only a deeper look has found it
        if "dense" in scores:
            assert scores["dense"] == explain["dense"]["score"] == pytest.approx(cosines[name])
    ranks = [explain["fusion"]["rank"] for explain in told.column("explain")]
    assert ranks == sorted(ranks)
    assert ranks[0] == 1


async def test_vectors_come_with_diversity_alone(indexer: QdrantIndexer) -> None:
    assert (await find(indexer)).embeddings is None
    matches = await find(indexer, mode="dense", diversity=0.5)
    vectors = matches.embeddings
    assert vectors is not None
    assert vectors.shape == (len(matches), DIMENSIONS)
    query = np.random.default_rng(7).standard_normal(DIMENSIONS)
    cosines = vectors @ (query / np.linalg.norm(query))
    assert cosines.tolist() == pytest.approx([scores["score"] for scores in matches.column("scores")], abs=1e-5)
    assert len(documents(matches)) == 50


async def test_a_query_of_stop_words_says_so(indexer: QdrantIndexer) -> None:
    for mode, note in (("sparse", "cannot find anything"), ("hybrid", "by its vector alone")):
        vectors = np.ones((2, DIMENSIONS), np.float32)
        queries = DocumentColumns(DocumentBatch.from_columns(texts=["the of and", "moon"], embeddings=vectors))
        reply = (await indexer.search(queries, {"mode": mode})).batch
        said, nothing = reply.column("notes")
        assert note in said[0]
        assert nothing is None


async def test_a_document_that_is_replaced_meanwhile_is_always_found(indexer: QdrantIndexer) -> None:
    name, stop = "d000", asyncio.Event()
    same = corpus().select([0])

    async def replace() -> None:
        while not stop.is_set():
            await indexer.index(DocumentColumns(same.select([0])))

    writer = asyncio.create_task(replace())
    try:
        for _ in range(40):
            assert documents(await find(indexer, filter={"id": name})) == [name]
    finally:
        stop.set()
        await writer
