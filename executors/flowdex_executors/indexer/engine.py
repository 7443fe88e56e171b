"""The engine process: Qdrant's embedded engine behind a pipe. Runs as `python -m flowdex_executors.indexer.engine DIR`.

    stdin --frame--> one command at a time --> Shard (shard.py) --> EdgeShard --frame--> stdout

Nothing in the engine releases Python's lock, so in the indexer's own process a long call would freeze every request and
health check; here it only delays the commands behind it. An index of several shards has one such process a shard, which
work at the same time. The process ends when its stdin does, that is, when the indexer closes it or dies by whatever
means; it finishes the command at hand and flushes first. It inherits the lock of the folder, so that nobody else opens
the folder before all have ended.
"""

from __future__ import annotations

import errno
import os
import re
import select
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import qdrant_edge as edge

from flowdex_executors.indexer.engine_models import FIELD_TYPES, CommandError, build_filter, build_request, hits
from flowdex_executors.indexer.frames import Array, WithArrays, decode, encode, read_frame
from flowdex_executors.indexer.shard import Shard

__all__ = ["Engine"]

_DISK = re.compile(r"os error (\d+)|No space left|Read-only file system", re.IGNORECASE)


class Engine:
    """Shards by their paths, and the commands on them.

    Args:
        directory: Folder of the index; the paths in commands are relative to it.
        fsync: See `Shard`.
    """

    def __init__(self, directory: Path, *, fsync: bool) -> None:
        self._directory = directory
        self._fsync = fsync
        self._shards: dict[str, Shard] = {}
        self._commands: dict[str, Callable[[dict[str, Any], list[Array], bytes], Any]] = {
            "create": self._create,
            "close": self._close,
            "drop": self._drop,
            "info": self._info,
            "flush": self._flush,
            "index_field": self._index_field,
            "update": self._update,
            "query": self._run_queries,
            "retrieve": self._retrieve,
            "scroll": self._scroll,
            "count": self._count,
            "pack": self._pack,
            "swap": self._swap,
        }

    def handle(self, frame: bytes) -> bytes:
        """Carry out one command; its answer, or what went wrong, as a frame."""
        command, arrays = decode(frame)
        try:
            result = self._commands[command["command"]](command, arrays, frame)
            body, rows = result if isinstance(result, WithArrays) else (result, [])
            return encode({"result": body}, rows)
        except CommandError as error:
            return encode({"error": error.kind, "message": str(error)})
        except Exception as error:  # the engine raises bare Exceptions; the indexer turns this into one of ours
            return encode({"error": _kind(error), "message": str(error)})

    def seconds_to_flush(self) -> float | None:
        """Seconds until `flush` is due, None when nothing is to be written."""
        due = [shard.flush_at for shard in self._shards.values() if shard.flush_at is not None]
        return max(0.0, min(due) - time.monotonic()) if due else None

    def flush(self) -> None:
        """Write everything to disk; a failure is noted in the log, and the next flush tries again."""
        for shard in self._shards.values():
            try:
                shard.flush()
            except Exception as error:
                print(f"the index could not be flushed: {error}", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Flush and close all shards."""
        for shard in self._shards.values():
            shard.close()
        self._shards.clear()

    # ---- shards ----

    def _path(self, command: dict[str, Any]) -> Path:
        return self._directory / str(command["path"])

    def _shard(self, command: dict[str, Any]) -> Shard:
        path = command["path"]
        if path not in self._shards:
            try:
                self._shards[path] = Shard(self._path(command), fsync=self._fsync)
            except CommandError:
                raise
            except Exception as error:
                if _kind(error) != "engine":
                    raise
                raise CommandError("damaged", f"{path}: {error}") from None
        return self._shards[path]

    def _create(self, command: dict[str, Any], arrays: list[Array], frame: bytes) -> Any:
        Shard.create(self._path(command), command["dense"], command["sparse"])
        return True

    def _close(self, command: dict[str, Any], arrays: list[Array], frame: bytes) -> Any:
        shard = self._shards.pop(command["path"], None)
        if shard is not None:
            shard.close()
        return True

    def _drop(self, command: dict[str, Any], arrays: list[Array], frame: bytes) -> Any:
        self._close(command, arrays, frame)
        shutil.rmtree(self._path(command), ignore_errors=True)
        return True

    def _info(self, command: dict[str, Any], arrays: list[Array], frame: bytes) -> Any:
        shard = self._shard(command)
        info = shard.engine.info()
        return {
            "points": info.points_count,
            "indexed": info.indexed_vectors_count,
            "segments": info.segments_count,
            "deleted": shard.deleted,
            "fields": sorted(info.payload_schema),
        }

    def _flush(self, command: dict[str, Any], arrays: list[Array], frame: bytes) -> Any:
        self._shard(command).flush()
        return True

    def _pack(self, command: dict[str, Any], arrays: list[Array], frame: bytes) -> Any:
        self._close(command, arrays, frame)
        Shard.pack(self._path(command), command["dense"], command["sparse"], command["threshold"])
        return True

    def _swap(self, command: dict[str, Any], arrays: list[Array], frame: bytes) -> Any:
        self._shard(command).replace_with_build()
        del self._shards[command["path"]]
        self._shard(command)
        return True

    # ---- points ----

    def _index_field(self, command: dict[str, Any], arrays: list[Array], frame: bytes) -> Any:
        self._shard(command).index_field(command["field"], FIELD_TYPES[command["type"]])
        return True

    def _update(self, command: dict[str, Any], arrays: list[Array], frame: bytes) -> Any:
        shard = self._shard(command)
        shard.update(frame, command["operations"], arrays)
        if shard.must_flush:
            shard.flush()
        return True

    def _run_queries(self, command: dict[str, Any], arrays: list[Array], frame: bytes) -> Any:
        requests = [build_request(item, arrays) for item in command["requests"]]
        found = self._shard(command).engine.query_batch(edge.QueryBatchRequest(requests))
        return [hits(points) for points in found]

    def _retrieve(self, command: dict[str, Any], arrays: list[Array], frame: bytes) -> Any:
        records = self._shard(command).engine.retrieve(command["ids"], command["with_payload"], command["with_vectors"])
        body = [{"id": str(record.id), "payload": record.payload, "vector": None} for record in records]
        if not command["with_vectors"]:
            return body
        rows: list[Array] = []
        for head, record in zip(body, records, strict=True):
            named: Any = record.vector or {}  # ours have names, all of them
            head["vector"] = {name: len(rows) + place for place, name in enumerate(named)}
            rows += [np.asarray(values, dtype=np.float32) for values in named.values()]
        return WithArrays(body, rows)

    def _scroll(self, command: dict[str, Any], arrays: list[Array], frame: bytes) -> Any:
        order = command.get("order_by")
        records, following = self._shard(command).engine.scroll(
            edge.ScrollRequest(
                offset=command.get("offset"),
                limit=command["limit"],
                filter=build_filter(command.get("filter")),
                with_payload=command["with_payload"],
                with_vector=False,
                order_by=_order(order) if order else None,
            )
        )
        return [
            [{"id": str(each.id), "payload": each.payload, "order_value": each.order_value} for each in records],
            None if following is None else str(following),
        ]

    def _count(self, command: dict[str, Any], arrays: list[Array], frame: bytes) -> Any:
        return self._shard(command).engine.count(
            edge.CountRequest(exact=True, filter=build_filter(command.get("filter")))
        )


def _order(order: dict[str, Any]) -> edge.OrderBy:
    direction = edge.Direction.Desc if order["direction"] == "desc" else edge.Direction.Asc
    return edge.OrderBy(order["key"], direction, order.get("start_from"))


def _kind(error: Exception) -> str:
    """What an error is about; of the engine's own there is the message alone."""
    match = _DISK.search(str(error))
    code = error.errno if isinstance(error, OSError) else int(match[1]) if match and match[1] else None
    if code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) or (match and match[0].lower() == "no space left"):
        return "full"
    return "disk" if match or isinstance(error, OSError) else "engine"


# ---- the process ----


def _write(descriptor: int, frame: bytes) -> None:
    view = memoryview(frame)
    while view:
        view = view[os.write(descriptor, view) :]


def main() -> None:
    """Serve commands until stdin ends. Arguments: folder of the index, `process` or `fsync`, niceness."""
    directory, durability, niceness = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    # A Ctrl-C reaches the whole process group; the indexer decides when this process ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.nice(niceness)
    replies = os.dup(1)
    os.dup2(2, 1)  # whatever the engine may print belongs in the log, not between frames
    engine = Engine(directory, fsync=durability == "fsync")
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
