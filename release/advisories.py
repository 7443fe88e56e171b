"""Known weaknesses of a package's version, looked up in a file: the export of osv.dev for PyPI, without a network.

    all.zip (an OSV record each, as JSON) --read_advisories--> Advisories --find(name, version)--> [Advisory]

The format: https://ossf.github.io/osv-schema/. A version is affected if a record lists it, or if it lies in one of its
ranges, from `introduced` to before `fixed` (or up to `last_affected`).
"""

from __future__ import annotations

import json
import zipfile
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

__all__ = ["Advisories", "Advisory", "read_advisories"]


@dataclass(frozen=True)
class Advisory:
    """A known weakness: `id` as osv.dev has it, `names` that others gave it, the versions that mend it."""

    id: str
    names: tuple[str, ...]
    summary: str
    fixed: tuple[str, ...]


class Advisories:
    """OSV records by package."""

    def __init__(self, records: Iterator[Mapping[str, Any]]) -> None:
        self._affected: dict[str, list[tuple[Mapping[str, Any], Mapping[str, Any]]]] = defaultdict(list)
        for record in records:
            if record.get("withdrawn"):
                continue
            for affected in record.get("affected", ()):
                package = affected.get("package", {})
                if package.get("ecosystem") == "PyPI":
                    self._affected[canonicalize_name(package["name"])].append((record, affected))

    def __len__(self) -> int:
        """How many packages have advisories."""
        return len(self._affected)

    def find(self, name: str, version: str) -> list[Advisory]:
        """The weaknesses of a version of a package."""
        found = {}
        for record, affected in self._affected.get(canonicalize_name(name), ()):
            if _is_affected(Version(version), affected):
                fixed = [event["fixed"] for each in _ranges(affected) for event in each if "fixed" in event]
                names = tuple(record.get("aliases", ()))
                found[record["id"]] = Advisory(record["id"], names, record.get("summary", ""), tuple(fixed))
        return list(found.values())


def read_advisories(path: Path) -> Advisories:
    """Read a zip file of OSV records, or a folder of them.

    Raises:
        OSError, ValueError, zipfile.BadZipFile: It is neither, or a record is not JSON.
    """
    return Advisories(_records(path))


def _records(path: Path) -> Iterator[Mapping[str, Any]]:
    if path.is_dir():
        for file in path.glob("*.json"):
            yield json.loads(file.read_text(encoding="utf-8"))
        return
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if name.endswith(".json"):
                yield json.loads(archive.read(name))


def _ranges(affected: Mapping[str, Any]) -> list[list[Mapping[str, str]]]:
    return [each.get("events", []) for each in affected.get("ranges", ()) if each.get("type") == "ECOSYSTEM"]


def _is_affected(version: Version, affected: Mapping[str, Any]) -> bool:
    listed = affected.get("versions", ())
    return any(_parse(each) == version for each in listed) or any(_within(version, each) for each in _ranges(affected))


def _within(version: Version, events: list[Mapping[str, str]]) -> bool:
    """Whether a version is affected by a range: its last event at or before the version decides."""
    inside = False
    steps = [(_parse(text), kind) for event in events for kind, text in event.items()]
    for at, kind in sorted(steps, key=lambda step: step[0]):
        if kind == "introduced" and version >= at:
            inside = True
        elif (kind == "fixed" and version >= at) or (kind == "last_affected" and version > at):
            inside = False
    return inside


def _parse(text: str) -> Version:
    try:
        return Version(text)
    except InvalidVersion:  # a few old ones
        return Version("0")
