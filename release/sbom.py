"""Write what each image holds as CycloneDX: every package with its version, hash and licence.

    Dockerfile: which locks an image takes --+
    docker/locks/*.txt: versions, hashes ----+--> .sbom/IMAGE.cdx.json
    release/licences.json: SPDX expressions -+

    python release/sbom.py            writes them into .sbom/
    python release/sbom.py --list     prints the licences, and which packages have them

Needs no network. A package that is new in a lock file needs its licence in licences.json: what its own metadata says,
as an SPDX expression; read its licence file where the metadata is vague.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import DisjunctiveLicense, License, LicenseExpression
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from cyclonedx.spdx import is_supported_id
from packageurl import PackageURL

__all__ = ["SCHEMA", "Package", "bill", "images", "licences", "packages"]

ROOT = Path(__file__).resolve().parents[1]
LOCKS = ROOT / "docker" / "locks"
SCHEMA = SchemaVersion.V1_6
_STAGE = re.compile(r"^FROM \S+ AS ([\w-]+)-environment\nCOPY ((?:docker/locks/[\w-]+\.txt )+)", re.MULTILINE)
_ENTRY = re.compile(r"^([a-z0-9.-]+)==(\S+)((?: \\\n    --hash=sha256:[0-9a-f]{64})+)", re.MULTILINE)
_HASH = re.compile(r"sha256:([0-9a-f]{64})")


@dataclass(frozen=True)
class Package:
    """A package of a lock file: `hashes` are SHA-256, of the one file that fits."""

    name: str
    version: str
    hashes: tuple[str, ...]


def images() -> dict[str, tuple[str, ...]]:
    """Image -> the lock files that its environment is made of, by their names in docker/locks/."""
    stages = _STAGE.findall((ROOT / "Dockerfile").read_text(encoding="utf-8"))
    return {name: tuple(Path(each).stem for each in files.split()) for name, files in stages}


def packages(lock: str) -> Iterator[Package]:
    """The packages of a lock file."""
    for name, number, hashes in _ENTRY.findall((LOCKS / f"{lock}.txt").read_text(encoding="utf-8")):
        yield Package(name, number, tuple(_HASH.findall(hashes)))


def licences() -> dict[str, str]:
    """Package -> SPDX expression."""
    found: dict[str, str] = json.loads(Path(__file__).with_name("licences.json").read_text(encoding="utf-8"))
    return found


def bill(image: str, locks: Sequence[str], known: Mapping[str, str]) -> Bom:
    """The bill of materials of an image.

    Args:
        image: Its name, as in the Dockerfile.
        locks: The lock files it is made of.
        known: The licence of each package.

    Raises:
        KeyError: A package has no licence in `known`.
    """
    ours = version("flowdex")
    root = Component(
        name=f"flowdex-{image}",
        version=ours,
        type=ComponentType.CONTAINER,
        bom_ref=f"flowdex-{image}@{ours}",
        licenses=[_licence("Apache-2.0")],
    )
    found = Bom()
    found.metadata.component = root
    parts = [_component(each, known[each.name]) for lock in locks for each in packages(lock)]
    for part in parts:
        found.components.add(part)
    found.register_dependency(root, parts)
    return found


def _component(package: Package, licence: str) -> Component:
    purl = PackageURL("pypi", name=package.name, version=package.version)
    return Component(
        name=package.name,
        version=package.version,
        type=ComponentType.LIBRARY,
        bom_ref=str(purl),
        purl=purl,
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=each) for each in package.hashes],
        licenses=[_licence(licence)],
    )


def _licence(text: str) -> License:
    if is_supported_id(text):
        return DisjunctiveLicense(id=text)
    return LicenseExpression(text) if " " in text else DisjunctiveLicense(name=text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the bills, or print the licences."""
    parser = argparse.ArgumentParser(description="Write what each image holds as CycloneDX.")
    parser.add_argument("--out", type=Path, default=ROOT / ".sbom", metavar="FOLDER", help="default: .sbom/")
    parser.add_argument("--list", action="store_true", help="print the licences instead")
    options = parser.parse_args(arguments)
    known, locks = licences(), images()
    used = {each.name for names in locks.values() for lock in names for each in packages(lock)}
    if missing := sorted(used - set(known)):
        sys.exit(f"release/licences.json lacks the licence of {', '.join(missing)}")
    if options.list:
        by_licence = defaultdict(list)
        for name in sorted(used):
            by_licence[known[name]].append(name)
        for licence, names in sorted(by_licence.items(), key=lambda item: -len(item[1])):
            print(f"{licence}: {', '.join(names)}")
        return 0
    options.out.mkdir(parents=True, exist_ok=True)
    for image, parts in locks.items():
        path, found = options.out / f"{image}.cdx.json", bill(image, parts, known)
        make_outputter(found, OutputFormat.JSON, SCHEMA).output_to_file(str(path), allow_overwrite=True, indent=2)
        print(f"{path}: {len(found.components)} packages")
    return 0


if __name__ == "__main__":
    sys.exit(main())
