"""The environment variables that a flow file names, and where its pods take them from.

    "${{ ENV.QDRANT_URL }}"      --> a plain variable, with its value at the time of the export
    "${{ ENV.QDRANT_API_KEY }}"  --> a key of a Secret: its value is never written to a file

Every process of a flow reads the whole file, so each must have all of its variables; a secret goes only to the pods
whose part of the file names it, the others get a word in its place.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from flowdex.errors import ConfigurationError
from flowdex_orchestrator.flow.substitution import environment_names, is_one_variable

__all__ = ["WITHHELD", "Variables", "read_variables"]

WITHHELD = "withheld"
"""What a pod sees of a secret that is not for it."""

_SECRET = re.compile(r"(^|_)(KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?)($|_)")


@dataclass(frozen=True)
class Variables:
    """The variables of one flow file.

    Attributes:
        plain: Name -> value; the same for all pods.
        secrets: Names of the others.
        of: Executor, or "gateway" -> those secrets that its part of the file names; what all parts share is in each.
        env: Executor, or "gateway" -> variables of its own that are a secret (`env: {MINE: $SOME_KEY}`) -> that secret.
    """

    plain: Mapping[str, str]
    secrets: tuple[str, ...]
    of: Mapping[str, frozenset[str]]
    env: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


def read_variables(text: str, environment: Mapping[str, str]) -> Variables:
    """Find the variables of a flow file.

    Args:
        text: The file, which has been loaded without an error.
        environment: Their values.

    Raises:
        ConfigurationError: An `env` has a secret amid other text, which no reference to a Secret can say.
    """
    data = yaml.load(text, Loader=yaml.BaseLoader)  # nosec B506 # BaseLoader makes texts, lists and dicts only
    names = set(_names(data))
    secrets = {name for name in names if _SECRET.search(name.upper())}
    executors = data.get("executors", data.get("deployments")) or []
    shared = set(_names({key: value for key, value in data.items() if key in ("with", "jtype", "version")}))
    of = {"gateway": frozenset((shared | set(_names(data.get("gateway")))) & secrets)}
    env = {"gateway": _secret_env("gateway", data, data.get("gateway"), secrets)}
    for index, entry in enumerate(executors):
        name = (entry.get("name") if isinstance(entry, dict) else None) or f"executor{index}"
        of[name] = frozenset((shared | set(_names(entry))) & secrets)
        env[name] = _secret_env(name, data, entry, secrets)
    plain = {name: environment.get(name, "") for name in sorted(names - secrets)}
    return Variables(plain, tuple(sorted(secrets)), of, env)


def _secret_env(name: str, data: Any, entry: Any, secrets: set[str]) -> dict[str, str]:
    """Variables of one part of the flow that are a secret -> that secret."""
    settings: dict[str, Any] = {}
    for place in (data.get("with"), entry, _section(entry, "kubernetes")):
        settings |= _section(place, "env")
    found = {}
    for variable, value in settings.items():
        for secret in secrets.intersection(environment_names(str(value))):
            if not is_one_variable(str(value)):
                raise ConfigurationError(
                    f"{name}: env {variable} has {secret} amid other text, so its value would be written to a file; "
                    f"make {variable} the secret alone"
                )
            found[variable] = secret
    return found


def _section(entry: Any, key: str) -> dict[str, Any]:
    found = entry.get(key) if isinstance(entry, dict) else None
    return found if isinstance(found, dict) else {}


def _names(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield from environment_names(value)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _names(key)
            yield from _names(item)
    elif isinstance(value, list):
        for item in value:
            yield from _names(item)
