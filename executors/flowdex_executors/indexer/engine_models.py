"""JSON and arrays to the embedded engine's classes, and its answers to JSON. Used in the engine process only.

{"must": [...]}                --build_filter-->   edge.Filter
{"query": ..., "limit": n}     --build_request-->  edge.QueryRequest
ids, payloads, arrays          --build_points-->   [edge.Point]
"""

from __future__ import annotations

import array
from collections.abc import Iterable
from typing import Any

import numpy as np
import qdrant_edge as edge

from flowdex_executors.indexer.frames import Array

__all__ = ["FIELD_TYPES", "CommandError", "build_config", "build_filter", "build_points", "build_request", "hits"]

FIELD_TYPES = {
    "keyword": edge.PayloadSchemaType.Keyword,
    "integer": edge.PayloadSchemaType.Integer,
    "float": edge.PayloadSchemaType.Float,
}
_DISTANCES = {
    "Cosine": edge.Distance.Cosine,
    "Dot": edge.Distance.Dot,
    "Euclid": edge.Distance.Euclid,
    "Manhattan": edge.Distance.Manhattan,
}


class CommandError(Exception):
    """The command cannot be carried out; `kind` says why to the other end."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def build_config(dense: dict[str, Any], sparse: dict[str, Any], indexing_threshold: int) -> edge.EdgeConfig:
    """Build the configuration of a shard.

    Args:
        dense: Vectors by name, each with `size` and `distance`.
        sparse: Sparse vectors by name, each with `idf`.
        indexing_threshold: From which size, in KB of vectors, a segment gets a graph.
    """
    return edge.EdgeConfig(
        vectors={
            name: edge.EdgeVectorParams(size=params["size"], distance=_DISTANCES[params["distance"]])
            for name, params in dense.items()
        },
        sparse_vectors={
            name: edge.EdgeSparseVectorParams(modifier=edge.Modifier.Idf if params.get("idf") else None)
            for name, params in sparse.items()
        },
        optimizers=edge.EdgeOptimizersConfig(indexing_threshold=indexing_threshold),
    )


def build_filter(data: dict[str, Any] | None) -> edge.Filter | None:
    """Build a filter from the JSON form of `qdrant_client.models.Filter`.

    Raises:
        CommandError: It holds a condition that the engine does not know.
    """
    if data is None:
        return None
    clauses = {key: [_condition(item) for item in data[key]] for key in ("must", "should", "must_not") if data.get(key)}
    return edge.Filter(must=clauses.get("must"), should=clauses.get("should"), must_not=clauses.get("must_not"))


def _condition(data: dict[str, Any]) -> Any:  # noqa: PLR0911 - one return a condition
    if "has_id" in data:
        return edge.HasIdCondition(set(data["has_id"]))
    if "is_empty" in data:
        return edge.IsEmptyCondition(data["is_empty"]["key"])
    if "is_null" in data:
        return edge.IsNullCondition(data["is_null"]["key"])
    if "key" not in data:
        return build_filter(data)
    key = data["key"]
    if "match" in data:
        match = data["match"]
        if "any" in match:
            return edge.FieldCondition(key, match=edge.MatchAny(match["any"]))
        if isinstance(match.get("value"), bool) or "value" not in match:
            # The engine's binding reads True as 1, which matches no boolean.
            raise CommandError("unsupported", f"the embedded index cannot match {match} on {key}")
        return edge.FieldCondition(key, match=edge.MatchValue(match["value"]))
    if "range" in data:
        bounds = {name: value for name, value in data["range"].items() if value is not None}
        kind = edge.RangeDateTime if any(isinstance(value, str) for value in bounds.values()) else edge.RangeFloat
        return edge.FieldCondition(key, range=kind(**bounds))
    raise CommandError("unsupported", f"the embedded index does not know the condition {data}")


def _query(data: dict[str, Any], arrays: list[Array]) -> edge.Query:
    vector: Any
    if "indices" in data:
        vector = edge.SparseVector(arrays[data["indices"]].tolist(), arrays[data["values"]].tolist())
    else:
        vector = arrays[data["dense"]].tolist()
    return edge.Query.Nearest(vector, using=data["using"])


def build_request(data: dict[str, Any], arrays: list[Array]) -> edge.QueryRequest:
    """Build a query for the nearest points by one vector."""
    return edge.QueryRequest(
        limit=data["limit"],
        query=_query(data, arrays),
        prefetches=[],
        filter=build_filter(data.get("filter")),
        with_payload=data["with_payload"],
        params=edge.SearchParams(exact=data["exact"]),
    )


def build_points(operation: dict[str, Any], arrays: list[Array]) -> list[edge.Point]:
    """Build the points of an upsert from its columns."""
    ids, payloads = operation["ids"], operation["payloads"]
    vectors: list[dict[str, Any]] = [{} for _ in ids]
    for name, index in operation["dense"].items():
        # The engine reads an array of floats in half the time that a list of them takes to be made and read.
        for vector, row in zip(vectors, np.ascontiguousarray(arrays[index], np.float32), strict=True):
            vector[name] = array.array("f", row.tobytes())
    for name, (indices, values, offsets) in operation["sparse"].items():
        flat_indices, flat_values = arrays[indices].tolist(), arrays[values].tolist()
        bounds = arrays[offsets].tolist()
        for number, vector in enumerate(vectors):
            span = slice(bounds[number], bounds[number + 1])
            vector[name] = edge.SparseVector(flat_indices[span], flat_values[span])
    return [edge.Point(*point) for point in zip(ids, vectors, payloads, strict=True)]


def hits(points: Iterable[edge.ScoredPoint]) -> list[list[Any]]:
    """The points of an answer as JSON: id, score and payload of each."""
    return [[str(point.id), point.score, point.payload] for point in points]
