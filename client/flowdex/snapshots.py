"""Snapshots of a flow's index, over the wire: to a file here, and from one, in pieces of a few megabytes.

    save    /snapshot -> name, size, SHA-256;  /snapshot/read, piece by piece --> FILE.part --checked, renamed--> FILE
    load    FILE, piece by piece --> /restore/write;  /restore with its SHA-256, which the indexer checks

Each piece names its place, so a request that is repeated, because a connection broke, changes nothing. The index is a
file on no shared disk: this works the same for a flow on this machine and for one in a cluster.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from flowdex.documents import DocumentBatch
from flowdex.errors import ConfigurationError, InternalError, InvalidInput, NotFound

__all__ = ["Post", "RestoreResult", "SnapshotResult", "load_snapshot", "save_snapshot"]

Post: TypeAlias = Callable[
    [str, DocumentBatch | None, Mapping[str, Any]], Awaitable[tuple[DocumentBatch, dict[str, dict[str, Any]]]]
]
"""Asks an endpoint; the documents of the answer, and what executors told, by their names."""
_PIECE = 8 * 2**20


@dataclass(frozen=True)
class SnapshotResult:
    """A snapshot that was saved.

    Attributes:
        path: The file.
        size: Bytes.
        sha256: Of the file.
    """

    path: Path
    size: int
    sha256: str


@dataclass(frozen=True)
class RestoreResult:
    """What is stored after a restore: the number of `documents` and `passages`."""

    documents: int
    passages: int


async def save_snapshot(post: Post, path: Path, progress: Callable[[int, int], None]) -> SnapshotResult:
    """Take a snapshot and fetch it.

    Args:
        post: Asks the flow.
        path: The file to make; one that is there is replaced when the snapshot has arrived as a whole.
        progress: Called with the bytes that have arrived, and all of them.

    Raises:
        NotFound: The flow has no index, or nothing is stored in it.
        ConfigurationError: The file cannot be written.
    """
    taken = await _told(post, "/snapshot", None, {})
    name, size, staging = taken["name"], int(taken["size"]), path.with_name(path.name + ".part")
    digest = hashlib.sha256()
    done = 0
    try:
        with _opened(staging, "wb") as file:
            while True:
                documents, _ = await post("/snapshot/read", None, {"name": name, "offset": done})
                pieces = documents.column("blob", b"")
                if not pieces or not pieces[0]:
                    break
                await asyncio.to_thread(file.write, pieces[0])
                digest.update(pieces[0])
                done += len(pieces[0])
                progress(done, size)
            await asyncio.to_thread(os.fsync, _flushed(file))
        if (done, digest.hexdigest()) != (size, taken["sha256"]):
            raise InternalError(f"the snapshot did not arrive as it was sent ({done} of {size} bytes); take another")
        await asyncio.to_thread(staging.replace, path)  # on disk and whole, so whatever bears the name is a snapshot
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be written: {error}") from None
    finally:
        await asyncio.to_thread(staging.unlink, missing_ok=True)
        await post("/snapshot", None, {"done": name})
    return SnapshotResult(path, size, taken["sha256"])


async def load_snapshot(post: Post, path: Path, progress: Callable[[int, int], None]) -> RestoreResult:
    """Send a snapshot and put it in the place of all that is stored.

    Args:
        post: Asks the flow.
        path: The snapshot.
        progress: Called with the bytes that are sent, and all of them.

    Raises:
        InvalidInput: The file cannot be read, is no snapshot, is damaged or of another format; nothing has changed.
        Conflict: The flow's settings do not agree with it; nothing has changed.
        NotFound: The flow has no index.
    """
    name, digest, done = f"restore-{uuid.uuid4().hex[:16]}", hashlib.sha256(), 0
    try:
        with _opened(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            while piece := await asyncio.to_thread(file.read, _PIECE):
                batch = DocumentBatch.from_columns(blob=[piece])
                await _told(post, "/restore/write", batch, {"name": name, "offset": done})
                digest.update(piece)
                done += len(piece)
                progress(done, size)
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error}") from None
    told = await _told(post, "/restore", None, {"name": name, "sha256": digest.hexdigest()})
    return RestoreResult(int(told["documents"]), int(told["passages"]))


def _flushed(file: Any) -> int:
    """The descriptor of a file, once what Python holds back of it is written."""
    file.flush()
    return int(file.fileno())


def _opened(path: Path, mode: str) -> Any:
    return path.open(mode)


async def _told(
    post: Post, endpoint: str, batch: DocumentBatch | None, parameters: Mapping[str, Any]
) -> dict[str, Any]:
    """What the one executor that knows the endpoint told."""
    _, told = await post(endpoint, batch, parameters)
    if not told:
        raise NotFound("the flow has no index of which there could be a snapshot")
    return next(iter(told.values()))
