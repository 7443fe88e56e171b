"""Snapshots of a collection of the embedded index: one file that holds all of it, and says when it is damaged.

    a tar file:  header.json       format, collection, manifest (see layout.py), points
                 0/shard/...       the engine's files, shard by shard; without holes, which pax headers describe
                 checksums.json    SHA-256 of everything before it; last, so that a file that was cut off lacks it

Nothing in a snapshot is run or believed: names must be plain, sizes must agree, and all checksums are compared before
any of it is used.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from flowdex.errors import ConfigurationError, FlowdexError, InvalidInput
from flowdex.formats import NewerFormat, refuse_newer
from flowdex_executors.indexer.files import data_ranges
from flowdex_executors.indexer.layout import FORMAT, Manifest

__all__ = ["read_header", "read_snapshot", "write_snapshot"]

_HEADER, _CHECKSUMS = "header.json", "checksums.json"
_NAME = re.compile(r"(?!.*\.\.)(?=.{1,1000}\Z)\d{1,9}/shard(/(?!\.(/|\Z))[A-Za-z0-9_.-]{1,255})+")
_SIZE, _RANGES = "FLOWDEX.size", "FLOWDEX.ranges"
_PIECE = 2**20
# What reading a file of any bytes ends in: of tarfile, of json, of values of other types than they should have.
_WRONG = (tarfile.TarError, ValueError, LookupError, TypeError, AttributeError, OverflowError, EOFError, RecursionError)
_MOST_JSON = 16 * 2**20
_LARGEST_FILE = 2**40  # bytes, holes included; no shard has a file of that size


def write_snapshot(target: Path, source: Path, collection: str, manifest: Manifest, points: int) -> dict[str, Any]:
    """Write a snapshot.

    Args:
        target: The file to make.
        source: Folder of the shards, each closed or a copy: `0/shard/`, `1/shard/`, ...
        collection: Its name.
        manifest: Its manifest.
        points: How many it holds.

    Returns:
        `size` of the file in bytes, and its `sha256`.
    """
    header = {"format": FORMAT, "collection": collection, "manifest": manifest.to_json(), "points": points}
    checksums: dict[str, str] = {}
    with target.open("wb") as file, tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
        checksums[_HEADER] = _add_json(tar, _HEADER, header)
        for path in sorted(path for path in source.rglob("*") if path.is_file()):
            name = path.relative_to(source).as_posix()
            with path.open("rb", buffering=0) as content:
                size = path.stat().st_size
                ranges = data_ranges(content.fileno(), size)
                info = tarfile.TarInfo(name)
                info.size = sum(end - start for start, end in ranges)
                info.pax_headers = {_SIZE: str(size), _RANGES: ",".join(f"{start}-{end}" for start, end in ranges)}
                reader = _Ranges(content, ranges)
                tar.addfile(info, reader)  # type: ignore[arg-type]  # read() is all it takes
                checksums[name] = reader.digest(info)
        _add_json(tar, _CHECKSUMS, checksums)
    digest = hashlib.sha256()
    with target.open("rb") as written:
        while piece := written.read(_PIECE):
            digest.update(piece)
    return {"size": target.stat().st_size, "sha256": digest.hexdigest()}


def read_snapshot(source: Path, target: Path | None, accept: Callable[[Manifest], None]) -> Manifest:
    """Unpack a snapshot and check all of it.

    Args:
        source: The file.
        target: Folder to make, for the shards; None to check and keep nothing.
        accept: Raises where a collection of this manifest is not wanted; called before anything is unpacked.

    Returns:
        The manifest.

    Raises:
        InvalidInput: It is no snapshot, of another format, or damaged; `target` then holds rubbish.
        FlowdexError: What `accept` raises.
    """
    found: dict[str, str] = {}
    try:
        with tarfile.open(source, mode="r:") as tar:
            members = iter(tar)
            manifest = _manifest(tar, next(members, None), found)
            accept(manifest)
            for member in members:
                if member.name == _CHECKSUMS:
                    _compare(found, _read_json(tar, member)[0])
                    return manifest
                if member.name in found:
                    raise _damaged(f"{member.name!r} is in it twice")
                found[member.name] = _unpack(tar, member, target)
    except (FileExistsError, NotADirectoryError, IsADirectoryError):
        raise _damaged("a name in it is that of a file and of a folder") from None
    except _WRONG as error:
        if isinstance(error, FlowdexError):  # two of which are a ValueError, too
            raise
        raise _damaged(str(error)) from None
    raise _damaged("its end is missing")


class _Ranges:
    """Reads the data of a file, without its holes, and hashes it."""

    def __init__(self, file: IO[bytes], ranges: list[tuple[int, int]]) -> None:
        self._pieces = self._read(file, ranges)
        self._rest = b""
        self._hash = hashlib.sha256()

    @staticmethod
    def _read(file: IO[bytes], ranges: list[tuple[int, int]]) -> Iterator[bytes]:
        for start, end in ranges:
            file.seek(start)
            position = start
            while position < end:
                piece = file.read(min(_PIECE, end - position))
                if not piece:
                    raise OSError("a file of the index became shorter while it was read")
                position += len(piece)
                yield piece

    def read(self, size: int) -> bytes:
        """As of a file."""
        parts = [self._rest]
        have = len(self._rest)
        while have < size and (piece := next(self._pieces, None)):
            parts.append(piece)
            have += len(piece)
        content = b"".join(parts)
        self._rest = content[size:]
        self._hash.update(content[:size])
        return content[:size]

    def digest(self, info: tarfile.TarInfo) -> str:
        """Of the data and of where they go."""
        return _with_place(self._hash, info)


def _with_place(digest: Any, info: tarfile.TarInfo) -> str:
    digest.update(f"{info.pax_headers.get(_SIZE)} {info.pax_headers.get(_RANGES)}".encode())
    result: str = digest.hexdigest()
    return result


def _add_json(tar: tarfile.TarFile, name: str, value: Any) -> str:
    content = json.dumps(value, indent=1).encode()
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))
    return hashlib.sha256(content).hexdigest()


def _read_json(tar: tarfile.TarFile, member: tarfile.TarInfo) -> tuple[Any, str]:
    file = tar.extractfile(member)
    if file is None or member.size > _MOST_JSON:
        raise _damaged(f"{member.name} is not what it should be")
    content = file.read()
    return json.loads(content), hashlib.sha256(content).hexdigest()


def read_header(source: Path) -> dict[str, Any]:
    """The header of a snapshot, unchecked: `format`, `collection`, `manifest`, `points`.

    Raises:
        InvalidInput: It is no snapshot.
    """
    try:
        with tarfile.open(source, mode="r:") as tar:
            member = tar.next()
            if member is not None and member.name == _HEADER:
                header = _read_json(tar, member)[0]
                if isinstance(header, dict):
                    return header
    except (tarfile.TarError, ValueError, EOFError, RecursionError) as error:
        raise InvalidInput(f"the file is not a snapshot of flowdex: {error}") from None
    raise InvalidInput("the file is not a snapshot of flowdex: it does not begin with a header")


def _manifest(tar: tarfile.TarFile, member: tarfile.TarInfo | None, found: dict[str, str]) -> Manifest:
    if member is None or member.name != _HEADER:
        raise InvalidInput("the file is not a snapshot of flowdex: it does not begin with a header")
    header, found[_HEADER] = _read_json(tar, member)
    try:
        author = header["manifest"].get("flowdex")
        refuse_newer("the snapshot", header["format"], FORMAT, written_by=author, remedy="nothing has been restored")
    except NewerFormat as error:
        raise InvalidInput(error.message) from None
    try:
        return Manifest.from_json(header["manifest"], "the header")
    except ConfigurationError as error:
        raise _damaged(error.message) from None


def _unpack(tar: tarfile.TarFile, member: tarfile.TarInfo, target: Path | None) -> str:
    file = tar.extractfile(member) if member.isreg() else None
    if file is None or not _NAME.fullmatch(member.name):
        raise _damaged(f"{member.name[:80]!r} has no place in it")
    size = int(member.pax_headers[_SIZE])
    ranges = [tuple(map(int, each.split("-"))) for each in member.pax_headers[_RANGES].split(",") if each]
    fits = size <= _LARGEST_FILE and all(0 <= start <= end <= size for start, end in ranges)
    if not fits or sum(end - start for start, end in ranges) != member.size:
        raise _damaged(f"the size of {member.name!r} is wrong")
    digest = hashlib.sha256()
    with _sink(target, member.name, size) as out:
        for start, end in ranges:
            out.seek(start)
            position = start
            while position < end:
                piece = file.read(min(_PIECE, end - position))
                if not piece:
                    raise _damaged("its end is missing")
                out.write(piece)
                digest.update(piece)
                position += len(piece)
    return _with_place(digest, member)


def _sink(target: Path | None, name: str, size: int) -> IO[bytes]:
    """Where the data of a file go: to a file of `size` bytes, all holes as yet, or to nowhere."""
    if target is None:
        return Path(os.devnull).open("wb")
    path = target / name
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("wb")
    file.truncate(size)
    return file


def _compare(found: dict[str, str], expected: Any) -> None:
    if found != expected:
        wrong = sorted(name for name in {*found, *expected} if found.get(name) != expected.get(name))
        raise _damaged(f"the checksum of {wrong[0]} does not agree")


def _damaged(what: str) -> InvalidInput:
    return InvalidInput(f"the snapshot is damaged: {what}; nothing has been restored: fetch it again, or use another")
