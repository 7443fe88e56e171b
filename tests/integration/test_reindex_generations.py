"""A collection is embedded anew under reads and writes, on every backend: what `generations.py` promises.

Two encoders are played here: vectors of 8 dimensions with the fingerprint OLD, and of 4 with NEW.
"""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qdrant_double import running

from flowdex.documents import DocumentBatch
from flowdex.errors import Conflict, NotFound
from flowdex_executors import DocumentColumns, QdrantIndexer
from flowdex_executors.encoder.fingerprint import fingerprint
from flowdex_executors.indexer import generations

OLD = fingerprint({"model": "old", "dimensions": 8})
NEW = fingerprint({"model": "new", "dimensions": 4})
OTHER = fingerprint({"model": "other", "dimensions": 4})
SIZES = {OLD: 8, NEW: 4, OTHER: 4}


@pytest.fixture(params=["edge", "rest", "grpc", "server"])
def settings(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[dict[str, Any]]:
    collection = f"test-{uuid.uuid4().hex}"
    monkeypatch.setattr(generations, "_KNOWN_FOR", 0.2)
    monkeypatch.setattr(generations, "_SETTLED_AFTER", 0.5)
    with contextmanager(_uri)(request.param, tmp_path) as uri:
        yield {"uri": uri, "collection": collection, "api_key": os.environ.get("QDRANT_API_KEY")}


def _uri(kind: str, folder: Path) -> Iterator[str]:
    if kind == "edge":
        yield f"edge://{folder / 'index'}"
    elif kind == "server":
        if "QDRANT_URL" not in os.environ:
            pytest.skip("QDRANT_URL names no server")
        yield os.environ["QDRANT_URL"]
    else:
        with running(folder, kind) as double:  # type: ignore[arg-type]
            yield double.uri


async def close(indexer: QdrantIndexer) -> None:
    closing = indexer.close()
    if closing is not None:
        await closing


@pytest.fixture
async def indexer(settings: dict[str, Any]) -> AsyncIterator[QdrantIndexer]:
    indexer = QdrantIndexer(**settings)
    await indexer.warm_up()
    yield indexer
    await close(indexer)


def encoded(made_by: str, texts: dict[str, str]) -> DocumentBatch:
    """Documents of one passage each, with an encoder's vectors."""
    batch = DocumentBatch.from_columns(ids=list(texts), texts=list(texts.values()))
    chunks = []
    for name, text in texts.items():
        chunk = DocumentBatch.from_columns(ids=[f"{name}#0"], texts=[text], location=[[0, len(text)]])
        chunk.embeddings = np.random.default_rng(len(text)).standard_normal((1, SIZES[made_by])).astype(np.float32)
        chunks.append(chunk)
    batch.set_nested("chunks", chunks)
    batch.set_column("fingerprint", [made_by] * len(batch))
    return batch


async def write(indexer: QdrantIndexer, made_by: str, **texts: str) -> None:
    reply = await indexer.index(DocumentColumns(encoded(made_by, texts)))
    assert not any(reply.batch.column("error"))


async def search(indexer: QdrantIndexer, made_by: str, mode: str = "hybrid", text: str = "text") -> DocumentBatch:
    query = DocumentBatch.from_columns(ids=["q"], texts=[text], fingerprint=[made_by])
    query.embeddings = np.ones((1, SIZES[made_by]), np.float32)
    reply: DocumentColumns = await indexer.search(DocumentColumns(query), {"mode": mode, "limit": 100})
    return reply.batch


async def found(
    indexer: QdrantIndexer, made_by: str, mode: str = "hybrid", text: str = "text"
) -> dict[str, str | None]:
    matches = (await search(indexer, made_by, mode, text)).nested("matches")[0]
    return dict(zip(matches.column("parent_id"), matches.texts, strict=True))


async def pending(indexer: QdrantIndexer, limit: int = 64) -> DocumentBatch:
    """All that is pending, page by page."""
    pages: list[DocumentBatch] = []
    cursor = None
    while True:
        wanted = {"limit": limit, **({"cursor": cursor} if cursor else {})}
        page = (await indexer.reindex_pending(DocumentColumns(DocumentBatch()), wanted)).batch
        if page:
            cursor = page.column("cursor")[-1]
            pages.append(page)
        if not page or cursor is None:
            return DocumentBatch.concatenate(pages)


async def copy(indexer: QdrantIndexer, documents: DocumentBatch, made_by: str = NEW) -> None:
    versions = dict(zip(documents.ids, documents.column("version"), strict=True))
    texts = {name: str(text) for name, text in zip(documents.ids, documents.texts, strict=True)}
    batch = encoded(made_by, texts)
    reply = await indexer.index(DocumentColumns(batch), parameters={"reindex": {"versions": versions}})
    assert not any(reply.batch.column("error"))


async def steer(indexer: QdrantIndexer, action: str, **parameters: Any) -> dict[str, Any]:
    told: dict[str, Any] = await indexer.reindex(parameters={"action": action, **parameters})
    return told


async def delete(indexer: QdrantIndexer, *ids: str) -> None:
    await indexer.delete(DocumentColumns(DocumentBatch.from_columns(ids=list(ids))), {})


def texts(names: Sequence[str], version: int = 1) -> dict[str, str]:
    return {name: f"text {name} version {version}" for name in names}


async def test_from_one_encoder_to_another(indexer: QdrantIndexer, settings: dict[str, Any]) -> None:
    everything = texts([f"d{number}" for number in range(9)])
    await write(indexer, OLD, **everything)
    with pytest.raises(Conflict, match="flowdex reindex"):
        await search(indexer, NEW)
    with pytest.raises(Conflict, match="flowdex reindex"):
        await write(indexer, NEW, new="text")

    first = await pending(indexer, limit=4)
    assert sorted(first.ids) == sorted(everything)
    assert dict(zip(first.ids, first.texts, strict=True)) == everything
    await copy(indexer, first.select(range(4)))
    assert (await steer(indexer, "status"))["stage"] == "building"
    assert (await indexer.status())["reindex"] == "building"

    # The old encoder's queries are answered as ever; the new one's by words, and it says so.
    assert await found(indexer, OLD, "dense") == everything
    reply = await search(indexer, NEW)
    assert set(reply.nested("matches")[0].column("parent_id")) == set(everything)
    assert "words alone" in reply.column("notes")[0][0]
    with pytest.raises(Conflict, match="being embedded anew"):
        await search(indexer, NEW, "dense")

    # Both encoders write and delete meanwhile.
    await write(indexer, NEW, d0="text of the new encoder", fresh="text that is fresh")
    await write(indexer, OLD, d1="text of the old encoder", late="text that is late")
    await delete(indexer, "d2", "d8")
    current = {
        **{name: text for name, text in everything.items() if name not in ("d2", "d8")},
        "d0": "text of the new encoder",
        "fresh": "text that is fresh",
        "d1": "text of the old encoder",
        "late": "text that is late",
    }
    assert await found(indexer, NEW) == current, "what was written is found at once"

    # What was read before the delete and the writes must not come back.
    await copy(indexer, first.select([row for row, name in enumerate(first.ids) if name in ("d8", "d1", "d0")]))
    rest = await pending(indexer)
    assert "d8" not in rest.ids and "d0" not in rest.ids and "fresh" not in rest.ids
    assert "d1" in rest.ids and "late" in rest.ids
    await copy(indexer, rest)
    assert not await pending(indexer)

    told = await steer(indexer, "swap")
    assert told["stage"] == "finishing" and told["fingerprint"] == NEW
    assert await found(indexer, NEW, "dense") == current
    assert await found(indexer, NEW) == current
    assert await found(indexer, OLD, "dense") != {}, "the former collection answers until it goes"
    assert not await pending(indexer)
    assert (await steer(indexer, "finish"))["stage"] == "idle"
    with pytest.raises(Conflict):
        await search(indexer, OLD, "dense")
    await write(indexer, NEW, last="text that is last")
    await close(indexer)

    again = QdrantIndexer(**settings)
    await again.warm_up()
    assert await found(again, NEW, "dense") == {**current, "last": "text that is last"}
    status = await again.status()
    assert (status["documents"], status["fingerprint"], status["dimensions"]) == (len(current) + 1, NEW, 4)
    assert "reindex" not in status
    await close(again)


async def test_what_was_written_just_before_the_swap_is_copied_after_it(indexer: QdrantIndexer) -> None:
    await write(indexer, OLD, **texts(["a", "b"]))
    await copy(indexer, await pending(indexer))
    await write(indexer, OLD, **texts(["b", "c"], version=2))
    await steer(indexer, "swap")
    rest = await pending(indexer)
    assert sorted(rest.ids) == ["b", "c"]
    await write(indexer, NEW, c="text of c that is newer still")
    await delete(indexer, "a")
    await copy(indexer, rest)
    assert not await pending(indexer)
    await steer(indexer, "finish")
    assert await found(indexer, NEW, "dense") == {"b": "text b version 2", "c": "text of c that is newer still"}


async def test_the_old_collection_is_kept_on_request(indexer: QdrantIndexer) -> None:
    await write(indexer, OLD, **texts(["a", "b"]))
    await copy(indexer, await pending(indexer))
    await steer(indexer, "swap")
    await steer(indexer, "finish", keep=True)
    assert set(await found(indexer, OLD, "dense")) == {"a", "b"}
    with pytest.raises(Conflict):
        await write(indexer, OLD, c="text")
    await write(indexer, NEW, c="text c")
    await delete(indexer, "a")
    assert set(await found(indexer, OLD, "dense")) == {"b"}
    assert set(await found(indexer, NEW, "dense")) == {"b", "c"}
    # Another reindex, with the same encoder: the collection kept until then goes with its swap.
    await copy(indexer, await pending(indexer))
    assert set(await found(indexer, NEW, "dense")) == {"b", "c"}
    await write(indexer, NEW, d="text d")
    await steer(indexer, "swap")
    await copy(indexer, await pending(indexer))
    await steer(indexer, "finish", keep=True)
    assert set(await found(indexer, NEW, "dense")) == {"b", "c", "d"}
    assert (await steer(indexer, "forget"))["done"] is True
    assert (await steer(indexer, "forget"))["done"] is False
    with pytest.raises(Conflict):
        await search(indexer, OLD, "dense")


async def test_a_reindex_can_be_given_up(indexer: QdrantIndexer) -> None:
    with pytest.raises(NotFound, match="no reindex"):
        await steer(indexer, "swap")
    await write(indexer, OLD, **texts(["a", "b"]))
    documents = await pending(indexer)
    await copy(indexer, documents.select([0]))
    with pytest.raises(Conflict, match="--abort"):
        await copy(indexer, documents.select([1]), OTHER)
    assert (await steer(indexer, "abort"))["done"] is True
    assert (await steer(indexer, "abort"))["done"] is False
    with pytest.raises(Conflict, match="flowdex reindex"):
        await search(indexer, NEW)
    assert set(await found(indexer, OLD, "dense")) == {"a", "b"}
    await copy(indexer, await pending(indexer), OTHER)
    await steer(indexer, "swap")
    await steer(indexer, "finish")
    assert set(await found(indexer, OTHER, "dense")) == {"a", "b"}


async def test_replicas_of_an_indexer_hear_of_it(settings: dict[str, Any]) -> None:
    if settings["uri"].startswith("edge"):
        pytest.skip("an embedded index has one indexer")
    one, two = QdrantIndexer(**settings), QdrantIndexer(**settings)
    try:
        await asyncio.gather(one.warm_up(), two.warm_up())
        await asyncio.gather(
            *(write(each, OLD, **texts([f"{name}{n}" for n in range(5)])) for each, name in ((one, "a"), (two, "b")))
        )
        await copy(one, await pending(one))
        await write(two, NEW, a0="text of another replica")
        await delete(two, "a1")
        await copy(two, await pending(two))
        await steer(one, "swap")
        await asyncio.sleep(0.5)
        assert await found(two, NEW, "dense") == await found(one, NEW, "dense")
        await write(two, NEW, last="text that is last")
        await steer(two, "finish")
        everything = await found(one, NEW, "dense")
        assert len(everything) == 10
        assert "a1" not in everything
        assert everything["a0"] == "text of another replica"
    finally:
        await close(one)
        await close(two)
