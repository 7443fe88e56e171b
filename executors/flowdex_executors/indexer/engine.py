"""The engine process: Qdrant's embedded engine behind a pipe. Runs as `python -m flowdex_executors.indexer.engine DIR`.

    stdin --frame--> one command at a time --> EdgeShard --frame--> stdout

Nothing in the engine releases Python's lock, so in the indexer's own process a long call would freeze every request and
health check; here it only delays the commands behind it. The process ends when its stdin does, that is, when the
indexer closes it or dies by whatever means; it finishes the command at hand and flushes first.

What survives what:

- An update of several operations (write the new passages of a document, remove its older ones) is atomic. The frame is
  put beside the collection as a redo file before the first operation and removed after the last; a redo file that is
  found on start is carried out again, and all operations can be. An update that fails is undone.
- The engine's write-ahead log keeps what was acknowledged when a process dies; `flush`, after every `FLUSH_BATCHES`
  updates and at the latest `FLUSH_SECONDS` after one, keeps it when the machine does.
- One process a folder: an exclusive lock (flock) on the file `.lock`, which the kernel drops with the process.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import qdrant_edge as edge

from flowdex_executors.indexer.frames import Array, decode, encode, read_frame

FLUSH_BATCHES = 10
FLUSH_SECONDS = 1.0
LOCK_SECONDS = 5.0
"""How long to wait for the lock: a predecessor that is just ending holds it still."""
NEVER = 1_000_000_000
"""An indexing threshold in KB that no segment reaches: search is exact, so optimising never builds a graph."""

_FIELD_TYPES = {
    "keyword": edge.PayloadSchemaType.Keyword,
    "integer": edge.PayloadSchemaType.Integer,
    "float": edge.PayloadSchemaType.Float,
}
_DISTANCES = {
    "Cosine": edge.Distance.Cosine,
    "Dot": edge.Distance.Dot,
    "Euclid": edge.Distance.Euclid,
    "Manhattan": edge.Distance.Manhattan,
}


class CommandError(Exception):
    """The command cannot be carried out; `kind` says why to the other end."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


# ---- the lock ----


def acquire_lock(directory: Path, owner: int) -> int:
    """Lock the folder for this process, and note the pid of its owner for the message to others.

    Raises:
        CommandError: Another process holds the lock.
    """
    directory.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(directory / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if time.monotonic() >= deadline:
                holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
                raise CommandError(
                    "locked",
                    f"the index folder {directory} is in use by process {holder}; an embedded index has one writer: "
                    "stop that process, or give this flow another folder (uses_with.uri)",
                ) from None
            time.sleep(0.05)
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, str(owner).encode(), 0)
    return descriptor


# ---- JSON to the engine's classes ----


def build_filter(data: dict[str, Any] | None) -> edge.Filter | None:
    """Build a filter from the JSON form of `qdrant_client.models.Filter`."""
    if data is None:
        return None
    clauses = {key: [_condition(item) for item in data[key]] for key in ("must", "should", "must_not") if data.get(key)}
    return edge.Filter(must=clauses.get("must"), should=clauses.get("should"), must_not=clauses.get("must_not"))


def _condition(data: dict[str, Any]) -> Any:  # noqa: PLR0911 - one return a condition
    if "has_id" in data:
        return edge.HasIdCondition(set(data["has_id"]))
    if "is_empty" in data:
        return edge.IsEmptyCondition(data["is_empty"]["key"])
    if "is_null" in data:
        return edge.IsNullCondition(data["is_null"]["key"])
    if "key" not in data:
        return build_filter(data)
    key = data["key"]
    if "match" in data:
        match = data["match"]
        if "any" in match:
            return edge.FieldCondition(key, match=edge.MatchAny(match["any"]))
        if isinstance(match.get("value"), bool) or "value" not in match:
            # The engine's binding reads True as 1, which matches no boolean.
            raise CommandError("unsupported", f"the embedded index cannot match {match} on {key}")
        return edge.FieldCondition(key, match=edge.MatchValue(match["value"]))
    if "range" in data:
        bounds = {name: value for name, value in data["range"].items() if value is not None}
        kind = edge.RangeDateTime if any(isinstance(value, str) for value in bounds.values()) else edge.RangeFloat
        return edge.FieldCondition(key, range=kind(**bounds))
    raise CommandError("unsupported", f"the embedded index does not know the condition {data}")


def _query(data: dict[str, Any], arrays: list[Array]) -> Any:
    if "fusion" in data:
        return edge.Fusion.Rrf(data["k"]) if data["fusion"] == "rrf" else edge.Fusion.Dbsf()
    vector: Any
    if "indices" in data:
        vector = edge.SparseVector(arrays[data["indices"]].tolist(), arrays[data["values"]].tolist())
    else:
        vector = arrays[data["dense"]].tolist()
    return edge.Query.Nearest(vector, using=data["using"])


def _request(data: dict[str, Any], arrays: list[Array]) -> edge.QueryRequest:
    params = edge.SearchParams(exact=True)
    return edge.QueryRequest(
        limit=data["limit"],
        query=_query(data["query"], arrays),
        prefetches=[
            edge.Prefetch(
                limit=item["limit"],
                query=_query(item["query"], arrays),
                filter=build_filter(item.get("filter")),
                params=params,
            )
            for item in data.get("prefetch", [])
        ],
        filter=build_filter(data.get("filter")),
        with_payload=data["with_payload"],
        params=params,
    )


def _points(operation: dict[str, Any], arrays: list[Array]) -> list[edge.Point]:
    ids, payloads = operation["ids"], operation["payloads"]
    vectors: list[dict[str, Any]] = [{} for _ in ids]
    for name, index in operation["dense"].items():
        for vector, row in zip(vectors, arrays[index].tolist(), strict=True):
            vector[name] = row
    for name, (indices, values, offsets) in operation["sparse"].items():
        flat_indices, flat_values = arrays[indices].tolist(), arrays[values].tolist()
        bounds = arrays[offsets].tolist()
        for number, vector in enumerate(vectors):
            span = slice(bounds[number], bounds[number + 1])
            vector[name] = edge.SparseVector(flat_indices[span], flat_values[span])
    return [edge.Point(*point) for point in zip(ids, vectors, payloads, strict=True)]


# ---- one collection ----


class Collection:
    """One open shard and its redo file.

    Args:
        path: The collection's folder.
    """

    def __init__(self, path: Path) -> None:
        self._redo = path / "redo"
        shard = path / "shard"
        # A kill in the middle of optimising leaves copies behind.
        shutil.rmtree(shard / "temp_segments", ignore_errors=True)
        self.config: dict[str, Any] = json.loads((shard / "edge_config.json").read_text())
        self.shard = edge.EdgeShard.load(str(shard))
        self.dirty = 0  # updates since the last flush
        self.dirty_since = 0.0
        self._finish_interrupted_update()
        self.shard.optimize()  # merges and vacuums segments; nobody waits yet

    @staticmethod
    def exists(path: Path) -> bool:
        """Whether there is a complete collection in the folder."""
        return (path / "shard").is_dir()

    @staticmethod
    def create(path: Path, command: dict[str, Any]) -> None:
        """Make a shard; it appears under its name only when it is complete."""
        staging = path / "shard.new"
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
        config = edge.EdgeConfig(
            vectors={
                name: edge.EdgeVectorParams(size=params["size"], distance=_DISTANCES[params["distance"]])
                for name, params in command["dense"].items()
            },
            sparse_vectors={
                name: edge.EdgeSparseVectorParams(modifier=edge.Modifier.Idf if params.get("idf") else None)
                for name, params in command["sparse"].items()
            },
            optimizers=edge.EdgeOptimizersConfig(indexing_threshold=NEVER),
        )
        shard = edge.EdgeShard.create(str(staging), config)
        shard.flush()
        shard.close()
        staging.rename(path / "shard")

    def update(self, frame: bytes, operations: list[dict[str, Any]], arrays: list[Array]) -> None:
        """Carry out the operations of an update, all or none of them."""
        atomic = len(operations) > 1
        if atomic:
            staging = self._redo.with_suffix(".new")
            staging.write_bytes(frame)
            staging.rename(self._redo)
        try:
            self._apply(operations, arrays)
        except Exception:
            self._undo(operations)
            raise
        finally:
            if atomic:
                self._redo.unlink(missing_ok=True)

    def _apply(self, operations: list[dict[str, Any]], arrays: list[Array]) -> None:
        self.dirty_since = self.dirty_since if self.dirty else time.monotonic()
        self.dirty += 1
        for operation in operations:
            if "ids" in operation:
                self.shard.update(edge.UpdateOperation.upsert_points(_points(operation, arrays)))
            elif "delete_ids" in operation:
                self.shard.update(edge.UpdateOperation.delete_points(operation["delete_ids"]))
            else:
                selection = build_filter(operation["delete"])
                assert selection is not None
                self.shard.update(edge.UpdateOperation.delete_points_by_filter(selection))

    def _undo(self, operations: list[dict[str, Any]]) -> None:
        # New points have new ids, so taking them out restores what was there. Where even that fails (a full disk),
        # the error of the update itself is the one to report.
        written = [point_id for operation in operations for point_id in operation.get("ids", ())]
        if written:
            try:
                self.shard.update(edge.UpdateOperation.delete_points(written))
            except Exception as error:
                print(f"the failed update could not be undone: {error}", file=sys.stderr, flush=True)

    def _finish_interrupted_update(self) -> None:
        if not self._redo.exists():
            return
        try:
            command, arrays = decode(self._redo.read_bytes())
            self._apply(command["operations"], arrays)
            self.shard.flush()
            self.dirty = 0
        except ValueError as error:  # only the loss of power can truncate it: then nothing of it was acknowledged
            print(f"{self._redo} is not readable and is dropped: {error}", file=sys.stderr, flush=True)
        self._redo.unlink()

    def flush(self) -> None:
        """Write everything to disk."""
        if self.dirty:
            self.shard.flush()
            self.dirty = 0


# ---- the commands ----


class Engine:
    """All collections of a folder, and the commands on them.

    Args:
        directory: The folder, locked by this process.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._collections: dict[str, Collection] = {}
        self._commands: dict[str, Callable[[dict[str, Any], list[Array], bytes], Any]] = {
            "info": self._info,
            "create": self._create,
            "drop": self._drop,
            "index_field": self._index_field,
            "update": self._update,
            "query": self._run_queries,
            "retrieve": self._retrieve,
            "scroll": self._scroll,
            "count": self._count,
        }

    def handle(self, frame: bytes) -> bytes:
        """Carry out one command; its answer, or what went wrong, as a frame."""
        command, arrays = decode(frame)
        try:
            return encode({"result": self._commands[command["command"]](command, arrays, frame)})
        except CommandError as error:
            return encode({"error": error.kind, "message": str(error)})
        except Exception as error:  # the engine raises bare Exceptions; the indexer turns this into one of ours
            return encode({"error": "engine", "message": f"{error}"})

    def seconds_to_flush(self) -> float | None:
        """Seconds until `flush` is due, None when nothing is dirty."""
        due = [item.dirty_since + FLUSH_SECONDS for item in self._collections.values() if item.dirty]
        return max(0.0, min(due) - time.monotonic()) if due else None

    def flush(self) -> None:
        """Write everything to disk."""
        for collection in self._collections.values():
            collection.flush()

    def close(self) -> None:
        """Flush and close all collections."""
        for collection in self._collections.values():
            collection.flush()
            collection.shard.close()
        self._collections.clear()

    def _open(self, name: str) -> Collection | None:
        if name not in self._collections:
            path = self._directory / name
            if not Collection.exists(path):
                return None
            self._collections[name] = Collection(path)
        return self._collections[name]

    def _existing(self, command: dict[str, Any]) -> Collection:
        collection = self._open(command["collection"])
        if collection is None:
            raise CommandError("missing", f"the collection {command['collection']!r} does not exist")
        return collection

    def _info(self, command: dict[str, Any], arrays: list[Array], frame: bytes) -> Any:
        collection = self._open(command["collection"])
        if collection is None:
            return None
        info = collection.shard.info()
        return {"config": collection.config, "points": info.points_count, "fields": sorted(info.payload_schema)}

    def _create(self, command: dict[str, Any], arrays: list[Array], frame: bytes) -> Any:
        if self._open(command["collection"]) is not None:
            raise CommandError("exists", f"the collection {command['collection']!r} exists already")
        Collection.create(self._directory / command["collection"], command)
        return True

    def _drop(self, command: dict[str, Any], arrays: list[Array], frame: bytes) -> Any:
        collection = self._collections.pop(command["collection"], None)
        if collection is not None:
            collection.shard.close()
        path = self._directory / command["collection"]
        if not Collection.exists(path):
            return False
        (path / "redo").unlink(missing_ok=True)
        (path / "shard").rename(path / "shard.new")  # renamed first: a kill leaves no half collection
        shutil.rmtree(path)
        return True

    def _index_field(self, command: dict[str, Any], arrays: list[Array], frame: bytes) -> Any:
        collection = self._existing(command)
        collection.shard.update(
            edge.UpdateOperation.create_field_index(command["field"], _FIELD_TYPES[command["type"]])
        )
        return True

    def _update(self, command: dict[str, Any], arrays: list[Array], frame: bytes) -> Any:
        collection = self._existing(command)
        collection.update(frame, command["operations"], arrays)
        if collection.dirty >= FLUSH_BATCHES:
            collection.flush()
        return True

    def _run_queries(self, command: dict[str, Any], arrays: list[Array], frame: bytes) -> Any:
        requests = [_request(item, arrays) for item in command["requests"]]
        shard = self._existing(command).shard
        return [_hits(points) for points in shard.query_batch(edge.QueryBatchRequest(requests))]

    def _retrieve(self, command: dict[str, Any], arrays: list[Array], frame: bytes) -> Any:
        records = self._existing(command).shard.retrieve(
            command["ids"], command["with_payload"], command["with_vectors"]
        )
        return [{"id": str(record.id), "payload": record.payload, "vector": record.vector} for record in records]

    def _scroll(self, command: dict[str, Any], arrays: list[Array], frame: bytes) -> Any:
        order = command.get("order_by")
        direction = edge.Direction.Desc if order and order["direction"] == "desc" else edge.Direction.Asc
        records, following = self._existing(command).shard.scroll(
            edge.ScrollRequest(
                offset=command.get("offset"),
                limit=command["limit"],
                filter=build_filter(command.get("filter")),
                with_payload=command["with_payload"],
                with_vector=False,
                order_by=edge.OrderBy(order["key"], direction, order.get("start_from")) if order else None,
            )
        )
        return [
            [{"id": str(record.id), "payload": record.payload} for record in records],
            None if following is None else str(following),
        ]

    def _count(self, command: dict[str, Any], arrays: list[Array], frame: bytes) -> Any:
        return self._existing(command).shard.count(
            edge.CountRequest(exact=True, filter=build_filter(command.get("filter")))
        )


def _hits(points: Iterable[edge.ScoredPoint]) -> list[dict[str, Any]]:
    return [{"id": str(point.id), "score": point.score, "payload": point.payload} for point in points]


# ---- the process ----


def _write(descriptor: int, frame: bytes) -> None:
    view = memoryview(frame)
    while view:
        view = view[os.write(descriptor, view) :]


def main() -> None:
    """Serve commands until stdin ends."""
    directory, owner = Path(sys.argv[1]), int(sys.argv[2])
    # A Ctrl-C reaches the whole process group; the indexer decides when this process ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    replies = os.dup(1)
    os.dup2(2, 1)  # whatever the engine may print belongs in the log, not between frames
    try:
        acquire_lock(directory, owner)
    except (CommandError, OSError) as error:
        kind = error.kind if isinstance(error, CommandError) else "directory"
        message = str(error) if kind == "locked" else f"the index folder {directory} cannot be used: {error}"
        _write(replies, encode({"error": kind, "message": message}))
        return
    engine = Engine(directory)
    _write(replies, encode({"result": "ready"}))
    try:
        while True:
            ready, _, _ = select.select([0], [], [], engine.seconds_to_flush())
            if not ready:
                engine.flush()
                continue
            frame = read_frame(lambda size: os.read(0, size))
            if frame is None:
                break
            _write(replies, engine.handle(frame))
    except BrokenPipeError:
        pass  # the indexer died while we answered
    finally:
        engine.close()


if __name__ == "__main__":
    main()
