"""Formats of the index folder: an older one is migrated, by whatever kill it is interrupted; a newer one is refused."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from old_versions import FLAT_INDEX, OldVersion

from flowdex.documents import DocumentBatch
from flowdex.errors import ConfigurationError, InvalidInput, Unavailable
from flowdex_executors import DocumentColumns, QdrantIndexer
from flowdex_executors.indexer import files, migration
from flowdex_executors.indexer.snapshots import read_header

DIMENSIONS, COUNT = 8, 30

WRITE = f"""
import asyncio, sys
import numpy as np
from flowdex.documents import DocumentBatch
from flowdex_executors import DocumentColumns, QdrantIndexer

async def main():
    indexer = QdrantIndexer(uri="edge://" + sys.argv[1])
    rows = np.random.default_rng(1).standard_normal(({COUNT}, {DIMENSIONS})).astype(np.float32)
    for text in ("before", "common"):  # written twice, so that there are replaced passages in it
        await indexer.index(DocumentColumns(DocumentBatch.from_columns(
            ids=[f"d{{row}}" for row in range({COUNT})],
            texts=[f"word{{row}} {{text}}" for row in range({COUNT})],
            tags=[{{"row": row, "even": row % 2 == 0}} for row in range({COUNT})],
            embeddings=rows,
        )))
    indexer.close()

asyncio.run(main())
"""


def flat(folder: Path) -> Path:
    """An index folder of format 0, made of one that this version writes."""
    script = folder.with_suffix(".py")
    script.write_text(WRITE)
    subprocess.run([sys.executable, "-W", "ignore", str(script), str(folder)], check=True)
    (data,) = (folder / "flowdex").glob("data-*")
    (data / "0" / "shard").rename(folder / "flowdex" / "shard")
    shutil.rmtree(data)
    (folder / "flowdex" / "collection.json").unlink()
    (folder / "format.json").unlink()
    return folder


async def found(folder: Path, **settings: Any) -> dict[str, int]:
    """All documents of an index, after a search by words, a filter on tags and one on flags agree with each other."""
    indexer = QdrantIndexer(uri=f"edge://{folder}", retry_for=0, **settings)
    try:

        async def matches(**parameters: Any) -> Any:
            query = DocumentBatch.from_columns(texts=["common"], embeddings=np.ones((1, DIMENSIONS), np.float32))
            reply = await indexer.search(DocumentColumns(query), {"limit": 100, **parameters})
            return reply.batch.nested("matches")[0]

        everything = await matches()
        assert len(await matches(mode="sparse")) == len(everything)
        assert len(await matches(filter={"row": {"$lt": 10}})) == 10
        assert len(await matches(filter={"even": True})) == COUNT // 2
        assert (await indexer.status())["documents"] == len(everything)
        return dict(zip(everything.column("parent_id"), (tags["row"] for tags in everything.tags), strict=True))
    finally:
        indexer.close()


WHOLE = {f"d{row}": row for row in range(COUNT)}


async def test_a_folder_of_an_old_version_is_migrated(tmp_path: Path) -> None:
    """Written by the old version's own code."""
    script = tmp_path / "write.py"
    script.write_text(WRITE)
    folder = tmp_path / "index"
    OldVersion(FLAT_INDEX, tmp_path / "old").run(str(script), str(folder))
    assert (folder / "flowdex" / "shard").is_dir() and not (folder / "format.json").exists()
    assert await found(folder) == WHOLE
    assert sorted(path.name[:5] for path in (folder / "flowdex").iterdir()) == ["colle", "data-"]
    assert await found(folder) == WHOLE  # and opened as any other


async def test_it_can_be_written_to_and_saved_afterwards(tmp_path: Path) -> None:
    folder = flat(tmp_path / "index")
    assert await found(folder) == WHOLE
    indexer = QdrantIndexer(uri=f"edge://{folder}")
    try:
        more = DocumentBatch.from_columns(
            ids=["new"], texts=["more"], tags=[{"row": 99}], embeddings=np.ones((1, DIMENSIONS), np.float32)
        )
        await indexer.index(DocumentColumns(more))
        assert (await indexer.status())["documents"] == COUNT + 1
        await indexer._backend.client.write_snapshot("flowdex", tmp_path / "saved")  # type: ignore[union-attr]
        assert read_header(tmp_path / "saved")["format"] == 1
    finally:
        indexer.close()


async def test_a_migration_that_is_killed_is_begun_again(tmp_path: Path) -> None:
    """The indexer dies at a random moment of the migration, again and again: all documents are there in the end."""
    original = flat(tmp_path / "flat")
    chance = np.random.default_rng(5)
    began, took = time.monotonic(), 0.0
    trial = tmp_path / "trial"
    shutil.copytree(original, trial)
    assert await found(trial) == WHOLE
    took = time.monotonic() - began
    script = tmp_path / "open.py"
    script.write_text(
        "import sys\nfrom pathlib import Path\nfrom flowdex_executors.indexer.shards import Shards\n"
        "print('now', flush=True)\nShards(Path(sys.argv[1])).close()\nprint('done', flush=True)\n"
    )
    interrupted = 0
    for number in range(int(os.environ.get("KILLS", "2")) * 2):
        folder = tmp_path / f"index{number}"
        shutil.copytree(original, folder)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-W", "ignore", str(script), str(folder)),
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        assert process.stdout is not None
        assert await process.stdout.readline() == b"now\n"
        await asyncio.sleep(chance.uniform(0.0, min(took, 0.6)))
        os.killpg(process.pid, signal.SIGKILL)  # with the engine that looks at the copy
        interrupted += await process.stdout.read() == b""
        await process.wait()
        assert await found(folder) == WHOLE
        assert len(list((folder / "flowdex").glob("data-*"))) == 1
        assert not (folder / "flowdex" / "shard").exists()
    assert interrupted, "no kill fell into a migration"


async def test_what_cannot_be_migrated_is_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = flat(tmp_path / "index")
    before = sorted(path.relative_to(folder) for path in (folder / "flowdex").rglob("*"))

    def full(source: Path, target: Path) -> None:
        target.mkdir(parents=True)
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(migration, "copy_tree", full)
        with pytest.raises(Unavailable, match="no room left"):
            await found(folder)
    assert sorted(path.relative_to(folder) for path in (folder / "flowdex").rglob("*")) == before
    config = folder / "flowdex" / "shard" / "edge_config.json"
    content = config.read_text()
    config.write_text(content[:20])
    with pytest.raises(ConfigurationError, match=r"cannot be migrated: .*edge_config.json is damaged"):
        await found(folder)
    config.write_text(content)
    with pytest.raises(ConfigurationError, match=r"has 1 shards, but uses_with.shards .* is 2"):
        await found(folder, shards=2)
    assert await found(folder) == WHOLE


async def test_a_disk_that_fails_once_the_new_files_have_been_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`collection.json` names the new files, and only its flush fails: they are the collection, and must stay."""
    folder = flat(tmp_path / "index")

    def named(path: Path) -> None:
        if (path / "collection.json").exists():
            raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(files, "sync_directory", named)
        with pytest.raises(Unavailable):
            await found(folder)
    assert (folder / "flowdex" / "collection.json").exists()
    assert await found(folder) == WHOLE
    assert not (folder / "flowdex" / "shard").exists()


async def test_a_newer_folder_is_refused_and_not_touched(tmp_path: Path) -> None:
    folder = flat(tmp_path / "index")
    assert await found(folder) == WHOLE
    mark, manifest = folder / "format.json", folder / "flowdex" / "collection.json"
    for place in (mark, manifest):
        content = json.loads(place.read_text())
        assert content["format"] == 1 and content["flowdex"]
        newer = json.dumps({**content, "format": 7, "flowdex": "9.9.9"})
        place.write_text(newer)
        with pytest.raises(ConfigurationError, match=r"of format 7, written by flowdex 9\.9\.9; this is .* up to 1"):
            await found(folder)
        assert place.read_text() == newer
        place.write_text(json.dumps({**content, "unknown": "keys are passed over"}))
        assert await found(folder) == WHOLE
    mark.write_text("{")
    with pytest.raises(ConfigurationError, match=r"format.json is damaged"):
        await found(folder)
    mark.unlink()
    assert await found(folder) == WHOLE


def inspect(path: Path) -> tuple[int, dict[str, Any], str]:
    """Exit code, JSON and text of `flowdex inspect`."""
    command = [sys.executable, "-m", "flowdex", "inspect", str(path)]
    text = subprocess.run(command, capture_output=True, text=True, check=False)
    as_json = subprocess.run([*command, "--json"], capture_output=True, text=True, check=False)
    assert text.returncode == as_json.returncode, text.stderr
    return text.returncode, json.loads(as_json.stdout), text.stdout


async def test_inspect_says_what_it_is(tmp_path: Path) -> None:
    folder = flat(tmp_path / "index")
    code, told, text = inspect(folder)
    assert code == 0 and told["collections"][0]["format"] == 0 and told["in_use_by"] is None
    assert "is migrated at the next start" in text
    snapshot = tmp_path / "a.snapshot"
    indexer = QdrantIndexer(uri=f"edge://{folder}")
    try:
        await indexer.warm_up()
        await indexer._backend.client.write_snapshot("flowdex", snapshot)  # type: ignore[union-attr]
        code, told, text = inspect(folder)
        assert (code, told["in_use_by"], told["format"]) == (0, str(os.getpid()), 1)
        assert f"in use by process {os.getpid()}" in text
    finally:
        indexer.close()
    code, told, text = inspect(snapshot)
    assert (code, told["points"], told["shards"]) == (0, COUNT, 1) and "all checksums agree" in text
    content = bytearray(snapshot.read_bytes())
    content[len(content) // 2] ^= 1
    snapshot.write_bytes(content)
    code, told, text = inspect(snapshot)
    assert code == 1 and "damaged" in told["problem"] and "damaged" in text
    snapshot.write_bytes(bytes(content).replace(b'"format": 1', b'"format": 9', 1))
    code, told, _ = inspect(snapshot)
    assert code == 1 and "the snapshot is of format 9, written by flowdex" in told["problem"]
    with pytest.raises(InvalidInput, match="not a snapshot"):
        read_header(Path(__file__))
    assert inspect(Path(__file__))[0] == 1
    assert inspect(tmp_path / "index" / "flowdex")[0] == 1


async def test_damaged_files_are_said_to_be_and_what_to_do(tmp_path: Path) -> None:
    folder = flat(tmp_path / "index")
    assert await found(folder) == WHOLE
    for segment in folder.rglob("segment.json"):
        segment.write_bytes(b"\x00rubbish")
    with pytest.raises(ConfigurationError, match=r"are damaged and cannot be opened: .* restore a snapshot"):
        await found(folder)
