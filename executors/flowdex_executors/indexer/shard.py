"""One shard of one collection: the engine's files, and the redo file that makes updates atomic.

    path/shard/        the engine's own
    path/redo          the update at hand: written before its first operation, removed after its last
    path/deleted       how many points were deleted since the files were last packed
    path/build/shard/  a better packed copy in the making, which takes the place of shard/ when it is complete

What survives what:

- An update of several operations (write the new passages of documents, remove their older ones) is atomic: a redo file
  that is found on opening is carried out again, and all operations can be. An update that fails is undone.
- The engine's write-ahead log keeps what was acknowledged when a process dies. `flush` keeps it when the machine does:
  `FLUSH_SECONDS` after the first update since the last flush; with `fsync`, before each answer.
- A kill while shards change places leaves one of them under its name, see `_finish_swap`.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import qdrant_edge as edge

from flowdex_executors.indexer.engine_models import CommandError, build_config, build_filter, build_points
from flowdex_executors.indexer.files import sync_directory
from flowdex_executors.indexer.frames import Array, decode

__all__ = ["Shard"]

FLUSH_SECONDS = 1.0
NEVER = 1_000_000_000
"""An indexing threshold in KB that no segment reaches: packing then builds no graph, and search is exact."""
_SPARE = 64 * 2**20
"""Bytes that must be free to begin an update. The engine maps its files into memory, where a write that finds no room
is not an error but the end of the process."""


class Shard:
    """An open shard.

    Args:
        path: Its folder.
        fsync: Whether an update must survive the loss of power once it is answered.

    Raises:
        CommandError: There is none, or there is no room to finish an interrupted update.
    """

    def __init__(self, path: Path, *, fsync: bool) -> None:
        self._path = path
        self._redo = path / "redo"
        self._fsync = fsync
        self._finish_swap()
        shard = path / "shard"
        if not shard.is_dir():
            raise CommandError("missing", f"there is no shard in {path}")
        # A kill in the middle of packing leaves copies behind.
        shutil.rmtree(shard / "temp_segments", ignore_errors=True)
        self.engine = edge.EdgeShard.load(str(shard))
        self.deleted = self._read_deleted()
        self._noted = self.deleted
        self._updates = 0  # since the last flush
        self._since = 0.0
        self._finish_interrupted_update()

    @staticmethod
    def create(path: Path, dense: dict[str, Any], sparse: dict[str, Any]) -> None:
        """Make an empty shard."""
        shard = path / "shard"
        shutil.rmtree(path, ignore_errors=True)
        shard.mkdir(parents=True)
        engine = edge.EdgeShard.create(str(shard), build_config(dense, sparse, NEVER))
        engine.flush()
        engine.close()

    @property
    def points(self) -> int:
        """How many points it holds."""
        return int(self.engine.info().points_count)

    # ---- writing ----

    def update(self, frame: bytes, operations: list[dict[str, Any]], arrays: list[Array]) -> None:
        """Carry out the operations of an update, all or none of them.

        Args:
            frame: The command as it came, which is what the redo file holds.
            operations: Of the command.
            arrays: Of the command.

        Raises:
            CommandError: There is no room; nothing has been changed.
        """
        self._check_room(len(frame))
        atomic = len(operations) > 1 or self._fsync
        if atomic:
            self._write_redo(frame)
        try:
            self._apply(operations, arrays)
            if self._fsync:
                self.flush()
        except Exception:
            self._undo(operations)
            raise
        finally:
            if atomic:
                self._redo.unlink(missing_ok=True)

    def index_field(self, field: str, kind: edge.PayloadSchemaType) -> None:
        """Index a payload field."""
        self._check_room(0)
        self.engine.update(edge.UpdateOperation.create_field_index(field, kind))
        self._touch()

    def _check_room(self, size: int) -> None:
        disk = os.statvfs(self._path)
        if disk.f_bavail * disk.f_frsize < _SPARE + 4 * size:
            raise CommandError("full", f"less than {_SPARE // 2**20} MB are free")

    def _write_redo(self, frame: bytes) -> None:
        staging = self._redo.with_suffix(".new")
        with staging.open("wb") as file:
            file.write(frame)
            if self._fsync:
                file.flush()
                os.fsync(file.fileno())
        staging.rename(self._redo)
        if self._fsync:
            sync_directory(self._path)

    def _apply(self, operations: list[dict[str, Any]], arrays: list[Array]) -> None:
        self._touch()
        before, written = self.points, 0
        for operation in operations:
            if "ids" in operation:
                self.engine.update(edge.UpdateOperation.upsert_points(build_points(operation, arrays)))
                written += len(operation["ids"])
            elif "delete_ids" in operation:
                self.engine.update(edge.UpdateOperation.delete_points(operation["delete_ids"]))
            else:
                selection = build_filter(operation["delete"])
                assert selection is not None
                self.engine.update(edge.UpdateOperation.delete_points_by_filter(selection))
        self.deleted += before + written - self.points  # a point that is written again leaves its old self behind, too

    def _undo(self, operations: list[dict[str, Any]]) -> None:
        # New points have new ids, so taking them out restores what was there. Where even that fails (a full disk),
        # the error of the update itself is the one to report.
        written = [point_id for operation in operations for point_id in operation.get("ids", ())]
        if written:
            try:
                self.engine.update(edge.UpdateOperation.delete_points(written))
            except Exception as error:
                print(f"the failed update could not be undone: {error}", file=sys.stderr, flush=True)

    def _finish_interrupted_update(self) -> None:
        if not self._redo.exists():
            return
        frame = self._redo.read_bytes()
        self._check_room(len(frame))
        try:
            command, arrays = decode(frame)
        except ValueError as error:  # only the loss of power can truncate it: then nothing of it was acknowledged
            print(f"{self._redo} is not readable and is dropped: {error}", file=sys.stderr, flush=True)
        else:
            self._apply(command["operations"], arrays)
            self.flush()
        self._redo.unlink()

    # ---- to disk ----

    def _touch(self) -> None:
        self._since = self._since if self._updates else time.monotonic()
        self._updates += 1

    @property
    def must_flush(self) -> bool:
        """Whether a flush is due: while updates follow each other, nothing else asks."""
        return self.flush_at is not None and time.monotonic() >= self.flush_at

    @property
    def flush_at(self) -> float | None:
        """When a flush is due, by the monotonic clock; None when there is nothing to write."""
        return self._since + FLUSH_SECONDS if self._updates else None

    def flush(self) -> None:
        """Write everything to disk."""
        if not self._updates:
            return
        self._since = time.monotonic()  # a flush that fails is not tried again at once
        self.engine.flush()
        self._updates = 0
        if self.deleted != self._noted:
            (self._path / "deleted").write_text(str(self.deleted))
            self._noted = self.deleted
        sync_directory(self._path)

    def close(self) -> None:
        """Write everything to disk, and let go of it."""
        self.flush()
        self.engine.close()

    def _read_deleted(self) -> int:
        try:
            return int((self._path / "deleted").read_text())
        except (FileNotFoundError, ValueError):
            return 0

    # ---- packing ----

    @staticmethod
    def pack(path: Path, dense: dict[str, Any], sparse: dict[str, Any], threshold: int) -> None:
        """Merge segments, drop what is deleted, and give segments of more than `threshold` KB a graph; takes long.

        Args:
            path: Folder of a shard that is not open.
            dense: Vectors by name, as it was created with.
            sparse: Sparse vectors by name, likewise.
            threshold: See `build_config`.
        """
        engine = edge.EdgeShard.load(str(path / "shard"), build_config(dense, sparse, threshold))
        engine.optimize()
        engine.flush()
        engine.close()

    def replace_with_build(self) -> None:
        """Let the shard in `build` take its place on disk; this object is closed and must not be used again."""
        self.close()
        (self._path / "shard").rename(self._path / "old")
        (self._path / "build" / "shard").rename(self._path / "shard")
        (self._path / "deleted").unlink(missing_ok=True)
        sync_directory(self._path)
        self._finish_swap()

    def _finish_swap(self) -> None:
        shard, build, old = (self._path / name for name in ("shard", "build", "old"))
        if not shard.exists() and old.exists() and (build / "shard").exists():  # killed between the two renames
            (build / "shard").rename(shard)
            (self._path / "deleted").unlink(missing_ok=True)
        shutil.rmtree(old, ignore_errors=True)
