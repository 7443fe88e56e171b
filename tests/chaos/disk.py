"""The disk of the index is full, or read-only: a small file system of its own."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from chaos.faults import Row, Setting, Skipped, fault
from chaos.flow import ChaosFlow, flow_yaml
from chaos.load import Load

FULL_SECONDS = 5.0


@contextmanager
def small_disk(folder: Path, mebibytes: int = 600) -> Iterator[Path]:
    """A file system in memory.

    Raises:
        Skipped: Mounting is not permitted here.
    """
    folder.mkdir(parents=True)
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if done.returncode:
        raise Skipped("mounting a small file system is not permitted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False)


def fill(disk: Path) -> Path:
    """Take all room there is; the file that does so."""
    filler = disk / "filler"
    with filler.open("wb") as file:
        free = shutil.disk_usage(disk).free
        while free > 4096:
            try:
                os.posix_fallocate(file.fileno(), file.tell(), free)
                file.seek(0, os.SEEK_END)
            except OSError:
                free //= 2
    return filler


@fault("disk-full", most=5)
async def disk_full(setting: Setting) -> list[Row]:
    """No room left while documents are written; then there is room again."""
    row = Row("the index's disk is full", setting.rounds)
    with small_disk(setting.folder / "disk") as disk:
        text = flow_yaml(index=f"edge://{disk}/index", indexer_more=", retry_for: 0.5")
        async with ChaosFlow.started(setting.folder / "flow", text) as flow:
            load = Load(flow, row.tally, text_size=20_000)
            async with load.running():
                for _ in range(setting.rounds):
                    filler = await asyncio.to_thread(fill, disk)
                    load.refused.clear()
                    end = time.monotonic() + 60
                    while not load.refused:
                        assert time.monotonic() < end, "the disk is full, and documents are still acknowledged"
                        await asyncio.sleep(0.05)
                    searched = load.succeeded["search"]
                    await asyncio.sleep(FULL_SECONDS)
                    assert load.succeeded["search"] > searched, "searches do not go on while the disk is full"
                    assert all("no room left" in error.message for error in load.refused), load.refused
                    await asyncio.to_thread(filler.unlink)
                    await load.recovered(time.monotonic())
            await load.verify()
    row.note = "searches went on; the error says that there is no room left; the time is that from when there is room"
    return [row]


@fault("disk-read-only", most=5)
async def disk_read_only(setting: Setting) -> list[Row]:
    """The indexer is killed, and finds its disk read-only when it starts again; then it is writable again."""
    row = Row("the index's disk is read-only when the indexer starts", setting.rounds)
    chance = random.Random(11 + 100 * setting.seed)
    with small_disk(setting.folder / "disk") as disk:
        text = flow_yaml(index=f"edge://{disk}/index", indexer_more=", retry_for: 0.5")
        async with ChaosFlow.started(setting.folder / "flow", text) as flow:
            load = Load(flow, row.tally)
            async with load.running():
                for _ in range(setting.rounds):
                    flow.kill("indexer", chance, signal.SIGKILL)
                    await asyncio.to_thread(remount, disk, "ro")
                    await asyncio.sleep(FULL_SECONDS)
                    await asyncio.to_thread(remount, disk, "rw")
                    await load.recovered(time.monotonic())
            await load.verify()
    row.note = "nothing can be stored or found meanwhile; the time is that from when it is writable"
    return [row]


def remount(disk: Path, how: str) -> None:
    """Make it read-only or writable, as soon as nobody holds a file there open."""
    end = time.monotonic() + 10
    while subprocess.run(["mount", "-o", f"remount,{how}", str(disk)], capture_output=True, check=False).returncode:
        if time.monotonic() > end:
            raise Skipped("the file system cannot be remounted here")
        time.sleep(0.01)
