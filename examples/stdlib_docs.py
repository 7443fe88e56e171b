"""Real text that any machine has: the docstrings of Python's standard library, as JSON lines.

    standard library sources --ast--> one document a module, class and function --> {"id", "text", ...tags}

Nothing is imported or run, the sources are only parsed. Use it as ``python examples/stdlib_docs.py > docs.jsonl``.
"""

from __future__ import annotations

import argparse
import ast
import json
import sys
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

SKIPPED_FOLDERS = {"test", "tests", "site-packages", "dist-packages", "idlelib", "lib2to3", "turtledemo", "__pycache__"}
SHORTEST_TEXT = 40  # characters; a docstring below that says nothing worth finding


def documents(root: Path) -> Iterator[dict[str, str]]:
    """Yield one document for each docstring of the modules below `root`, in a stable order."""
    for path in sorted(root.rglob("*.py")):
        relative = path.relative_to(root)
        if SKIPPED_FOLDERS.intersection(relative.parts):
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                tree = ast.parse(path.read_bytes())
        except (OSError, SyntaxError, ValueError):
            continue
        module = ".".join(relative.with_suffix("").parts).removesuffix(".__init__")
        yield from _walk(tree, module, module)


def _walk(node: ast.Module | ast.ClassDef | ast.AST, name: str, module: str) -> Iterator[dict[str, str]]:
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        text = ast.get_docstring(node)
        if text and len(text) >= SHORTEST_TEXT:
            kind = {ast.Module: "module", ast.ClassDef: "class"}.get(type(node), "function")
            yield {"id": name, "text": text, "kind": kind, "module": module}
    if isinstance(node, ast.Module | ast.ClassDef):
        for child in node.body:
            if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                yield from _walk(child, f"{name}.{child.name}", module)


def write(out: TextIO, limit: int | None) -> int:
    """Write the documents as JSON lines; later ones of the same id are left out."""
    seen: set[str] = set()
    for document in documents(Path(sysconfig.get_path("stdlib"))):
        if document["id"] in seen:
            continue
        if limit is not None and len(seen) >= limit:
            break
        seen.add(document["id"])
        out.write(json.dumps(document, ensure_ascii=False) + "\n")
    return len(seen)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, help="file to write (default: standard output)")
    parser.add_argument("-n", "--limit", type=int, help="at most so many documents")
    options = parser.parse_args()
    if options.output:
        with options.output.open("w", encoding="utf-8") as file:
            written = write(file, options.limit)
    else:
        written = write(sys.stdout, options.limit)
    print(f"{written} documents", file=sys.stderr)
