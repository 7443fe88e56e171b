"""Runs probe.py and turns what it says, or how it dies, into findings.

    Flow --JSON--> probe process (one for each distinct environment) --JSON lines--> findings, facts

The process is killed with all it started when its time is over.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from flowdex_orchestrator.flow.findings import Finding
from flowdex_orchestrator.flow.model import Flow

__all__ = ["inspect_classes"]

_LAST_WORDS = 2_000  # bytes of a dead probe's stderr worth reading


def inspect_classes(flow: Flow, folder: Path, timeout: float) -> tuple[list[Finding], dict[int, dict[str, Any]]]:
    """Import the class of every executor that this flow starts.

    Args:
        flow: The flow.
        folder: The folder the executors' processes will run in.
        timeout: Seconds for all imports together.

    Returns:
        Findings, and for each executor (by index) what its class says of itself.
    """
    groups: dict[tuple[tuple[str, str], ...], list[int]] = {}
    for index, executor in enumerate(flow.executors):
        if not executor.external:
            groups.setdefault(tuple(sorted(executor.env.items())), []).append(index)
    findings: list[Finding] = []
    facts: dict[int, dict[str, Any]] = {}
    deadline = time.monotonic() + timeout
    for environment, indices in groups.items():
        waiting = list(indices)
        while waiting:  # a class that takes the whole process down must not hide the others
            answers, death = _run(flow, waiting, dict(environment), folder, deadline - time.monotonic())
            begun = None
            for answer in answers:
                if "begin" in answer:
                    begun = answer["begin"]
                    continue
                begun = None
                index = answer["done"]
                waiting.remove(index)
                facts[index] = answer["facts"]
                for key, message, severity in answer["problems"]:
                    findings.append(flow.finding(("executors", index, *key), message, severity))
            if not death:
                break
            if begun is None:
                findings.append(flow.finding(("executors",), f"the executors could not be checked: {death}"))
                break
            waiting.remove(begun)
            findings.append(flow.finding(("executors", begun, "uses"), f"importing it {death}"))
            if time.monotonic() >= deadline:
                break
    return findings, facts


def _run(
    flow: Flow, indices: list[int], environment: dict[str, str], folder: Path, timeout: float
) -> tuple[list[dict[str, Any]], str]:
    """One probe: its answers, and how it died if it did."""
    order = {
        "flow_folder": str(flow.folder),
        "executors": [
            {"index": index, "entry": flow.executors[index].model_dump(by_alias=True, exclude_unset=True)}
            for index in indices
        ],
    }
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "flowdex_orchestrator.flow.probe"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            cwd=folder,
            env={**os.environ, **environment, "JINA_OPTOUT_TELEMETRY": "1"},
            start_new_session=True,
        )
        death = ""
        try:
            output, _ = process.communicate(json.dumps(order, default=str).encode(), timeout=max(timeout, 0.1))
            if process.returncode:
                death = f"ended the process ({_exit(process.returncode)}){_last_line(errors)}"
        except subprocess.TimeoutExpired:
            death = "took longer than the time for the check; is it waiting for something?"
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            output, _ = process.communicate()
    return [json.loads(line) for line in output.splitlines() if line.endswith(b"}")], death


def _exit(code: int) -> str:
    if code > 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


def _last_line(errors: Any) -> str:
    size = errors.seek(0, os.SEEK_END)
    errors.seek(max(0, size - _LAST_WORDS))
    lines = [line.strip() for line in errors.read().decode("utf-8", "replace").splitlines() if line.strip()]
    return f": {lines[-1]}" if lines else ""
