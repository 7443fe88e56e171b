"""Kills of the embedded index in the middle of anything: what was acknowledged is there, and every document whole.

The number of kills of each kind is KILLS, 2 by default; run with KILLS=100 by hand after a change to the engine.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flowdex.documents import DocumentBatch
from flowdex.errors import FlowdexError, Unavailable
from flowdex_executors import DocumentColumns, QdrantIndexer
from flowdex_executors.indexer import packing

KILLS = int(os.environ.get("KILLS", "2"))
DIMENSIONS = 16


def version_of(names: list[str], version: int) -> DocumentBatch:
    """Documents of 1 + version % 3 passages each, which say their version."""
    size = 1 + version % 3
    batch = DocumentBatch.from_columns(ids=names)
    rows = np.random.default_rng(version).standard_normal((len(names), size, DIMENSIONS)).astype(np.float32)
    batch.set_nested(
        "chunks",
        [
            DocumentBatch.from_columns(texts=[f"v{version} part{part}" for part in range(size)], embeddings=rows[row])
            for row in range(len(names))
        ],
    )
    return batch


async def store(indexer: QdrantIndexer, names: list[str], version: int) -> None:
    await indexer.index(DocumentColumns(version_of(names, version)))


async def stored(indexer: QdrantIndexer) -> dict[str, int]:
    """The version of each document, each of which must be whole."""
    query = DocumentBatch.from_columns(embeddings=np.ones((1, DIMENSIONS), np.float32))
    reply = await indexer.search(DocumentColumns(query), {"mode": "dense", "limit": 1000, "passages": 100})
    texts: dict[str, list[str]] = {}
    matches = reply.batch.nested("matches")[0]
    for parent, text in zip(matches.column("parent_id"), matches.texts, strict=True):
        texts.setdefault(parent, []).append(str(text))
    status = await indexer.status()
    assert (status["documents"], status["passages"]) == (len(texts), len(matches)), "stale passages are stored"
    found = {}
    for name, parts in texts.items():
        versions = {int(text.split()[0][1:]) for text in parts}
        assert len(versions) == 1, f"{name} is of two versions: {parts}"
        (version,) = versions
        assert sorted(parts) == [f"v{version} part{part}" for part in range(1 + version % 3)]
        found[name] = version
    return found


def kill(indexer: QdrantIndexer) -> None:
    for pid in indexer._backend.client.engine_pids:  # type: ignore[union-attr]
        os.kill(pid, signal.SIGKILL)


NAMES = [f"d{number}" for number in range(30)]


@pytest.fixture
def uses_with(tmp_path: Path) -> dict[str, Any]:
    return {"uri": f"edge://{tmp_path}/index", "shards": 2, "retry_for": 20}


@pytest.mark.parametrize("durability", ["process", "fsync"])
async def test_all_engines_killed_during_writes(uses_with: dict[str, Any], durability: str) -> None:
    chance = random.Random(1)
    indexer = QdrantIndexer(**uses_with, durability=durability)
    version = 1
    await store(indexer, NAMES, version)
    for _ in range(KILLS):
        writing = asyncio.create_task(store(indexer, NAMES, version + 1))
        await asyncio.sleep(chance.uniform(0.0, 0.05))
        kill(indexer)
        await writing  # tried again until it is acknowledged
        version += 1
        assert await stored(indexer) == dict.fromkeys(NAMES, version)
    indexer.close()


async def test_the_last_batch_is_on_disk_when_it_is_acknowledged(uses_with: dict[str, Any], tmp_path: Path) -> None:
    """The folder is copied with nothing flushed, as the loss of power would leave what fsync has put there."""
    indexer = QdrantIndexer(**uses_with, durability="fsync")
    try:
        for version in range(1, 4):
            await store(indexer, NAMES, version)
            shutil.copytree(tmp_path / "index", tmp_path / f"copy{version}")
            copy = QdrantIndexer(**{**uses_with, "uri": f"edge://{tmp_path}/copy{version}"})
            assert await stored(copy) == dict.fromkeys(NAMES, version)
            copy.close()
    finally:
        indexer.close()


async def test_engines_killed_while_they_pack(uses_with: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "_LEAST", 10)
    chance = random.Random(2)
    indexer = QdrantIndexer(**uses_with)
    version = 0
    for _ in range(KILLS):
        for _ in range(4):
            version += 1
            await store(indexer, NAMES, version)
        packer = indexer._backend.client._packer  # type: ignore[union-attr]
        work = asyncio.create_task(packer.pack("flowdex"))
        await asyncio.sleep(chance.uniform(0.0, 1.5))
        kill(indexer)
        version += 1
        await store(indexer, NAMES, version)
        with contextlib.suppress(FlowdexError, OSError):
            await work
        assert await stored(indexer) == dict.fromkeys(NAMES, version)
        assert await packer.pack("flowdex") in (0, 1, 2)
        assert await stored(indexer) == dict.fromkeys(NAMES, version)
    indexer.close()


async def test_writes_while_a_shard_is_packed_are_in_it(
    uses_with: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing, "_LEAST", 10)
    indexer = QdrantIndexer(**uses_with)
    for version in range(1, 6):
        await store(indexer, NAMES, version)
    before = (await indexer.status())["deleted"]
    work = asyncio.create_task(indexer._backend.client._packer.pack("flowdex"))  # type: ignore[union-attr]
    version = 5
    while not work.done():
        version += 1
        await store(indexer, NAMES, version)
    assert await work == 2
    assert await stored(indexer) == dict.fromkeys(NAMES, version)
    assert before > 100
    indexer.close()
    again = QdrantIndexer(**uses_with)
    assert await stored(again) == dict.fromkeys(NAMES, version)
    again.close()


def engines_in(folder: Path) -> list[int]:
    """Processes whose command line names the folder."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it has ended
            if str(folder).encode() in file.read_bytes():
                found.append(int(file.parent.name))
    return found


async def test_a_process_that_packs_ends_with_the_index(
    uses_with: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing, "_LEAST", 10)
    indexer = QdrantIndexer(**uses_with)
    names = [f"d{number}" for number in range(300)]
    for version in range(1, 4):
        await store(indexer, names, version)
    packer = indexer._backend.client._packer  # type: ignore[union-attr]
    work = asyncio.create_task(packer.pack("flowdex"))
    while packer._builder is None:
        assert not work.done()
        await asyncio.sleep(0.001)
    assert len(engines_in(tmp_path)) == 3
    indexer.close()
    assert not engines_in(tmp_path), "it writes into the folder after the flow has ended"
    with pytest.raises(Unavailable):
        await work
    again = QdrantIndexer(**uses_with)
    assert await stored(again) == dict.fromkeys(names, 3)
    again.close()


RESTORER = """
import asyncio, sys
from pathlib import Path
sys.path.insert(0, {here!r})
import test_index_killed as t
from flowdex_executors import QdrantIndexer
async def main():
    indexer = QdrantIndexer(uri={uri!r}, shards=2)
    await indexer.warm_up()
    print("ready", flush=True)
    await indexer._backend.client.restore_snapshot("flowdex", Path({snapshot!r}), lambda manifest: None)
    print("restored", flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""


async def test_a_restore_that_is_killed_has_happened_or_not(uses_with: dict[str, Any], tmp_path: Path) -> None:
    chance = random.Random(3)
    snapshot = tmp_path / "snapshot"
    indexer = QdrantIndexer(**uses_with)
    await store(indexer, NAMES, 1)
    await indexer._backend.client.write_snapshot("flowdex", snapshot)  # type: ignore[union-attr]
    await store(indexer, NAMES, 2)
    indexer.close()
    script = RESTORER.format(here=str(Path(__file__).parent), uri=uses_with["uri"], snapshot=str(snapshot))
    for _ in range(KILLS):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-W", "ignore", "-c", script, stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        assert await asyncio.wait_for(process.stdout.readline(), 60) == b"ready\n"
        await asyncio.sleep(chance.uniform(0.0, 0.4))
        process.kill()
        rest = await process.stdout.read()
        await process.wait()
        indexer = QdrantIndexer(**uses_with)
        found = set((await stored(indexer)).values())
        assert found == {1} if b"restored" in rest else found in ({1}, {2})
        await store(indexer, NAMES, 2)
        indexer.close()
        assert len(list((tmp_path / "index" / "flowdex").glob("data-*"))) <= 1 + (found == {1})


async def test_a_full_disk_refuses_writes_and_nothing_else(uses_with: dict[str, Any], tmp_path: Path) -> None:
    """On a file system of its own, where that may be mounted."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = await asyncio.create_subprocess_exec(
        "mount", "-t", "tmpfs", "-o", "size=420m", "tmpfs", str(folder), stderr=asyncio.subprocess.DEVNULL
    )
    if await mount.wait():
        pytest.skip("mounting a small file system is not permitted here")
    try:
        indexer = QdrantIndexer(**{**uses_with, "uri": f"edge://{folder}/index", "retry_for": 0})
        await store(indexer, NAMES, 1)
        filler = folder / "filler"
        free = shutil.disk_usage(folder).free
        with filler.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, free - 30 * 2**20)
        with pytest.raises(Unavailable, match=r"no room left for the index in .*small"):
            await store(indexer, NAMES, 2)
        assert await stored(indexer) == dict.fromkeys(NAMES, 1)  # searches go on
        filler.unlink()
        await store(indexer, NAMES, 3)
        assert await stored(indexer) == dict.fromkeys(NAMES, 3)
        indexer.close()
    finally:
        unmount = await asyncio.create_subprocess_exec("umount", "-l", str(folder))
        await unmount.wait()
