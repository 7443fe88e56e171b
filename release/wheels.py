"""Build the package, install each extra of it into a clean environment of each Python, and see it work.

    repository --uv build--> sdist --> wheel --+
                                               +--> an environment each --release/smoke.py--> table
    extras x Pythons of this machine ----------+

    python release/wheels.py                               all of it: half an hour, and GBs of downloads
    python release/wheels.py --extra gateway --python 3.12
    python release/wheels.py --constraint constraints.txt  with the versions of the test suite

Needs uv (`pip install uv`), with uv's own settings (UV_FIND_LINKS, ...). What would bring PyTorch's CUDA build (several
GB) is left out and says so, unless `--cuda` is given: name the folder of a CPU build in UV_FIND_LINKS.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from smoke import SMOKE, Smoke

__all__ = ["SUPPORTED", "Cell", "build", "find_pythons", "try_extra"]

ROOT = Path(__file__).resolve().parents[1]
SUPPORTED = ("3.10", "3.11", "3.12", "3.13")
UV = (sys.executable, "-m", "uv")
_SMOKE_SECONDS = 600
_CUDA = re.compile(r"^ \+ nvidia-", re.MULTILINE)


@dataclass(frozen=True)
class Cell:
    """What became of an extra on a Python.

    Attributes:
        result: "ok", "failed" or "left out".
        reason: Why it is not ok.
        packages: How many were installed, flowdex among them.
        megabytes: What they take on disk.
        seconds: To install them, from uv's cache or a registry, and to see them work.
    """

    result: str
    reason: str = ""
    packages: int = 0
    megabytes: float = 0.0
    seconds: float = 0.0

    def __str__(self) -> str:
        return (
            f"{self.megabytes:.0f} MB, {self.seconds:.0f} s" if self.result == "ok" else f"{self.result}: {self.reason}"
        )


def build(folder: Path) -> Path:
    """Build the sdist, and from it the wheel.

    Returns:
        The wheel, in `folder`.
    """
    _run(*UV, "build", "--quiet", "--out-dir", str(folder), str(ROOT))
    (wheel,) = folder.glob("*.whl")
    return wheel


def find_pythons() -> dict[str, str]:
    """The supported Pythons of this machine: version as "3.11" -> program. This program's own comes first."""
    candidates = [sys.executable, *(f"python{version}" for version in SUPPORTED)]
    candidates += map(str, sorted((Path.home() / ".pyenv" / "versions").glob("3.*/bin/python3")))
    found: dict[str, str] = {}
    for each in candidates:
        version = _version(each)
        if version in SUPPORTED:
            found.setdefault(version, each)
    return found


def _version(python: str) -> str:
    """Of a program that may not be there, or not start (pyenv leaves such)."""
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    try:
        done = subprocess.run([python, "-I", "-c", code], capture_output=True, text=True, timeout=30, check=False)
    except OSError:
        return ""
    return done.stdout.strip()


def try_extra(
    wheel: Path, smoke: Smoke, name: str, python: str, *, constraint: Path | None = None, cuda: bool = False
) -> Cell:
    """Install an extra of the wheel into a new environment and see it work.

    Args:
        wheel: Of flowdex.
        smoke: What is installed, and what must work.
        name: The extra's name in `smoke.SMOKE`.
        python: The Python's program.
        constraint: Versions that are taken; None for the newest that fit.
        cuda: Whether PyTorch's CUDA build is fetched where there is no other.
    """
    with tempfile.TemporaryDirectory(prefix="flowdex-wheels-") as folder:
        environment = Path(folder) / "environment"
        extras = f"[{','.join(smoke.extras)}]" if smoke.extras else ""
        wanted = [f"flowdex{extras} @ {wheel.resolve().as_uri()}"]
        install = [*UV, "pip", "install", "--python", str(environment)]
        constraints = ["--constraint", str(constraint)] if constraint else []
        start = time.monotonic()
        try:
            _run(*UV, "venv", "--quiet", "--python", python, str(environment))
            planned = _run(*install, "--dry-run", *constraints, *wanted)
            if _CUDA.search(planned) and not cuda:
                return Cell("left out", "PyTorch comes with CUDA")
            _run(*install, "--quiet", *constraints, *wanted)
            if smoke.alone:
                _run(*install, "--quiet", "--no-deps", *smoke.alone)
            inside = environment / "bin" / "python"
            _run(str(inside), "-I", str(ROOT / "release" / "smoke.py"), name, env=_clean(os.environ))
        except subprocess.CalledProcessError as error:
            print(f"\n{error.cmd}\n{error.stdout}{error.stderr}", file=sys.stderr)
            return Cell("failed", _reason(error))
        except subprocess.TimeoutExpired:
            return Cell("failed", f"not ready after {_SMOKE_SECONDS} s")
        seconds = time.monotonic() - start
        packages = list(environment.glob("lib/*/site-packages/*.dist-info"))
        return Cell("ok", "", len(packages), _size(environment) / 1e6, seconds)


def _reason(error: subprocess.CalledProcessError) -> str:
    """What uv says is the cause, else the last line of what a program wrote."""
    text = (error.stderr or error.stdout).strip()
    _, found, cause = text.partition("cause:")
    return " ".join(cause.split()) if found else next(iter(text.splitlines()[-1:]), f"exit code {error.returncode}")


def _size(folder: Path) -> int:
    return sum(each.lstat().st_size for each in folder.rglob("*") if each.is_file() and not each.is_symlink())


def _clean(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment without what would show the new Python another's packages, or flowdex other settings."""
    kept = {name: value for name, value in environment.items() if not name.startswith(("PYTHON", "FLOWDEX_"))}
    kept.pop("VIRTUAL_ENV", None)
    return {**kept, "HF_HUB_OFFLINE": "1", "JINA_OPTOUT_TELEMETRY": "1", "NO_MKDOCS_2_WARNING": "1"}


def _run(*command: str, env: Mapping[str, str] | None = None) -> str:
    """Run a command; what it wrote, on both streams.

    Raises:
        subprocess.CalledProcessError: It failed.
        subprocess.TimeoutExpired: It took too long.
    """
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=_SMOKE_SECONDS, stdin=subprocess.DEVNULL, check=True, env=env
    )
    return done.stdout + done.stderr


def table(cells: Mapping[tuple[str, str], Cell], extras: Iterable[str], pythons: Sequence[str]) -> Iterator[str]:
    """The results, as lines of Markdown."""
    yield f"| installed | packages | {' | '.join(pythons)} |"
    yield "|---|---:|" + "---|" * len(pythons)
    for extra in extras:
        row = [cells[extra, python] for python in pythons]
        counts = {each.packages for each in row if each.packages}
        packages = "-".join(map(str, sorted({min(counts), max(counts)}))) if counts else ""
        name = ", ".join(f"`{each}`" for each in SMOKE[extra].extras) or "`flowdex` alone"
        yield f"| {name} | {packages} | {' | '.join(map(str, row))} |"


def main(arguments: Sequence[str] | None = None) -> int:
    """Try what is asked for, and print the table.

    Returns:
        The exit code: 1 where an extra does not work.
    """
    parser = argparse.ArgumentParser(description="Install each extra into clean environments, and see it work.")
    parser.add_argument("--extra", action="append", choices=[*SMOKE, "client"], help="this one; repeatable")
    parser.add_argument("--python", action="append", choices=SUPPORTED, help="this version; repeatable")
    parser.add_argument("--constraint", type=Path, metavar="FILE", help="take the versions of this file")
    parser.add_argument("--cuda", action="store_true", help="fetch PyTorch's CUDA build where there is no other")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="keep sdist and wheel there")
    options = parser.parse_args(arguments)
    if find_spec("uv") is None:
        sys.exit("uv is not installed: pip install uv")
    extras = ["" if each == "client" else each for each in options.extra or SMOKE]
    there = find_pythons()
    pythons = [version for version in options.python or SUPPORTED if version in there]
    if not pythons:
        sys.exit(f"there is none of the Pythons {', '.join(options.python or SUPPORTED)}")
    cells: dict[tuple[str, str], Cell] = {}
    with tempfile.TemporaryDirectory(prefix="flowdex-dist-") as folder:
        wheel = build(options.out or Path(folder))
        for extra in extras:
            for version in pythons:
                cell = try_extra(
                    wheel, SMOKE[extra], extra, there[version], constraint=options.constraint, cuda=options.cuda
                )
                cells[extra, version] = cell
                print(f"{extra or 'client'} on {version}: {cell}", file=sys.stderr, flush=True)
    print("\n".join(table(cells, extras, pythons)))
    return 1 if any(cell.result == "failed" for cell in cells.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
