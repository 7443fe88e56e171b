"""Paths into a JSON value: `data[0].id`, `data[*].embedding` (of every element), and nothing for all of it."""

from __future__ import annotations

import re
from typing import Any

from flowdex.errors import ConfigurationError

__all__ = ["NoSuchPlace", "check_path", "look_up"]

_PART = re.compile(r"\.?(?P<name>[A-Za-z_][\w-]*)|\[(?P<index>\d+|\*)\]")


class NoSuchPlace(Exception):
    """A value has nothing at a path; the message says from where on."""


def check_path(path: str, where: str) -> None:
    """Find out whether a path can be read.

    Raises:
        ConfigurationError: It cannot.
    """
    if _PART.sub("", path):
        raise ConfigurationError(f"{where}: the path {path!r} cannot be read; write one such as data[*].embedding")


def look_up(path: str, value: Any) -> Any:
    """What is there; with `[*]` in the path a list.

    Raises:
        NoSuchPlace: There is nothing.
    """
    parts = [found["name"] if found["name"] else found["index"] for found in _PART.finditer(path)]
    return _follow(value, parts, "")


def _follow(value: Any, parts: list[str], seen: str) -> Any:
    if not parts:
        return value
    part, rest = parts[0], parts[1:]
    if part == "*":
        if not isinstance(value, list):
            raise NoSuchPlace(f"no list at {seen or 'the top'}")
        return [_follow(element, rest, f"{seen}[{index}]") for index, element in enumerate(value)]
    place = f"{seen}[{part}]" if part.isdecimal() else f"{seen}.{part}".lstrip(".")
    try:
        return _follow(value[int(part)] if part.isdecimal() else value[part], rest, place)
    except (KeyError, IndexError, TypeError):
        raise NoSuchPlace(f"nothing at {place}") from None
