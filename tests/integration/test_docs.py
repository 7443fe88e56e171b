"""Every command of every page works: console blocks are typed in order, Python blocks are run.

    page --```console / ```python blocks--> a scratch copy of the examples, with the default flow running

The default ports stand in the pages, but may be taken on this machine: here they are replaced by free ones, in flow
files, commands and programs alike.

A command that ends with `# ...` may carry a comment. A block whose first line is `# not run: reason` is left out.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from flow_support import free_ports

ROOT = Path(__file__).resolve().parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/**/*.md")), *sorted(ROOT.glob("examples/**/*.md"))]
BLOCK = re.compile(r"^```(console|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# Set-up of a whole machine: CI runs these itself, see .ci/run.
SET_UP = ("make demo", "make lint", "make test", "git clone", "cd flowdex", "pip install")


def blocks(page: Path) -> list[tuple[str, str]]:
    """The runnable blocks of a page, in order: (language, text)."""
    found = BLOCK.findall(page.read_text(encoding="utf-8"))
    return [(language, text) for language, text in found if not text.startswith("# not run:")]


def commands(text: str) -> Iterator[str]:
    """The commands of a console block; a trailing backslash continues a line."""
    lines = iter(text.splitlines())
    for line in lines:
        if line.startswith("$ "):
            command = line[2:]
            while command.endswith("\\"):
                command = command[:-1] + next(lines).lstrip("> ")
            if not command.startswith(SET_UP):
                yield command


GRPC_PORT, HTTP_PORT, PAGE_PORT, BERT_PORT, BERT_OUT_PORT = free_ports(5)


def on_free_ports(text: str) -> str:
    """The same text with other ports than the defaults."""
    text = re.sub(r"(127\.0\.0\.1:|--port )5000\b", rf"\g<1>{PAGE_PORT}", text)
    return re.sub(r"\b8080\b", str(HTTP_PORT), re.sub(r"\b51000\b", str(GRPC_PORT), text))


def bert_on_free_ports(text: str) -> str:
    """A flow file whose `protocol: bert` has other ports than the defaults, which a stock client would not find."""
    ports = f", {BERT_PORT}]\ngateway:\n  bert:\n    port_out: {BERT_OUT_PORT}\n"
    return re.sub(r", 5555\].*\ngateway:\n  bert:\n", ports, text)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder that looks like the repository to the commands."""
    folder = tmp_path_factory.mktemp("docs")
    for name in ("flow.yml", "README.md", "LICENSE"):
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, folder)
    for name in ("docs", "examples", "flows", "benchmarks"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for flow in (folder / "flow.yml", *folder.glob("flows/*.yml"), *folder.glob("examples/**/*.yml")):
        flow.write_text(on_free_ports(flow.read_text()))
    bertsearch = folder / "examples" / "bertsearch" / "flow.yml"
    bertsearch.write_text(bert_on_free_ports(bertsearch.read_text()))
    yield folder
    run("flowdex down", folder)


def run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", on_free_ports(command)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=150,
        stdin=subprocess.DEVNULL,
        check=False,
        env={**os.environ, "PATH": path, "NO_COLOR": "1", "FLOWDEX_URL": f"grpc://127.0.0.1:{GRPC_PORT}"},
    )


def check(command: str, folder: Path) -> None:
    done = run(command, folder)
    assert done.returncode == 0, f"$ {command}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"


@pytest.mark.timeout(600)
@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_of_the_page_works(page: Path, scratch: Path) -> None:
    runnable = blocks(page)
    if not any(language == "python" or list(commands(text)) for language, text in runnable):
        return  # a page of prose
    starts_flows = any(re.search(r"flowdex (up|down)", text) for _, text in runnable)
    # The default flow stays between pages that neither start nor stop one.
    running = scratch / "default-flow-runs"
    if starts_flows or not running.exists() or run("flowdex health", scratch).returncode:
        check("flowdex down", scratch)
        running.unlink(missing_ok=True)
        if not any("flowdex up" in text for _, text in runnable):
            check("flowdex up --detach", scratch)
            if not starts_flows:
                running.touch()
    for language, text in runnable:
        if language == "console":
            for command in commands(text):
                check(command, scratch)
        else:
            (scratch / "block.py").write_text(on_free_ports(text), encoding="utf-8")
            check("python block.py", scratch)
