"""flowdex ships its types: the wheel holds py.typed and every file of the packages, and mypy checks callers by them."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest
from flow_support import ROOT

import flowdex

PACKAGES = {
    "flowdex": "client",
    "flowdex_executors": "executors",
    "flowdex_orchestrator": "orchestrator",
}

RIGHT = """\
import numpy as np
from numpy.typing import NDArray

from flowdex import Client, Document, FlowdexError, Hit, SearchResult

with Client("grpc://127.0.0.1:51000", timeout=5.0) as client:
    vectors: NDArray[np.float32] = client.encode(["a text"])
    client.index([Document(id="a", text="a text", tags={"year": 2024})])
    one: SearchResult = client.search("query", limit=3, mode="hybrid", rerank="late_interaction")
    many: list[SearchResult] = client.search(["a", "b"])
    hit: Hit = one[0]
    print(hit.score + 1.0, many[0].took_ms, client.count({"year": 2024}) + 1)
"""
WRONG = {
    "client.search('x', limit='3')": "arg-type",
    "client.search('x', mode='magic')": "arg-type",
    "client.search('x', rerank=3)": "arg-type",
    "client.search('x', no_such_choice=1)": "call-overload",
    "client.encode(['x'], pooling=1)": "call-overload",
    "client.no_such_method()": "attr-defined",
    "client.search('x')[0].no_such_field": "attr-defined",
    "Client(timeout='soon')": "arg-type",
    "client.count() + 'x'": "operator",
    "flowdex.NoSuchName": "attr-defined",
}


def mypy(program: Path) -> list[str]:
    """What mypy --strict says of a user's program, which finds flowdex as an installed package."""
    if find_spec("mypy") is None:
        pytest.skip("mypy is not installed")
    path = os.pathsep.join(str(ROOT / root) for root in PACKAGES.values())
    done = subprocess.run(
        [
            *(sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--hide-error-context", "--no-pretty"),
            *("--config-file", os.devnull, "--cache-dir", str(program.parent / "cache"), "--follow-imports", "silent"),
            program.name,
        ],
        cwd=program.parent,
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
        env={**os.environ, "MYPYPATH": path},
    )
    assert done.returncode in (0, 1), done.stderr
    return [line for line in done.stdout.splitlines() if line.startswith(program.name) and ": error: " in line]


def test_mypy_sees_the_types_of_the_client(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    head = RIGHT.count("\n")
    program.write_text(f"{RIGHT}import flowdex\n" + "\n".join(WRONG) + "\n")
    found = mypy(program)
    by_line = {int(line.split(":")[1]): line for line in found}
    assert not [line for number, line in by_line.items() if number <= head + 1], "a right program has no errors"
    for number, (wrong, code) in enumerate(WRONG.items(), head + 2):
        assert number in by_line, f"{wrong} is not an error"
        assert code in by_line[number] or "call-overload" in by_line[number], by_line[number]


def test_public_names_are_documented() -> None:
    for name in flowdex.__all__:
        value = getattr(flowdex, name)
        if inspect.isclass(value):
            assert (value.__doc__ or "").strip(), name
            assert not (value.__doc__ or "").startswith(f"{name}("), f"{name} has only what dataclass writes"
            for attribute, member in vars(value).items():
                if not attribute.startswith("_") and (inspect.isfunction(member) or isinstance(member, property)):
                    assert inspect.getdoc(member), f"{name}.{attribute}"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The names in the wheel that this repository builds."""
    if find_spec("hatchling") is None:
        pytest.skip("hatchling, which builds the wheel, is not installed")
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, timeout=170, check=False)
    assert done.returncode == 0, done.stderr
    (file,) = folder.glob("*.whl")
    with zipfile.ZipFile(file) as archive:
        return archive.namelist()


def test_the_wheel_holds_the_marker_of_types_and_every_file(wheel: list[str]) -> None:
    for package, root in PACKAGES.items():
        assert f"{package}/py.typed" in wheel
        folder = ROOT / root / package
        sources = {
            str(file.relative_to(ROOT / root)) for file in folder.rglob("*.py*") if file.suffix in (".py", ".pyi")
        }
        assert sources <= set(wheel), f"not in the wheel: {sorted(sources - set(wheel))}"
    assert "flowdex_orchestrator/flow.yml" in wheel
    tops = {name.partition("/")[0] for name in wheel if ".dist-info" not in name}
    assert tops == set(PACKAGES), "no other top-level name is installed"
