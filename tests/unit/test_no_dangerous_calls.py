"""Nothing in the packages runs what it reads: no pickle, no eval, no shell, no unsafe loader."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted(file for part in ("client", "executors", "orchestrator") for file in (ROOT / part).rglob("*.py"))
# The names alone are needed here: an error class, and the reader of opcodes, which runs none.
HARMLESS = {("pickle", "UnpicklingError"), ("pickletools", "genops")}
MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "pickletools"}
BUILTINS = {"eval", "exec", "compile", "__import__"}
METHODS = {
    "os": {"system", "popen", "execv", "execvp", "spawnl", "spawnv"},
    "yaml": {"unsafe_load", "full_load", "load_all", "unsafe_load_all", "full_load_all"},
    "torch": {"save"},
}
SAFE_LOADERS = {"BaseLoader", "SafeLoader", "CSafeLoader", "CBaseLoader"}


def problems(source: str) -> Iterator[str]:
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module in MODULES:
            yield from (f"imports {node.module}.{name.name}" for name in node.names if not _harmless(node, name))
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in MODULES:
            if (node.value.id, node.attr) not in HARMLESS:
                yield f"uses {node.value.id}.{node.attr}"
        elif isinstance(node, ast.Call):
            yield from _call(node)


def _harmless(node: ast.ImportFrom, name: ast.alias) -> bool:
    return (node.module, name.name) in HARMLESS


def _call(node: ast.Call) -> Iterator[str]:
    given = {each.arg: each.value for each in node.keywords}
    owner, name = _names(node.func)
    if not owner and name in BUILTINS:
        yield f"calls {name}()"
    if name in METHODS.get(owner, ()):
        yield f"calls {owner}.{name}()"
    if (owner, name) == ("torch", "load") and not _is(given.get("weights_only"), True):
        yield "torch.load without weights_only=True"
    if owner in ("np", "numpy") and name == "load" and not _is(given.get("allow_pickle"), False):
        yield "np.load without allow_pickle=False"
    if (owner, name) == ("yaml", "load") and _names(given.get("Loader", node))[1] not in SAFE_LOADERS:
        yield "yaml.load without a safe loader"
    if "shell" in given and not _is(given["shell"], False):
        yield "shell=True"
    if name == "from_pretrained" and None not in given and not _is(given.get("trust_remote_code"), False):
        yield "from_pretrained without trust_remote_code=False"
    if "trust_remote_code" in given and not _is(given["trust_remote_code"], False):
        yield "trust_remote_code=True"
    if "allow_pickle" in given and not _is(given["allow_pickle"], False):
        yield "allow_pickle=True"


def _names(node: ast.AST) -> tuple[str, str]:
    if isinstance(node, ast.Attribute):
        return (node.value.id if isinstance(node.value, ast.Name) else "?"), node.attr
    return "", node.id if isinstance(node, ast.Name) else ""


def _is(node: ast.expr | None, value: bool) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_nothing_runs_what_it_reads(file: Path) -> None:
    assert list(problems(file.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle\npickle.loads(data)",
        "from pickle import loads",
        "import torch\ntorch.load(path)",
        "import torch\ntorch.load(path, weights_only=False)",
        "import numpy as np\nnp.load(path)",
        "import numpy as np\nnp.load(path, allow_pickle=True)",
        "import yaml\nyaml.load(text)",
        "import yaml\nyaml.load(text, Loader=yaml.Loader)",
        "import yaml\nyaml.unsafe_load(text)",
        "eval(text)",
        "subprocess.run(text, shell=True)",
        "os.system(text)",
        "AutoModel.from_pretrained(path)",
        "AutoModel.from_pretrained(path, trust_remote_code=True)",
        "dict(trust_remote_code=option)",
        "import marshal\nmarshal.loads(data)",
    ],
)
def test_the_search_finds(source: str) -> None:
    assert list(problems(source))
