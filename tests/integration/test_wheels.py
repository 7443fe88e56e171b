"""The package as people install it: built, put into a clean environment, used. The cheap cells of `make wheels`."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from importlib.util import find_spec
from pathlib import Path

import pytest
from flow_support import ROOT

sys.path.insert(0, str(ROOT / "release"))

import smoke
import wheels

tomllib = pytest.importorskip("tomllib")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if find_spec("uv") is None:
        pytest.skip("uv is not installed")
    return wheels.build(tmp_path_factory.mktemp("dist"))


def test_every_extra_has_a_smoke_test() -> None:
    missing = set(PROJECT["optional-dependencies"]) - set(smoke.SMOKE) - {"dev"}
    assert not missing, f"add to SMOKE in release/smoke.py what these extras must be able to do: {sorted(missing)}"
    assert set(smoke.SMOKE) - {""} <= set(PROJECT["optional-dependencies"])
    assert all(extra in each.extras for extra, each in smoke.SMOKE.items() if extra)


def test_the_supported_pythons_are_those_of_the_project() -> None:
    named = {each.rpartition(" ")[2] for each in PROJECT["classifiers"] if " :: 3." in each}
    assert set(wheels.SUPPORTED) == named
    assert f">={wheels.SUPPORTED[0]}" in PROJECT["requires-python"]


@pytest.mark.parametrize("extra", ["", "gateway"])
def test_it_works_in_a_clean_environment(wheel: Path, extra: str) -> None:
    if sys.version_info[:2] not in {tuple(map(int, each.split("."))) for each in wheels.SUPPORTED}:
        pytest.skip("this Python is not supported")
    cell = wheels.try_extra(wheel, smoke.SMOKE[extra], extra, sys.executable)
    assert cell.result == "ok", cell.reason
    assert 10 < cell.packages < 40


def test_what_does_not_work_is_told(wheel: Path, tmp_path: Path) -> None:
    newest = tmp_path / "constraints.txt"
    newest.write_text("numpy>999\n")
    cell = wheels.try_extra(wheel, smoke.SMOKE[""], "", sys.executable, constraint=newest)
    assert cell.result == "failed" and "numpy" in cell.reason


def test_the_sdist_builds_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    (sdist,) = wheel.parent.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = archive.getnames()
    assert not [name for name in names if "/.venv/" in name or "/.flowdex/" in name or name.endswith(".pyc")]
    assert any(name.endswith("/LICENSE") for name in names)
    folder = tmp_path / "again"
    build = [*wheels.UV, "build", "--quiet", "--wheel", "--out-dir", str(folder), str(ROOT)]
    subprocess.run(build, check=True, timeout=120)
    (again,) = folder.glob("*.whl")
    assert again.name == wheel.name
    assert again.read_bytes() == wheel.read_bytes()
