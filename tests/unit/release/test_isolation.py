"""Stock Jina's chain of packages stays where executors are: gateway and client neither have it nor ask for it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from importlib.metadata import requires

import pytest
from flow_support import ROOT
from images_support import TARGETS, locked
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

tomllib = pytest.importorskip("tomllib")

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
CHAIN = {"jina", "docarray", "jina-hubble-sdk", "jcloud"}
LIGHT = ("service", "gateway", "tracing", "zeromq")

# Everything of the client and of the gateway's process, and of the runner; the worker hosts executors.
IMPORTS = """
import sys
from importlib import import_module
from pkgutil import walk_packages

REFUSED = {"jina", "docarray", "hubble", "jcloud", "torch", "transformers"}


class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in REFUSED:
            raise ImportError(f"{name} is refused here")


sys.meta_path.insert(0, Refuse())
count = 0
for root, left_out in (
    ("flowdex", ("flowdex.__main__",)),
    ("flowdex_orchestrator", ("flowdex_orchestrator.worker", "flowdex_orchestrator.jina_gateway")),
):
    for each in walk_packages(import_module(root).__path__, f"{root}."):
        if not each.name.startswith(left_out):
            import_module(each.name)
            count += 1
print(count, *sorted(REFUSED & {name.partition(".")[0] for name in sys.modules}))
"""


def names_of(requirements: Iterable[str]) -> set[str]:
    """The packages that these lead to, by the metadata of what is installed; flowdex's own extras by pyproject.toml."""
    found: set[str] = set()
    left = [Requirement(each) for each in requirements]
    seen: set[str] = set()
    while left:
        each = left.pop()
        if str(each) in seen:
            continue
        seen.add(str(each))
        name = canonicalize_name(each.name)
        if name == "flowdex":
            left += [Requirement(text) for extra in each.extras for text in EXTRAS[extra]]
            continue
        if each.marker is not None and not each.marker.evaluate({"extra": ""}):
            continue
        found.add(name)
        for text in requires(name) or ():
            inner = Requirement(text)
            asked = each.extras or {""}
            if inner.marker is None or any(inner.marker.evaluate({"extra": extra}) for extra in asked):
                inner.marker = None
                left.append(inner)
    return found


@pytest.mark.parametrize("extras", [(), ("service",), ("gateway",), ("gateway", "zeromq"), ("eval",), ("docs",)])
def test_the_metadata_does_not_lead_to_jina(extras: tuple[str, ...]) -> None:
    found = names_of([*PROJECT["dependencies"], *(text for extra in extras for text in EXTRAS[extra])])
    assert "grpcio" in found
    assert not found & CHAIN
    assert not found & {"torch", "transformers"}


def test_the_executor_leads_there() -> None:
    assert names_of(EXTRAS["executor"]) >= CHAIN


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="the lock files are CPython 3.11's")
def test_the_gateways_lock_file_holds_what_its_extras_lead_to_and_no_more() -> None:
    wanted = names_of([*PROJECT["dependencies"], *(text for extra in LIGHT for text in EXTRAS[extra])])
    assert {canonicalize_name(name) for name, _ in locked("gateway")} == wanted


@pytest.mark.parametrize("target", TARGETS)
def test_jina_is_where_executors_are(target: str) -> None:
    found = {canonicalize_name(name) for name, _ in locked(target)} & CHAIN
    assert found == (set() if target == "gateway" else CHAIN)


def test_gateway_runner_and_client_work_where_jina_is_refused() -> None:
    done = subprocess.run([sys.executable, "-c", IMPORTS], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    count, *imported = done.stdout.split()
    assert int(count) > 150
    assert imported == []
