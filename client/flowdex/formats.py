"""Formats of what flowdex writes to disk: each file says which one it is, and a newer one is refused, never guessed at.

    {"format": 1, "flowdex": "0.1.0", ...}   --refuse_newer-->   read, or an error with both versions and the remedy

A number rises only when what was there before would be misread. A key more is no new format: readers pass over keys
that they do not know, so that versions side by side understand each other.
"""

from __future__ import annotations

from typing import Any

from flowdex.errors import ConfigurationError

__all__ = ["NewerFormat", "flowdex_version", "refuse_newer"]


class NewerFormat(ConfigurationError):
    """A file was written by a newer version of flowdex than this one; nothing of it has been touched."""

    @property
    def name(self) -> str:
        """It travels as the public class it is a kind of."""
        return ConfigurationError.__name__


def flowdex_version() -> str:
    """The version of flowdex that runs, which files name as their author."""
    from importlib.metadata import version

    return version("flowdex")


def refuse_newer(what: str, found: Any, known: int, *, written_by: Any = None, remedy: str) -> None:
    """Refuse a file of a newer format.

    Args:
        what: The file, as the message names it.
        found: Its format.
        known: The newest format that this version reads.
        written_by: The version of flowdex that wrote it, where the file says.
        remedy: What to do, besides using a newer flowdex.

    Raises:
        NewerFormat: It is newer.
    """
    if isinstance(found, int) and found <= known:
        return
    author = f", written by flowdex {written_by}" if isinstance(written_by, str) else ""
    raise NewerFormat(
        f"{what} is of format {found}{author}; this is flowdex {flowdex_version()}, which reads formats up to {known}: "
        f"use the version that wrote it, or a newer one; {remedy}"
    )
