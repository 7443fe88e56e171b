"""Fingerprints: what made a vector, in one line, so that vectors of two makers never meet in one collection.

    weights, tokenizer --digest_files--> parts --fingerprint--> '{"id":"1f0c...","model":"...","pooling":["mean"],...}'
                                                                  status, documents -> indexer: equal, or a Conflict

Two fingerprints are equal exactly when all parts are; the parts are there to say what differs. Where a text is cut
(`max_length`, truncation) and how it is computed (backend, device, batches) is no part of it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from flowdex_executors.encoder.cache import cache_folder

__all__ = ["differences", "digest_files", "fingerprint", "fingerprint_id"]

_DIGITS = 16
_BLOCK = 1 << 20
_ABSENT = "nothing"


def fingerprint(parts: Mapping[str, Any]) -> str:
    """The fingerprint of these parts, which are JSON values: compact JSON, `id` (a hash of the rest) first."""
    body = json.dumps(dict(parts), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    identifier = hashlib.sha256(body.encode()).hexdigest()[:_DIGITS]
    return f'{{"id":"{identifier}",{body[1:]}'


def fingerprint_id(text: str) -> str:
    """The short hash in a fingerprint; the text itself where it is none of ours."""
    return str(_parts(text).get("id", text))


def differences(stored: str, given: str) -> list[str]:
    """How the second fingerprint differs from the first, a phrase for each part."""
    ours, theirs = _parts(stored), _parts(given)
    found = [
        f"{name} is {_shown(theirs, name)} instead of {_shown(ours, name)}"
        for name in sorted({*ours, *theirs} - {"id"})
        if ours.get(name) != theirs.get(name)
    ]
    return found or [f"fingerprint is {given[:80]} instead of {stored[:80]}"]


def digest_files(*paths: Path) -> str:
    """A hash of what the files hold, 16 hexadecimal digits; missing ones are left out.

    A file that is as large and as old as the last time is not read again: its hash is kept in the cache folder, where
    that can be written.
    """
    whole = hashlib.sha256()
    for path in paths:
        if path.is_file():
            whole.update(f"{path.name} {_digest(path)}\n".encode())
    return whole.hexdigest()[:_DIGITS]


def _digest(path: Path) -> str:
    path = path.resolve()
    status = path.stat()
    key = hashlib.sha256(f"{path}\0{status.st_size}\0{status.st_mtime_ns}".encode()).hexdigest()
    cached = cache_folder() / "digests" / key
    with suppress(OSError):
        known = cached.read_text(encoding="ascii")
        if len(known) == hashlib.sha256().digest_size * 2:
            return known
    content = hashlib.sha256()
    for block in _blocks(path):
        content.update(block)
    digest = content.hexdigest()
    with suppress(OSError):
        cached.parent.mkdir(parents=True, exist_ok=True)
        staging = cached.with_name(f"{key}.{os.getpid()}")
        staging.write_text(digest, encoding="ascii")
        staging.replace(cached)  # whole or not at all: replicas start at the same time
    return digest


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            yield block


def _parts(text: str) -> dict[str, Any]:
    try:
        parts = json.loads(text)
    except ValueError:
        return {}
    return parts if isinstance(parts, dict) else {}


def _shown(parts: Mapping[str, Any], name: str) -> str:
    return json.dumps(parts[name], ensure_ascii=False) if name in parts else _ABSENT
