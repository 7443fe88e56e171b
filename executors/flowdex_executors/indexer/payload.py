"""What is stored with a passage besides its vectors, and how a filter addresses it.

document_id   id of its document
ordinal       0, 1, ... within the document; so a document is counted by its passage 0
generation    number of the write that made it, see points.py
text          of the passage
start, end    its place in the document's text, in characters
tags          of the document
context       what belongs before the text without being part of it: headings, the document's title
before        what of the document's text lies before this passage and in no other one; see originals.py
original      of passage 0: what else it takes to give the document back; see originals.py
tenant        whose document it is, where it is a tenant's; see tenants.py
flags         its boolean tags as strings, such as "draft=true": the embedded engine cannot match booleans
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = [
    "BEFORE",
    "BM25",
    "CONTEXT",
    "DENSE",
    "DOCUMENT_ID",
    "FLAGS",
    "GENERATION",
    "ORDINAL",
    "ORIGINAL",
    "TAGS",
    "TENANT",
    "TENANT_PATH",
    "TENANT_SEPARATOR",
    "flag",
    "payload_key",
    "walk",
]

DENSE, BM25 = "dense", "bm25"  # the two vectors
DOCUMENT_ID, ORDINAL, GENERATION, TAGS, FLAGS = "document_id", "ordinal", "generation", "tags", "flags"
CONTEXT, BEFORE, ORIGINAL = "context", "before", "original"
TENANT = "tenant"
TENANT_SEPARATOR = "\x1f"
"""Between a tenant's name and its own id, in the id of a document."""
TENANT_PATH = "\x1ftenant"
"""How a filter addresses the tenant: no tag has this name, as it is none of a path's."""

_STEP = re.compile(r"(?P<name>[^\[\]\"\\]+)(?P<each>\[\])?")
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_-]+")


def payload_key(path: str) -> str | None:
    """The payload's JSON path of a filter path; None where the path is malformed.

    A filter path is `id`, or a tag's name: dots lead into nested objects, `name[]` into the elements of a list.
    """
    if path == "id":
        return DOCUMENT_ID
    if path == TENANT_PATH:
        return TENANT
    steps = [TAGS]
    for step in path.split("."):
        match = _STEP.fullmatch(step)
        if match is None:
            return None
        name = match["name"] if _PLAIN_NAME.fullmatch(match["name"]) else f'"{match["name"]}"'
        steps.append(name + (match["each"] or ""))
    return ".".join(steps)


def walk(tags: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """All scalar values in the tags, each with its filter path."""
    for key, value in tags.items():
        path = f"{prefix}{key}"
        for element in value if isinstance(value, list) else [value]:
            if isinstance(element, Mapping):
                yield from walk(element, f"{path}{'[]' if isinstance(value, list) else ''}.")
            elif not isinstance(element, list):
                yield path, element


def flag(path: str, value: bool) -> str:
    """The entry of `flags` for a boolean tag."""
    return f"{path}={'true' if value else 'false'}"
