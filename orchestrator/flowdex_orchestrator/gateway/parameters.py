"""Parameters addressed to one executor alone, by Jina's rules.

{"limit": 10, "ranker": {"limit": 5}, "indexer__mode": "sparse"}
    to the ranker:   {"limit": 5,  "ranker": {"limit": 5}}
    to the indexer:  {"limit": 10, "ranker": {"limit": 5}, "mode": "sparse"}
"""

from __future__ import annotations

from collections.abc import Collection

from google.protobuf.struct_pb2 import Struct

__all__ = ["is_specific", "specific_to"]


def is_specific(parameters: Struct, executors: Collection[str]) -> bool:
    """Whether any of the parameters is addressed to one executor."""
    return any(key in executors or _addressee(key) for key in parameters.fields)


def specific_to(executor: str, parameters: Struct) -> Struct:
    """The parameters as `executor` is to see them: general ones, overridden by its own."""
    seen = Struct()
    for key, value in parameters.fields.items():
        if not _addressee(key):
            seen.fields[key].CopyFrom(value)
    for key, value in parameters.fields.items():
        if _addressee(key) == executor:
            seen.fields[key.rpartition("__")[2]].CopyFrom(value)
    if executor in parameters.fields:
        seen.fields.MergeFrom(parameters.fields[executor].struct_value.fields)
    return seen


def _addressee(key: str) -> str:
    """The executor that a key such as `indexer__mode` is for; empty for an ordinary key."""
    if key.startswith("__") or key.endswith("__"):
        return ""
    return key.rpartition("__")[0]
