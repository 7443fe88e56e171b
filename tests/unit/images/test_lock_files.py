"""The lock files hold what the extras of pyproject.toml ask for, as constraints.txt has it, by hash."""

from __future__ import annotations

import importlib.util
import re
import sys
from types import ModuleType

import pytest
from flow_support import ROOT
from images_support import TARGETS, WITHOUT_TORCH, image_of, locked
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

tomllib = pytest.importorskip("tomllib")

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
MACHINE = {
    "python_version": "3.11",
    "python_full_version": "3.11.14",
    "sys_platform": "linux",
    "platform_system": "Linux",
    "platform_machine": "x86_64",
    "platform_python_implementation": "CPython",
    "implementation_name": "cpython",
    "os_name": "posix",
}


@pytest.fixture(scope="module")
def lock() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docker_lock", ROOT / "docker" / "lock.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["docker_lock"] = module  # where dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def requirements(extras: tuple[str, ...]) -> list[Requirement]:
    """What a set of extras asks for, with those that they are made of."""
    found = list(PROJECT["dependencies"])
    open_extras, seen = list(extras), set()
    while open_extras:
        extra = open_extras.pop()
        if extra in seen:
            continue
        seen.add(extra)
        for text in PROJECT["optional-dependencies"][extra]:
            requirement = Requirement(text)
            if requirement.name == PROJECT["name"]:
                open_extras += requirement.extras
            else:
                found.append(text)
    parsed = map(Requirement, found)
    return [each for each in parsed if each.marker is None or each.marker.evaluate(MACHINE)]


def test_there_is_a_lock_for_every_image(lock: ModuleType) -> None:
    assert {path.stem for path in lock.LOCKS.glob("*.txt")} == set(lock.TARGETS)
    assert set(TARGETS) <= set(lock.TARGETS)
    for target in TARGETS:
        assert image_of(target).base.startswith(f"python:{lock.PYTHON}.")


@pytest.mark.parametrize("target", TARGETS)
def test_the_lock_holds_what_the_extras_ask_for(lock: ModuleType, target: str) -> None:
    have = {canonicalize_name(name): version for name, version in locked(target)}
    wanted = requirements(lock.TARGETS[target].extras)
    assert len(wanted) > 5
    for each in wanted:
        version = have.get(canonicalize_name(each.name))
        assert version and each.specifier.contains(version), f"{each}: {target}.txt has {version}; run docker/lock.py"


def test_versions_are_those_of_the_test_suite(lock: ModuleType) -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    constraints = [Requirement(line) for line in lines if line and not line.startswith("#")]
    pins = {
        canonicalize_name(each.name): each for each in constraints if not each.marker or each.marker.evaluate(MACHINE)
    }
    for target in lock.TARGETS:
        for name, version in locked(target):
            pin = pins.get(canonicalize_name(name))
            assert pin is None or pin.specifier.contains(version), f"{target}.txt has {name} {version}, not {pin}"


def test_every_package_has_a_hash_and_no_address(lock: ModuleType) -> None:
    for path in lock.LOCKS.glob("*.txt"):
        text = path.read_text()
        assert "://" not in text
        body = "".join(line for line in text.splitlines(keepends=True) if not line.startswith("#"))
        entry = r"[a-z0-9.-]+==[\w.+]+( \\\n    --hash=sha256:[0-9a-f]{64})+\n"
        assert re.fullmatch(f"({entry})+", body), path.name


def test_what_is_where() -> None:
    have = {target: dict(locked(target)) for target in TARGETS}
    for target in WITHOUT_TORCH:
        assert not [name for name in have[target] if re.match("torch|triton|nvidia|cuda", name)], target
    assert not {"jina", "docarray"} & set(have["gateway"])
    assert have["encoder-cpu"]["torch"].endswith("+cpu")
    assert not [name for name in have["encoder-cpu"] if re.match("triton|nvidia|cuda", name)]
    assert any(name.startswith("nvidia-") for name in have["encoder-gpu"])
    assert "+" not in have["encoder-gpu"]["torch"]
