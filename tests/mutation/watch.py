"""The processes of a flow, as `flowdex ps` shows them: did one end, does one grow, did one log a traceback?"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Watch"]

_INCIDENTS = ("Traceback (most recent call last)", " failed in the gateway", "Exception in ASGI application")
MEBIBYTE = 1 << 20


@dataclass
class Watch:
    """What was seen of a running flow.

    Attributes:
        flow_file: Of the flow.
        pids: The processes at the beginning, by name and replica.
        memory: MiB of each, at each look.
    """

    flow_file: Path
    pids: dict[str, int] = field(default_factory=dict)
    memory: dict[str, list[float]] = field(default_factory=dict)
    read: dict[str, int] = field(default_factory=dict)

    def look(self) -> list[str]:
        """Look at all processes and at what they logged since; what is wrong."""
        wrong = []
        for row in self.state()["processes"]:
            name, pid = f"{row['name']}-{row['replica']}", int(row["pid"] or 0)
            if self.pids.setdefault(name, pid) != pid or row["restarts"]:
                wrong.append(f"{name} was restarted: {row['cause']}")
                self.pids[name] = pid
            if row["state"] not in ("ready", "unready", "unresponsive"):
                wrong.append(f"{name} is {row['state']}")
            self.memory.setdefault(name, []).append(round(int(row["memory"] or 0) / MEBIBYTE, 1))
            wrong += self._incidents(Path(row["log"]))
        return wrong

    def growth(self) -> dict[str, tuple[float, float]]:
        """MiB of each process after a fifth of the looks, when all is warm, and at the end."""
        return {name: (each[len(each) // 5], each[-1]) for name, each in self.memory.items()}

    def state(self) -> Any:
        """What `flowdex ps` says."""
        command = [sys.executable, "-m", "flowdex", "ps", str(self.flow_file), "--json"]
        return json.loads(subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout)

    def _incidents(self, log: Path) -> list[str]:
        if not log.exists():
            return []
        with log.open(encoding="utf-8", errors="replace") as file:
            file.seek(self.read.get(str(log), 0))
            text = file.read()
            self.read[str(log)] = file.tell()
        found = []
        lines = text.splitlines()
        for index, line in enumerate(lines):
            if any(each in line for each in _INCIDENTS):
                found.append(f"{log.name}: " + " | ".join(lines[max(0, index - 1) : index + 40])[:3000])
        return found
