"""Each check of the machine, where all is well and where it is not."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from flowdex_orchestrator.doctor import machine, packages
from flowdex_orchestrator.doctor.report import Check, Verdict

OK, WARNING, ERROR = Verdict.OK, Verdict.WARNING, Verdict.ERROR
GIB = 2**30


def expect(check: Check, verdict: Verdict, *said: str, remedy: str = "") -> None:
    assert check.verdict is verdict, check
    for text in said:
        assert text in check.detail, check
    assert bool(check.remedy) == (verdict is not OK), "what is wrong comes with a remedy, and nothing else does"
    assert remedy in check.remedy, check


# ---- Python and packages ----


def test_python() -> None:
    expect(packages.check_python(), OK, f"Python {sys.version.split()[0]}")
    for version in ((3, 9, 18), (3, 14, 0), (2, 7, 18)):
        expect(packages.check_python(version), ERROR, "3.10 to 3.13", remedy="virtual environment")
    expect(packages.check_python((3, 11, 0), "nt"), ERROR, remedy="WSL 2")


REQUIRES = {
    "flowdex": [
        "click>=8",
        "flowdex[service]; extra == 'gateway'",
        "pydantic<3,>=2.7; extra == 'service'",
        "fastapi>=0.115; extra == 'gateway'",
        "jina<3.35,>=3.33; extra == 'executor'",
        "setuptools<81; extra == 'executor'",
        "torch>=2.2; extra == 'bert'",
        "never>=1; extra == 'bert' and python_version < '3'",
        "h5py>=3.8; extra == 'elmo'",
    ],
    "jina": ["grpcio<=1.68.0,>=1.46.0", "urllib3<2", "grpcio>9; extra == 'all'"],
}
INSTALLED = {
    "flowdex": "0.1.0",
    "click": "8.1",
    "pydantic": "2.9",
    "fastapi": "0.120",
    "jina": "3.34.0",
    "setuptools": "80.9",
    "torch": "2.13.0+cpu",
    "grpcio": "1.68.0",
    "urllib3": "1.26",
}


def extras(needed: dict[str, str], **changes: str | None) -> Check:
    return packages.check_extras(needed, requires=REQUIRES.get, version={**INSTALLED, **changes}.get)


def versions(*needed: str, **changes: str | None) -> Check:
    return packages.check_versions(needed, requires=REQUIRES.get, version={**INSTALLED, **changes}.get)


def test_extras() -> None:
    expect(extras({"gateway": "the gateway", "bert": "encoder"}), OK, "flowdex 0.1.0: gateway, executor, bert", "elmo")
    expect(extras({}, torch=None), OK, "not bert, elmo")
    expect(extras({"bert": "encoder"}, torch=None), ERROR, "encoder needs torch", remedy="pip install 'flowdex[bert]'")
    expect(extras({"gateway": "the gateway"}, pydantic=None), ERROR, "the gateway needs pydantic")  # of a nested extra
    lacking = extras({"elmo": "words", "bert": "texts"}, torch=None)
    expect(lacking, ERROR, "words needs h5py", "texts needs torch", remedy="pip install 'flowdex[bert,elmo]'")


def test_versions() -> None:
    needed = ("gateway", "executor", "bert")
    expect(versions(*needed), OK, "torch 2.13.0+cpu", "jina 3.34.0", "grpcio 1.68.0")
    beyond = versions(*needed, setuptools="81.0.0")
    expect(beyond, ERROR, "setuptools 81.0.0 is outside of what flowdex 0.1.0 takes (<81)", remedy="'setuptools<81'")
    expect(versions("gateway", setuptools="81.0.0"), OK)  # nothing of the flow needs jina
    newer = versions(*needed, grpcio="1.74.0")
    expect(newer, WARNING, "grpcio 1.74.0 is outside of what jina 3.34.0 takes", remedy="'grpcio<=1.68.0,>=1.46.0'")
    expect(versions(*needed, jina="3.36.0"), ERROR, "jina 3.36.0")
    expect(versions(*needed, grpcio="1.74.0", jina=None), OK)  # nobody is there to mind


def test_the_packages_of_this_machine_are_read() -> None:
    assert packages.installed_version("click")
    assert packages.installed_version("no-such-distribution") is None
    assert "gateway" in packages.check_extras({}).detail


def test_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, cuda = packages.TorchBuild("2.13.0+cpu", None), packages.TorchBuild("2.13.0", "12.8")
    expect(packages.check_torch(cpu, 0, needed=True), OK, "built for the CPU")
    expect(packages.check_torch(cuda, 2, needed=True), OK, "CUDA 12.8")
    expect(packages.check_torch(cpu, 1, needed=True), WARNING, "there is 1 GPU here", remedy="for CUDA")
    expect(packages.check_torch(cuda, 0, needed=True), WARNING, "no GPU", remedy="for the CPU")
    expect(packages.check_torch(None, 0, needed=True), ERROR, "not installed", remedy="flowdex[bert]")
    expect(packages.check_torch(None, 0, needed=False), OK, "not needed")

    class Distribution:
        version = "2.6.0"

        def locate_file(self, name: str) -> Path:
            return tmp_path / name

    monkeypatch.setattr(packages.metadata, "distribution", lambda name: Distribution())
    assert packages.torch_build() == packages.TorchBuild("2.6.0", None)
    (tmp_path / "torch").mkdir()
    for line, expected in (("cuda: Optional[str] = '12.6'", "12.6"), ("cuda = None", None), ('cuda = "11.8"', "11.8")):
        (tmp_path / "torch/version.py").write_text(f"__version__ = '2.6.0'\n{line}\nhip = None\n")
        assert packages.torch_build() == packages.TorchBuild("2.6.0", expected)


def test_nothing_heavy_is_imported_for_it() -> None:
    code = (
        "import sys, pathlib; from flowdex_orchestrator.doctor.cli import examine; "
        "examine(pathlib.Path('flow.yml'), classes=False); "
        "assert not {'torch', 'jina', 'transformers', 'docarray', 'qdrant_client', 'qdrant_edge'} & set(sys.modules)"
    )
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


# ---- hardware ----


def test_gpu() -> None:
    card = "NVIDIA H100, 81559 MiB, 570.1"
    expect(machine.check_gpu([card], ["encoder"], []), OK, card)
    expect(machine.check_gpu([], [], []), OK, "none")
    expect(machine.check_gpu([], ["encoder"], []), ERROR, "encoder computes on cuda", remedy="device: auto")
    expect(machine.check_gpu([], [], ["encoder"]), WARNING, "encoder asks for one", remedy="gpus:")
    expect(machine.check_gpu([], [], [], device_file=True), WARNING, "nvidia-smi", remedy="driver")
    expect(machine.check_gpu([], ["encoder"], [], device_file=True), ERROR, "nvidia-smi", remedy="driver")


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("echo 'NVIDIA T4, 15360 MiB, 550.1'", ["NVIDIA T4, 15360 MiB, 550.1"]),
        ("echo 'NVIDIA-SMI has failed'; exit 9", []),
        ("", []),
    ],
)
def test_list_gpus(script: str, expected: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = tmp_path / "nvidia-smi"
    command.write_text(f"#!/bin/sh\n{script}\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert machine.list_gpus() == expected
    command.unlink()
    assert machine.list_gpus() == []


def test_cores_and_memory() -> None:
    expect(machine.check_cores(4, 4), OK, "4 usable")
    expect(machine.check_cores(2, 3), WARNING, "3 replicas of encoders", remedy="have 2 replicas")
    expect(machine.check_memory(8 * GIB, 16 * GIB, GIB), OK, "8.0 GiB of 16.0 GiB available", "about 1.0 GiB")
    expect(machine.check_memory(GIB, 16 * GIB, 2 * GIB), WARNING, remedy="fewer replicas")
    expect(machine.check_memory(GIB, 16 * GIB, 17 * GIB), ERROR, remedy="fewer replicas")
    expect(machine.check_memory(GIB, 16 * GIB, 2 * GIB, running=True), OK, "and runs")
    expect(machine.check_memory(None, None, GIB), OK, "is not known")


def test_memory_of_a_container_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_CGROUP", tmp_path)
    monkeypatch.setattr(machine, "_MEMINFO", tmp_path / "meminfo")
    assert machine.total_memory() is None and machine.available_memory() is None
    (tmp_path / "meminfo").write_text("MemTotal: 16777216 kB\nMemAvailable: 8388608 kB\n")
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text(f"{GIB}\n")
    assert (machine.total_memory(), machine.available_memory()) == (16 * GIB, 8 * GIB)
    (tmp_path / "memory.max").write_text(f"{4 * GIB}\n")
    assert (machine.total_memory(), machine.available_memory()) == (4 * GIB, 3 * GIB)


# ---- limits and environment ----


def test_files() -> None:
    infinite = resource.RLIM_INFINITY
    expect(machine.check_files(65_536, infinite), OK, "65,536")
    expect(machine.check_files(infinite, infinite), OK, "no limit")
    expect(machine.check_files(512, 4096), WARNING, "512", remedy="ulimit -n 1024")
    expect(machine.check_files(128, 800), ERROR, "128", remedy="ulimit -n 800")
    expect(machine.check_files(128, 128), ERROR, remedy="administrator")
    assert machine.check_files().name == "files"


def test_clock() -> None:
    now = 1_800_000_000.0
    expect(machine.check_clock(now, now - 1000), OK)
    expect(machine.check_clock(now, now + 3600), OK)  # a file system of another machine, an hour off
    expect(machine.check_clock(0.0, now), WARNING, "1970", remedy="time synchronisation")
    assert machine.newest_file_time() > 1_600_000_000


@pytest.mark.parametrize(
    ("environment", "verdict"),
    [
        ({}, OK),
        ({"HTTP_PROXY": ""}, OK),
        ({"HTTP_PROXY": "http://proxy:3128"}, WARNING),
        ({"grpc_proxy": "http://proxy:3128", "NO_PROXY": "example.org"}, WARNING),
        ({"https_proxy": "http://proxy:3128", "no_proxy": "example.org, 127.0.0.1"}, OK),
        ({"ALL_PROXY": "socks5://proxy:1080", "NO_PROXY": "*"}, OK),
    ],
)
def test_proxies(environment: dict[str, str], verdict: Verdict) -> None:
    remedy = "export NO_PROXY=" if verdict is WARNING else ""
    expect(machine.check_proxies(environment), verdict, remedy=remedy)


def test_the_remedy_for_proxies_keeps_what_is_excepted() -> None:
    found = machine.check_proxies({"http_proxy": "http://proxy:3128", "NO_PROXY": "example.org"})
    assert found.remedy == "export NO_PROXY=example.org,127.0.0.1,localhost,::1"


def test_locale() -> None:
    expect(machine.check_locale("UTF-8", "utf-8"), OK, "UTF-8")
    expect(machine.check_locale("utf8", "utf_8"), OK)
    expect(machine.check_locale("ISO-8859-1", "utf-8"), WARNING, "ISO-8859-1", remedy="LC_ALL=C.UTF-8")
    expect(machine.check_locale("utf-8", "ascii"), WARNING, "ascii", remedy="LC_ALL=C.UTF-8")


# ---- how it is shown ----


def checks(*verdicts: Verdict) -> Sequence[Check]:
    return [Check(f"c{i}", each, "found", "" if each is OK else "do this") for i, each in enumerate(verdicts)]


@pytest.mark.parametrize(
    ("verdicts", "last"),
    [
        ([OK, OK], "All is well."),
        ([OK, WARNING], "The flow can start; 1 of 2 checks would have it better."),
        ([ERROR, WARNING], "1 of 2 checks keeps the flow from starting."),
        ([ERROR, ERROR, OK], "2 of 3 checks keep the flow from starting."),
    ],
)
def test_report(verdicts: list[Verdict], last: str, capsys: pytest.CaptureFixture[str]) -> None:
    from flowdex.cli.common import console
    from flowdex_orchestrator.doctor import report

    made = checks(*verdicts)
    report.print_checks(made, console())
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert shown.splitlines()[-1] == last
    assert shown.count("do this") == sum(each is not OK for each in verdicts)
    told = report.as_json(made, "flow.yml")
    assert told["verdict"] == max(verdicts, key=list(Verdict).index).value
    assert [each["verdict"] for each in told["checks"]] == [each.value for each in verdicts]
