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
from flowdex.errors import ExecutorError, NotFound
from flowdex.fields import read_fields
from flowdex.nodes import node_to_value
from flowdex.proto import flowdex_pb2 as pb

__all__ = [
    "count_content",
    "deleted_count",
    "documents_content",
    "dump",
    "index_content",
    "one_document",
    "page_content",
    "search_content",
]


def dump(content: Any) -> bytes:
    """Serialise JSON; arrays become lists of numbers, bytes become base64."""
    return orjson.dumps(content, default=_plain, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS)


def index_content(reply: pb.DataRequestProto) -> dict[str, Any]:
    """What a reply to /index says was stored."""
    batch = wire.documents_of(reply)
    ids = batch.ids
    failed = [
        {"index": index, "id": ids[index], "error": error}
        for index, error in enumerate(batch.column("error"))
        if error is not None
    ]
    passages = int(sum(batch.column("passages", 0)))
    return {"ids": ids, "documents": len(batch) - len(failed), "passages": passages, "failed": failed}


def documents_content(reply: pb.DataRequestProto) -> dict[str, Any]:
    """The documents of a reply to /get."""
    return {"documents": _documents(wire.documents_of(reply))}


def page_content(reply: pb.DataRequestProto) -> dict[str, Any]:
    """The documents of a reply to /scroll, and where to go on."""
    batch = wire.documents_of(reply)
    return {"documents": _documents(batch), "cursor": next(reversed(batch.column("cursor")), None)}


def one_document(reply: pb.DataRequestProto, id_: str) -> dict[str, Any]:
    """The document of a reply to /get for one id.

    Raises:
        NotFound: It is not there.
    """
    documents = _documents(wire.documents_of(reply))
    if not documents:
        raise NotFound(f"there is no document with the id {id_!r}")
    return documents[0]


def count_content(reply: pb.DataRequestProto) -> dict[str, Any]:
    """The numbers of a reply to /count."""
    results = wire.results_of(reply).values()
    return {name: sum(int(result.get(name, 0)) for result in results) for name in ("documents", "passages")}


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
            {"query": query, "hits": _hits(matches), "notes": notes or []}
            for query, matches, notes in zip(queries, batch.nested("matches"), batch.column("notes"), strict=True)
        ]
    }


def deleted_count(reply: pb.DataRequestProto) -> int:
    """How many documents a reply to /delete says were removed."""
    return sum(int(result.get("deleted", 0)) for result in wire.results_of(reply).values())


def _documents(batch: DocumentBatch) -> list[dict[str, Any]]:
    columns: dict[str, list[Any]] = {
        "id": batch.ids,
        "text": batch.texts,
        "fields": read_fields(batch),
        "tags": batch.tags,
        "passage_count": batch.column("passages", 0),
        "segment": batch.column("segment"),
        "digest": batch.column("digest"),
        "embedding": batch.column("embedding"),
        "passages": [_stored_passages(chunks) if chunks else None for chunks in batch.nested("chunks")],
    }
    return [{name: value for name, value in row.items() if value is not None} for row in _rows(columns)]


def _stored_passages(chunks: DocumentBatch) -> list[dict[str, Any]]:
    columns: dict[str, list[Any]] = {
        "id": chunks.ids,
        "text": chunks.column("text", ""),
        "location": chunks.column("location"),
        "context": chunks.column("context"),
        "embedding": chunks.column("embedding"),
    }
    return [{name: value for name, value in row.items() if value is not None} for row in _rows(columns)]


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
    return _rows(columns | _present(matches, "explain", "parent_id"))


def _passages(chunks: DocumentBatch) -> list[dict[str, Any]]:
    columns: dict[str, list[Any]] = {
        "id": chunks.ids,
        "text": chunks.column("text", ""),
        "location": chunks.column("location"),
        "score": _scores(chunks),
        "scores": chunks.column("scores", {}),
    }
    return _rows(columns | _present(chunks, "explain"))


def _present(batch: DocumentBatch, *names: str) -> dict[str, list[Any]]:
    """Those columns that any document has."""
    columns = {name: batch.column(name) for name in names}
    return {name: values for name, values in columns.items() if any(value is not None for value in values)}


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
