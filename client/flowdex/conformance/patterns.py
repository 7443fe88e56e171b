"""Patterns: what a JSON value must look like.

pattern, value --mismatches--> [Problem(place, expected, got)]

    "text", 5, true, null       this very value
    {"id": P, "text?": P}       an object with these members, `?`: or without; further members are allowed
    [P, P]                      a list of so many elements
    {"<each>": P, "<length>": P}    a list: all of its elements, and how many
    "<string>", "<integer 1..>", "<number -1..1|null>"  a kind of value, with bounds; `|`: or
    "<~REGEX>"                  a string in which this is found
    "<any>", "<absent>"         a member with any value; a member that must not be there
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from flowdex.conformance.model import Problem, shown
from flowdex.errors import ConfigurationError

__all__ = ["check_pattern", "mismatches"]

_KIND = re.compile(r"(?P<kind>[a-z]+)(?: +(?P<low>-?[0-9.]*?)\.\.(?P<high>-?[0-9.]*))?")
_NUMBERS = ("integer", "number")
_KINDS = ("string", "boolean", "null", "object", "array", "any", "absent", *_NUMBERS)
_EACH, _LENGTH = "<each>", "<length>"
_MISSING = object()


def check_pattern(pattern: Any, where: str) -> None:
    """Find the mistakes of a pattern.

    Raises:
        ConfigurationError: It has one.
    """
    if isinstance(pattern, str) and _is_written(pattern):
        _check_written(pattern, where)
    elif isinstance(pattern, Mapping):
        special = [key for key in pattern if key.startswith("<")]
        if special and not set(pattern) <= {_EACH, _LENGTH}:
            raise ConfigurationError(f"{where}: a list is described by {_EACH!r} and {_LENGTH!r} alone")
        for key, inner in pattern.items():
            check_pattern(inner, f"{where}.{key}")
    elif isinstance(pattern, list):
        for index, inner in enumerate(pattern):
            check_pattern(inner, f"{where}[{index}]")


def mismatches(pattern: Any, value: Any, where: str = "") -> Iterator[Problem]:
    """Where `value` is not what the pattern says.

    Args:
        pattern: A checked one.
        value: JSON.
        where: The place of the value, for messages.
    """
    if isinstance(pattern, Mapping):
        yield from _list(pattern, value, where) if set(pattern) & {_EACH, _LENGTH} else _object(pattern, value, where)
    elif isinstance(pattern, list):
        if not isinstance(value, list) or len(value) != len(pattern):
            yield Problem(where, f"a list of {len(pattern)}", _brief(value))
            return
        for index, (inner, element) in enumerate(zip(pattern, value, strict=True)):
            yield from mismatches(inner, element, f"{where}[{index}]")
    elif not (_fits(pattern, value) if isinstance(pattern, str) and _is_written(pattern) else _same(pattern, value)):
        yield Problem(
            where, pattern if isinstance(pattern, str) and _is_written(pattern) else shown(pattern), _brief(value)
        )


def _object(pattern: Mapping[str, Any], value: Any, where: str) -> Iterator[Problem]:
    if not isinstance(value, Mapping):
        yield Problem(where, "an object", _brief(value))
        return
    for key, inner in pattern.items():
        name = key.removesuffix("?")
        found = value.get(name, _MISSING)
        place = f"{where}.{name}" if where else name
        if inner == "<absent>":
            if found is not _MISSING:
                yield Problem(place, "no such member", _brief(found))
        elif found is not _MISSING:
            yield from mismatches(inner, found, place)
        elif not key.endswith("?"):
            yield Problem(place, inner if isinstance(inner, str) else "a member of this name", "there is none")


def _list(pattern: Mapping[str, Any], value: Any, where: str) -> Iterator[Problem]:
    if not isinstance(value, list):
        yield Problem(where, "a list", _brief(value))
        return
    if _LENGTH in pattern:
        yield from mismatches(pattern[_LENGTH], len(value), f"length of {where or 'the list'}")
    if _EACH in pattern:
        for index, element in enumerate(value):
            yield from mismatches(pattern[_EACH], element, f"{where}[{index}]")


# ---- what is written between < and > ----


def _is_written(pattern: str) -> bool:
    return pattern.startswith("<") and pattern.endswith(">") and len(pattern) > 2


def _check_written(pattern: str, where: str) -> None:
    body = pattern[1:-1]
    if body.startswith("~"):
        try:
            re.compile(body[1:])
        except re.error as error:
            raise ConfigurationError(f"{where}: {pattern} is no regular expression: {error}") from None
        return
    for part in body.split("|"):
        found = _KIND.fullmatch(part.strip())
        if found is None or found["kind"] not in _KINDS:
            raise ConfigurationError(f"{where}: {pattern} is not known; there are {', '.join(_KINDS)} and ~REGEX")
        if found["low"] is not None and found["kind"] not in _NUMBERS:
            raise ConfigurationError(f"{where}: {pattern}: only numbers have bounds")
        for bound in (found["low"], found["high"]):
            try:
                float(bound or 0)
            except ValueError:
                raise ConfigurationError(f"{where}: {pattern}: {bound!r} is no number") from None


def _fits(pattern: str, value: Any) -> bool:
    body = pattern[1:-1]
    if body.startswith("~"):
        return isinstance(value, str) and re.search(body[1:], value) is not None
    return any(_fits_one(part.strip(), value) for part in body.split("|"))


def _fits_one(part: str, value: Any) -> bool:
    found = _KIND.fullmatch(part)
    kind = found["kind"] if found else ""
    if found is not None and kind in _NUMBERS:
        if isinstance(value, bool) or not isinstance(value, int if kind == "integer" else (int, float)):
            return False
        low, high = float(found["low"] or -math.inf), float(found["high"] or math.inf)
        return math.isfinite(value) and low <= value <= high
    kinds: dict[str, tuple[type, ...]] = {
        "string": (str,),
        "boolean": (bool,),
        "null": (type(None),),
        "object": (dict,),
        "array": (list,),
        "any": (object,),
    }
    return isinstance(value, kinds.get(kind, ()))


def _same(expected: Any, value: Any) -> bool:
    """Equal, where true is not 1."""
    return isinstance(expected, bool) == isinstance(value, bool) and bool(expected == value)


def _brief(value: Any) -> str:
    if isinstance(value, list) and len(value) > 4:
        return f"a list of {len(value)}: {shown(value)[:60]}"
    return shown(value)
