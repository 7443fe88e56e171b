"""Snapshots from anybody: paths that lead out, links, devices, sizes that lie. Nothing is written outside."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

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


HEADER = {"format": FORMAT, "collection": "c", "manifest": MANIFEST.to_json(), "points": 1}


def snapshot(path: Path, *members: tuple[tarfile.TarInfo, bytes], header: bytes = json.dumps(HEADER).encode()) -> Path:
    """A snapshot whose checksums are right, as its author can have them."""
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


def outcome(source: Path) -> str:
    """What became of it; whatever it is, nothing may be outside of its folder."""
    around = set(source.parent.iterdir())
    try:
        restore(source)
        found = "restored"
    except InvalidInput as error:
        found = error.message
    assert set(source.parent.iterdir()) - around <= {source.parent / "inside"}
    assert {path.name for path in source.parent.glob("inside/*")} <= {"target"}
    return found


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(list(HEADER)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*HEADER, *MANIFEST.to_json()]), inner),
    max_leaves=8,
)
_PLACES = st.sampled_from([*((name,) for name in HEADER), *(("manifest", name) for name in MANIFEST.to_json())])


@given(st.lists(st.tuples(_PLACES, _JSON), max_size=2), st.none() | _JSON)
@example([(("manifest",), [])], None)
@example([(("manifest", "shards"), float("inf"))], None)
@settings(deadline=None, max_examples=200)
def test_headers_of_any_values(changes: list[tuple[tuple[str, ...], Any]], whole: Any) -> None:
    header = json.loads(json.dumps(HEADER))
    for place, value in changes:
        inner = header
        for name in place[:-1]:
            inner = inner[name] if isinstance(inner, dict) else None
        if isinstance(inner, dict):
            inner[place[-1]] = value
    data = json.dumps(header if whole is None else whole).encode()
    with tempfile.TemporaryDirectory() as folder:
        outcome(snapshot(Path(folder) / "s", member("0/shard/a"), header=data))


def test_a_header_nested_without_end(tmp_path: Path) -> None:
    assert "damaged" in outcome(snapshot(tmp_path / "s", header=b"[" * 200_000))


_NAMES = st.text("0a/.-_\0 \\\n", max_size=12) | st.sampled_from(["0/shard/a", "0/shard/a/b", "0/shard/" + "a" * 300])


@given(st.lists(_NAMES, max_size=4), st.sampled_from([tarfile.REGTYPE, tarfile.AREGTYPE, b"S", b"L", b"x", b"7"]))
@example(["0/shard/a", "0/shard/a/b"], tarfile.REGTYPE)
@example(["0/shard/a/b", "0/shard/a"], tarfile.REGTYPE)
@example(["0/shard/" + "a" * 300], tarfile.REGTYPE)
@settings(deadline=None, max_examples=200)
def test_members_of_any_name(names: list[str], kind: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        members = [member(name, type=kind) for name in names]
        found = outcome(snapshot(Path(folder) / "s", *members))
        assert found == "restored" or "damaged" in found


def _good() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        return snapshot(Path(folder) / "s", member("0/shard/a"), member("1/shard/b", b"x" * 600)).read_bytes()


GOOD = _good()


@given(st.integers(0, len(GOOD)), st.binary(max_size=40), st.integers(0, 600))
@settings(deadline=None, max_examples=400)
def test_snapshots_of_bytes_changed_cut_or_moved(place: int, new: bytes, gone: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "s"
        source.write_bytes(GOOD[:place] + new + GOOD[place + gone :])
        outcome(source)


@given(st.binary(max_size=2000))
@settings(deadline=None)
def test_snapshots_of_any_bytes(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "s"
        source.write_bytes(data)
        assert outcome(source) != "restored"
