"""Which files there are to read: the paths as given, folders taken apart.

paths --find_sources--> [Source], [ReadFailure]
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["STDIN", "ReadFailure", "Source", "find_sources", "reason_of"]

STDIN = "-"

# Folders that hold no text of their owner's; hidden ones are left out anyway.
_SKIPPED_FOLDERS = {"__pycache__", "node_modules"}


@dataclass(frozen=True)
class ReadFailure:
    """Something that could not be read.

    Attributes:
        source: File, or "file:line".
        reason: Why, and what to do about it.
    """

    source: str
    reason: str


@dataclass(frozen=True)
class Source:
    """A file to read.

    Attributes:
        name: The path as it was given, which is also the id; "-" is standard input.
        size: Its size in bytes; 0 where unknown.
        asked_for: Named by the caller, rather than found in a folder: then it must be text.
    """

    name: str
    size: int = 0
    asked_for: bool = True


def find_sources(paths: Iterable[str | Path]) -> tuple[list[Source], list[ReadFailure]]:
    """Resolve files and folders, folders recursively and in order of names, each file once.

    Hidden files and folders, `__pycache__`, `node_modules` and virtual environments inside folders are left out.
    """
    sources: dict[str, Source] = {}
    failures: list[ReadFailure] = []
    for path in map(str, paths):
        name = STDIN if path == STDIN else Path(os.path.normpath(path)).as_posix()
        if name == STDIN:
            sources.setdefault(name, Source(STDIN))
        elif Path(name).is_dir():
            for found in _walk(name, failures):
                sources.setdefault(found.name, found)
        else:
            try:
                sources[name] = Source(name, Path(name).stat().st_size)
            except OSError as error:
                failures.append(ReadFailure(path, reason_of(error)))
    return list(sources.values()), failures


def _walk(root: str, failures: list[ReadFailure]) -> Iterator[Source]:
    def failed(error: OSError) -> None:
        failures.append(ReadFailure(str(error.filename), reason_of(error)))

    for folder, folders, files in os.walk(root, onerror=failed):
        folders[:] = sorted(name for name in folders if not _is_skipped(Path(folder, name)))
        for file in sorted(files):
            path = Path(folder, file)
            if not file.startswith(".") and (path.is_file() or path.is_symlink()):
                try:
                    yield Source(Path(os.path.normpath(path)).as_posix(), path.stat().st_size, asked_for=False)
                except OSError as error:
                    failures.append(ReadFailure(str(path), reason_of(error)))


def _is_skipped(folder: Path) -> bool:
    return folder.name.startswith(".") or folder.name in _SKIPPED_FOLDERS or (folder / "pyvenv.cfg").exists()


def reason_of(error: OSError) -> str:
    """What the system says, in lower case, such as "permission denied"."""
    return (error.strerror or str(error)).lower()
