"""Who listens on a port of this machine, as far as that can be read.

/proc/net/tcp, tcp6: port -> socket        /proc/PID/fd: socket -> process (of the same user, or for root all)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Listener", "listener_on"]

_PROC = Path("/proc")
_LISTEN = "0A"
_SHOWN = 60  # characters of a command line


@dataclass(frozen=True)
class Listener:
    """A process that listens.

    Attributes:
        pid: Its id.
        command: The beginning of its command line.
    """

    pid: int
    command: str


def listener_on(port: int) -> Listener | None:
    """The process that listens on a TCP port; None where there is none, or it may not be seen."""
    sockets = {f"socket:[{inode}]" for inode in _inodes(port)}
    if not sockets:
        return None
    for folder in _PROC.glob("[0-9]*/fd"):
        try:
            held = any(str(link.readlink()) in sockets for link in folder.iterdir())
        except OSError:
            continue  # another user's, or it has ended meanwhile
        if held:
            return Listener(int(folder.parent.name), _command(folder.parent))
    return None


def _inodes(port: int) -> Iterator[str]:
    for name in ("tcp", "tcp6"):
        try:
            lines = (_PROC / "net" / name).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if fields[3] == _LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
                yield fields[9]


def _command(process: Path) -> str:
    try:
        words = (process / "cmdline").read_bytes().decode("utf-8", "replace").split("\0")
    except OSError:
        return ""
    text = " ".join(words).strip()
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"
