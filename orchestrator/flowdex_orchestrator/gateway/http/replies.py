"""From an executor's reply to the JSON of an HTTP response.

    reply bytes --wire.read_reply--> DataRequestProto --index_content | search_content | ...--> JSON bytes

These functions work on whole replies and may take a while on large ones: routes run them in a thread then.
"""

from __future__ import annotations

import base64
from typing import Any

import orjson

from flowdex import wire
from flowdex.documents import DocumentBatch
from flowdex.errors import ExecutorError
from flowdex.nodes import node_to_value
from flowdex.proto import flowdex_pb2 as pb

__all__ = [
    "deleted_count",
    "dump",
    "index_content",
    "search_content",
]


def dump(content: Any) -> bytes:
    """Serialise JSON; arrays become lists of numbers, bytes become base64."""
    return orjson.dumps(content, default=_plain, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS)


def index_content(reply: pb.DataRequestProto) -> dict[str, Any]:
    """What a reply to /index says was stored."""
    batch = wire.documents_of(reply)
    return {"ids": batch.ids, "documents": len(batch), "passages": int(sum(batch.column("passages", 0)))}


def search_content(reply: pb.DataRequestProto, queries: list[str]) -> dict[str, Any]:
    """The hits of a reply to /search.

    Raises:
        ExecutorError: There is not one result for each query.
    """
    batch = wire.documents_of(reply)
    if len(batch) != len(queries):
        raise ExecutorError(f"the flow answered {len(batch)} results to {len(queries)} queries")
    return {
        "results": [
            {"query": query, "hits": _hits(matches)}
            for query, matches in zip(queries, batch.nested("matches"), strict=True)
        ]
    }


def deleted_count(reply: pb.DataRequestProto) -> int:
    """How many documents a reply to /delete says were removed."""
    return sum(int(result.get("deleted", 0)) for result in wire.results_of(reply).values())


def _hits(matches: DocumentBatch) -> list[dict[str, Any]]:
    columns: dict[str, list[Any]] = {
        "id": matches.ids,
        "score": _scores(matches),
        "text": matches.column("text", ""),
        "tags": matches.tags,
        "location": matches.column("location"),
        "highlights": matches.column("highlights", []),
        "scores": matches.column("scores", {}),
        "passages": [_passages(chunks) for chunks in matches.nested("chunks")],
    }
    return _rows(columns)


def _passages(chunks: DocumentBatch) -> list[dict[str, Any]]:
    return _rows(
        {
            "id": chunks.ids,
            "text": chunks.column("text", ""),
            "location": chunks.column("location"),
            "score": _scores(chunks),
        }
    )


def _scores(batch: DocumentBatch) -> list[float]:
    return [scores.get("score", 0.0) for scores in batch.column("scores", {})]


def _rows(columns: dict[str, list[Any]]) -> list[dict[str, Any]]:
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _plain(value: Any) -> Any:
    if isinstance(value, (bytes, bytearray, memoryview)):
        return base64.b64encode(value).decode()
    if isinstance(value, (set, frozenset, tuple)):
        return list(value)
    if isinstance(value, pb.DocProto):
        return {key: node_to_value(node) for key, node in value.data.items()}
    if isinstance(value, pb.DocListProto):
        return list(value.docs)
    raise TypeError
