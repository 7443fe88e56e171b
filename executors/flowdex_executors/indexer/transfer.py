"""Files on their way through a flow: snapshots are read from, and written to, the indexer in pieces.

    /snapshot         {}                              ->  {"name": ..., "size": bytes, "sha256": ...}
    /snapshot/read    {"name": ..., "offset": n}      ->  one document, field `blob`: the next piece, empty at the end
    /restore/write    {"name": ..., "offset": n}, one document with `blob`  ->  {"size": bytes so far}
    /restore          {"name": ..., "sha256": ...}    ->  {"documents": ..., "passages": ...}

A piece names its offset, so that repeating a request, as clients do, changes nothing. Files that nobody has fetched or
restored within an hour are removed.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
import uuid
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from flowdex.documents import DocumentBatch
from flowdex.errors import ConfigurationError, Conflict, InvalidInput, NotFound
from flowdex_executors.indexer.backend import Backend
from flowdex_executors.indexer.edge import AsyncEdgeClient
from flowdex_executors.indexer.generations import Generations
from flowdex_executors.indexer.layout import Manifest, disk_error
from flowdex_executors.indexer.payload import DENSE
from flowdex_executors.indexer.settings import IndexerSettings

__all__ = ["PIECE", "PieceParameters", "RestoreParameters", "SnapshotParameters", "Snapshots", "TransferFolder"]

PIECE = 8 * 2**20
"""Bytes of a piece: well within what a message may hold."""
_KEPT_SECONDS = 3600.0
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


class SnapshotParameters(BaseModel):
    """Parameters of /snapshot.

    Attributes:
        done: Name of a snapshot that has been fetched and can be removed; then none is made.
    """

    done: str | None = None


class PieceParameters(BaseModel):
    """Parameters of /snapshot/read and /restore/write."""

    name: str
    offset: int = Field(ge=0)


class RestoreParameters(BaseModel):
    """Parameters of /restore."""

    name: str
    sha256: str


class TransferFolder:
    """Where files wait.

    Args:
        path: The folder; it is made when it is needed.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def place(self, name: str) -> Path:
        """Where the file of this name is, or is to be made; old files go.

        Raises:
            InvalidInput: It cannot be a name.
            Unavailable: The disk refuses.
        """
        if not _NAME.fullmatch(name):
            raise InvalidInput(f"{name[:80]!r} cannot name a transfer: use up to 64 letters, digits, '_' and '-'")
        try:
            self._path.mkdir(parents=True, exist_ok=True)
            for file in self._path.iterdir():
                if file.is_file() and file.stat().st_mtime < time.time() - _KEPT_SECONDS:
                    file.unlink(missing_ok=True)
        except OSError as error:
            raise disk_error(error, self._path) from None
        return self._path / name

    def read(self, name: str, offset: int) -> bytes:
        """A piece of a file; empty at its end.

        Raises:
            NotFound: There is no such file.
        """
        try:
            with self.place(name).open("rb") as file:
                file.seek(offset)
                return file.read(PIECE)
        except FileNotFoundError:
            raise NotFound(f"there is no snapshot {name!r}; it may be too old: make another") from None

    def write(self, name: str, offset: int, piece: bytes) -> int:
        """Add a piece; the size so far. Adding one again changes nothing.

        Raises:
            InvalidInput: What comes before it is missing.
            Unavailable: The disk refuses.
        """
        path = self.place(name)
        size = path.stat().st_size if path.exists() else 0
        if offset > size:
            raise InvalidInput(
                f"the piece at {offset} of {name!r} comes too early: there are {size} bytes; begin again"
            )
        try:
            with path.open("r+b" if size else "wb") as file:
                file.seek(offset)
                file.write(piece)
                return file.seek(0, 2)
        except OSError as error:
            raise disk_error(error, path.parent) from None

    def complete(self, name: str, sha256: str) -> Path:
        """The file, when it is what was sent.

        Raises:
            InvalidInput: It is not.
        """
        path = self.place(name)
        digest = hashlib.sha256()
        if path.exists():
            with path.open("rb") as file:
                while piece := file.read(2**20):
                    digest.update(piece)
        if not path.exists() or digest.hexdigest() != sha256:
            raise InvalidInput(f"the snapshot did not arrive as it was sent ({name!r}); send it again")
        return path

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        self.place(name).unlink(missing_ok=True)


class Snapshots:
    """The endpoints on snapshots.

    Args:
        backend: Where the collection lives.
        generations: Which collection it is.
        settings: What a snapshot must agree with.
    """

    def __init__(self, backend: Backend, generations: Generations, settings: IndexerSettings) -> None:
        self._backend = backend
        self._generations = generations
        self._settings = settings

    async def take(self, wanted: SnapshotParameters) -> dict[str, Any]:
        """Take a snapshot, or remove one that has been fetched."""
        client = self._edge()
        folder = TransferFolder(client.transfers)
        if wanted.done is not None:
            await asyncio.to_thread(folder.remove, wanted.done)
            return {"removed": wanted.done}
        await self._generations.refresh()
        if await self._generations.active.dimensions() is None:
            raise NotFound("nothing is indexed yet, so there is nothing to save")
        name = f"snapshot-{uuid.uuid4().hex[:16]}"
        path = await asyncio.to_thread(folder.place, name)
        written = await self._backend.call(lambda _: client.write_snapshot(self._generations.active.name, path))
        return {"name": name, **written}

    async def read(self, wanted: PieceParameters) -> DocumentBatch:
        """The next piece, as one document."""
        folder = TransferFolder(self._edge().transfers)
        piece = await asyncio.to_thread(folder.read, wanted.name, wanted.offset)
        return DocumentBatch.from_columns(blob=[piece])

    async def write(self, batch: DocumentBatch, wanted: PieceParameters) -> dict[str, Any]:
        """Take the next piece."""
        folder = TransferFolder(self._edge().transfers)
        pieces = batch.column("blob")
        if len(pieces) != 1 or not isinstance(pieces[0], bytes):
            raise InvalidInput("a piece of a snapshot is one document with the field `blob`")
        return {"size": await asyncio.to_thread(folder.write, wanted.name, wanted.offset, pieces[0])}

    async def restore(self, wanted: RestoreParameters) -> dict[str, Any]:
        """Put a snapshot in the place of what is stored."""
        client = self._edge()
        folder = TransferFolder(client.transfers)
        path = await asyncio.to_thread(folder.complete, wanted.name, wanted.sha256)
        await self._generations.refresh(now=True)
        if self._generations.stage != "idle":
            raise Conflict("documents are being embedded anew (flowdex reindex): end that, and restore then")
        collection = self._generations.active
        await self._backend.call(lambda _: client.restore_snapshot(collection.name, path, self._check))
        await collection.forget()
        await asyncio.to_thread(folder.remove, wanted.name)
        documents, passages = await collection.count()
        return {"documents": documents, "passages": passages}

    def _edge(self) -> AsyncEdgeClient:
        if not isinstance(self._backend.client, AsyncEdgeClient):
            raise ConfigurationError(
                f"{self._settings.uri} is a Qdrant server, which makes snapshots of its own: POST "
                "/collections/NAME/snapshots to it, and see its documentation for how to recover them"
            )
        return self._backend.client

    def _check(self, manifest: Manifest) -> None:
        vector = manifest.dense.get(DENSE, {})
        for what, wanted, found in (
            ("dimensions", self._settings.dimensions, vector.get("size")),
            ("distance", self._settings.distance, str(vector.get("distance", "")).lower()),
        ):
            if wanted not in (None, found):
                raise Conflict(
                    f"the snapshot's vectors are of {what} {found}, but uses_with.{what} of the indexer is {wanted}; "
                    "make them agree, and restore it then"
                )
