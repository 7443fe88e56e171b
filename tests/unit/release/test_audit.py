"""Known weaknesses: which versions an OSV record concerns, and what `release/audit.py` makes of findings."""

from __future__ import annotations

import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from flow_support import ROOT

sys.path.insert(0, str(ROOT / "release"))

import audit
from advisories import Advisories, read_advisories

UVICORN = {each.name: each.version for each in audit.locked_packages()}["uvicorn"]


def record(name: str, events: list[dict[str, str]], versions: list[str] | None = None, **more: Any) -> dict[str, Any]:
    """An OSV record."""
    affected = {
        "package": {"ecosystem": "PyPI", "name": name},
        "ranges": [{"type": "ECOSYSTEM", "events": events}],
        "versions": versions or [],
    }
    return {"id": "PYSEC-1", "aliases": ["CVE-1"], "summary": "A summary.", "affected": [affected], **more}


@pytest.fixture
def dump(tmp_path: Path) -> Path:
    """An export as osv.dev makes it, with an advisory for a package of the gateway's image."""
    path = tmp_path / "all.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("PYSEC-1.json", json.dumps(record("Uvicorn", [{"introduced": "0"}, {"fixed": "99.0"}])))
    return path


@pytest.mark.parametrize(
    ("version", "affected"),
    [("0.9", False), ("1.0", True), ("1.9.9", True), ("2.0", False), ("3.0rc1", True), ("3.0", True), ("3.1", False)],
)
def test_ranges(version: str, affected: bool) -> None:
    events = [{"introduced": "1.0"}, {"fixed": "2.0"}, {"introduced": "3.0rc1"}, {"last_affected": "3.0"}]
    found = Advisories(iter([record("a-b", events)])).find("A_b", version)
    assert [each.fixed for each in found] == ([("2.0",)] if affected else [])


def test_listed_versions_and_withdrawn_records() -> None:
    listed = record("a", [], ["1.0", "1.10"])
    assert [Advisories(iter([listed])).find("a", version) != [] for version in ("1.0.0", "1.1", "1.10")] == [1, 0, 1]
    assert not Advisories(iter([{**listed, "withdrawn": "2024-01-01T00:00:00Z"}])).find("a", "1.0")


def test_a_folder_of_records_is_read_too(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(record("a", [{"introduced": "0"}])))
    (advisory,) = read_advisories(tmp_path).find("a", "1.0")
    assert (advisory.id, advisory.names, advisory.fixed) == ("PYSEC-1", ("CVE-1",), ())


def test_a_finding_fails(dump: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert audit.main(["--advisories", str(dump)]) == 1
    out = capsys.readouterr().out
    assert f"uvicorn {UVICORN}: PYSEC-1 A summary. (mended in 99.0)\n" in out
    assert out.endswith("packages checked: 1 open findings\n")


def test_an_explained_finding_does_not(dump: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert audit.main(["--advisories", str(dump)], {"CVE-1": "HTTP/3 alone, which is not served"}) == 0
    assert "PYSEC-1 A summary. (HTTP/3 alone, which is not served)" in capsys.readouterr().out


@pytest.mark.parametrize("content", ["", "no zip file"])
def test_without_advisories_it_says_so(tmp_path: Path, content: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "all.zip"
    if content:
        path.write_text(content)
    assert audit.main(["--advisories", str(path)]) == 0
    assert "packages were not checked, because there are no advisories" in capsys.readouterr().out
