"""Arguments of executors given on a command line, in place of what the flow file says.

    "encoder.model=./my-model" --parse_overrides--> {"encoder": {"model": "./my-model"}} --Flow.with_arguments--> Flow

A value is JSON where it can be read as such (`8`, `true`, `[1, 2]`, `"8"`), else the text itself.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from flowdex.errors import ConfigurationError

__all__ = ["Overrides", "parse_argument", "parse_overrides"]

Overrides = dict[str, dict[str, Any]]
"""Executor's name -> key of its `uses_with` -> value."""


def parse_overrides(items: Iterable[str]) -> Overrides:
    """Read `NAME.KEY=VALUE`s; of the same key the last one counts.

    Raises:
        ConfigurationError: One is not of that form.
    """
    found: Overrides = {}
    for item in items:
        name, dot, rest = item.partition(".")
        if not name or not dot or "=" in name:
            raise ConfigurationError(f"expected NAME.KEY=VALUE, such as encoder.threads=2, got {item!r}")
        key, value = parse_argument(rest)
        found.setdefault(name, {})[key] = value
    return found


def parse_argument(item: str) -> tuple[str, Any]:
    """Read `KEY=VALUE`.

    Raises:
        ConfigurationError: It is not of that form.
    """
    key, equals, value = item.partition("=")
    if not key or not equals:
        raise ConfigurationError(f"expected KEY=VALUE, such as threads=2, got {item!r}")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value
