"""Where a key of the model stands in the file: its spelling there, and the section it was inherited from.

("gateway", "port") --the file says `with: ports: ...`--> ("with", "ports")
"""

from __future__ import annotations

from typing import Any

from flowdex_orchestrator.flow.findings import KeyPath
from flowdex_orchestrator.flow.sections import Executor, Gateway

__all__ = ["as_written"]

_ALIASES = {"deployments": "executors", **Executor.aliases, **Gateway.aliases}


def as_written(data: Any, path: KeyPath) -> KeyPath:
    """`path` as the file `data` writes it; a key that only `with` has is found there."""
    section = 2 if path[:1] == ("executors",) else 1
    written = _spelled(data, path)
    if path[:1] in (("gateway",), ("executors",)) and len(path) == section + 1 and not _exists(data, written):
        inherited = _spelled(data, ("with", path[-1]))
        if _exists(data, inherited):
            return inherited
    return written


def _spelled(data: Any, path: KeyPath) -> KeyPath:
    written: list[str | int] = []
    for part in path:
        spelling = part
        if isinstance(data, dict) and part not in data:
            spelling = next((key for key, name in _ALIASES.items() if name == part and key in data), part)
        written.append(spelling)
        data = _child(data, spelling)
    return tuple(written)


def _exists(data: Any, path: KeyPath) -> bool:
    for part in path[:-1]:
        data = _child(data, part)
    return isinstance(data, dict) and path[-1] in data


def _child(data: Any, part: str | int) -> Any:
    try:
        return data[part]
    except (KeyError, IndexError, TypeError):
        return None
