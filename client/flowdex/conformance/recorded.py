"""Files of recorded cases: read, checked to the last pattern, so that a mistake is found before a request is sent.

    {"contract", "title", "variables", "discover": [STEP], "probe": STEP, "cases": [{"name", "rule", "steps": [STEP]}]}
    STEP = {"send": {"method", "path", "headers", "body"}, "status", "headers", "body", "keep", "relations"}

    file --read_file--> RecordedFile(RecordedCase(Step)) --with the variables of a run--> http.py

A case of one step may hold the step's members itself. In a request `$name` stands for a variable; as the whole value of
a member whose variable has no value, it leaves the member out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from flowdex.conformance.model import Skipped, shown
from flowdex.conformance.paths import check_path
from flowdex.conformance.patterns import check_pattern
from flowdex.conformance.relations import check_relation
from flowdex.errors import ConfigurationError

__all__ = ["VERSION", "RecordedCase", "RecordedFile", "Step", "Unfit", "fill", "read_file", "recorded_files"]

VERSION = 1
_VARIABLE = re.compile(r"\$([a-z_][a-z0-9_]*)")
_FILE_KEYS = {"version", "contract", "title", "source", "variables", "discover", "probe", "cases"}
_STEP_KEYS = {"send", "status", "headers", "body", "keep", "relations"}
_CASE_KEYS = {"name", "rule", "steps"}
_SEND_KEYS = {"method", "path", "headers", "body"}
_OMIT = object()
_MOST = 100_000  # repetitions in a request


class Unfit(Exception):
    """A request cannot be made with the values that the variables have; the message says why."""


@dataclass(frozen=True)
class Step:
    """A request, and what its answer must be.

    Attributes:
        send: method, path, headers, body.
        status: Any of these; empty for those from 200 to 299.
        headers: Name to pattern.
        body: Pattern of the JSON of the answer; None where it is not looked at.
        keep: Variables for the steps that follow: name to path in the answer.
        relations: Names and arguments: a string that starts with `$` is a variable, any other one a path.
    """

    send: Mapping[str, Any]
    status: Sequence[int] = ()
    headers: Mapping[str, Any] = field(default_factory=dict)
    body: Any = None
    keep: Mapping[str, str] = field(default_factory=dict)
    relations: Sequence[tuple[str, Sequence[Any]]] = ()

    def __str__(self) -> str:
        return f"{self.send['method']} {self.send['path']}"


@dataclass(frozen=True)
class RecordedCase:
    """A case that is data; see `model.Case`."""

    name: str
    rule: str
    steps: Sequence[Step]

    @property
    def requests(self) -> int:
        """One a step."""
        return len(self.steps)


@dataclass(frozen=True)
class RecordedFile:
    """A contract that is data.

    Attributes:
        contract: Its name.
        title: Whose it is.
        variables: Values where neither the caller nor a step gives one.
        discover: Steps that only give values to variables; one that does not succeed is no problem.
        probe: Tells whether a server offers the contract; None for always.
        cases: In order.
    """

    contract: str
    title: str
    variables: Mapping[str, Any]
    discover: Sequence[Step]
    probe: Step | None
    cases: Sequence[RecordedCase]


def recorded_files() -> list[RecordedFile]:
    """Those that come with flowdex, by their names."""
    folder = resources.files("flowdex.conformance").joinpath("recorded")
    files = sorted((each for each in folder.iterdir() if each.name.endswith(".json")), key=lambda each: each.name)
    return [_read(each.read_text(encoding="utf-8"), each.name) for each in files]


def read_file(path: Path) -> RecordedFile:
    """Read a file of one's own: JSON, or YAML where PyYAML is installed.

    Raises:
        ConfigurationError: It cannot be read, or has a mistake; the message names its place.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}") from None
    return _read(text, str(path))


def _read(text: str, name: str) -> RecordedFile:
    content = _yaml(text, name) if name.endswith((".yml", ".yaml")) else _json(text, name)
    content = _object(content, name, _FILE_KEYS, required=("version", "contract", "cases"))
    if content["version"] != VERSION:
        raise ConfigurationError(f"{name}: version {content['version']!r} is not known here; this reads {VERSION}")
    contract = _string(content["contract"], f"{name}: contract")
    cases = [
        _case(each, f"{name}: cases[{index}]") for index, each in enumerate(_list(content["cases"], f"{name}: cases"))
    ]
    names = [case.name for case in cases]
    if not cases or len(set(names)) < len(names):
        raise ConfigurationError(f"{name}: cases: there must be at least one, and no two of one name")
    probe = content.get("probe")
    return RecordedFile(
        contract=contract,
        title=_string(content.get("title", contract), f"{name}: title"),
        variables=_object(content.get("variables", {}), f"{name}: variables"),
        discover=_steps(content.get("discover", []), f"{name}: discover"),
        probe=None if probe is None else _step(probe, f"{name}: probe"),
        cases=cases,
    )


def _case(value: Any, where: str) -> RecordedCase:
    content = _object(value, where, _CASE_KEYS | _STEP_KEYS, required=("name", "rule"))
    name, rule = _string(content["name"], f"{where}.name"), _string(content["rule"], f"{where}.rule")
    where = f"{where} ({name})"
    own = {key: content[key] for key in content if key in _STEP_KEYS}
    if bool(own) == ("steps" in content):
        raise ConfigurationError(f"{where}: needs either steps, or the members of one step")
    steps = _steps(content["steps"], f"{where}.steps") if "steps" in content else [_step(own, where)]
    if not steps:
        raise ConfigurationError(f"{where}: steps must not be empty")
    return RecordedCase(name, rule, steps)


def _steps(value: Any, where: str) -> list[Step]:
    return [_step(each, f"{where}[{index}]") for index, each in enumerate(_list(value, where))]


def _step(value: Any, where: str) -> Step:
    content = _object(value, where, _STEP_KEYS, required=("send",))
    send = _object(content["send"], f"{where}.send", _SEND_KEYS, required=("method", "path"))
    if not _string(send["path"], f"{where}.send.path").startswith("/"):
        raise ConfigurationError(f"{where}.send.path: must start with /")
    _string(send["method"], f"{where}.send.method")
    status = content.get("status", [])
    allowed = status if isinstance(status, list) else [status]
    if not all(type(each) is int for each in allowed):
        raise ConfigurationError(f"{where}.status: must be a number or a list of numbers")
    check_pattern(content.get("body"), f"{where}.body")
    headers = _object(content.get("headers", {}), f"{where}.headers")
    check_pattern(headers, f"{where}.headers")
    keep = _object(content.get("keep", {}), f"{where}.keep")
    for name, path in keep.items():
        if not isinstance(path, str):
            raise ConfigurationError(f"{where}.keep.{name}: must be a path, such as data[0].id")
        check_path(path, f"{where}.keep.{name}")
    return Step(send, allowed, headers, content.get("body"), keep, _relations(content.get("relations", []), where))


def _relations(value: Any, where: str) -> list[tuple[str, list[Any]]]:
    found = []
    for index, each in enumerate(_list(value, f"{where}.relations")):
        place = f"{where}.relations[{index}]"
        content = _object(each, place)
        if len(content) != 1:
            raise ConfigurationError(f"{place}: one relation with the list of its arguments")
        ((name, arguments),) = content.items()
        check_relation(name, arguments, place)
        for argument in arguments:
            if isinstance(argument, str) and not argument.startswith("$"):
                check_path(argument, place)
        found.append((name, arguments))
    return found


# ---- variables ----


def fill(template: Any, variables: Mapping[str, Any]) -> Any:
    """A value with its variables filled in; see the module.

    `{"$list": [VALUE, COUNT, MORE]}` becomes a list of COUNT + MORE such values, `{"$text": [TEXT, COUNT]}` that text
    so many times; `{"$join": [TEXT, TEXT]}` is one text of several.

    Raises:
        Unfit: A variable has no value, and stands where nothing can be left out, or one that does not belong there.
        Skipped: What is to be sent would be too large.
    """
    filled = _fill(template, variables)
    if filled is _OMIT:
        name = template.removeprefix("$")
        raise Unfit(f"the server does not tell the value of {template}; name it with --set {name}=VALUE")
    return filled


def _fill(template: Any, variables: Mapping[str, Any]) -> Any:
    if isinstance(template, str):
        return _fill_text(template, variables)
    if isinstance(template, list):
        return [fill(each, variables) for each in template]
    if not isinstance(template, Mapping):
        return template
    if len(template) == 1:
        ((name, arguments),) = template.items()
        if name in _MAKERS:
            return _MAKERS[name](fill(arguments, variables))
    filled = ((key, _fill(value, variables)) for key, value in template.items())
    return {key: value for key, value in filled if value is not _OMIT}


def _fill_text(template: str, variables: Mapping[str, Any]) -> Any:
    whole = _VARIABLE.fullmatch(template)
    if whole is None:
        return _VARIABLE.sub(lambda found: str(fill(found[0], variables)), template)
    value = variables.get(whole[1])
    return _OMIT if value is None else value


def _count(arguments: list[Any]) -> int:
    """The sum of the counts, which come from a server."""
    if not all(type(each) is int and each >= 0 for each in arguments[1:]):
        raise Unfit(f"the server tells {shown(arguments[1:])} in the place of a number")
    if sum(arguments[1:]) > _MOST:
        raise Skipped(f"it would have to send {sum(arguments[1:]):,}, more than {_MOST:,}")
    return sum(arguments[1:])


_MAKERS: dict[str, Callable[[list[Any]], Any]] = {
    "$list": lambda arguments: [arguments[0]] * _count(arguments),
    "$text": lambda arguments: str(arguments[0]) * _count(arguments),
    "$join": "".join,
}


# ---- the file itself ----


def _json(text: str, name: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise ConfigurationError(f"{name}: not JSON: {error}") from None


def _yaml(text: str, name: str) -> Any:
    try:
        import yaml
    except ImportError:
        raise ConfigurationError(
            f"{name}: YAML needs PyYAML, which is not installed; write JSON, or pip install pyyaml"
        ) from None
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{name}: not YAML: {error}") from None


def _object(value: Any, where: str, keys: set[str] | None = None, required: Sequence[str] = ()) -> dict[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise ConfigurationError(f"{where}: must be an object")
    for key in value:
        if keys is not None and key not in keys:
            raise ConfigurationError(f"{where}: the key {key!r} is not known; there are {', '.join(sorted(keys))}")
    for key in required:
        if key not in value:
            raise ConfigurationError(f"{where}: the key {key!r} is missing")
    return value


def _list(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise ConfigurationError(f"{where}: must be a list")
    return value


def _string(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value:
        raise ConfigurationError(f"{where}: must be a string, and not empty")
    return value
