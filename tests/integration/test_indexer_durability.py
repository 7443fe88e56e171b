"""What survives kill -9: everything acknowledged, and every document whole.

A writer in a process of its own replaces documents over and over, each version with another number of passages, and
notes what was acknowledged. It, or its engine, is killed at a random moment; what is then in the index is checked.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flowdex.documents import DocumentBatch
from flowdex.errors import Conflict, FlowdexError, Unavailable
from flowdex_executors import DocumentColumns, QdrantIndexer

DOCUMENTS = 6
WRITER = """
import asyncio, sys
sys.path.insert(0, {here!r})
import test_indexer_durability as t
asyncio.run(t.write({uri!r}, {start}))
"""


def version_of(document: int, version: int) -> DocumentBatch:
    """Version v of a document has 1 + v % 5 passages, all of which say v and how many they are."""
    size = 1 + version % 5
    batch = DocumentBatch.from_columns(ids=[f"d{document}"], tags=[{"version": version}])
    chunk = DocumentBatch.from_columns(
        texts=[f"v{version} {part}/{size}" for part in range(size)],
        embeddings=np.random.default_rng(version).standard_normal((size, 16)).astype(np.float32),
    )
    batch.set_nested("chunks", [chunk])
    return batch


async def store(indexer: QdrantIndexer, version: int) -> None:
    batch = DocumentBatch.concatenate(version_of(document, version) for document in range(DOCUMENTS))
    await indexer.index(DocumentColumns(batch))


async def write(uri: str, start: int) -> None:
    """Replace documents for ever; print each version as it is acknowledged."""
    indexer = QdrantIndexer(uri=uri)
    for version in range(start, start + 100_000):
        await store(indexer, version)
        print(version, flush=True)


def engine_of(indexer: QdrantIndexer) -> int:
    pid: int = indexer._backend.client.engine_pid
    return pid


async def stored(uri: str) -> dict[str, list[str]]:
    """The passages of each document."""
    indexer = QdrantIndexer(uri=uri)
    try:
        status = await indexer.status()
        query = DocumentBatch.from_columns(embeddings=np.ones((1, 16), np.float32))
        reply = await indexer.search(DocumentColumns(query), {"mode": "dense", "limit": 100, "passages": 100})
        passages: dict[str, list[str]] = defaultdict(list)
        matches = reply.batch.nested("matches")[0]
        for parent, text in zip(matches.column("parent_id"), matches.texts, strict=True):
            passages[parent].append(str(text))
        assert (status["documents"], status["passages"]) == (len(passages), len(matches)), "stale passages are stored"
        return passages
    finally:
        indexer.close()


def whole_version(passages: list[str]) -> int:
    """The one version that the passages make up, all of them."""
    versions = {int(re.match(r"v(\d+)", text)[1]) for text in passages}  # type: ignore[index]
    assert len(versions) == 1, f"two generations at once: {passages}"
    (version,) = versions
    size = 1 + version % 5
    assert sorted(passages) == [f"v{version} {part}/{size}" for part in range(size)]
    return version


def test_killing_the_indexer_loses_nothing_acknowledged_and_leaves_no_document_half(tmp_path: Path) -> None:
    uri = f"edge://{tmp_path / 'index'}"
    chance = random.Random(1)
    last = 0
    for _ in range(3):
        script = WRITER.format(here=str(Path(__file__).parent), uri=uri, start=last + 1)
        writer = subprocess.Popen([sys.executable, "-W", "ignore", "-c", script], stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        try:
            acknowledged = [int(writer.stdout.readline()) for _ in range(3)]
            time.sleep(chance.uniform(0.0, 0.4))
        finally:
            writer.kill()
            rest = writer.communicate(timeout=20)[0]
        acknowledged += [int(line) for line in re.findall(r"^\d+(?=\n)", rest, re.MULTILINE)]
        found = asyncio.run(stored(uri))
        assert len(found) == DOCUMENTS
        versions = [whole_version(passages) for passages in found.values()]
        assert min(versions) >= max(acknowledged)
        last = max(versions)


async def test_killing_the_engine_is_not_even_noticed(tmp_path: Path) -> None:
    uri = f"edge://{tmp_path / 'index'}"
    chance = random.Random(2)
    indexer = QdrantIndexer(uri=uri)
    version = 0

    async def write_on() -> None:
        nonlocal version
        while True:
            await store(indexer, version + 1)
            version += 1

    writing = asyncio.create_task(write_on())
    engines = set()
    for _ in range(4):
        seen = version
        while version < seen + 3 and not writing.done():  # noqa: ASYNC110 - the writer is what is observed
            await asyncio.sleep(0.01)
        engines.add(engine_of(indexer))
        await asyncio.sleep(chance.uniform(0.0, 0.2))
        os.kill(engine_of(indexer), signal.SIGKILL)
    await asyncio.sleep(0.5)
    writing.cancel()
    await asyncio.wait([writing])
    assert writing.cancelled()
    indexer.close()
    assert len(engines) == 4
    for passages in (await stored(uri)).values():
        assert whole_version(passages) >= version


# ---- a replace that is interrupted between its two operations ----

INTERRUPTED = """
import os, signal
import flowdex_executors.indexer.engine as engine
from flowdex_executors.indexer.shard import Shard

def apply(self, operations, arrays, original=Shard._apply):
    original(self, operations[:1], arrays)
    if b"v2" in str(operations).encode():
        {what}
    original(self, operations[1:], arrays)

Shard._apply = apply
engine.main()
"""


def engine_that(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, what: str) -> None:
    """Make indexers start an engine that misbehaves within the update that writes version 2."""
    script = tmp_path / "engine.py"
    script.write_text(INTERRUPTED.format(what=what))
    real = subprocess.Popen

    def popen(command: list[str], *args: Any, **kwargs: Any) -> Any:
        return real([sys.executable, str(script), *command[3:]], *args, **kwargs)

    monkeypatch.setattr(subprocess, "Popen", popen)


def redo_files(folder: Path) -> list[Path]:
    return list((folder / "index" / "flowdex").glob("data-*/*/redo"))


async def test_a_replace_that_is_killed_half_way_is_finished_on_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"edge://{tmp_path / 'index'}"
    with monkeypatch.context() as patch:
        engine_that(patch, tmp_path, "os.kill(os.getpid(), signal.SIGKILL)")
        indexer = QdrantIndexer(uri=uri, retry_for=0)
        await indexer.index(DocumentColumns(version_of(0, 4)))
        with pytest.raises(FlowdexError, match="ended unexpectedly"):
            await indexer.index(DocumentColumns(version_of(0, 2)))
        indexer.close()
    assert redo_files(tmp_path)
    found = await stored(uri)
    assert whole_version(found["d0"]) == 2
    assert not redo_files(tmp_path)


async def test_a_replace_that_fails_is_undone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = f"edge://{tmp_path / 'index'}"
    with monkeypatch.context() as patch:
        engine_that(patch, tmp_path, "raise OSError('no space left on device')")
        indexer = QdrantIndexer(uri=uri, retry_for=0)
        await indexer.index(DocumentColumns(version_of(0, 4)))
        with pytest.raises(Unavailable, match=r"no room left for the index.*nothing that was is lost"):
            await indexer.index(DocumentColumns(version_of(0, 2)))
        assert (await indexer.status())["passages"] == 5
        indexer.close()
    assert whole_version((await stored(uri))["d0"]) == 4


async def test_a_truncated_redo_file_is_dropped(tmp_path: Path) -> None:
    uri = f"edge://{tmp_path / 'index'}"
    indexer = QdrantIndexer(uri=uri)
    await indexer.index(DocumentColumns(version_of(0, 3)))
    indexer.close()
    (shard_folder,) = (tmp_path / "index" / "flowdex").glob("data-*/0")
    (shard_folder / "redo").write_bytes(b"\x10\0\0\0\0\0\0\0abc")
    assert whole_version((await stored(uri))["d0"]) == 3


# ---- one writer a folder ----


async def test_a_second_writer_is_refused_with_the_pid_of_the_first(tmp_path: Path) -> None:
    first = QdrantIndexer(uri=f"edge://{tmp_path}")
    try:
        with pytest.raises(Conflict, match=rf"{tmp_path} is in use by process {os.getpid()};.*one writer"):
            QdrantIndexer(uri=f"edge://{tmp_path}")
    finally:
        first.close()
    QdrantIndexer(uri=f"edge://{tmp_path}").close()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(FlowdexError, match=f"index folder {tmp_path}/file/index cannot be used"):
        QdrantIndexer(uri=f"edge://{tmp_path}/file/index")


async def test_closing_ends_the_engine_and_refuses_further_calls(tmp_path: Path) -> None:
    indexer = QdrantIndexer(uri=f"edge://{tmp_path}")
    engine = engine_of(indexer)
    await indexer.index(DocumentColumns(version_of(0, 1)))
    indexer.close()
    indexer.close()
    with pytest.raises(ProcessLookupError):
        os.kill(engine, 0)
    with pytest.raises(FlowdexError, match="is closed"):
        await indexer.status()


async def test_long_writes_do_not_hold_up_searches(tmp_path: Path) -> None:
    """Searches go ahead of queued writes, and the event loop stays free."""
    indexer = QdrantIndexer(uri=f"edge://{tmp_path}")
    try:
        rows = np.random.default_rng(0).standard_normal((4000, 64)).astype(np.float32)
        batch = DocumentBatch.from_columns(
            ids=[f"d{row}" for row in range(4000)], texts=["some words"] * 4000, embeddings=rows
        )
        await indexer.index(DocumentColumns(version_of_size(64)))
        writing = asyncio.create_task(indexer.index(DocumentColumns(batch)))
        searches = 0
        while not writing.done():
            query = DocumentBatch.from_columns(embeddings=rows[:1])
            await indexer.search(DocumentColumns(query), {"mode": "dense"})
            searches += 1
        await writing
        assert searches >= 4  # at least one between two of the eight writes, most of the time
    finally:
        indexer.close()


def version_of_size(dimensions: int) -> DocumentBatch:
    return DocumentBatch.from_columns(ids=["first"], embeddings=np.ones((1, dimensions), np.float32))
