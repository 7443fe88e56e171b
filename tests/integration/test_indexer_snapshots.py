"""Snapshots: whole, checked, taken and restored while the index serves."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flowdex.documents import DocumentBatch
from flowdex.errors import ConfigurationError, Conflict, InvalidInput, NotFound
from flowdex_executors import DocumentColumns, QdrantIndexer
from flowdex_executors.indexer import backup, layout
from flowdex_executors.indexer.files import sync_tree, write_atomically

DIMENSIONS = 8


def documents(count: int, seed: int = 0, prefix: str = "d") -> DocumentBatch:
    rows = np.random.default_rng(seed).standard_normal((count, DIMENSIONS)).astype(np.float32)
    return DocumentBatch.from_columns(
        ids=[f"{prefix}{row}" for row in range(count)],
        texts=[f"word{row} common" for row in range(count)],
        tags=[{"seed": seed, "row": row} for row in range(count)],
        embeddings=rows,
    )


async def fetch(indexer: QdrantIndexer) -> bytes:
    taken = await indexer.snapshot(parameters={})
    content = b""
    while True:
        parameters = {"name": taken["name"], "offset": len(content)}
        reply = await indexer.snapshot_read(DocumentColumns(DocumentBatch()), parameters=parameters)
        (piece,) = reply.batch.column("blob", b"")
        if not piece:
            break
        content += piece
    assert len(content) == taken["size"]
    assert hashlib.sha256(content).hexdigest() == taken["sha256"]
    await indexer.snapshot(parameters={"done": taken["name"]})
    return content


async def send(indexer: QdrantIndexer, content: bytes, name: str = "upload", piece: int = 2**20) -> dict[str, Any]:
    for offset in range(0, len(content), piece):
        batch = DocumentBatch.from_columns(blob=[content[offset : offset + piece]])
        await indexer.restore_write(DocumentColumns(batch), parameters={"name": name, "offset": offset})
    digest = hashlib.sha256(content).hexdigest()
    result: dict[str, Any] = await indexer.restore(parameters={"name": name, "sha256": digest})
    return result


async def seeds(indexer: QdrantIndexer) -> set[int]:
    query = DocumentBatch.from_columns(texts=["common"], embeddings=np.ones((1, DIMENSIONS), np.float32))
    reply = await indexer.search(DocumentColumns(query), {"limit": 100})
    return {tags["seed"] for tags in reply.batch.nested("matches")[0].tags}


@pytest.fixture(params=[1, 3])
async def indexer(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[QdrantIndexer]:
    indexer = QdrantIndexer(uri=f"edge://{tmp_path}/index", shards=request.param, retry_for=0)
    yield indexer
    indexer.close()


async def test_a_restored_collection_is_what_it_was(indexer: QdrantIndexer, tmp_path: Path) -> None:
    await indexer.index(DocumentColumns(documents(50, seed=1)))
    content = await fetch(indexer)
    await indexer.index(DocumentColumns(documents(50, seed=2)))
    await indexer.index(DocumentColumns(documents(20, seed=2, prefix="more")))
    assert await seeds(indexer) == {2}
    assert await send(indexer, content) == {"documents": 50, "passages": 50}
    assert await seeds(indexer) == {1}
    await indexer.index(DocumentColumns(documents(60, seed=3)))  # it can be written to
    assert await seeds(indexer) == {3}
    status = await indexer.status()
    assert (status["documents"], status["passages"]) == (60, 60)
    assert len(list((tmp_path / "index" / "flowdex").glob("data-*"))) == 1, "the old data are still there"
    assert not list((tmp_path / "index" / ".transfers").iterdir())


async def test_a_snapshot_goes_into_an_empty_index(indexer: QdrantIndexer, tmp_path: Path) -> None:
    await indexer.index(DocumentColumns(documents(30, seed=4)))
    content = await fetch(indexer)
    shards = (await indexer.status())["shards"]
    other = QdrantIndexer(uri=f"edge://{tmp_path}/other", shards=shards, collection="elsewhere", retry_for=0)
    try:
        assert await send(other, content) == {"documents": 30, "passages": 30}
        assert await seeds(other) == {4}
    finally:
        other.close()
    other = QdrantIndexer(uri=f"edge://{tmp_path}/third", shards=shards + 1, retry_for=0)
    try:
        with pytest.raises(ConfigurationError, match=rf"has {shards} shards, but uses_with.shards .* is {shards + 1}"):
            await send(other, content)
        assert (await other.status())["documents"] == 0
    finally:
        other.close()


async def test_what_is_damaged_is_refused_and_changes_nothing(indexer: QdrantIndexer) -> None:
    await indexer.index(DocumentColumns(documents(30, seed=5)))
    content = await fetch(indexer)
    await indexer.index(DocumentColumns(documents(30, seed=6)))
    chance = random.Random(7)
    damaged = [content[: len(content) // 2], content[:-20_000], b"", b"no snapshot at all", content[512:]]
    for _ in range(6):
        position = chance.randrange(len(content))
        damaged.append(content[:position] + bytes([content[position] ^ 0x55]) + content[position + 1 :])
    damaged.append(content.replace(b'"format": 1', b'"format": 9', 1))
    refused = 0
    for number, each in enumerate(damaged):
        try:
            await send(indexer, each, name=f"upload{number}")
        except InvalidInput as error:
            refused += 1
            assert any(word in error.message for word in ("damaged", "not a snapshot", "format 9", "did not arrive"))
            assert await seeds(indexer) == {6}
        else:  # a flipped bit in what tar pads with, which means nothing
            assert await seeds(indexer) == {5}
            await indexer.index(DocumentColumns(documents(30, seed=6)))
    assert refused >= 8


async def test_settings_must_agree(tmp_path: Path) -> None:
    first = QdrantIndexer(uri=f"edge://{tmp_path}/a")
    second = QdrantIndexer(uri=f"edge://{tmp_path}/b", distance="dot", retry_for=0)
    try:
        await first.index(DocumentColumns(documents(3)))
        with pytest.raises(Conflict, match=r"of distance cosine, but .* of the indexer is dot"):
            await send(second, await fetch(first))
        with pytest.raises(NotFound, match="nothing is indexed yet"):
            await second.snapshot(parameters={})
        with pytest.raises(InvalidInput, match="cannot name a transfer"):
            await first.snapshot(parameters={"done": "../../etc/passwd"})
    finally:
        first.close()
        second.close()


async def test_a_snapshot_under_load_is_of_one_moment(indexer: QdrantIndexer) -> None:
    """Each request writes one more version of all documents: a snapshot holds one version, or two that overlap."""
    await indexer.index(DocumentColumns(documents(40, seed=0)))
    stop = False

    async def write() -> int:
        version = 0
        while not stop:
            version += 1
            await indexer.index(DocumentColumns(documents(40, seed=version)))
        return version

    writing = asyncio.create_task(write())
    await asyncio.sleep(0.3)
    content = await fetch(indexer)
    stop = True
    last = await writing
    assert await send(indexer, content) == {"documents": 40, "passages": 40}
    found = await seeds(indexer)
    assert len(found) <= 2 and max(found) - min(found) <= 1
    assert max(found) <= last


async def test_a_restore_under_load_changes_all_at_one_moment(indexer: QdrantIndexer) -> None:
    """Searches go on meanwhile, and each finds the one or the other, never nothing and never both."""
    await indexer.index(DocumentColumns(documents(40, seed=1)))
    content = await fetch(indexer)
    await indexer.index(DocumentColumns(documents(40, seed=2)))
    seen: list[set[int]] = []
    stop = False

    async def search() -> None:
        while not stop:
            seen.append(await seeds(indexer))

    searching = asyncio.create_task(search())
    await asyncio.sleep(0.1)
    assert await send(indexer, content) == {"documents": 40, "passages": 40}
    await asyncio.sleep(0.1)
    stop = True
    await searching
    assert seen[0] == {2} and seen[-1] == {1}
    assert all(each in ({1}, {2}) for each in seen)
    assert seen == sorted(seen, key=max, reverse=True), "it went back and forth"


async def test_what_is_restored_is_on_disk_before_it_counts(
    indexer: QdrantIndexer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old data go next: until the new ones are flushed, the manifest names the old."""
    await indexer.index(DocumentColumns(documents(10, seed=1)))
    content = await fetch(indexer)
    manifest = tmp_path / "index" / "flowdex" / "collection.json"
    before, flushed = manifest.read_text(), []

    def flush(path: Path) -> None:
        assert manifest.read_text() == before
        flushed.append(path)
        sync_tree(path)

    monkeypatch.setattr(backup, "sync_tree", flush)
    await send(indexer, content)
    assert [path.name for path in flushed] == [json.loads(manifest.read_text())["data"]]


async def test_a_caller_that_goes_away_at_the_last_moment_leaves_a_whole_index(
    indexer: QdrantIndexer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is slow, and the caller gone, while the manifest is written: what it names is there."""
    await indexer.index(DocumentColumns(documents(10, seed=1)))
    content = await fetch(indexer)
    await indexer.index(DocumentColumns(documents(10, seed=2)))
    begun = asyncio.Event()
    loop = asyncio.get_running_loop()

    def slow(path: Path, content: bytes) -> None:
        loop.call_soon_threadsafe(begun.set)
        time.sleep(0.5)
        write_atomically(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(layout, "write_atomically", slow)
        restoring = asyncio.create_task(send(indexer, content))
        await begun.wait()
        restoring.cancel()
        with pytest.raises(asyncio.CancelledError):
            await restoring
        await asyncio.sleep(1.0)
    assert await seeds(indexer) == {1}
    shards = (await indexer.status())["shards"]
    indexer.close()
    again = QdrantIndexer(uri=f"edge://{tmp_path}/index", shards=shards, retry_for=0)
    try:
        assert await seeds(again) == {1}
    finally:
        again.close()
    assert len(list((tmp_path / "index" / "flowdex").glob("data-*"))) == 1, "the old data are still there"
