"""The bills of materials are CycloneDX, hold the lock files, and no licence is in them that nobody meant to take."""

from __future__ import annotations

import json
import sys
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

import pytest
from flow_support import ROOT
from images_support import TARGETS, locked

pytest.importorskip("cyclonedx", reason="cyclonedx-python-lib is not installed")
sys.path.insert(0, str(ROOT / "release"))

from cyclonedx.validation.json import JsonStrictValidator

import sbom

COPYLEFT = ("GPL", "MPL", "EPL", "EUPL", "CDDL", "OSL", "MS-RL", "CC-BY-SA", "SSPL")
MEANT = {
    # The Mozilla licence binds changes of the file itself. Both are used as they are published.
    "certifi": "MPL-2.0",
    "orjson": "MPL-2.0 AND (Apache-2.0 OR MIT)",
}


@pytest.fixture(scope="module")
def bills(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("sbom")
    assert sbom.main(["--out", str(folder)]) == 0
    return {path.name.removesuffix(".cdx.json"): path for path in folder.iterdir()}


def test_every_image_has_one(bills: dict[str, Path]) -> None:
    assert set(bills) == set(TARGETS)


@pytest.mark.parametrize("target", TARGETS)
def test_it_keeps_the_schema(bills: dict[str, Path], target: str) -> None:
    text = bills[target].read_text()
    validator = JsonStrictValidator(sbom.SCHEMA)
    assert validator.validate_str(text) is None
    assert validator.validate_str(text.replace('"type": "library"', '"type": "book"')) is not None


@pytest.mark.parametrize("target", TARGETS)
def test_it_holds_the_lock_files_with_hashes_and_licences(bills: dict[str, Path], target: str) -> None:
    parts = json.loads(bills[target].read_text())["components"]
    wanted = {pair for lock in sbom.images()[target] for pair in locked(lock)}
    assert {(each["name"], each["version"]) for each in parts} == wanted
    assert all(each["hashes"] and each["licenses"] for each in parts)


def test_a_package_without_a_licence_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {name: licence for name, licence in sbom.licences().items() if name != "uvicorn"}
    monkeypatch.setattr(sbom, "licences", lambda: known)
    with pytest.raises(SystemExit, match=r"licences\.json lacks the licence of uvicorn$"):
        sbom.main([])


def test_no_copyleft_comes_with_gateway_or_client_unless_it_is_meant() -> None:
    known = sbom.licences()
    found = {name: known[name] for name, _ in locked("gateway")}  # which has all that a client has
    assert {name: each for name, each in found.items() if any(word in each for word in COPYLEFT)} == MEANT


def test_licences_are_those_that_the_packages_state() -> None:
    compared = 0
    for name, licence in sbom.licences().items():
        try:
            stated = metadata(name).get("License-Expression")
        except PackageNotFoundError:
            continue
        if stated:
            compared += 1
            assert stated == licence, f"{name} says {stated}: write that into release/licences.json"
    assert compared > 50
