"""A collection of an older format becomes one of the present format, on the first start of a newer flowdex.

    older files --copied, flushed--> data folder that nothing names yet --an engine opens it--> collection.json names it
                                                                                            --> older files are removed

The older files are only read, and stay until the new ones have been opened. A kill at any moment leaves the collection
as it was (the copy is removed on the next start, and made again) or migrated. Room for a copy is needed.

What each format was:

    0   NAME/shard/, NAME/redo: one shard, no manifest; before 0.1.0
    1   see layout.py
"""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

from flowdex.errors import ConfigurationError, FlowdexError, Unavailable
from flowdex_executors.indexer.engine_process import EngineProcess
from flowdex_executors.indexer.files import copy_tree, sync_tree
from flowdex_executors.indexer.layout import (
    FLAT,
    IndexFolder,
    Manifest,
    disk_error,
    new_data_name,
    remove_flat,
)

__all__ = ["migrate"]

_log = logging.getLogger(__name__)


def migrate(folder: IndexFolder, name: str) -> None:
    """Make a collection of format 0 one of the present format; returns when it is.

    Args:
        folder: Of the index, whose lock this process holds.
        name: The collection.

    Raises:
        ConfigurationError: It cannot be read, or the engine cannot open what was made of it; it is as it was.
        Unavailable: The disk refuses; it is as it was.
    """
    collection = folder.path / name
    data = new_data_name()
    _log.warning("migrating the collection %s to the format of this version; the old files stay until it is done", name)
    try:
        manifest = _manifest(collection, data)
        target = folder.shard(name, manifest, 0)
        copy_tree(collection / FLAT, target / "shard")
        if (collection / "redo").exists():  # an update that was interrupted; the engine finishes it
            shutil.copyfile(collection / "redo", target / "redo")
        points = _open(folder, f"{name}/{data}/0")
        sync_tree(collection / data)
    except BaseException as error:
        shutil.rmtree(collection / data, ignore_errors=True)
        if isinstance(error, OSError):
            raise disk_error(error, folder.path) from None
        raise
    folder.put(name, manifest)  # may have named the new files although it fails, so that they stay from here on
    remove_flat(collection)
    _log.warning("the collection %s is migrated: %d points", name, points)


def _manifest(collection: Path, data: str) -> Manifest:
    """What the engine's own configuration says of the vectors."""
    place = collection / FLAT / "edge_config.json"
    try:
        config: dict[str, Any] = json.loads(place.read_bytes())
        dense = {
            name: {"size": int(vector["size"]), "distance": str(vector["distance"])}
            for name, vector in config["vectors"].items()
        }
        sparse = {
            name: {"idf": vector.get("modifier") == "idf"}
            for name, vector in (config.get("sparse_vectors") or {}).items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigurationError(
            f"{collection} is of an older format and cannot be migrated: {place} is damaged ({error!r}); nothing has "
            "been changed: give the flow another folder (uses_with.uri of the indexer), and index the documents again"
        ) from None
    return Manifest(1, data, dense, sparse)


def _open(folder: IndexFolder, path: str) -> int:
    """Open the copy, as the indexer will; the number of its points."""
    engine = EngineProcess(folder.path, folder.lock)
    try:
        info = engine.submit({"command": "info", "path": path}).result()
        return int(info["points"])
    except Unavailable:
        raise
    except FlowdexError as error:
        raise ConfigurationError(
            f"{folder.path / path} was made of a collection of an older format, and the engine cannot open it "
            f"({error.message}); the collection is as it was: use the version of flowdex that wrote it"
        ) from None
    finally:
        engine.close()
