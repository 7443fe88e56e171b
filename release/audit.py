"""Look the packages of all images up among known weaknesses.

    docker/locks/*.txt --+--> a file of advisories, if one is named --+
                         +--> else pip-audit, over the network -------+--> findings

    python release/audit.py
    python release/audit.py --advisories all.zip    the export of osv.dev for PyPI (or FLOWDEX_ADVISORIES)

Where no advisories can be had, it says so, and succeeds: that is no finding. A finding fails, unless `ACCEPTED`
explains it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from zipfile import BadZipFile

from advisories import Advisory, read_advisories
from sbom import Package, images, packages

__all__ = ["ACCEPTED", "Findings", "locked_packages", "main"]

ACCEPTED: Mapping[str, str] = {}
"""Id of an advisory -> why it does not concern flowdex."""

_SECONDS = 300
Findings = Mapping[Package, Sequence[Advisory]]


class NoAdvisories(Exception):
    """There is nothing to look weaknesses up in; the text says why."""


def locked_packages() -> list[Package]:
    """What is in any image, each once."""
    found = {each for locks in images().values() for lock in locks for each in packages(lock)}
    return sorted(found, key=lambda each: (each.name, each.version))


def from_file(path: Path, wanted: Iterable[Package]) -> Findings:
    """Look packages up in a file or folder of OSV records.

    Raises:
        NoAdvisories: It cannot be read.
    """
    try:
        advisories = read_advisories(path)
    except (OSError, ValueError, BadZipFile) as error:
        raise NoAdvisories(f"{path} cannot be read: {error}") from None
    if not len(advisories):
        raise NoAdvisories(f"{path} has no record of PyPI")
    return {each: found for each in wanted if (found := advisories.find(each.name, each.version))}


def from_network(wanted: Sequence[Package]) -> Findings:
    """Look packages up by pip-audit.

    Raises:
        NoAdvisories: pip-audit is not installed, or reaches no database.
    """
    with tempfile.TemporaryDirectory() as folder:
        requirements = Path(folder) / "requirements.txt"
        # A build of PyTorch without CUDA has the weaknesses of the version.
        pinned = {f"{each.name}=={each.version.partition('+')[0]}" for each in wanted}
        requirements.write_text("\n".join(sorted(pinned)), encoding="utf-8")
        options = ["--no-deps", "--disable-pip", "--progress-spinner=off", "--format=json", "--timeout=10"]
        command = [sys.executable, "-m", "pip_audit", *options, "--requirement", str(requirements)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
        except subprocess.TimeoutExpired:
            raise NoAdvisories(f"pip-audit had no answer after {_SECONDS} s") from None
    try:
        answers = json.loads(done.stdout)["dependencies"]
    except ValueError:
        reason = next(iter(done.stderr.strip().splitlines()[-1:]), "pip-audit said nothing")
        raise NoAdvisories(reason) from None
    if all("skip_reason" in each for each in answers):
        raise NoAdvisories("pip-audit reaches no database")
    by_name = {each["name"]: each.get("vulns", ()) for each in answers}
    return {
        each: [_advisory(vulnerability) for vulnerability in by_name[each.name]]
        for each in wanted
        if by_name.get(each.name)
    }


def _advisory(found: Mapping[str, Sequence[str]]) -> Advisory:
    summary = next(iter(str(found.get("description", "")).splitlines()), "")
    return Advisory(str(found["id"]), tuple(found.get("aliases", ())), summary, tuple(found.get("fix_versions", ())))


def main(arguments: Sequence[str] | None = None, accepted: Mapping[str, str] = ACCEPTED) -> int:
    """Look up, and print.

    Returns:
        The exit code: 1 where there is a finding that nobody has explained.
    """
    parser = argparse.ArgumentParser(description="Look the packages of all images up among known weaknesses.")
    parser.add_argument("--advisories", type=Path, metavar="FILE", default=os.environ.get("FLOWDEX_ADVISORIES"))
    path = parser.parse_args(arguments).advisories
    wanted = locked_packages()
    try:
        findings = from_file(Path(path), wanted) if path else from_network(wanted)
    except NoAdvisories as error:
        print(f"{len(wanted)} packages were not checked, because there are no advisories: {error}")
        return 0
    open_ = 0
    for package, advisories in findings.items():
        for each in advisories:
            why = next((accepted[name] for name in (each.id, *each.names) if name in accepted), None)
            open_ += why is None
            mended = f"mended in {', '.join(each.fixed)}" if each.fixed else "not mended yet"
            print(f"{package.name} {package.version}: {each.id} {each.summary} ({why or mended})")
    print(f"{len(wanted)} packages checked: {open_} open findings")
    return 1 if open_ else 0


if __name__ == "__main__":
    sys.exit(main())
