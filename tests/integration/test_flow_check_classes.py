"""flowdex check, with the executors' classes: imports, arguments, hooks, and code that takes its process down."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flowdex_orchestrator.flow import Finding, load_flow
from flowdex_orchestrator.flow.check import check_flow

ROOT = Path(__file__).resolve().parents[2]

MODULE = """
import os
from jina import Executor, requests

print("noise on stdout")

class Encoder(Executor):
    def __init__(self, model="mini", size=384, **kwargs):
        super().__init__(**kwargs)

    @requests(on="/encode")
    def encode(self, docs, **kwargs): ...

    @classmethod
    def describe(cls, uses_with):
        from flowdex.errors import ConfigurationError
        if uses_with.get("model") == "absent":
            raise ConfigurationError("there is no model 'absent'")
        return {"model": uses_with.get("model", "mini"), "dimensions": uses_with.get("size", 384)}

class Index(Executor):
    def __init__(self, path, dimensions=None, **kwargs):
        super().__init__(**kwargs)

    @classmethod
    def describe(cls, uses_with):
        return {"dimensions": uses_with.get("dimensions"), "embedded": True}

    @classmethod
    def check(cls, uses_with, context):
        if context.name == "full":
            yield f"path: {uses_with['path']} is full in {context.folder.name}"
        if not os.path.isabs(uses_with["path"]) and context.replicas > 5:
            yield "too many"

class Broken(Executor):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)

    @classmethod
    def describe(cls, uses_with):
        return {}["nothing"]

class NoExecutor:
    pass
"""
FLOW = """\
jtype: Flow
with:
  replicas: 2
executors:
  - {name: good, uses: Encoder, py_modules: [exec_code.py], replicas: 1}
  - {name: misspelt, uses: Encoder, py_modules: [exec_code.py], uses_with: {modle: x}}
  - {name: model, uses: Encoder, py_modules: [exec_code.py], uses_with: {model: absent}}
  - {name: embedded, uses: Index, py_modules: [exec_code.py], uses_with: {path: a, dimensions: 384}}
  - {name: sizes, uses: Index, py_modules: [exec_code.py], uses_with: {path: a, dimensions: 100}, replicas: 1}
  - {name: full, uses: Index, py_modules: [exec_code.py], uses_with: {path: a}, replicas: 1}
  - {name: missing, uses: Index, py_modules: [exec_code.py]}
  - {name: method, uses: Encoder, py_modules: [exec_code.py], uses_requests: {/x: encod}}
  - {name: broken, uses: Broken, py_modules: [exec_code.py]}
  - {name: strict, uses: Strict, py_modules: [strict.py], uses_with: {size: 1}}
  - {name: other, uses: NoExecutor, py_modules: [exec_code.py]}
  - {name: typo, uses: Encodr, py_modules: [exec_code.py]}
  - {name: nofile, uses: Encoder, py_modules: [nothere.py]}
  - {name: nomodule, uses: nowhere.Encoder}
  - {name: raising, uses: Encoder, py_modules: [raising.py]}
  - {name: syntax, uses: Encoder, py_modules: [syntax.py]}
  - {name: config, uses: config.yml, uses_with: {size: 5}}
  - {name: noconfig, uses: other.yml}
  - {name: inline, uses: {jtype: Encoder, py_modules: exec_code.py, with: {siz: 3}}}
  - {name: container, uses: docker://image}
  - {name: elsewhere, uses: nowhere.Encoder, external: true, port: 6000, replicas: 1}
"""


def write(folder: Path, flow: str) -> Path:
    (folder / "exec_code.py").write_text(MODULE)
    (folder / "raising.py").write_text("x = 1\n\nraise RuntimeError('not today')\n")
    (folder / "strict.py").write_text(
        "from jina import Executor\n\nclass Strict(Executor):\n    def __init__(self, size):\n        pass\n"
    )
    (folder / "syntax.py").write_text("x = 1\ndef f(:\n")
    (folder / "config.yml").write_text("!Encoder\nwith:\n  modle: x\nmetas:\n  py_modules:\n    - exec_code.py\n")
    path = folder / "flow.yml"
    path.write_text(flow)
    return path


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, list[Finding]]]:
    folder = tmp_path_factory.mktemp("check")
    flow = load_flow(write(folder, FLOW))
    by_name: dict[str, list[Finding]] = {executor.name: [] for executor in flow.executors}
    for finding in check_flow(flow, timeout=120):
        name = flow.executors[(finding.line or 5) - 5].name if (finding.line or 0) >= 5 else "with"
        by_name.setdefault(name, []).append(finding)
    return folder, by_name


@pytest.mark.parametrize(
    ("name", "key", "message"),
    [
        ("misspelt", "uses_with.modle", "Encoder takes no such argument (did you mean 'model'?)"),
        ("model", "uses_with.model", "there is no model 'absent'"),
        (
            "sizes",
            "uses_with.dimensions",
            "it stores vectors of 100 dimensions, but good (mini) makes vectors of 384; "
            "use an encoder of the same size, or another index",
        ),
        ("full", "uses_with.path", "a is full in {folder.name}"),
        ("missing", "uses", "Index needs the argument 'path'"),
        ("method", "uses_requests./x", "Encoder has no method 'encod' (did you mean 'encode'?)"),
        ("broken", "uses", "its own check failed: {folder}/exec_code.py:42: KeyError: 'nothing'"),
        ("strict", "uses", "importing it failed: {folder}/strict.py:3: TypeError: <function Strict.__init__ at "),
        ("other", "uses", "NoExecutor is not a subclass of jina.Executor"),
        ("typo", "uses", "Encodr: exec_code has no class Encodr; did you mean Encoder?"),
        ("nofile", "py_modules", "there is no file {folder}/nothere.py"),
        ("raising", "uses", "importing it failed: {folder}/raising.py:3: RuntimeError: not today"),
        ("syntax", "uses", "importing it failed: {folder}/syntax.py:2: SyntaxError: "),
        ("config", "uses", "config.yml: with.modle: Encoder takes no such argument (did you mean 'model'?)"),
        ("noconfig", "uses", "there is no file other.yml in {folder}"),
        ("inline", "uses", "the inline mapping: with.siz: Encoder takes no such argument (did you mean 'size'?)"),
        ("container", "uses", "docker://image names a container, which is not run here; "),
        ("nomodule", "uses", "importing it failed: ModuleNotFoundError: No module named 'nowhere' (install it: "),
    ],
)
def test_one_finding(name: str, key: str, message: str, found: tuple[Path, dict[str, list[Finding]]]) -> None:
    folder, by_name = found
    (finding,) = by_name[name]
    assert finding.severity == "error"
    assert finding.key.partition("].")[2] == key
    assert finding.message.startswith(message.format(folder=folder))


def test_what_is_right_or_elsewhere_is_not_mentioned(found: tuple[Path, dict[str, list[Finding]]]) -> None:
    assert found[1]["good"] == found[1]["elsewhere"] == found[1]["embedded"] == []


def test_replicas_of_an_embedded_index(found: tuple[Path, dict[str, list[Finding]]]) -> None:
    messages = [finding.message for finding in found[1]["with"] if finding.key == "with.replicas"]
    assert messages
    assert all("cannot have 2 replicas" in message for message in messages)


def check_modules(folder: Path, modules: dict[str, str], timeout: float) -> dict[str, str]:
    """The one finding about each executor whose module has the given text."""
    lines = ["jtype: Flow", "executors:"]
    for name, text in modules.items():
        (folder / f"{name}.py").write_text(text)
        lines.append(f"  - {{name: {name}, uses: X, py_modules: {name}.py}}")
    (folder / "flow.yml").write_text("\n".join(lines))
    findings = check_flow(load_flow(folder / "flow.yml"), timeout=timeout)
    return {list(modules)[(finding.line or 0) - 3]: finding.message for finding in findings}


def test_code_that_ends_its_process_is_named_and_hides_no_other(tmp_path: Path) -> None:
    found = check_modules(
        tmp_path,
        {
            "exiting": "import sys\nsys.exit('bye')\n",
            "leaving": "import os\nos._exit(7)\n",
            "crashing": "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n",
            "raising": "raise KeyError('x')\n",
        },
        timeout=120,
    )
    assert found["exiting"].startswith(f"importing it failed: {tmp_path}/exiting.py:2: SystemExit: bye")
    assert found["leaving"].startswith("importing it ended the process (exit code 7)")
    assert found["crashing"].startswith("importing it ended the process (SIGSEGV)")
    assert found["raising"] == f"importing it failed: {tmp_path}/raising.py:1: KeyError: 'x'"


def test_code_that_blocks_is_named_in_time(tmp_path: Path) -> None:
    start = time.monotonic()
    found = check_modules(tmp_path, {"waiting": "import time\ntime.sleep(600)\n"}, timeout=6)
    assert time.monotonic() - start < 30
    assert found["waiting"].startswith("importing it took longer than the time for the check")


def test_the_environment_of_an_executor_holds_for_its_import(tmp_path: Path) -> None:
    code = "import os\nfrom jina import Executor\nclass E(Executor): pass\nassert os.environ['SIZE'] == '{}'\n"
    for size in "12":
        (tmp_path / f"size{size}.py").write_text(code.format(size))
    flow = tmp_path / "flow.yml"
    flow.write_text(
        "jtype: Flow\nexecutors:\n"
        "  - {name: a, uses: E, py_modules: size1.py, env: {SIZE: 1}}\n"
        "  - {name: b, uses: E, py_modules: size2.py, env: {SIZE: 2}}\n"
    )
    assert check_flow(load_flow(flow)) == []


def test_the_default_flow_has_no_problems(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "flowdex", "check", str(ROOT / "flow.yml"), "--no-ports"],
        cwd=tmp_path,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, f"{ROOT / 'flow.yml'}: no problems\n")
    assert list(tmp_path.iterdir()) == []
