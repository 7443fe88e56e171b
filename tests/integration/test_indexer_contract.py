"""What the indexer promises, the same on every backend.

QdrantIndexer --edge://, memory://--> engine process
              --http://, grpc://----> a double of a Qdrant server on a socket, see qdrant_double.py
              --QDRANT_URL----------> a real server, where one is given
"""

from __future__ import annotations

import asyncio
import os
import re
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qdrant_client import models
from qdrant_double import running

from flowdex.documents import DocumentBatch
from flowdex.errors import ConfigurationError, Conflict, InvalidInput
from flowdex_executors import DocumentColumns, QdrantIndexer
from flowdex_executors.encoder.fingerprint import fingerprint

DIMENSIONS = 8


# ---- where it lives ----


@pytest.fixture(scope="module")
def rest_double(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running(tmp_path_factory.mktemp("rest"), "rest") as double:
        yield double.uri


@pytest.fixture(scope="module")
def grpc_double(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running(tmp_path_factory.mktemp("grpc"), "grpc") as double:
        yield double.uri


# ---- the indexer under test ----


@pytest.fixture(params=["edge", "memory", "rest", "grpc", "server"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    """`uses_with` of an indexer with an empty collection."""
    kind, collection = request.param, f"test-{uuid.uuid4().hex}"
    if kind == "edge":
        return {"uri": f"edge://{tmp_path / 'index'}", "collection": collection}
    if kind == "memory":
        return {"uri": "memory://", "collection": collection}
    if kind in ("rest", "grpc"):
        return {"uri": request.getfixturevalue(f"{kind}_double"), "collection": collection}
    if "QDRANT_URL" not in os.environ:
        pytest.skip("QDRANT_URL names no server")
    return {
        "uri": os.environ["QDRANT_URL"],
        "api_key": os.environ.get("QDRANT_API_KEY"),
        "collection": collection,
    }


@pytest.fixture
def lasting(settings: dict[str, Any]) -> dict[str, Any]:
    """The same, of an index that outlives its indexer."""
    if settings["uri"] == "memory://":
        pytest.skip("what is in memory ends with its indexer")
    return settings


@pytest.fixture
async def indexer(settings: dict[str, Any]) -> AsyncIterator[QdrantIndexer]:
    indexer = QdrantIndexer(**settings)
    await indexer.warm_up()
    yield indexer
    await close(indexer)


async def close(indexer: QdrantIndexer) -> None:
    closing = indexer.close()
    if closing is not None:
        await closing


def vectors(count: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal((count, DIMENSIONS)).astype(np.float32)


def document(name: str, *texts: str, seed: int | None = None, **tags: Any) -> DocumentBatch:
    """A document with a passage for each text."""
    batch = DocumentBatch.from_columns(ids=[name], texts=[" ".join(texts)], tags=[tags])
    rows = len(texts)
    seed = seed if seed is not None else sum(name.encode())
    batch.set_nested(
        "chunks",
        [
            DocumentBatch.from_columns(
                ids=[f"{name}#{row}" for row in range(rows)],
                texts=list(texts),
                parent_id=[name] * rows,
                location=[[100 * row, 100 * row + len(text)] for row, text in enumerate(texts)],
                embeddings=vectors(rows, seed),
            )
        ],
    )
    return batch


async def index(indexer: QdrantIndexer, *documents: DocumentBatch) -> DocumentBatch:
    reply: DocumentColumns = await indexer.index(DocumentColumns(DocumentBatch.concatenate(documents)))
    return reply.batch


async def find(indexer: QdrantIndexer, text: str | None = None, vector: Any = None, **parameters: Any) -> DocumentBatch:
    columns: dict[str, Any] = {"ids": ["q"], "texts": [text]}
    if vector is not None:
        columns["embeddings"] = np.asarray(vector, np.float32).reshape(1, -1)
    elif parameters.get("mode") != "sparse":
        columns["embeddings"] = vectors(1, 999)
    reply = await indexer.search(DocumentColumns(DocumentBatch.from_columns(**columns)), parameters)
    return reply.batch.nested("matches")[0]


async def delete(indexer: QdrantIndexer, *ids: str, **parameters: Any) -> Any:
    result = await indexer.delete(DocumentColumns(DocumentBatch.from_columns(ids=list(ids))), parameters)
    return result["deleted"]


async def counts(indexer: QdrantIndexer) -> tuple[int, int]:
    status = await indexer.status()
    return status["documents"], status["passages"]


# ---- nothing there yet ----


async def test_an_empty_index_answers(indexer: QdrantIndexer, settings: dict[str, Any]) -> None:
    assert len(await find(indexer, "anything")) == 0
    assert len(await find(indexer, "anything", mode="sparse", filter={"a": 1})) == 0
    assert await delete(indexer, "a") == 0
    assert await delete(indexer, filter={"a": 1}) == 0
    assert await indexer.status() == {
        "documents": 0,
        "passages": 0,
        "dimensions": None,
        "fingerprint": None,
        "distance": "cosine",
        "uri": settings["uri"],
        "collection": settings["collection"],
    }
    assert len(await index(indexer)) == 0


# ---- indexing ----


async def test_what_is_indexed_is_found(indexer: QdrantIndexer) -> None:
    reply = await index(indexer, document("a", "red fox", "blue whale", lang="en"), document("b", "green frog"))
    assert reply.ids == ["a", "b"]
    assert reply.column("passages") == [2, 1]
    assert reply.fields() == ["id", "passages"]
    assert await counts(indexer) == (2, 3)
    matches = await find(indexer, "whale", vectors(2, sum(b"a"))[1], limit=1)
    assert matches.ids[0] == "a#1"
    assert matches.column("parent_id")[0] == "a"
    assert matches.texts[0] == "blue whale"
    assert matches.column("location")[0] == [100, 110]
    assert matches.tags[0] == {"lang": "en"}
    assert set(matches.column("parent_id")) == {"a"}  # passages of one document, as the limit says


async def test_a_document_is_replaced_as_a_whole(indexer: QdrantIndexer) -> None:
    await index(indexer, document("a", "one", "two", "three"), document("b", "kept"))
    await index(indexer, document("a", "four", "five", year=1))
    assert await counts(indexer) == (2, 3)
    assert sorted((await find(indexer, "x", limit=9)).texts, key=str) == ["five", "four", "kept"]
    await index(indexer, document("a", "six", "seven", "eight", "nine"))
    assert await counts(indexer) == (2, 5)
    assert len(await find(indexer, "x", filter={"year": 1})) == 0
    await index(indexer, document("a", "six", "seven", "eight", "nine"))
    assert await counts(indexer) == (2, 5)


async def test_the_last_of_equal_ids_counts(indexer: QdrantIndexer) -> None:
    reply = await index(indexer, document("a", "first", "again"), document("b", "x"), document("a", "last"))
    assert reply.ids == ["a", "b", "a"]
    assert reply.column("passages") == [0, 1, 1]
    assert sorted((await find(indexer, "x")).texts, key=str) == ["last", "x"]


async def test_a_document_may_bring_its_own_vector(indexer: QdrantIndexer) -> None:
    own = DocumentBatch.from_columns(ids=["a", "ü 文/#?"], texts=["whole", None], embeddings=vectors(2))
    assert (await index(indexer, own)).column("passages") == [1, 1]
    matches = await find(indexer, None, vectors(2)[1], limit=1)
    assert matches.ids == ["ü 文/#?#0"]
    assert matches.column("location") == [[0, 0]]


def made_by(fingerprint: str | None, *names: str) -> DocumentBatch:
    batch = DocumentBatch.concatenate([document(name, f"{name} one", f"{name} two") for name in names])
    batch.set_column("fingerprint", [fingerprint] * len(batch))
    return batch


async def find_with(indexer: QdrantIndexer, made_with: str | None, **parameters: Any) -> DocumentBatch:
    query = DocumentBatch.from_columns(ids=["q"], texts=["one"], embeddings=vectors(1), fingerprint=[made_with])
    reply = await indexer.search(DocumentColumns(query), parameters)
    assert "fingerprint" not in reply.batch.fields()
    return reply.batch.nested("matches")[0]


ONE = fingerprint({"model": "one", "pooling": ["mean"], "dimensions": DIMENSIONS})
OTHER = fingerprint({"model": "one", "pooling": ["cls"], "dimensions": DIMENSIONS})


async def test_vectors_of_another_encoder_are_refused(indexer: QdrantIndexer, settings: dict[str, Any]) -> None:
    await index(indexer, made_by(ONE, "a"))
    await index(indexer, made_by(ONE, "b"))
    assert (await indexer.status())["fingerprint"] == ONE
    assert await counts(indexer) == (2, 4)
    with pytest.raises(Conflict, match=r'pooling is \["cls"\] instead of \["mean"\]; encode .*another collection'):
        await index(indexer, made_by(OTHER, "c"))
    with pytest.raises(Conflict, match="unknown origin"):
        await index(indexer, made_by(ONE, "c"), made_by(None, "d"))
    with pytest.raises(Conflict, match="pooling is"):
        await find_with(indexer, OTHER)
    assert len(await find_with(indexer, OTHER, mode="sparse")) == 2, "vectors do not count there"
    assert len(await find_with(indexer, ONE, limit=9)) == 4
    assert len(await find_with(indexer, None, limit=9)) == 4, "a caller's own vector is the caller's business"
    assert await counts(indexer) == (2, 4)
    assert await indexer._collection.document_ids(
        models.Filter(must_not=[models.FieldCondition(key="document_id", match=models.MatchValue(value="a"))])
    ) == ["b"]


async def test_the_fingerprint_is_kept_until_the_collection_is_empty(lasting: dict[str, Any]) -> None:
    indexer = QdrantIndexer(**lasting)
    await index(indexer, made_by(ONE, "a"))
    await close(indexer)
    indexer = QdrantIndexer(**lasting)
    with pytest.raises(Conflict):
        await find_with(indexer, OTHER)
    assert await delete(indexer, "a") == 1
    assert len(await find_with(indexer, OTHER)) == 0
    await index(indexer, made_by(OTHER, "a"))
    assert len(await find_with(indexer, OTHER)) == 2
    with pytest.raises(Conflict):
        await index(indexer, made_by(ONE, "a"))
    await close(indexer)


async def test_a_collection_of_own_vectors_takes_any(indexer: QdrantIndexer) -> None:
    await index(indexer, made_by(None, "a"))
    await index(indexer, made_by(ONE, "b"))
    await index(indexer, made_by(OTHER, "c"))
    assert (await indexer.status())["fingerprint"] is None
    assert len(await find_with(indexer, ONE, limit=9)) == 6


async def test_a_new_collection_takes_one_encoders_vectors_only(indexer: QdrantIndexer) -> None:
    with pytest.raises(Conflict, match="pooling is"):
        await index(indexer, made_by(ONE, "a"), made_by(OTHER, "b"))
    assert await counts(indexer) == (0, 0)
    await index(indexer, made_by(OTHER, "b"))
    assert await counts(indexer) == (1, 2)


async def test_of_writes_at_once_one_stays_and_is_whole(indexer: QdrantIndexer) -> None:
    versions = [document("a", *(f"v{version} p{part}" for part in range(3 + version)), seed=1) for version in range(8)]
    await asyncio.gather(*(index(indexer, version) for version in versions))
    texts = [text or "" for text in (await find(indexer, "x", passages=20)).texts]
    (version,) = {text.split()[0] for text in texts}  # which one, is decided by who came last
    assert sorted(texts) == [f"{version} p{part}" for part in range(3 + int(version[1:]))]
    assert await counts(indexer) == (1, len(texts))


def with_bad_vector(value: float) -> DocumentBatch:
    batch = document("bad", "x", "y")
    rows = vectors(2)
    rows[1, 3] = value
    batch.nested("chunks")[0].embeddings = rows
    return batch


def of_size(dimensions: int) -> DocumentBatch:
    return DocumentBatch.from_columns(ids=["bad"], texts=["x"], embeddings=np.ones((1, dimensions), np.float32))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (document("", "no id"), "document 1 has no id"),
        (DocumentBatch.from_columns(ids=["bad"], texts=["no vector"]), "neither passages nor a vector"),
        (with_bad_vector(np.nan), "NaN"),
        (with_bad_vector(np.inf), "infinity"),
        (document("bad", "x", tag=b"bytes"), "tags.tag"),
        (of_size(DIMENSIONS + 1), "9 dimensions, not 8"),
    ],
)
async def test_a_document_that_is_wrong_fails_alone(indexer: QdrantIndexer, bad: DocumentBatch, message: str) -> None:
    await index(indexer, document("a", "before"))
    reply = await index(indexer, document("good", "x"), bad, document("a", "after", "after"))
    assert reply.column("passages") == [1, None, 2]
    first, error, last = reply.column("error")
    assert first is None and last is None
    assert error["name"] == "InvalidInput"
    assert re.search(message, error["message"])
    assert await counts(indexer) == (2, 3)


async def test_the_first_vectors_fix_the_size(indexer: QdrantIndexer, settings: dict[str, Any]) -> None:
    await index(indexer, document("a", "x"))
    (error,) = (await index(indexer, of_size(5))).column("error")
    assert re.search("vectors have 5 dimensions, not 8", error["message"])
    message = f"5 dimensions, but the collection '{settings['collection']}' holds vectors of 8; encode with"
    with pytest.raises(InvalidInput, match=message):
        await find(indexer, "x", np.ones(5))
    assert (await indexer.status())["dimensions"] == DIMENSIONS


async def test_too_many_passages(settings: dict[str, Any]) -> None:
    indexer = QdrantIndexer(**settings, max_passages=3)
    try:
        (error,) = (await index(indexer, document("a", "1", "2", "3", "4"))).column("error")
        assert error["name"] == "TooLarge"
        assert "'a' has 4 passages, at most 3" in error["message"]
    finally:
        await close(indexer)


async def test_an_existing_collection_must_agree_with_the_settings(lasting: dict[str, Any]) -> None:
    indexer = QdrantIndexer(**lasting)
    await index(indexer, document("a", "x"))
    await close(indexer)
    for wrong, message in (({"dimensions": 5}, "of 8 dimensions, but"), ({"distance": "dot"}, "by cosine, but")):
        indexer = QdrantIndexer(**lasting, **wrong)
        with pytest.raises(ConfigurationError, match=message):
            await indexer.warm_up()
        await close(indexer)


async def test_an_index_outlives_its_indexer(lasting: dict[str, Any]) -> None:
    indexer = QdrantIndexer(**lasting)
    await index(indexer, document("a", "red fox", "blue whale", lang="en"))
    await close(indexer)
    indexer = QdrantIndexer(**lasting)
    try:
        assert await counts(indexer) == (1, 2)
        assert (await find(indexer, "whale", mode="sparse")).ids == ["a#1"]
        await index(indexer, document("a", "frog"))
        assert (await find(indexer, "x")).texts == ["frog"]
    finally:
        await close(indexer)


# ---- searching ----


async def test_dense_scores_are_cosines_and_ranked_as_brute_force_ranks(indexer: QdrantIndexer) -> None:
    rows = vectors(300)
    years = [2000 + row % 7 for row in range(300)]
    await index(
        indexer,
        DocumentBatch.from_columns(
            ids=[f"d{row}" for row in range(300)],
            texts=["x"] * 300,
            tags=[{"year": year} for year in years],
            embeddings=rows * np.linspace(0.5, 20, 300, dtype=np.float32)[:, None],
        ),
    )
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    for seed in range(5):
        query = vectors(1, 100 + seed)[0]
        cosines = unit @ (query / np.linalg.norm(query))
        for selection, allowed in (
            (None, range(300)),
            ({"year": {"$gte": 2005}}, [r for r in range(300) if years[r] >= 2005]),
        ):
            expected = sorted(allowed, key=lambda row: -cosines[row])[:20]
            matches = await find(indexer, "x", query, mode="dense", limit=20, filter=selection)
            assert matches.column("parent_id") == [f"d{row}" for row in expected]
            scores = [scores["score"] for scores in matches.column("scores")]
            np.testing.assert_allclose(scores, cosines[expected], atol=1e-5)


async def test_sparse_ranks_by_rarity_and_length(indexer: QdrantIndexer) -> None:
    await index(
        indexer,
        document("rare", "a zebra among the others"),
        document("common", "fox and dog"),
        document("both", "fox zebra"),
        document("fox2", "the fox is here"),
        document("zh", "神经网络的搜索引擎"),
        document("none", "nothing of it"),
    )
    matches = await find(indexer, "foxes zebras", mode="sparse")
    assert matches.column("parent_id")[:2] == ["both", "rare"]
    assert set(matches.column("parent_id")) == {"both", "rare", "common", "fox2"}
    assert (await find(indexer, "搜索", mode="sparse")).column("parent_id") == ["zh"]
    assert len(await find(indexer, "the of and", mode="sparse")) == 0
    assert len(await find(indexer, "unicorn", mode="sparse")) == 0


async def test_hybrid_finds_what_either_finds(indexer: QdrantIndexer) -> None:
    await index(indexer, *(document(f"d{row}", f"word{row} common", seed=row) for row in range(30)))
    matches = await find(indexer, "word7", vectors(1, 3)[0], limit=2)
    assert set(matches.column("parent_id")) == {"d7", "d3"}
    alone = await find(indexer, "the", vectors(1, 3)[0], limit=1)  # stop words only: the vector decides
    assert alone.column("parent_id") == ["d3"]
    textless = await find(indexer, None, vectors(1, 3)[0], limit=1)
    assert textless.column("parent_id") == ["d3"]


async def test_enough_documents_come_even_where_one_crowds_out_the_others(indexer: QdrantIndexer) -> None:
    crowd = document("crowd", *(f"fox {row}" for row in range(300)))
    query = vectors(1, 5)[0]
    crowd.nested("chunks")[0].embeddings = query + 0.01 * vectors(300, 6)
    await index(indexer, crowd, *(document(f"d{row}", f"fox {row}", seed=50 + row) for row in range(8)))
    for mode in ("dense", "sparse", "hybrid"):
        matches = await find(indexer, "fox", query, mode=mode, limit=5.0, offset=3.0, passages=2.0)
        parents = matches.column("parent_id")
        assert len(set(parents)) == 8, mode
        assert parents.count("crowd") == 2, mode
    everything = await find(indexer, "fox", query, limit=100)
    assert len(set(everything.column("parent_id"))) == 9


async def test_queries_of_one_request_are_answered_each(indexer: QdrantIndexer) -> None:
    await index(indexer, *(document(f"d{row}", f"word{row}", seed=row) for row in range(10)))
    batch = DocumentBatch.from_columns(
        texts=[f"word{row}" for row in range(10)],
        embeddings=np.concatenate([vectors(1, row) for row in range(10)]),
    )
    reply = (await indexer.search(DocumentColumns(batch), {"limit": 1})).batch
    assert [matches.column("parent_id")[0] for matches in reply.nested("matches")] == [f"d{row}" for row in range(10)]
    assert "embedding" not in reply.fields()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"limit": 0}, "limit"),
        ({"limit": 1001}, "limit"),
        ({"limit": 2.5}, "limit"),
        ({"offset": -1}, "offset"),
        ({"mode": "fuzzy"}, "mode.*hybrid"),
        ({"filter": "year > 3"}, "filter"),
        ({"filter": {"year": {"$gtt": 3}}}, r"did you mean \$gt"),
    ],
)
async def test_wrong_parameters_are_named(indexer: QdrantIndexer, parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        await find(indexer, "x", **parameters)


async def test_a_query_must_have_what_its_mode_needs(indexer: QdrantIndexer) -> None:
    bare = DocumentColumns(DocumentBatch.from_columns(texts=["x"]))
    with pytest.raises(InvalidInput, match="put an encoder before the indexer"):
        await indexer.search(bare, {})
    with pytest.raises(InvalidInput, match="query 0 has no text"):
        await find(indexer, None, np.ones(DIMENSIONS), mode="sparse")
    with pytest.raises(InvalidInput, match="query 0 holds NaN"):
        await find(indexer, "x", np.full(DIMENSIONS, np.nan))


# ---- filters ----

TAGGED: dict[str, dict[str, Any]] = {
    "a": {"lang": "en", "year": 2020, "draft": True, "who": {"name": "Ann", "age": 30}, "topics": ["x", "y"], "n": 1},
    "b": {"lang": "zh", "year": 2021.0, "draft": False, "who": {"name": "Bo"}, "topics": ["y"], "n": "1"},
    "c": {"lang": "en", "year": 2022.5, "published": "2024-05-31T12:00:00Z", "topics": [], "n": True},
    "d": {"lang": None, "published": "2023-01-01", "authors": [{"name": "Ann"}, {"name": "Cy"}], "odd key ü": 7},
}


SELECTIONS: list[tuple[dict[str, Any], str]] = [
    ({}, "abcd"),
    ({"lang": "en"}, "ac"),
    ({"lang": "en", "year": 2020}, "a"),
    ({"year": 2021}, "b"),
    ({"year": {"$gt": 2020, "$lte": 2022.5}}, "bc"),
    ({"year": {"$in": [2020, 2022.5, 1999]}}, "ac"),
    ({"lang": {"$in": ["zh", "fr"]}}, "b"),
    ({"lang": {"$ne": "en"}}, "bd"),
    ({"lang": {"$nin": ["en", "zh"]}}, "d"),
    ({"draft": True}, "a"),
    ({"draft": False}, "b"),
    ({"draft": {"$ne": True}}, "bcd"),
    ({"draft": {"$exists": True}}, "ab"),
    ({"lang": {"$exists": False}}, "d"),
    ({"lang": None}, "d"),
    ({"topics": {"$exists": False}}, "cd"),
    ({"topics": "y"}, "ab"),
    ({"who.name": "Ann"}, "a"),
    ({"who.age": {"$gte": 30}}, "a"),
    ({"authors[].name": "Cy"}, "d"),
    ({"odd key ü": 7}, "d"),
    ({"published": {"$gte": "2024-01-01", "$lt": "2024-06-01"}}, "c"),
    ({"published": {"$lt": "2024-01-01"}}, "d"),
    ({"n": 1}, "a"),
    ({"n": "1"}, "b"),
    ({"n": True}, "c"),
    ({"n": {"$in": [1, "1", True]}}, "abc"),
    ({"id": "b"}, "b"),
    ({"id": {"$in": ["a", "d", "zzz"]}}, "ad"),
    ({"$or": [{"lang": "zh"}, {"year": {"$lt": 2021}}]}, "ab"),
    ({"$and": [{"lang": "en"}, {"$not": {"draft": True}}]}, "c"),
    ({"$not": {"lang": "en", "year": 2020}}, "bcd"),
    ({"$not": {"$or": [{"lang": "en"}, {"lang": "zh"}]}}, "d"),
    ({"nowhere": "x"}, ""),
]


async def test_filters_select(tagged: QdrantIndexer) -> None:
    for selection, expected in SELECTIONS:
        for mode in ("dense", "sparse", "hybrid"):
            matches = await find(tagged, "common", filter=selection, mode=mode)
            assert "".join(sorted(matches.column("parent_id"))) == expected, (selection, mode)


@pytest.fixture
async def tagged(indexer: QdrantIndexer) -> QdrantIndexer:
    await index(indexer, *(document(name, "common", **tags) for name, tags in TAGGED.items()))
    return indexer


async def test_tags_come_back_as_they_were(tagged: QdrantIndexer) -> None:
    matches = await find(tagged, "common")
    assert dict(zip(matches.column("parent_id"), matches.tags, strict=True)) == TAGGED


async def test_filters_work_on_tags_beyond_those_with_an_index(settings: dict[str, Any]) -> None:
    indexer = QdrantIndexer(**settings, tag_indexes=1)
    try:
        await index(indexer, *(document(f"d{row}", "x", **{f"t{row}": "v", "n": row}) for row in range(5)))
        assert (await find(indexer, "x", filter={"t4": "v"})).column("parent_id") == ["d4"]
        assert (await find(indexer, "x", filter={"n": {"$gt": 3}})).column("parent_id") == ["d4"]
    finally:
        await close(indexer)


# ---- deleting ----


async def test_delete(tagged: QdrantIndexer) -> None:
    await index(tagged, document("e", "one", "two", lang="fr"))
    assert await delete(tagged, "a", "missing", "a") == 1
    assert await delete(tagged, "a") == 0
    assert await counts(tagged) == (4, 5)
    assert await delete(tagged, filter={"lang": {"$in": ["fr", "zh"]}}) == 2
    assert await delete(tagged, "c", "d", filter={"lang": "en"}) == 1
    assert (await find(tagged, "common")).column("parent_id") == ["d"]
    with pytest.raises(InvalidInput, match="name what to delete"):
        await delete(tagged)
    with pytest.raises(InvalidInput, match="name what to delete"):
        await delete(tagged, filter={})
    with pytest.raises(InvalidInput, match="document 1 has no id"):
        await delete(tagged, "d", "")
    await index(tagged, document("d", "again"))
    assert await counts(tagged) == (1, 1)


async def test_many_documents_are_deleted_page_by_page(indexer: QdrantIndexer) -> None:
    rows = vectors(2500)
    ids = [f"d{row}" for row in range(2500)]
    tags = [{"odd": row % 2 == 1} for row in range(2500)]
    await index(indexer, DocumentBatch.from_columns(ids=ids, texts=["x"] * 2500, tags=tags, embeddings=rows))
    assert await counts(indexer) == (2500, 2500)
    assert await delete(indexer, filter={"odd": True}) == 1250
    assert await delete(indexer, *ids) == 1250
    assert await counts(indexer) == (0, 0)


# ---- a look at all of it ----


async def test_a_sample_of_the_passages(indexer: QdrantIndexer) -> None:
    assert (await indexer.sample(DocumentColumns(DocumentBatch()))).batch.column("total") == [0]
    await index(indexer, document("a", "red fox", "blue whale", lang="en"), document("b", "green frog"))
    reply = (await indexer.sample(DocumentColumns(DocumentBatch()), {"vectors": True})).batch
    passages = reply.nested("matches")[0]
    assert reply.column("total") == [3]
    found = dict(zip(passages.ids, passages.texts, strict=True))
    assert found == {"a#0": "red fox", "a#1": "blue whale", "b#0": "green frog"}
    kept = vectors(2, sum(b"a"))[1]
    assert passages.embeddings is not None
    np.testing.assert_allclose(
        passages.embeddings[passages.ids.index("a#1")], kept / np.linalg.norm(kept), rtol=1e-4, atol=1e-5
    )
    fewer = (await indexer.sample(DocumentColumns(DocumentBatch()), {"limit": 1, "ids": ["a#0", "b#0"]})).batch
    assert {*fewer.nested("matches")[0].ids, *fewer.nested("chunks")[0].ids} >= {"a#0", "b#0"}
    drawn = (await indexer.map(DocumentColumns(DocumentBatch.from_columns(embeddings=kept[None])))).batch
    assert drawn.column("shown") == [3] and drawn.column("places")[0].shape == (3, 2)
    at = drawn.column("places")[0][drawn.nested("matches")[0].ids.index("a#1")]
    np.testing.assert_allclose(drawn.column("place")[0], at, atol=1e-4)
    await delete(indexer, "a")
    assert (await indexer.sample(DocumentColumns(DocumentBatch()))).batch.nested("matches")[0].ids == ["b#0"]
