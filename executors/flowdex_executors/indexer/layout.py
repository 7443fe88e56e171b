"""The folder of an embedded index: its lock, and which folders make up a collection.

    DIR/.lock                          held as long as any process works on the folder
    DIR/format.json                    format of the folder as a whole, so also of aliases.json and .transfers
    DIR/NAME/collection.json           format, shards, vectors, and the name of the data folder
    DIR/NAME/data-ID/0/shard/          the engine's files of shard 0, one folder a shard
    DIR/NAME/data-ID/0/redo            the update that is being written, see `shard.py`

`collection.json` is written last and replaced in one step. So a collection exists when that file does, and another
data folder (a new collection, a restored one) takes the place of the old one at once. Data folders that it does not
name are left over from an interrupted step, and are removed on start. A collection of an older format is left alone
here, and named in `outdated`: `migration.py` makes one of the present format of it.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import time
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from flowdex.errors import ConfigurationError, Conflict, Unavailable
from flowdex.formats import flowdex_version, refuse_newer
from flowdex_executors.indexer.files import sync_directory, write_atomically

__all__ = [
    "FLAT",
    "FORMAT",
    "IndexFolder",
    "Manifest",
    "check_shards",
    "disk_error",
    "new_data_name",
    "read_manifest",
    "read_mark",
    "remove_flat",
]

FORMAT = 1
"""Of the folder and of snapshots. An older one is migrated (`migration.py`), a newer one is refused."""
FLAT = "shard"
"""Where a collection of format 0 has its one shard, with its redo file beside it."""
_LOCK_SECONDS = 5.0
_MANIFEST = "collection.json"
_MARK = "format.json"
_REMEDY = "or restore a snapshot that this version made into another folder (uses_with.uri of the indexer)"
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class Manifest:
    """What `collection.json` says.

    Attributes:
        shards: Number of shards.
        data: Name of the data folder.
        dense: Vectors by name: their `size` and `distance`.
        sparse: Sparse vectors by name: whether the index weighs them by rarity (`idf`).
        format: Of the folder.
    """

    shards: int
    data: str
    dense: dict[str, dict[str, Any]]
    sparse: dict[str, dict[str, Any]]
    format: int = FORMAT

    def to_json(self) -> dict[str, Any]:
        """As it is written, with the version that writes it."""
        return {**asdict(self), "flowdex": flowdex_version()}

    @classmethod
    def from_json(cls, data: Any, place: str) -> Manifest:
        """Read and check it.

        Args:
            data: What the file holds.
            place: Its name in the message of an error.

        Raises:
            ConfigurationError: It is of a newer format, or is none.
        """
        try:
            refuse_newer(place, data["format"], FORMAT, written_by=data.get("flowdex"), remedy=_REMEDY)
            return cls(int(data["shards"]), str(data["data"]), dict(data["dense"]), dict(data["sparse"]))
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            if isinstance(error, ConfigurationError):
                raise
            raise ConfigurationError(f"{place} is damaged ({error!r}); restore a snapshot of the collection") from None

    @property
    def higher_is_better(self) -> dict[str, bool]:
        """For each vector, whether scores are similarities rather than distances."""
        dense = {name: params["distance"] in ("Cosine", "Dot") for name, params in self.dense.items()}
        return {**dense, **dict.fromkeys(self.sparse, True)}


def new_data_name() -> str:
    """A name for a data folder that was never used."""
    return f"data-{uuid.uuid4().hex[:12]}"


def disk_error(error: OSError, place: Path) -> Unavailable:
    """What went wrong with the disk, and what to do."""
    if error.errno in _NO_ROOM:
        return Unavailable(
            f"there is no room left for the index in {place} ({error.strerror}); free some, and send again what was "
            "not acknowledged: nothing that was is lost",
            retry_after=5.0,
        )
    return Unavailable(f"the index folder {place} cannot be used: {error}")


class IndexFolder:
    """The folder, locked for this process and those to which it hands `lock`.

    Args:
        path: The folder; it is made where it is missing.

    Attributes:
        lock: Descriptor of the lock. A process that inherits it holds the lock, too, until it ends.
        outdated: Names of collections of an older format.

    Raises:
        Conflict: Another process holds the lock.
        Unavailable: The folder cannot be used.
        ConfigurationError: It is of a newer format.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.mkdir(parents=True, exist_ok=True)
            self.lock = self._acquire()
        except OSError as error:
            raise disk_error(error, path) from None
        self._manifests: dict[str, Manifest] = {}
        self.outdated: list[str] = []
        try:
            self._mark()
            self._clean()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Give the lock up, as far as this process is concerned."""
        os.close(self.lock)

    def _acquire(self) -> int:
        descriptor = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        deadline = time.monotonic() + _LOCK_SECONDS  # a predecessor that is just ending holds it still
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
                    os.close(descriptor)
                    raise Conflict(
                        f"the index folder {self.path} is in use by process {holder}; an embedded index has one "
                        "writer: stop that process, or give this flow another folder (uses_with.uri)"
                    ) from None
                time.sleep(0.05)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        return descriptor

    def _mark(self) -> None:
        """Refuse a newer folder; write down whose format this one is."""
        found = read_mark(self.path)
        mark = {"format": FORMAT, "flowdex": flowdex_version()}
        if found != mark:
            try:
                write_atomically(self.path / _MARK, json.dumps(mark).encode())
            except OSError as error:
                raise disk_error(error, self.path) from None

    def _clean(self) -> None:
        """Remove what interrupted steps left behind; find what is of an older format."""
        for collection in self.path.iterdir():
            if not collection.is_dir() or collection.name.startswith("."):
                continue
            manifest = self.get(collection.name)
            if (collection / FLAT).is_dir():
                if manifest is None:
                    self.outdated.append(collection.name)
                else:  # it has been migrated, and what it was made of is left over
                    remove_flat(collection)
            for data in collection.glob("data-*"):
                if manifest is None or data.name != manifest.data:
                    shutil.rmtree(data, ignore_errors=True)

    # ---- collections ----

    def get(self, name: str) -> Manifest | None:
        """The manifest of a collection; None where there is no such collection."""
        if name not in self._manifests:
            manifest = read_manifest(self.path / name)
            if manifest is None:
                return None
            self._manifests[name] = manifest
        return self._manifests[name]

    def names(self) -> list[str]:
        """All collections, sorted."""
        return sorted(path.parent.name for path in self.path.glob(f"*/{_MANIFEST}"))

    def data(self, name: str, manifest: Manifest) -> Path:
        """The data folder."""
        return self.path / name / manifest.data

    def shard(self, name: str, manifest: Manifest, number: int) -> Path:
        """The folder of one shard."""
        return self.data(name, manifest) / str(number)

    def put(self, name: str, manifest: Manifest) -> Manifest | None:
        """Make the collection be what the manifest says, from one moment to the next; returns what it was before.

        Raises:
            Unavailable: The disk refuses; then it is what it was.
        """
        before = self.get(name)
        try:
            (self.path / name).mkdir(exist_ok=True)
            sync_directory(self.path)
            write_atomically(self.path / name / _MANIFEST, json.dumps(manifest.to_json(), indent=1).encode())
        except OSError as error:
            raise disk_error(error, self.path) from None
        self._manifests[name] = manifest
        return before

    def remove(self, name: str) -> bool:
        """Make the collection be gone; its files remain for the moment. False where there was none."""
        self._manifests.pop(name, None)
        try:
            (self.path / name / _MANIFEST).unlink()
        except FileNotFoundError:
            return False
        sync_directory(self.path / name)
        return True


def read_mark(directory: Path) -> dict[str, Any] | None:
    """What `format.json` says: `format`, and the version of `flowdex` that wrote last; None where there is none.

    Raises:
        ConfigurationError: It cannot be read, or the folder is of a newer format.
    """
    place = directory / _MARK
    try:
        mark = json.loads(place.read_bytes())
        found, author = mark["format"], mark.get("flowdex")
    except FileNotFoundError:
        return None  # a new folder, or one from before there was a mark
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigurationError(
            f"{place} is damaged ({error!r}); remove the file, if this version of flowdex wrote the folder"
        ) from None
    refuse_newer(str(directory), found, FORMAT, written_by=author, remedy=_REMEDY)
    return dict(mark)


def read_manifest(collection: Path) -> Manifest | None:
    """Read the manifest in a collection's folder; None where there is none.

    Raises:
        ConfigurationError: It cannot be read.
    """
    place = collection / _MANIFEST
    try:
        data = json.loads(place.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{place} is damaged ({error}); restore a snapshot of the collection") from None
    return Manifest.from_json(data, str(place))


def remove_flat(collection: Path) -> None:
    """Remove the files that a collection had in format 0; the shard last, which marks them."""
    (collection / "redo").unlink(missing_ok=True)
    shutil.rmtree(collection / FLAT, ignore_errors=True)


def check_shards(name: str, manifest: Manifest, shards: int) -> None:
    """Refuse to open a collection with another number of shards than it has.

    Raises:
        ConfigurationError: Naming both and the remedy.
    """
    if manifest.shards != shards:
        raise ConfigurationError(
            f"the collection {name!r} has {manifest.shards} shards, but uses_with.shards of the indexer is {shards}; "
            "make them agree, or index the documents again into another collection (flowdex reindex)"
        )
