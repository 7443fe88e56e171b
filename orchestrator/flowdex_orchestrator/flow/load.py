"""A flow file to a `Flow`: every mistake of the file at once, each with its line.

file --read_text--> text --yaml_reader (substitution)--> data + positions
     --unknown keys, pydantic, topology--> Flow | FlowFileError(findings)

A flow that comes out is consistent in itself; what depends on the machine (classes, ports, files) is check.py's.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from flowdex.errors import ConfigurationError
from flowdex_orchestrator.flow import topology
from flowdex_orchestrator.flow.consistency import InconsistentFlow
from flowdex_orchestrator.flow.findings import Finding, FlowFileError, KeyPath, format_key
from flowdex_orchestrator.flow.model import EXTENSION, Flow
from flowdex_orchestrator.flow.places import as_written
from flowdex_orchestrator.flow.sections import Executor, FlowSettings, Gateway, Section
from flowdex_orchestrator.flow.substitution import substitute
from flowdex_orchestrator.flow.yaml_reader import Document, read_yaml, resolve_scalar

__all__ = ["default_flow_path", "load_flow", "parse_flow"]

_MAX_BYTES = 10_000_000  # a flow has some kilobytes
_PLAIN = {
    "dict_type": "a mapping (key: value)",
    "model_type": "a mapping (key: value)",
    "string_type": "a text",
    "tuple_type": "a list",
}


def load_flow(
    path: str | Path,
    *,
    text_from: str | Path | None = None,
    context: Mapping[str, Any] | None = None,
    env: Mapping[str, str] | None = None,
) -> Flow:
    """Read a flow file.

    Args:
        path: The file.
        text_from: A copy of it to read in its place; findings and relative paths go by `path` all the same.
        context: Values of `${{ CONTEXT.x }}`.
        env: Values of `${{ ENV.X }}` and `$X`; the process's environment by default.

    Raises:
        FlowFileError: The file cannot be read or has mistakes; `findings` lists all of them.
    """
    file = str(path)
    try:
        with Path(text_from or path).open("rb") as stream:
            raw = stream.read(_MAX_BYTES + 1)
    except FileNotFoundError:
        raise FlowFileError([Finding("there is no such file", file=file)]) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise FlowFileError([Finding(f"cannot be read: {reason}", file=file)]) from None
    if len(raw) > _MAX_BYTES:
        raise FlowFileError([Finding(f"more than {_MAX_BYTES:,} bytes: not a flow file", file=file)])
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        column = error.start - raw.rfind(b"\n", 0, error.start)
        message = f"not UTF-8: byte 0x{raw[error.start]:02x}; save the file as UTF-8"
        raise FlowFileError([Finding(message, "", file, line, column)]) from None
    return parse_flow(text, file=file, context=context, env=env)


def parse_flow(
    text: str,
    *,
    file: str = "<flow>",
    context: Mapping[str, Any] | None = None,
    env: Mapping[str, str] | None = None,
) -> Flow:
    """Read a flow from its text; `file` is how findings name it and where relative paths start from.

    Raises:
        FlowFileError: The text has mistakes; `findings` lists all of them.
    """
    environment = os.environ if env is None else env
    values = context or {}
    document = read_yaml(text, file, lambda scalar: substitute(scalar, environment, values, resolve_scalar))
    findings = list(document.findings)
    flow = None
    if document.value is None and findings:
        raise FlowFileError(findings)
    if not isinstance(document.value, dict):
        findings.append(_finding(document, file, (), "expected a mapping that starts with `jtype: Flow`"))
        raise FlowFileError(findings)
    data = _without_unknown_keys(document, file, findings)
    try:
        flow = Flow.model_validate(data)
    except ValidationError as error:
        problems = _problems(error, data)
        findings += [_finding(document, file, *problem) for problem in problems if not _follows(problem[0], document)]
    if findings or flow is None:
        raise FlowFileError(findings)
    flow._document, flow._file, flow._text = document, file, text
    return flow


def default_flow_path() -> Path:
    """`./flow.yml` where there is one, else the flow file that comes with flowdex.

    Raises:
        ConfigurationError: There is neither.
    """
    here = Path("flow.yml")
    if here.is_file():
        return here
    package = Path(__file__).resolve().parents[1]
    for packaged in (package / "flow.yml", package.parents[1] / "flow.yml"):  # of a wheel, of a checkout
        if packaged.is_file():
            return packaged
    raise ConfigurationError("there is no flow.yml here; name a flow file")


def _finding(document: Document, file: str, path: KeyPath, message: str) -> Finding:
    written = as_written(document.value, path)
    line, column = document.position(written) or (1, 1)
    return Finding(message, format_key(written), file, line, column)


def _follows(path: KeyPath, document: Document) -> bool:
    """Whether a problem at `path` only follows from a value, or an item of a list, that could not be read."""
    if path == ("jtype",):
        path = ()  # `!Flow` in its place
    lists = {unread[:-1] for unread in document.unread if unread and isinstance(unread[-1], int)}
    return path in document.unread or path in lists


def _without_unknown_keys(document: Document, file: str, findings: list[Finding]) -> dict[str, Any]:
    """The data with unknown keys reported and removed."""

    def known(section: type[Section], data: Any, path: KeyPath) -> Any:
        if not isinstance(data, dict):
            return data
        keys = section.known_keys()
        kept = {}
        for key, value in data.items():
            if key in keys or (section is Flow and key.startswith(EXTENSION)):
                nested = None if section is Flow else section.subsections().get(key)
                kept[key] = known(nested, value, (*path, key)) if nested else value
            else:
                findings.append(_finding(document, file, (*path, key), section.unknown_key(key)))
        return kept

    data: dict[str, Any] = known(Flow, document.value, ())
    for key, section in (("with", FlowSettings), ("gateway", Gateway)):
        if key in data:
            data[key] = known(section, data[key], (key,))
    for key in ("executors", "deployments"):
        if isinstance(data.get(key), list):
            data[key] = [known(Executor, item, (key, index)) for index, item in enumerate(data[key])]
    return data


def _problems(error: ValidationError, data: dict[str, Any]) -> list[tuple[KeyPath, str]]:
    """Pydantic's errors as (path, message), and the graph's even where other keys are wrong."""
    found: list[tuple[KeyPath, str]] = []
    consistent = True
    for item in error.errors():
        cause = item.get("ctx", {}).get("error")
        if isinstance(cause, InconsistentFlow):
            consistent = False
            found += cause.problems
            continue
        path = item["loc"]
        if item["type"] == "missing":
            found.append((path, "the key is missing" + ("; write `jtype: Flow`" if path == ("jtype",) else "")))
        elif item["type"] == "literal_error":
            choices = item["ctx"]["expected"].replace("'", "")
            found.append((path, f"expected {choices}, got {item['input']!r:.60}"))
        elif item["type"] in _PLAIN:
            found.append((path, f"expected {_PLAIN[item['type']]}, got {item['input']!r:.60}"))
        else:
            found.append((path, item["msg"]))
    if consistent:
        found += [(("executors", *path), message) for path, message in topology.problems(_links(data))]
    return found


def _links(data: dict[str, Any]) -> list[topology.Link]:
    """The graph of unvalidated data, as far as it can be read."""
    executors = data.get("executors", data.get("deployments"))
    links = []
    for index, item in enumerate(executors if isinstance(executors, list) else []):
        item = item if isinstance(item, dict) else {}  # noqa: PLW2901
        name, needs = item.get("name"), item.get("needs")
        needs = needs if isinstance(needs, list) else [needs]
        links.append(
            topology.Link(
                name if isinstance(name, str) and name.strip() else f"executor{index}",
                tuple(need for need in needs if isinstance(need, str)),
                item.get("floating") is True,
            )
        )
    return links
