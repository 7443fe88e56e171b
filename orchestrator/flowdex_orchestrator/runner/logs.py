"""The log files of a flow: rotated when it starts and when they grow, read and followed by `flowdex logs`.

process --append--> encoder-0.log --rotate / cut--> encoder-0.log.1
                         |
                         +--tail, follow--> "encoder-0 | line"
"""

from __future__ import annotations

import os
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

__all__ = ["cut", "follow", "read_from", "rotate", "tail"]

LIMIT = 64 * 2**20  # bytes at which the log of a running process is cut
_POLL_SECONDS = 0.2
_BLOCK = 2**16


def rotate(log: Path) -> None:
    """Move a log of an earlier run aside, over the one before."""
    if log.exists():
        log.replace(_previous(log))


def cut(log: Path, limit: int = LIMIT) -> bool:
    """Copy a log that has grown past `limit` bytes aside and empty it; the process goes on appending to it."""
    try:
        if log.stat().st_size <= limit:
            return False
        shutil.copyfile(log, _previous(log))
        os.truncate(log, 0)
    except FileNotFoundError:
        return False
    return True


def read_from(log: Path, offset: int, limit: int = _BLOCK) -> str:
    """The text from byte `offset` on; only the last `limit` bytes of it."""
    try:
        with log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            start = offset if offset <= size else 0  # it was cut since
            file.seek(max(start, size - limit))
            return file.read(limit).decode(errors="replace")
    except FileNotFoundError:
        return ""


def tail(log: Path, lines: int) -> list[str]:
    """The last `lines` lines, without their ends; reads no more of the file than it must."""
    return _Reader(log, lines).read()


def follow(
    logs: Sequence[Path], lines: int, *, until: Callable[[], bool] = lambda: False, poll: float = _POLL_SECONDS
) -> Iterator[tuple[Path, str]]:
    """Yield the last `lines` lines of each log, then each new line as it is written.

    Args:
        logs: The files; one that does not exist yet is awaited.
        lines: How many old lines of each to begin with.
        until: Ends the iteration once it is true and everything written was read.
        poll: Seconds between looks at the files.
    """
    readers = [_Reader(log, lines) for log in logs]
    while True:
        over = until()  # asked before reading, so that nothing written before the end is missed
        for reader in readers:
            for line in reader.read():
                yield reader.log, line
        if over:
            return
        time.sleep(poll)


class _Reader:
    """Reads a growing file line by line; notices that it was replaced or cut."""

    def __init__(self, log: Path, lines: int) -> None:
        self.log = log
        self._lines = lines
        self._inode: int | None = None
        self._offset = 0
        self._rest = b""

    def read(self) -> list[str]:
        """The lines that are new since the last call (the first call: the last lines)."""
        try:
            file = self.log.open("rb")
        except FileNotFoundError:
            return []
        with file:
            status = os.fstat(file.fileno())
            if self._inode is None:
                self._offset = _start_of_last(file.fileno(), status.st_size, self._lines)
            elif status.st_ino != self._inode or status.st_size < self._offset:
                self._offset, self._rest = 0, b""
            first, self._inode = self._inode is None, status.st_ino
            file.seek(self._offset)
            data = file.read()
            self._offset += len(data)
        *whole, self._rest = (self._rest + data).split(b"\n")
        if first and self._rest:  # what a dead process left unfinished is shown, too
            whole.append(self._rest)
            self._rest = b""
        return [line.decode(errors="replace").rstrip("\r") for line in whole]


def _start_of_last(descriptor: int, size: int, lines: int) -> int:
    """The offset at which the last `lines` lines begin."""
    if lines <= 0:
        return size
    starts: deque[int] = deque(maxlen=lines)
    end = size
    while end > 0 and len(starts) < lines:
        begin = max(0, end - _BLOCK)
        block = os.pread(descriptor, end - begin, begin)
        position = len(block)
        while len(starts) < lines and (position := block.rfind(b"\n", 0, position)) >= 0:
            if begin + position + 1 < size:  # the last line's own end starts no line
                starts.append(begin + position + 1)
        end = begin
    return starts[-1] if len(starts) == lines else 0


def _previous(log: Path) -> Path:
    return log.with_name(log.name + ".1")
