"""The shards of an embedded index: one engine process each, writes in order, and a gate before the writes of each.

    command --route by the collection's folder--> engine process 0 | 1 | ...
    write   --gate--> engine --> journal, while a copy of the shard is in the making (see packing.py)

A document lives in one shard, chosen by a hash of its id that never changes: `shard_of`. Searches pass no gate: while
one is shut, because files are copied for a snapshot, writes wait and searches go on.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from flowdex.errors import ConfigurationError, NotFound
from flowdex_executors.indexer.engine_process import EngineProcess, MissingShard
from flowdex_executors.indexer.frames import Array
from flowdex_executors.indexer.layout import IndexFolder, Manifest, check_shards
from flowdex_executors.indexer.migration import migrate

__all__ = ["Journal", "Shards", "shard_of"]

Journal = list[tuple[list[dict[str, Any]], list[Array]]]
"""Updates, as (operations, arrays), in order."""


def shard_of(document_id: str, shards: int) -> int:
    """Number of the shard that a document lives in; fixed for ever, as data on disk depend on it."""
    return zlib.crc32(document_id.encode()) % shards


class Shards:
    """All shards of the collections in a folder.

    Args:
        directory: The folder.
        count: How many shards a collection has.
        durability: `process` or `fsync`, see `shard.py`.

    Attributes:
        folder: Its layout and lock.
        count: As given.

    Raises:
        Conflict: Another process holds the folder.
        Unavailable: The folder cannot be used.
        ConfigurationError: What it holds cannot be read.
    """

    def __init__(self, directory: Path, *, count: int = 1, durability: str = "process") -> None:
        self.count = count
        self.folder = IndexFolder(directory)
        self._closed = False
        try:
            for name in self.folder.outdated:
                migrate(self.folder, name)
        except BaseException:
            self.folder.close()
            raise
        self._gates = [asyncio.Lock() for _ in range(count)]
        self._journals: dict[tuple[str, int], Journal] = {}
        with ThreadPoolExecutor(count) as pool:
            starts = [
                pool.submit(EngineProcess, directory, self.folder.lock, durability=durability) for _ in range(count)
            ]
        self._engines = [start.result() for start in starts if start.exception() is None]
        for start in starts:
            if start.exception() is not None:
                self.close()
                start.result()

    @property
    def pids(self) -> list[int]:
        """Process ids of the engines."""
        return [engine.pid for engine in self._engines]

    def close(self) -> None:
        """Flush, end the engines, and give up the lock."""
        if self._closed:
            return
        self._closed = True
        with ThreadPoolExecutor(self.count) as pool:
            list(pool.map(EngineProcess.close, self._engines))
        self.folder.close()

    def manifest(self, name: str) -> Manifest:
        """The manifest of a collection.

        Raises:
            NotFound: There is none of that name.
            ConfigurationError: It has another number of shards.
        """
        manifest = self.folder.get(name)
        if manifest is None:
            raise NotFound(f"the collection {name!r} does not exist")
        check_shards(name, manifest, self.count)
        return manifest

    # ---- commands ----

    async def call(
        self, name: str, number: int, command: str, arrays: Sequence[Array] = (), *, urgent: bool = False, **rest: Any
    ) -> Any:
        """Run a command on one shard of a collection.

        Raises:
            NotFound: The collection does not exist.
            Unavailable: The engine died, or the disk refuses.
            InternalError: The engine failed.
        """
        while True:
            manifest = self.manifest(name)
            try:
                return await self.run(name, manifest, number, command, arrays, urgent=urgent, **rest)
            except MissingShard as error:
                if self.folder.get(name) == manifest:
                    raise ConfigurationError(
                        f"files of the collection {name!r} are missing ({error}); restore a snapshot of it, or delete "
                        f"{self.folder.path / name} and index again"
                    ) from None
                # Other data have taken its place since the command was sent: ask those.

    async def run(
        self,
        name: str,
        manifest: Manifest,
        number: int,
        command: str,
        arrays: Sequence[Array] = (),
        *,
        urgent: bool = False,
        **rest: Any,
    ) -> Any:
        """The same for given data of a collection, be they the current ones or not."""
        path = f"{name}/{manifest.data}/{number}"
        future = self._engines[number].submit({"command": command, "path": path, **rest}, arrays, urgent=urgent)
        return await asyncio.wrap_future(future)

    async def all(
        self, name: str, command: str, arrays: Sequence[Array] = (), *, urgent: bool = False, **rest: Any
    ) -> list[Any]:
        """Run a command on all shards of a collection at the same time; their results in order."""
        if self.count == 1:
            return [await self.call(name, 0, command, arrays, urgent=urgent, **rest)]
        calls = (self.call(name, number, command, arrays, urgent=urgent, **rest) for number in range(self.count))
        return list(await asyncio.gather(*calls))

    async def update(self, name: str, number: int, operations: list[dict[str, Any]], arrays: list[Array]) -> None:
        """Write to one shard: all operations or, even when its process is killed, none."""
        async with self._gates[number]:
            await self.call(name, number, "update", arrays, operations=operations)
            journal = self._journals.get((name, number))
            if journal is not None:
                journal.append((operations, arrays))

    async def index_field(self, name: str, number: int, field: str, kind: str) -> None:
        """Index a payload field in one shard."""
        async with self._gates[number]:
            await self.call(name, number, "index_field", field=field, type=kind)
            journal = self._journals.get((name, number))
            if journal is not None:
                journal.append(([{"index_field": field, "type": kind}], []))

    # ---- for those who copy files ----

    @asynccontextmanager
    async def gate(self, *numbers: int) -> AsyncIterator[None]:
        """Shut out writes to these shards."""
        async with AsyncExitStack() as stack:
            for number in numbers:
                await stack.enter_async_context(self._gates[number])
            yield

    def open_journal(self, name: str, number: int) -> Journal:
        """From now on, note what is written to a shard."""
        journal = self._journals[name, number] = []
        return journal

    def close_journal(self, name: str, number: int) -> None:
        """Note no more."""
        self._journals.pop((name, number), None)
