"""A snapshot that did not arrive as a whole never bears its name; old ones go by number."""

from __future__ import annotations

import hashlib
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from flowdex.cli.snapshots import _remove_old
from flowdex.documents import DocumentBatch
from flowdex.errors import InternalError, Unavailable
from flowdex.snapshots import save_snapshot

CONTENT = b"0123456789" * 1000


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


class Indexer:
    """Sends a snapshot in pieces of 1000 bytes; from `fails_at` on it is away."""

    def __init__(self, fails_at: int | None = None, sha256: str | None = None) -> None:
        self.fails_at = fails_at
        self.sha256 = sha256 or hashlib.sha256(CONTENT).hexdigest()
        self.removed = False

    async def post(
        self, endpoint: str, batch: DocumentBatch | None, parameters: Mapping[str, Any]
    ) -> tuple[DocumentBatch, dict[str, dict[str, Any]]]:
        if endpoint == "/snapshot" and "done" in parameters:
            self.removed = True
            return DocumentBatch(), {"indexer": {}}
        if endpoint == "/snapshot":
            return DocumentBatch(), {"indexer": {"name": "s", "size": len(CONTENT), "sha256": self.sha256}}
        offset = int(parameters["offset"])
        if self.fails_at is not None and offset >= self.fails_at:
            raise Unavailable("the indexer has gone")
        return DocumentBatch.from_columns(blob=[CONTENT[offset : offset + 1000]]), {}


async def test_a_whole_one_takes_the_place_of_the_old(tmp_path: Path) -> None:
    target, indexer = tmp_path / "a.snapshot", Indexer()
    target.write_bytes(b"old")
    told: list[tuple[int, int]] = []
    result = await save_snapshot(indexer.post, target, lambda done, size: told.append((done, size)))
    assert target.read_bytes() == CONTENT
    assert (result.size, result.sha256, told[-1]) == (len(CONTENT), indexer.sha256, (len(CONTENT), len(CONTENT)))
    assert indexer.removed
    assert names(tmp_path) == ["a.snapshot"]


@pytest.mark.parametrize(
    ("indexer", "error"), [(Indexer(fails_at=5000), Unavailable), (Indexer(sha256="0" * 64), InternalError)]
)
async def test_one_that_is_not_whole_leaves_the_old(tmp_path: Path, indexer: Indexer, error: type[Exception]) -> None:
    target = tmp_path / "a.snapshot"
    target.write_bytes(b"old")
    with pytest.raises(error):
        await save_snapshot(indexer.post, target, lambda done, size: None)
    assert target.read_bytes() == b"old"
    assert names(tmp_path) == ["a.snapshot"]
    assert indexer.removed


KILLED = """
import asyncio, sys
from pathlib import Path
sys.path.insert(0, {here!r})
from test_snapshots_saved import Indexer
from flowdex.snapshots import save_snapshot

def progress(done, size):
    if done == 5000:
        print("half", flush=True)
        sys.stdin.read()

asyncio.run(save_snapshot(Indexer().post, Path({target!r}), progress))
"""


def test_one_that_is_killed_half_way_is_none(tmp_path: Path) -> None:
    target = tmp_path / "a.snapshot"
    script = KILLED.format(here=str(Path(__file__).parent), target=str(target))
    process = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"half\n"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert names(tmp_path) == ["a.snapshot.part"]


def test_the_newest_stay(tmp_path: Path) -> None:
    names = [f"flowdex-2026112{day}-120000.snapshot" for day in range(5)]
    others = ["flowdex-20261120-120000.snapshot.part", "monday.snapshot", "flowdex-x.snapshot"]
    for name in names + others:
        (tmp_path / name).touch()
    assert [path.name for path in _remove_old(tmp_path, 2)] == names[:3]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names[3:] + others)
    assert _remove_old(tmp_path, 2) == []
