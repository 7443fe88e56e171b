"""`AsyncQdrantClient`'s methods over the embedded engine: those that the indexer uses, with the same arguments.

    models.Filter, PointStruct, QueryRequest, ... --> JSON and arrays --> engine process
    QueryResponse, models.Record, ...             <-- JSON            <--

Only translation happens here; what the engine does is in `engine.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from qdrant_client import models
from qdrant_client.conversions.common_types import QueryResponse  # models.QueryResponse is another class

from flowdex.errors import InternalError
from flowdex_executors.indexer.aliases import AliasFile, Operation
from flowdex_executors.indexer.engine_process import EngineProcess
from flowdex_executors.indexer.frames import Array

__all__ = ["AsyncEdgeClient"]


@dataclass(slots=True)
class ScoredPoint:
    """The attributes of `models.ScoredPoint` that are read, at a tenth of its price."""

    id: str
    score: float
    payload: dict[str, Any] | None


class AsyncEdgeClient:
    """The embedded index as an asynchronous Qdrant client.

    Args:
        directory: Folder of the index.
        on_close: Called when the engine has ended.

    Raises:
        Conflict: Another process holds the folder.
        Unavailable: The folder cannot be used.
    """

    def __init__(self, directory: Path, *, on_close: Callable[[], object] = lambda: None) -> None:
        self._on_close = on_close
        self._engine = EngineProcess(directory)
        try:
            self._aliases = AliasFile(directory)  # after the engine, which locks the folder
        except BaseException:
            self._engine.close()
            raise

    async def close(self) -> None:
        """Flush and end the engine process."""
        await asyncio.to_thread(self.close_now)

    def close_now(self) -> None:
        """The same, for callers without an event loop; waits for the flush."""
        self._engine.close()
        self._on_close()

    @property
    def engine_pid(self) -> int:
        """Process id of the engine."""
        return self._engine.pid

    # ---- collections ----

    async def collection_exists(self, collection_name: str) -> bool:
        """Whether the collection has been created."""
        return await self._call("info", collection_name) is not None

    async def get_collection(self, collection_name: str) -> models.CollectionInfo:
        """Size, vector parameters and payload fields with an index, of an existing collection."""
        info = await self._call("info", collection_name)
        if info is None:
            raise InternalError(f"the collection {collection_name!r} does not exist")
        config = info["config"]
        params = models.CollectionParams(
            vectors={
                name: models.VectorParams(size=vector["size"], distance=vector["distance"])
                for name, vector in config["vectors"].items()
            },
            sparse_vectors={name: models.SparseVectorParams() for name in config.get("sparse_vectors", {})},
        )
        return models.CollectionInfo.model_construct(
            status=models.CollectionStatus.GREEN,
            points_count=info["points"],
            config=models.CollectionConfig.model_construct(params=params),
            payload_schema=dict.fromkeys(info["fields"]),
        )

    async def create_collection(
        self,
        collection_name: str,
        vectors_config: Mapping[str, models.VectorParams],
        sparse_vectors_config: Mapping[str, models.SparseVectorParams],
    ) -> bool:
        """Create a collection of named vectors."""
        result: bool = await self._call(
            "create",
            collection_name,
            dense={
                name: {"size": params.size, "distance": params.distance.value}
                for name, params in vectors_config.items()
            },
            sparse={
                name: {"idf": params.modifier is models.Modifier.IDF} for name, params in sparse_vectors_config.items()
            },
        )
        return result

    async def delete_collection(self, collection_name: str) -> bool:
        """Remove a collection and its files."""
        result: bool = await self._call("drop", collection_name)
        await asyncio.to_thread(self._aliases.forget, collection_name)
        return result

    async def get_aliases(self) -> models.CollectionsAliasesResponse:
        """All aliases and their collections."""
        return models.CollectionsAliasesResponse(
            aliases=[
                models.AliasDescription(alias_name=alias, collection_name=target)
                for alias, target in self._aliases.targets.items()
            ]
        )

    async def update_collection_aliases(self, change_aliases_operations: Sequence[Operation]) -> bool:
        """Change aliases: all operations or none."""
        await asyncio.to_thread(self._aliases.change, change_aliases_operations)
        return True

    async def create_payload_index(
        self, collection_name: str, field_name: str, field_schema: models.PayloadSchemaType, wait: bool = True
    ) -> None:
        """Index a payload field."""
        await self._call("index_field", collection_name, field=field_name, type=field_schema.value)

    # ---- points ----

    async def batch_update_points(
        self,
        collection_name: str,
        update_operations: Sequence[models.UpsertOperation | models.DeleteOperation],
        wait: bool = True,
    ) -> None:
        """Carry out the operations in order: all of them or, even when the process is killed, none."""
        arrays: list[Array] = []
        operations = [_operation(operation, arrays) for operation in update_operations]
        await self._call("update", collection_name, arrays, operations=operations)

    async def query_batch_points(
        self, collection_name: str, requests: Sequence[models.QueryRequest]
    ) -> list[QueryResponse]:
        """Run several queries as one."""
        arrays: list[Array] = []
        bodies = [_query_request(request, arrays) for request in requests]
        answers = await self._call("query", collection_name, arrays, urgent=True, requests=bodies)
        return [QueryResponse.model_construct(points=[ScoredPoint(**point) for point in points]) for points in answers]

    async def retrieve(
        self,
        collection_name: str,
        ids: Sequence[str],
        with_payload: bool | list[str] = True,
        with_vectors: bool | list[str] = False,
    ) -> list[models.Record]:
        """Read points by id, in any order; ids that are not there are passed over."""
        records = await self._call(
            "retrieve",
            collection_name,
            urgent=True,
            ids=list(ids),
            with_payload=with_payload,
            with_vectors=with_vectors,
        )
        return [models.Record.model_construct(**record) for record in records]

    async def scroll(
        self,
        collection_name: str,
        *,
        scroll_filter: models.Filter | None = None,
        limit: int = 10,
        order_by: models.OrderBy | None = None,
        offset: str | None = None,
        with_payload: bool | list[str] = True,
    ) -> tuple[list[models.Record], str | None]:
        """Read points page by page, by id or by a field."""
        records, following = await self._call(
            "scroll",
            collection_name,
            filter=_filter(scroll_filter),
            limit=limit,
            offset=offset,
            with_payload=with_payload,
            order_by=order_by.model_dump(mode="json") if order_by else None,
        )
        return [models.Record.model_construct(**record) for record in records], following

    async def count(
        self, collection_name: str, count_filter: models.Filter | None = None, exact: bool = True
    ) -> models.CountResult:
        """Count points; always exact."""
        return models.CountResult(count=await self._call("count", collection_name, filter=_filter(count_filter)))

    async def _call(
        self, command: str, collection: str, arrays: Sequence[Array] = (), *, urgent: bool = False, **arguments: Any
    ) -> Any:
        body = {"command": command, "collection": collection, **arguments}
        return await asyncio.wrap_future(self._engine.submit(body, arrays, urgent=urgent))


# ---- models to JSON and arrays ----


def _add(arrays: list[Array], array: Array) -> int:
    arrays.append(array)
    return len(arrays) - 1


def _filter(value: models.Filter | None) -> dict[str, Any] | None:
    return None if value is None else value.model_dump(mode="json", exclude_none=True)


def _operation(operation: models.UpsertOperation | models.DeleteOperation, arrays: list[Array]) -> dict[str, Any]:
    if isinstance(operation, models.UpsertOperation):
        assert isinstance(operation.upsert, models.PointsList)
        return _upsert(operation.upsert.points, arrays)
    selector = operation.delete
    if isinstance(selector, models.PointIdsList):
        return {"delete_ids": [str(point_id) for point_id in selector.points]}
    return {"delete": _filter(selector.filter)}


def _upsert(points: Sequence[models.PointStruct], arrays: list[Array]) -> dict[str, Any]:
    dense: dict[str, int] = {}
    sparse: dict[str, list[int]] = {}
    vectors: list[dict[str, Any]] = [point.vector for point in points]  # type: ignore[misc]  # always named here
    for name, example in vectors[0].items() if vectors else ():
        column = [vector[name] for vector in vectors]
        if isinstance(example, models.SparseVector):
            offsets = np.cumsum([0, *(len(vector.indices) for vector in column)], dtype=np.int64)
            indices = chain.from_iterable(vector.indices for vector in column)
            values = chain.from_iterable(vector.values for vector in column)
            size = int(offsets[-1])
            sparse[name] = [
                _add(arrays, np.fromiter(indices, np.uint32, size)),
                _add(arrays, np.fromiter(values, np.float32, size)),
                _add(arrays, offsets),
            ]
        else:
            dense[name] = _add(arrays, np.asarray(column, dtype=np.float32))
    return {
        "ids": [str(point.id) for point in points],
        "payloads": [point.payload or {} for point in points],
        "dense": dense,
        "sparse": sparse,
    }


def _query_request(request: models.QueryRequest, arrays: list[Array]) -> dict[str, Any]:
    prefetch = request.prefetch or []
    return {
        "query": _query(request.query, request.using, arrays),
        "prefetch": [
            {
                "query": _query(item.query, item.using, arrays),
                "filter": _filter(item.filter),
                "limit": item.limit,
            }
            for item in (prefetch if isinstance(prefetch, list) else [prefetch])
        ],
        "filter": _filter(request.filter),
        "limit": request.limit,
        "with_payload": request.with_payload,
    }


def _query(query: Any, using: str | None, arrays: list[Array]) -> dict[str, Any]:
    if isinstance(query, models.RrfQuery):
        return {"fusion": "rrf", "k": query.rrf.k or 2}
    if isinstance(query, models.FusionQuery):
        return {"fusion": query.fusion.value, "k": 2}
    if isinstance(query, models.NearestQuery):
        query = query.nearest
    if isinstance(query, models.SparseVector):
        return {
            "indices": _add(arrays, np.asarray(query.indices, dtype=np.uint32)),
            "values": _add(arrays, np.asarray(query.values, dtype=np.float32)),
            "using": using,
        }
    return {"dense": _add(arrays, np.asarray(query, dtype=np.float32)), "using": using}
