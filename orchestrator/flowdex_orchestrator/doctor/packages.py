"""Python, the extras of flowdex that are installed, and versions that do not go together: from metadata alone.

metadata of flowdex, jina, ... --> requirements --> check_extras, check_versions
torch/version.py, as text      --> TorchBuild   --> check_torch
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING

from flowdex_orchestrator.doctor.report import Check, Verdict

if TYPE_CHECKING:
    from packaging.requirements import Requirement

__all__ = [
    "TorchBuild",
    "check_extras",
    "check_python",
    "check_torch",
    "check_versions",
    "installed_version",
    "torch_build",
]

OURS = "flowdex"
_OLDEST, _NEWEST = (3, 10), (3, 13)
_SHOWN_EXTRAS = (
    "gateway",
    "executor",
    "bert",
    "segmenter",
    "indexer",
    "models",
    "elmo",
    "onnx",
    "ctranslate2",
    "zeromq",
    "eval",
)
_STRICT = ("jina", "docarray")
"""Packages whose own bounds are looked at, too: theirs are the narrow ones."""

Requires = Callable[[str], Sequence[str] | None]
Version = Callable[[str], str | None]


def check_python(version: tuple[int, int, int] = sys.version_info[:3], system: str = os.name) -> Check:
    """A Python that flowdex runs on, on a system that the runner knows."""
    text = "{}.{}.{}".format(*version)
    if system != "posix":
        remedy = "use Linux or macOS, or on Windows the Subsystem for Linux (WSL 2); the client alone runs anywhere"
        return Check("python", Verdict.ERROR, f"Python {text} on a system without POSIX processes", remedy)
    if not _OLDEST <= version[:2] <= _NEWEST:
        remedy = "make a virtual environment with Python 3.11 or 3.12 and install flowdex there"
        return Check("python", Verdict.ERROR, f"Python {text}; flowdex is for 3.10 to 3.13", remedy)
    return Check("python", Verdict.OK, f"Python {text}")


def installed_version(name: str) -> str | None:
    """The version of an installed distribution, None where there is none."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _requires(name: str) -> Sequence[str] | None:
    try:
        return metadata.requires(name)
    except metadata.PackageNotFoundError:
        return None


def check_extras(
    needed: Mapping[str, str], *, requires: Requires = _requires, version: Version = installed_version
) -> Check:
    """The extras of flowdex that are installed, and whether those that the flow needs are.

    Args:
        needed: Extra -> what needs it.
        requires: Requirements of a distribution.
        version: Version of a distribution.
    """
    missing = {extra: _missing(extra, requires, version) for extra in dict.fromkeys([*_SHOWN_EXTRAS, *needed])}
    lacking = {extra: names for extra, names in missing.items() if names and extra in needed}
    if lacking:
        detail = "; ".join(f"{needed[extra]} needs {', '.join(names)}" for extra, names in lacking.items())
        return Check("extras", Verdict.ERROR, detail, f"pip install '{OURS}[{','.join(lacking)}]'")
    there = [extra for extra, names in missing.items() if not names]
    absent = [extra for extra, names in missing.items() if names]
    detail = f"{OURS} {version(OURS) or '?'}: {', '.join(there) or 'the client alone'}"
    return Check("extras", Verdict.OK, detail + (f" (not {', '.join(absent)})" if absent else ""))


def _missing(extra: str, requires: Requires, version: Version) -> list[str]:
    """Distributions of an extra that are not installed."""
    return [each.name for each in _requirements(OURS, (extra,), requires) if version(each.name) is None]


def check_versions(
    extras: Collection[str], *, requires: Requires = _requires, version: Version = installed_version
) -> Check:
    """Installed versions within the bounds of flowdex, and of the packages with narrow ones.

    Bounds of flowdex itself are those that it is known to break beyond; a dependency's own may be careful.
    """
    outside: dict[str, tuple[str, bool]] = {}  # what to install -> what is wrong, and whether it is fatal
    for owner in (OURS, *_STRICT):
        wanted = (None, *extras) if owner == OURS else (None,)
        if version(owner) is None:
            continue
        for each in _requirements(owner, wanted, requires):
            there = version(each.name)
            if there is None or each.specifier.contains(there, prereleases=True):
                continue
            detail = f"{each.name} {there} is outside of what {owner} {version(owner)} takes ({each.specifier})"
            outside.setdefault(f"{each.name}{each.specifier}", (detail, owner == OURS))
    if not outside:
        shown = [f"{name} {found}" for name in ("torch", "jina", "grpcio", "numpy") if (found := version(name))]
        return Check("versions", Verdict.OK, ", ".join(shown) or "nothing is out of bounds")
    verdict = Verdict.ERROR if any(fatal for _, fatal in outside.values()) else Verdict.WARNING
    wishes = " ".join(f"'{wish}'" for wish in outside)
    return Check("versions", verdict, "; ".join(detail for detail, _ in outside.values()), f"pip install {wishes}")


def _requirements(owner: str, extras: Iterable[str | None], requires: Requires) -> Iterator[Requirement]:
    """The requirements of a distribution on this machine; None among the extras stands for those without one."""
    from packaging.requirements import Requirement

    parsed = [Requirement(text) for text in requires(owner) or ()]
    for extra in extras:
        for each in parsed:
            of_extra = each.marker is not None and "extra" in str(each.marker)
            if of_extra is (extra is None) or (each.marker and not each.marker.evaluate({"extra": extra or ""})):
                continue
            if each.name == owner:
                yield from _requirements(owner, each.extras, requires)
            else:
                yield each


# ---- torch ----


@dataclass(frozen=True)
class TorchBuild:
    """Which torch is installed.

    Attributes:
        version: Such as "2.6.0+cpu".
        cuda: The CUDA that it was built for, such as "12.6"; None for the CPU alone.
    """

    version: str
    cuda: str | None


_CUDA = re.compile(r"^cuda\b[^=]*=\s*(?:'([^']+)'|\"([^\"]+)\"|None)", re.MULTILINE)


def torch_build() -> TorchBuild | None:
    """Read which torch is installed, without importing it; None where there is none."""
    try:
        found = metadata.distribution("torch")
    except metadata.PackageNotFoundError:
        return None
    try:
        with open(str(found.locate_file("torch/version.py")), encoding="utf-8") as file:  # noqa: PTH123 - not a Path
            match = _CUDA.search(file.read())
    except OSError:
        match = None
    return TorchBuild(found.version, (match[1] or match[2]) if match else None)


def check_torch(build: TorchBuild | None, gpus: int, *, needed: bool) -> Check:
    """A build of torch that fits the machine.

    Args:
        build: What is installed.
        gpus: GPUs of this machine.
        needed: Whether the flow computes with torch.
    """
    if build is None:
        if needed:
            return Check("torch", Verdict.ERROR, "not installed", f"pip install '{OURS}[bert]'")
        return Check("torch", Verdict.OK, "not installed, and not needed")
    named = f"torch {build.version}, " + (f"built for CUDA {build.cuda}" if build.cuda else "built for the CPU")
    if gpus and build.cuda is None:
        remedy = "install torch's build for CUDA; until then encoders compute on the CPU"
        return Check("torch", Verdict.WARNING, f"{named}, but there {_are(gpus)} here", remedy)
    if build.cuda is not None and not gpus:
        remedy = "it works; torch's build for the CPU takes some gigabytes less"
        return Check("torch", Verdict.WARNING, f"{named}, but there is no GPU", remedy)
    return Check("torch", Verdict.OK, named)


def _are(gpus: int) -> str:
    return "is 1 GPU" if gpus == 1 else f"are {gpus} GPUs"
