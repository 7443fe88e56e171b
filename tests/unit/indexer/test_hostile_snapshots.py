"""Snapshots from anybody: paths that lead out, links, devices, sizes that lie. Nothing is written outside."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flowdex import InvalidInput
from flowdex_executors.indexer.layout import FORMAT, Manifest
from flowdex_executors.indexer.snapshots import read_snapshot

MANIFEST = Manifest(1, "data-0", {}, {})
Change = Callable[[tarfile.TarInfo], bytes]


def member(name: str, content: bytes = b"abc", **values: Any) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    info.pax_headers = {"FLOWDEX.size": str(len(content)), "FLOWDEX.ranges": f"0-{len(content)}"}
    for key, value in values.items():
        setattr(info, key, value)
    return info, content


def snapshot(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    """A snapshot whose checksums are right, as its author can have them."""
    header = json.dumps({"format": FORMAT, "collection": "c", "manifest": MANIFEST.to_json(), "points": 1}).encode()
    checksums = {"header.json": hashlib.sha256(header).hexdigest()}
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        _add(tar, "header.json", header)
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))
            place = f"{info.pax_headers.get('FLOWDEX.size')} {info.pax_headers.get('FLOWDEX.ranges')}"
            checksums[info.name] = hashlib.sha256(content + place.encode()).hexdigest()
        _add(tar, "checksums.json", json.dumps(checksums).encode())
    return path


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


def restore(source: Path) -> list[str]:
    target = source.parent / "inside" / "target"
    read_snapshot(source, target, lambda manifest: None)
    return sorted(path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file())


def test_a_good_one(tmp_path: Path) -> None:
    assert restore(snapshot(tmp_path / "s", member("0/shard/a"))) == ["0/shard/a"]


HOSTILE = {
    "up": member("0/shard/../../../../outside"),
    "absolute": member("/tmp/flowdex-outside"),
    "beside": member("outside"),
    "hidden up": member("0/shard/a/..//../../../outside"),
    "symbolic link": member("0/shard/link", b"", type=tarfile.SYMTYPE, linkname="../../../../outside"),
    "hard link": member("0/shard/link", b"", type=tarfile.LNKTYPE, linkname="header.json"),
    "device": member("0/shard/device", b"", type=tarfile.CHRTYPE),
    "pipe": member("0/shard/pipe", b"", type=tarfile.FIFOTYPE),
    "folder": member("0/shard/folder", b"", type=tarfile.DIRTYPE),
    "no size": member("0/shard/a", pax_headers={}),
    "negative size": member("0/shard/a", pax_headers={"FLOWDEX.size": "-1", "FLOWDEX.ranges": "0-3"}),
    "beyond its size": member("0/shard/a", pax_headers={"FLOWDEX.size": "3", "FLOWDEX.ranges": "7-10"}),
    "backwards": member("0/shard/a", pax_headers={"FLOWDEX.size": "9", "FLOWDEX.ranges": "9-0,0-3,0-9"}),
    "absurd": member("0/shard/a", pax_headers={"FLOWDEX.size": str(1 << 60), "FLOWDEX.ranges": "0-3"}),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_one(tmp_path: Path, case: str) -> None:
    source = snapshot(tmp_path / "s", HOSTILE[case])
    with pytest.raises(InvalidInput, match=r"the snapshot is damaged: "):
        restore(source)
    assert not Path("/tmp/flowdex-outside").exists()
    outside = [path for path in tmp_path.rglob("*") if path != source and "target" not in path.parts]
    assert [path for path in outside if not path.is_dir()] == []


def test_a_packed_one(tmp_path: Path) -> None:
    """Of a gzip file, a few bytes could stand for any number: it is not unpacked."""
    with tarfile.open(tmp_path / "s", "w:gz") as tar:
        _add(tar, "header.json", b"{}")
    with pytest.raises(InvalidInput):
        restore(tmp_path / "s")
