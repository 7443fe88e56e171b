"""Take and restore snapshots of a collection of the embedded index, while it serves.

    take     gates of all shards shut: flush, copy their files; gates open; copies --snapshots.py--> file
    restore  file --snapshots.py--> another data folder, opened once to see that it can be; then the manifest names it

The copy makes all shards be of one moment, and keeps writes waiting no longer than copying takes; searches never wait.
A restore replaces one small file, so a kill at any moment leaves the collection as it was or as the snapshot says.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from flowdex.errors import ConfigurationError, FlowdexError, InvalidInput
from flowdex_executors.indexer.files import copy_tree, sync_tree
from flowdex_executors.indexer.layout import Manifest, disk_error, new_data_name
from flowdex_executors.indexer.shards import Shards
from flowdex_executors.indexer.snapshots import read_snapshot, write_snapshot

__all__ = ["restore_backup", "write_backup"]


async def write_backup(shards: Shards, collection: str, path: Path) -> dict[str, Any]:
    """Write a snapshot.

    Args:
        shards: Of the index.
        collection: Which collection.
        path: The file to make. Beside it, room for a copy of the collection is needed for a while.

    Returns:
        `size` of the file in bytes, and its `sha256`.

    Raises:
        NotFound: There is no such collection.
        Unavailable: The disk refuses.
    """
    manifest = shards.manifest(collection)
    copies = path.with_name(path.name + ".files")
    try:
        async with shards.gate(*range(shards.count)):
            await shards.all(collection, "flush")
            points = sum(info["points"] for info in await shards.all(collection, "info", urgent=True))
            for number in range(shards.count):
                source = shards.folder.shard(collection, manifest, number) / "shard"
                await asyncio.to_thread(copy_tree, source, copies / str(number) / "shard")
        return await asyncio.to_thread(write_snapshot, path, copies, collection, manifest, points)
    except OSError as error:
        await asyncio.to_thread(path.unlink, missing_ok=True)
        raise disk_error(error, path.parent) from None
    finally:
        await asyncio.to_thread(shutil.rmtree, copies, ignore_errors=True)


async def restore_backup(
    shards: Shards, collection: str, path: Path, accept: Callable[[Manifest], None]
) -> Manifest | None:
    """Make a collection what a snapshot says, from one moment to the next.

    Args:
        shards: Of the index.
        collection: Which collection; it need not exist.
        path: The snapshot.
        accept: Raises where a collection of this manifest is not wanted.

    Returns:
        What the collection was before, if anything: its data are still there, and no more used.

    Raises:
        InvalidInput: The snapshot is damaged, or of another format; the collection is as it was.
        ConfigurationError: It has another number of shards than this index.
        Unavailable: The disk refuses; the collection is as it was.
    """

    def check(manifest: Manifest) -> None:
        if manifest.shards != shards.count:
            raise ConfigurationError(
                f"the snapshot has {manifest.shards} shards, but uses_with.shards of the indexer is {shards.count}; "
                "start the flow with as many, and restore it then"
            )
        accept(manifest)

    name = new_data_name()
    staging = shards.folder.path / collection / name
    try:
        manifest = replace(await asyncio.to_thread(read_snapshot, path, staging, check), data=name)
        await _check_opens(shards, collection, manifest)
        await asyncio.to_thread(sync_tree, staging)  # the old data go next: the new ones must outlive the machine
    except BaseException as error:
        rejected = Manifest(shards.count, name, {}, {})
        for number in range(shards.count):
            await shards.run(collection, rejected, number, "close")
        await asyncio.to_thread(shutil.rmtree, staging, ignore_errors=True)
        if isinstance(error, OSError):
            raise disk_error(error, shards.folder.path) from None
        raise
    # A caller that goes away now does not stop the thread, which names the new data: from here on they stay.
    return await asyncio.to_thread(shards.folder.put, collection, manifest)


async def _check_opens(shards: Shards, collection: str, manifest: Manifest) -> None:
    try:
        for number in range(shards.count):
            await shards.run(collection, manifest, number, "info")
    except FlowdexError as error:
        raise InvalidInput(f"the engine cannot open the snapshot: {error.message}; nothing has been restored") from None
