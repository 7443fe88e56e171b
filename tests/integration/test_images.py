"""Each image's environment, made of its lock file alone, runs its process: as PID 1, not root, on a read-only root.

    docker/install.sh + wheel of flowdex  -->  environment  -->  Container (see images_support)  -->  its health check

This is all of the Dockerfile that can run without a container engine. Two environments by default, since each takes
minutes to install; FLOWDEX_TEST_ALL_EXTRAS=1 makes those of the whole default flow.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from flow_support import ROOT
from images_support import WITHOUT_TORCH, Container, Instruction, Stage, image_of, locked, parse, why_no_containers

ALL = bool(os.environ.get("FLOWDEX_TEST_ALL_EXTRAS"))
TARGETS = ("gateway", "ranker", *(("segmenter", "indexer", "encoder-cpu") if ALL else ()))
INSTALL_SECONDS = 1500

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(INSTALL_SECONDS * (3 if ALL else 1)),
    pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="the lock files are CPython 3.11's"),
    pytest.mark.skipif(why_no_containers() is not None, reason=str(why_no_containers())),
]


def run(*command: str | Path, cwd: Path | None = None, path: Path | None = None) -> str:
    env = {**os.environ, "PATH": f"{path}{os.pathsep}{os.environ['PATH']}" if path else os.environ["PATH"]}
    done = subprocess.run(
        [str(each) for each in command],
        cwd=cwd,
        env=env,
        capture_output=True,
        text=True,
        timeout=INSTALL_SECONDS,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


@dataclass(frozen=True)
class Environment:
    """The /opt/flowdex of one image."""

    target: str
    path: Path

    @property
    def packages(self) -> dict[str, str]:
        code = "from importlib.metadata import distributions as d; [print(each.name, each.version) for each in d()]"
        lines = run(self.path / "bin" / "python", "-I", "-c", code).splitlines()
        return {name.lower().replace("_", "-").replace(".", "-"): version for name, version in map(str.split, lines)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("images")


@pytest.fixture(scope="module")
def environments(folder: Path) -> Iterator[dict[str, Environment]]:
    """The environments, made by the commands of the Dockerfile's stages."""
    stages = parse((ROOT / "Dockerfile").read_text())
    places = {"/wheels": str(folder / "wheels")}
    tools = folder / "tools" / "bin"
    run(sys.executable, "-m", "venv", tools.parent)
    _build(stages["tools"], folder, tools, places)
    project = folder / "project"
    _build(stages["project"], folder, tools, {**places, "/opt/flowdex": str(project)})
    made = {target: Environment(target, folder / target) for target in TARGETS}
    for target, each in made.items():
        _build(stages[f"{target}-environment"], folder, tools, {**places, "/opt/flowdex": str(each.path)})
        shutil.copytree(project, each.path, dirs_exist_ok=True, symlinks=True)
        script = each.path / "bin" / "flowdex"
        script.write_text(script.read_text().replace(str(project), "/opt/flowdex"))
    yield made
    for path in folder.iterdir():
        shutil.rmtree(path, ignore_errors=True)


def _build(stage: Stage, folder: Path, tools: Path, places: Mapping[str, str]) -> None:
    """Carry out a stage's COPY and RUN, with other folders in the place of some."""
    build = folder / "build"
    for each in stage.instructions:
        if each.keyword == "COPY":
            _copy(each, build)
        elif each.keyword == "RUN":
            command = each.arguments
            for place, instead in places.items():
                command = command.replace(place, instead)
            run("sh", "-eu", "-c", command, cwd=build, path=tools)


def _copy(copy: Instruction, build: Path) -> None:
    *sources, destination = copy.words
    for source in sources:
        to = build / destination
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, to, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            to.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / source, to)


@pytest.fixture
def start(environments: dict[str, Environment], tmp_path: Path) -> Iterator[Callable[..., Container]]:
    started: list[Container] = []

    def start(target: str, **options: object) -> Container:
        root = tmp_path / f"{target}-{len(started)}"
        started.append(Container(image_of(target), environments[target].path, root, **options))  # type: ignore[arg-type]
        return started[-1]

    yield start
    for each in reversed(started):
        each.kill()


@pytest.mark.parametrize("target", TARGETS)
def test_an_environment_holds_its_lock_file_and_nothing_else(environments: dict[str, Environment], target: str) -> None:
    names = {"segmenter": ["model"], "encoder-cpu": ["model", "glove"]}.get(target, [])
    wanted = {name: version for each in (target, *names) for name, version in locked(each)}
    found = environments[target].packages
    found.pop("flowdex")
    assert found == wanted
    if target in WITHOUT_TORCH:
        assert not {"torch", "transformers"} & set(found)


@pytest.mark.parametrize("target", [each for each in TARGETS if each != "gateway"])
def test_an_executor_runs_as_its_image_says(start: Callable[..., Container], target: str) -> None:
    container = start(target, command=[*image_of(target).command, "--insecure"])
    container.wait_healthy()

    status = container.run("cat", "/proc/1/status").stdout
    assert "Uid:\t65532\t65532\t65532\t65532" in status
    assert "CapEff:\t0000000000000000" in status
    assert container.run("sh", "-c", "echo > /etc/x").returncode != 0
    assert container.run("sh", "-c", "echo > /opt/flowdex/x").returncode != 0
    if target in WITHOUT_TORCH:
        assert "torch" not in container.run("cat", "/proc/1/maps").stdout
    assert container.stop() == 0, container.log


def test_an_executor_that_loads_is_not_healthy_and_stops_at_once(start: Callable[..., Container]) -> None:
    alone = start("ranker")  # beyond its own loopback, and without certificates
    assert alone.wait(60) == 1 and "--insecure" in alone.log
    container = start("ranker", command=[*image_of("ranker").command, "--insecure"])
    assert not container.healthy()
    container.wait_healthy()
    assert container.run("flowdex", "health", "grpc://127.0.0.1:52001").returncode == 1
    assert container.stop(20) == 0


RANKER_ALONE = """\
jtype: Flow
with: {protocol: [grpc, http], port: [51000, 8080]}
gateway: {uses: flowdex_orchestrator.jina_gateway.FlowdexGateway}
executors:
  - {name: ranker, uses: flowdex_executors.Ranker}
"""


def test_the_gateway_is_healthy_as_soon_as_its_executors_are(start: Callable[..., Container], tmp_path: Path) -> None:
    flow = tmp_path / "flow.yml"
    flow.write_text(RANKER_ALONE)
    mounted = ["--flow", "/etc/flowdex/flow.yml"]
    command = ["--host", "0.0.0.0", "--insecure", *mounted, "--address", "ranker=127.0.0.1:52000"]
    gateway = start("gateway", flow=flow, command=["gateway", *command])
    ranker = start("ranker", command=[*image_of("ranker").command, "--insecure"], flow=flow, network=gateway)
    ranker.wait_healthy()
    gateway.wait_healthy()
    assert gateway.run("flowdex", "health", "http://127.0.0.1:8080").returncode == 0
    status = gateway.run("flowdex", "status", "--json")
    assert status.returncode == 0 and '"ranker"' in status.stdout, status.stderr
    assert ranker.stop() == 0
    assert gateway.stop() == 0


@pytest.mark.skipif(not ALL, reason="needs the environments of all images: set FLOWDEX_TEST_ALL_EXTRAS=1")
def test_the_default_flow_runs_with_each_part_in_its_own_image(start: Callable[..., Container]) -> None:
    ports = {"segmenter": 52001, "encoder": 52002, "indexer": 52003, "ranker": 52004}
    addresses = [part for name, port in ports.items() for part in ("--address", f"{name}=127.0.0.1:{port}")]
    gateway = start("gateway", command=["gateway", "--host", "0.0.0.0", "--insecure", *addresses])
    executors = [
        start(
            "encoder-cpu" if name == "encoder" else name,
            command=["executor", name, "--host", "0.0.0.0", "--port", str(port), "--insecure"],
            env={"FLOWDEX_HEALTH_URL": f"grpc://127.0.0.1:{port}", "FLOWDEX_URL": "grpc://127.0.0.1:51000"},
            network=gateway,
        )
        for name, port in ports.items()
    ]
    for each in (*executors, gateway):
        each.wait_healthy()
    texts = '{"id": "a", "text": "The heart pumps blood."}\\n{"id": "b", "text": "Rust is a language."}\\n'
    told = gateway.run("sh", "-c", f"printf '{texts}' > /tmp/d.jsonl && flowdex index /tmp/d.jsonl", timeout=120)
    assert told.returncode == 0, told.stderr
    for rerank in ([], ["--rerank", "late_interaction"]):
        found = gateway.run("flowdex", "search", "--json", "--limit", "1", *rerank, "which organ moves blood?")
        assert found.returncode == 0 and "heart" in found.stdout, found.stdout + found.stderr
    for each in (gateway, *executors):
        assert each.stop() == 0, each.log
