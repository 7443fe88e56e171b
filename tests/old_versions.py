"""Earlier versions of this repository, run with their own code, beside the present one.

    OldVersion("bf029f1", folder)  --git archive-->  folder/client, executors, orchestrator
        .environment()             their code in front of this one's

A clone without that history (a shallow one, an archive) skips the test that asks.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from flow_support import ROOT

FLAT_INDEX = "bf029f1"
"""The last commit that can be run and whose index folder is of format 0: one shard, no manifest."""
BEFORE_EXCHANGE = "e81a074"
"""The last commit of main without the exchange: a call a request between gateway and executor."""
PREVIOUS = "75bb7f5"
"""The version before this one: as there is no tag yet, a fixed commit of main."""


class OldVersion:
    """The code of a commit.

    Args:
        commit: Which.
        folder: Where to put it; must not exist.
    """

    def __init__(self, commit: str, folder: Path) -> None:
        if shutil.which("git") is None:
            pytest.skip("git is not installed, so there is no earlier version to run")
        archive = folder.with_suffix(".tar")
        with archive.open("wb") as file:
            done = subprocess.run(
                ["git", "-C", str(ROOT), "archive", commit, "client", "executors", "orchestrator"],
                stdout=file,
                stderr=subprocess.DEVNULL,
                check=False,
            )
        if done.returncode:
            pytest.skip(f"the commit {commit} is not in this clone (git fetch --unshallow gets it)")
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")
        archive.unlink()
        self.folder = folder

    def environment(self) -> dict[str, str]:
        """Variables of a process that runs this code."""
        parts = [str(self.folder / part) for part in ("client", "executors", "orchestrator")]
        return {**os.environ, "PYTHONPATH": os.pathsep.join(parts)}

    def run(self, *arguments: str) -> str:
        """Run Python to its end; what it printed."""
        done = subprocess.run(
            [sys.executable, "-W", "ignore", *arguments],
            env=self.environment(),
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout
