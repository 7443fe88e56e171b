"""The check before a start, as short as can be: executors' classes are imported once for a flow that stays as it is.

    up --check--> keys, ports                         at every start
              --> classes (a process that imports jina and the executors, some seconds)
                    unless `checked` in the run folder says that this very flow was checked, and has been ready since

Only classes of flowdex itself count: those of others may have changed while the flow file has not. What the check would
have found later (a model that has gone, a library that is broken) ends the start then, with the executor's own words;
and after a start that failed, the next one checks everything.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path

import flowdex_executors
from flowdex.formats import flowdex_version
from flowdex_orchestrator.flow import FlowFileError
from flowdex_orchestrator.flow import check as full
from flowdex_orchestrator.flow.findings import Finding
from flowdex_orchestrator.flow.model import Executor, Flow

__all__ = ["Checked", "check_flow"]

_OURS = "flowdex_executors."
_SEEN = ("CUDA_", "HF_", "PYTHONPATH")  # variables that decide what is imported, and what it finds


class Checked:
    """What is remembered of a check that found nothing to say.

    Args:
        folder: The run folder.
        flow: The flow as it is to be started, with what the command line changes.
        environment: Variables that the classes see.
    """

    def __init__(self, folder: Path, flow: Flow, environment: Mapping[str, str] = os.environ) -> None:
        self._path = folder / "checked"
        what = {
            "flow": flow.model_dump(mode="json", by_alias=True, warnings=False),
            "folder": str(flow.folder),
            "versions": [flowdex_version(), sys.version],
            "environment": {name: value for name, value in environment.items() if name.startswith(_SEEN)},
        }
        self._fingerprint = hashlib.sha256(json.dumps(what, sort_keys=True, default=str).encode()).hexdigest()
        self._possible = all(_is_ours(executor) for executor in flow.executors)

    @property
    def holds(self) -> bool:
        """Whether the classes need not be imported again."""
        try:
            return self._possible and self._path.read_text(encoding="ascii") == self._fingerprint
        except (OSError, ValueError):
            return False

    def remember(self) -> None:
        """The flow has been checked, and has become ready."""
        if self._possible and not self.holds:
            self._path.write_text(self._fingerprint, encoding="ascii")

    def forget(self) -> None:
        """A start has failed."""
        self._path.unlink(missing_ok=True)


def check_flow(flow: Flow, folder: Path, checked: Checked) -> list[Finding]:
    """Look for what can be known to fail.

    Args:
        flow: The flow.
        folder: In which its processes will run.
        checked: Says what need not be looked at again.

    Returns:
        What is doubtful.

    Raises:
        FlowFileError: Something would fail.
    """
    findings = full.check_flow(flow, folder=folder, classes=not checked.holds)
    if errors := [finding for finding in findings if finding.severity == "error"]:
        raise FlowFileError(errors)
    return findings


def _is_ours(executor: Executor) -> bool:
    uses = executor.uses
    if executor.external:
        return True
    if not isinstance(uses, str) or executor.py_modules:
        return False
    return uses.startswith(_OURS) or uses in flowdex_executors.__all__
