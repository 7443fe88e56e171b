"""The generated files of the repository are what would be generated now: CLI reference, OpenAPI, JSON Schema."""

from __future__ import annotations

import subprocess
import sys

from flow_support import ROOT


def test_generated_files_are_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "docs" / "generate.py"), "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
