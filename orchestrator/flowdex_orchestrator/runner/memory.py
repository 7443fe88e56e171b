"""Resident memory of processes with what they started, for `flowdex ps`."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Collection
from pathlib import Path

__all__ = ["memory_of_groups"]

_PROC = Path("/proc")


def memory_of_groups(groups: Collection[int]) -> dict[int, int]:
    """Resident bytes of each process group (a replica leads its own); a group without processes is left out."""
    totals: dict[int, int] = {}
    for group, size in _from_proc() if (_PROC / "self" / "stat").exists() else _from_ps():
        if group in groups:
            totals[group] = totals.get(group, 0) + size
    return totals


def _from_proc() -> list[tuple[int, int]]:
    page = os.sysconf("SC_PAGE_SIZE")
    found = []
    for stat in _PROC.glob("[0-9]*/stat"):
        try:
            fields = stat.read_text(errors="replace").rpartition(")")[2].split()
        except OSError:
            continue  # it has ended meanwhile
        found.append((int(fields[2]), int(fields[21]) * page))
    return found


def _from_ps() -> list[tuple[int, int]]:
    ps = subprocess.run(["ps", "-axo", "pgid=,rss="], capture_output=True, text=True, check=False)  # nosec B607 # who starts the runner chooses its PATH
    pairs = (line.split() for line in ps.stdout.splitlines())
    return [(int(group), int(size) * 1024) for group, size in pairs]
