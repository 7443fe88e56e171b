"""Packing: merge segments, drop deleted points from disk, build graphs; beside the engine, which goes on serving.

    write, open --wake--> quiet for a while, or long overdue --> each shard that needs it:
        gate shut: flush, copy its files; gate open, further writes noted in a journal
        another process, with low priority: pack the copy; write the journal's updates to it
        gate shut: the last of the journal; the copy takes the shard's place (one rename); gate open

In the engine's own process, packing would stop searches for as long as it takes: 0.5 ms a point where a graph is built.
This way writes wait while files are copied, searches only while the shard is opened again. A kill at any moment leaves
the shard as it was, or the packed one.

A shard needs it when a fifth of what is on disk is deleted, or when it is so large that searches use graphs (above
`exact_up_to`) and a tenth has none.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import time
from pathlib import Path
from typing import Any

from flowdex.errors import FlowdexError, Unavailable
from flowdex_executors.indexer.engine_process import EngineProcess
from flowdex_executors.indexer.files import copy_tree
from flowdex_executors.indexer.frames import Array
from flowdex_executors.indexer.layout import Manifest
from flowdex_executors.indexer.shard import NEVER
from flowdex_executors.indexer.shards import Journal, Shards

__all__ = ["Packer", "is_due"]

logger = logging.getLogger(__name__)

QUIET_SECONDS = 2.0
"""Without a write: then packing begins."""
OVERDUE_SECONDS = 60.0
"""Of writes without a pause: then it begins, too."""
_LEAST = 1000  # points, below which nothing is gained
_DELETED, _UNINDEXED = 0.2, 0.1
_GRAPH_FROM_KB = 10_000  # of vectors in a segment
_LAST_UPDATES = 4  # that may remain in the journal for when writes are shut out
_ROUNDS = 5  # of catching up; whoever writes faster than the copy can be written to, waits for it after these
_LONGEST_JOURNAL = 256 * 2**20  # bytes of arrays
_NICENESS = 10


def is_due(info: dict[str, Any], *, graph: bool) -> bool:
    """Whether a shard should be packed.

    Args:
        info: Its `points`, `indexed` and `deleted`.
        graph: Whether searches in it use graphs.
    """
    points, deleted = info["points"], info["deleted"]
    if deleted >= _LEAST and deleted >= _DELETED * (points + deleted):
        return True
    # The engine counts vectors with an index of either kind, and sparse ones always have theirs.
    without_graph = 2 * points - info["indexed"]
    return bool(graph and without_graph >= max(_LEAST, _UNINDEXED * points))


class Packer:
    """Packs the shards that need it, when it disturbs least.

    Args:
        shards: The shards.
        exact_up_to: Up to how many points of a collection no graph is built.
    """

    def __init__(self, shards: Shards, exact_up_to: int) -> None:
        self._shards = shards
        self._exact_up_to = exact_up_to
        self._names: dict[str, float] = {}  # collections to look at, and since when
        self._woken = 0.0
        self._task: asyncio.Task[None] | None = None
        self._one = asyncio.Lock()  # pack at a time
        self._builder: EngineProcess | None = None

    def wake(self, name: str) -> None:
        """Have a look at a collection soon: it was opened, or written to."""
        self._woken = time.monotonic()
        self._names.setdefault(name, self._woken)
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run())

    def cancel(self) -> None:
        """Stop; a copy in the making is given up, and with it the process that makes it, which may be long about it."""
        if self._builder is not None:
            self._builder.kill()
        if self._task is not None and not self._task.get_loop().is_closed():
            self._task.cancel()

    async def close(self) -> None:
        """Stop, and wait for it."""
        self.cancel()
        if self._task is not None:
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        while self._names:
            now = time.monotonic()
            name, since = next(iter(self._names.items()))
            begin = min(self._woken + QUIET_SECONDS, since + OVERDUE_SECONDS)
            if now < begin:
                await asyncio.sleep(begin - now)
                continue
            del self._names[name]
            try:
                await self.pack(name)
            except (FlowdexError, OSError) as error:
                logger.warning("the collection %r could not be packed: %s", name, error)

    async def pack(self, name: str) -> int:
        """Pack the shards of a collection that need it, one after the other; how many there were."""
        packed = 0
        async with self._one:
            infos = await self._shards.all(name, "info", urgent=True)
            graph = sum(info["points"] for info in infos) > self._exact_up_to
            for number, info in enumerate(infos):
                if is_due(info, graph=graph):
                    started = time.monotonic()
                    await self._pack(name, number, _GRAPH_FROM_KB if graph else NEVER)
                    logger.info("packed shard %d of %r in %.1f s", number, name, time.monotonic() - started)
                    packed += 1
        return packed

    async def _pack(self, name: str, number: int, threshold: int) -> None:
        shards = self._shards
        manifest = shards.manifest(name)
        path = shards.folder.shard(name, manifest, number)
        build = path / "build"
        builder: EngineProcess | None = None
        try:
            async with shards.gate(number):
                await shards.call(name, number, "flush")
                await asyncio.to_thread(_copy, path / "shard", build / "shard")
                journal = shards.open_journal(name, number)
            builder = await asyncio.to_thread(EngineProcess, shards.folder.path, shards.folder.lock, niceness=_NICENESS)
            self._builder = builder
            target = _Build(builder, str(build.relative_to(shards.folder.path)))
            await target.pack(manifest, threshold, journal)
            for _ in range(_ROUNDS):
                if len(journal) <= _LAST_UPDATES:
                    break
                await target.replay(journal)
            async with shards.gate(number):
                await target.replay(journal)
                await asyncio.to_thread(builder.close)
                if shards.folder.get(name) == manifest:
                    await shards.call(name, number, "swap")
        finally:
            shards.close_journal(name, number)
            self._builder = None
            if builder is not None:
                builder.kill()  # it has been closed already if all went well
                await asyncio.to_thread(builder.close)
            await asyncio.to_thread(shutil.rmtree, build, ignore_errors=True)


class _Build:
    """The copy in the making, in a process of its own."""

    def __init__(self, engine: EngineProcess, path: str) -> None:
        self._engine = engine
        self._path = path

    async def pack(self, manifest: Manifest, threshold: int, journal: Journal) -> None:
        packing = asyncio.ensure_future(
            self._call("pack", dense=manifest.dense, sparse=manifest.sparse, threshold=threshold)
        )
        while not packing.done():
            await asyncio.wait([packing], timeout=1.0)
            if sum(array.nbytes for _, arrays in journal for array in arrays) > _LONGEST_JOURNAL:
                packing.cancel()
                raise Unavailable("too much is written at the same time; it is tried again later")
        await packing

    async def replay(self, journal: Journal) -> None:
        """Write what the journal holds at this moment, and take it out."""
        for operations, arrays in journal[:]:
            field = operations[0].get("index_field")
            if field is not None:
                await self._call("index_field", field=field, type=operations[0]["type"])
            else:
                await self._call("update", arrays, operations=operations)
            del journal[0]

    async def _call(self, command: str, arrays: list[Array] | tuple[()] = (), **rest: Any) -> Any:
        body = {"command": command, "path": self._path, **rest}
        return await asyncio.wrap_future(self._engine.submit(body, arrays))


# ---- copying ----


def _copy(source: Path, target: Path) -> None:
    size = sum(path.stat().st_blocks * 512 for path in source.rglob("*") if path.is_file())
    if shutil.disk_usage(source).free < 3 * size:  # the copy, and what packing makes of it
        raise Unavailable(f"packing takes {3 * size // 2**20} MB of free disk for a moment, and there is less")
    shutil.rmtree(target.parent, ignore_errors=True)
    copy_tree(source, target)
