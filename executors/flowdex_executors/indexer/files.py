"""Files of the index, as files: copied with their holes, written as a whole or not at all, flushed to disk."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

__all__ = ["copy_tree", "data_ranges", "sync_directory", "sync_tree", "write_atomically"]


def sync_directory(path: Path) -> None:
    """Make the names in a folder survive the loss of power."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(path: Path) -> None:
    """Flush every file and folder in `path` to disk, so that all of it survives the loss of power."""
    for place, _, files in os.walk(path):
        for file in files:
            descriptor = os.open(Path(place, file), os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        sync_directory(Path(place))
    sync_directory(path.parent)


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that it is there as a whole or, whatever happens, as it was before."""
    staging = path.with_name(path.name + ".new")
    with staging.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    staging.rename(path)
    sync_directory(path.parent)


def copy_tree(source: Path, target: Path) -> None:
    """Copy a folder of files; holes in them stay holes, as the engine makes files larger than what they hold."""
    target.mkdir(parents=True)
    for entry in os.scandir(source):
        if entry.is_dir():
            copy_tree(Path(entry.path), target / entry.name)
        else:
            _copy_file(Path(entry.path), target / entry.name)


def _copy_file(source: Path, target: Path) -> None:
    with source.open("rb", buffering=0) as reader, target.open("wb", buffering=0) as writer:
        size = os.fstat(reader.fileno()).st_size
        os.truncate(writer.fileno(), size)
        for start, end in data_ranges(reader.fileno(), size):
            position = os.lseek(writer.fileno(), start, os.SEEK_SET)
            while position < end:
                sent = os.sendfile(writer.fileno(), reader.fileno(), position, end - position)
                if not sent:  # shorter than it was: cannot be, as nobody writes
                    raise OSError(f"{source} changed while it was copied")
                position += sent


def data_ranges(descriptor: int, size: int) -> list[tuple[int, int]]:
    """Where a file holds data, as (start, end); the rest are zeros that take no room."""
    ranges: list[tuple[int, int]] = []
    end = 0
    with contextlib.suppress(OSError):  # ENXIO: nothing but a hole up to the end
        while end < size:
            start = os.lseek(descriptor, end, os.SEEK_DATA)
            end = os.lseek(descriptor, start, os.SEEK_HOLE)
            ranges.append((start, end))
    return ranges
