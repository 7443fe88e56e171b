"""`AsyncQdrantClient`'s methods over the embedded engine: those that the indexer uses, with the same arguments.

    models.Filter, PointStruct, QueryRequest, ... --> JSON and arrays --> the shards' engine processes
    QueryResponse, models.Record, ...             <-- merged           <--

Only translation, routing and merging happen here; what an engine does is in `engine.py` and `shard.py`.
"""

from __future__ import annotations

import asyncio
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from qdrant_client import models
from qdrant_client.conversions.common_types import QueryResponse  # models.QueryResponse is another class

from flowdex.errors import Conflict
from flowdex_executors.indexer.aliases import AliasFile, Operation
from flowdex_executors.indexer.backup import restore_backup, write_backup
from flowdex_executors.indexer.columns import Point, as_columns
from flowdex_executors.indexer.frames import Array, WithArrays
from flowdex_executors.indexer.layout import Manifest, new_data_name
from flowdex_executors.indexer.packing import Packer
from flowdex_executors.indexer.payload import DOCUMENT_ID
from flowdex_executors.indexer.shards import Shards, shard_of

__all__ = ["AsyncEdgeClient"]

AnyPoint: TypeAlias = Point | models.PointStruct


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
        shards: Into how many parts collections are split, each with a process of its own.
        durability: What an acknowledged write survives: the end of a `process`, or, with `fsync`, of the machine.
        exact_up_to: From how many points on graphs are built for inexact search.
        on_close: Called when the engines have ended.

    Raises:
        Conflict: Another process holds the folder.
        Unavailable: The folder cannot be used.
    """

    def __init__(
        self,
        directory: Path,
        *,
        shards: int = 1,
        durability: str = "process",
        exact_up_to: int = 100_000,
        on_close: Callable[[], object] = lambda: None,
    ) -> None:
        self._on_close = on_close
        self._shards = Shards(directory, count=shards, durability=durability)
        try:
            self._aliases = AliasFile(directory)  # after the lock
        except BaseException:
            self._shards.close()
            raise
        self._packer = Packer(self._shards, exact_up_to)

    async def close(self) -> None:
        """Flush and end the engine processes."""
        await self._packer.close()
        await asyncio.to_thread(self.close_now)

    def close_now(self) -> None:
        """The same, for callers without an event loop; waits for the flush."""
        self._packer.cancel()
        self._shards.close()
        self._on_close()

    @property
    def transfers(self) -> Path:
        """Folder for files on their way in and out."""
        return self._shards.folder.path / ".transfers"

    @property
    def engine_pid(self) -> int:
        """Process id of the first engine."""
        return self._shards.pids[0]

    @property
    def engine_pids(self) -> list[int]:
        """Process ids of all engines."""
        return self._shards.pids

    # ---- collections ----

    async def collection_exists(self, collection_name: str) -> bool:
        """Whether the collection has been created."""
        return self._shards.folder.get(collection_name) is not None

    async def get_collection(self, collection_name: str) -> models.CollectionInfo:
        """Size, vector parameters and payload fields with an index, of an existing collection."""
        manifest = self._shards.manifest(collection_name)
        infos = await self.shard_infos(collection_name)
        self._packer.wake(collection_name)
        params = models.CollectionParams(
            shard_number=manifest.shards,
            vectors={
                name: models.VectorParams(size=vector["size"], distance=vector["distance"])
                for name, vector in manifest.dense.items()
            },
            sparse_vectors={name: models.SparseVectorParams() for name in manifest.sparse},
        )
        return models.CollectionInfo.model_construct(
            status=models.CollectionStatus.GREEN,
            points_count=sum(info["points"] for info in infos),
            indexed_vectors_count=sum(info["indexed"] for info in infos),
            segments_count=sum(info["segments"] for info in infos),
            config=models.CollectionConfig.model_construct(params=params),
            payload_schema=dict.fromkeys(set.intersection(*(set(info["fields"]) for info in infos))),
        )

    async def shard_infos(self, collection_name: str) -> list[dict[str, Any]]:
        """For each shard: `points`, `indexed` vectors, `segments`, `deleted` points still on disk, payload `fields`."""
        return await self._shards.all(collection_name, "info", urgent=True)

    async def create_collection(
        self,
        collection_name: str,
        vectors_config: Mapping[str, models.VectorParams],
        sparse_vectors_config: Mapping[str, models.SparseVectorParams],
    ) -> bool:
        """Create a collection of named vectors; it is there when it is there as a whole."""
        if self._shards.folder.get(collection_name) is not None:
            raise Conflict(f"the collection {collection_name!r} exists already")
        dense = {
            name: {"size": params.size, "distance": params.distance.value} for name, params in vectors_config.items()
        }
        sparse = {
            name: {"idf": params.modifier is models.Modifier.IDF} for name, params in sparse_vectors_config.items()
        }
        manifest = Manifest(self._shards.count, new_data_name(), dense, sparse)
        for number in range(self._shards.count):
            await self._shards.run(collection_name, manifest, number, "create", dense=dense, sparse=sparse)
        await asyncio.to_thread(self._shards.folder.put, collection_name, manifest)
        return True

    async def delete_collection(self, collection_name: str) -> bool:
        """Remove a collection, its files and its aliases."""
        folder = self._shards.folder
        manifest = folder.get(collection_name)
        if not await asyncio.to_thread(folder.remove, collection_name):
            return False
        if manifest is not None:
            await self._drop(collection_name, manifest)
        await asyncio.to_thread(shutil.rmtree, folder.path / collection_name, ignore_errors=True)
        await asyncio.to_thread(self._aliases.forget, collection_name)
        return True

    async def _drop(self, name: str, manifest: Manifest) -> None:
        """Let go of data that are no more used, and remove them."""
        for number in range(min(manifest.shards, self._shards.count)):
            await self._shards.run(name, manifest, number, "drop")
        await asyncio.to_thread(shutil.rmtree, self._shards.folder.data(name, manifest), ignore_errors=True)

    # ---- snapshots ----

    async def write_snapshot(self, collection_name: str, path: Path) -> dict[str, Any]:
        """Write a snapshot of a collection to a file, see `backup.py`; its `size` in bytes and `sha256`."""
        return await write_backup(self._shards, collection_name, path)

    async def restore_snapshot(self, collection_name: str, path: Path, accept: Callable[[Manifest], None]) -> None:
        """Make a collection what a snapshot says, see `backup.py`."""
        before = await restore_backup(self._shards, collection_name, path, accept)
        if before is not None:
            await self._drop(collection_name, before)

    # ---- aliases ----

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
        for number in range(self._shards.count):
            await self._shards.index_field(collection_name, number, field_name, field_schema.value)

    # ---- points ----

    async def batch_update_points(
        self,
        collection_name: str,
        update_operations: Sequence[models.UpsertOperation | models.DeleteOperation],
        wait: bool = True,
    ) -> None:
        """Carry out the operations in order: for each document all of them or, even when a process is killed, none."""
        parts = await asyncio.to_thread(_routed, update_operations, self._shards.count)
        await asyncio.gather(*(self._shards.update(collection_name, n, *part) for n, part in parts.items()))
        self._packer.wake(collection_name)

    async def query_batch_points(
        self, collection_name: str, requests: Sequence[models.QueryRequest]
    ) -> list[QueryResponse]:
        """Run several queries as one. Each is for the points nearest to one vector; fusion is not done here."""
        arrays: list[Array] = []
        bodies = [_query_request(request, arrays) for request in requests]
        answers = await self._shards.all(collection_name, "query", arrays, urgent=True, requests=bodies)
        better = self._shards.manifest(collection_name).higher_is_better
        merged = []
        for body, *parts in zip(bodies, *answers, strict=True):
            points = parts[0]
            if len(parts) > 1:
                every = [point for part in parts for point in part]
                points = sorted(every, key=itemgetter(1), reverse=better[body["using"]])[: body["limit"]]
            merged.append(QueryResponse.model_construct(points=[ScoredPoint(*point) for point in points]))
        return merged

    async def retrieve(
        self,
        collection_name: str,
        ids: Sequence[str],
        with_payload: bool | list[str] = True,
        with_vectors: bool | list[str] = False,
    ) -> list[models.Record]:
        """Read points by id, in any order; ids that are not there are passed over. Vectors are rows of arrays."""
        answers = await self._shards.all(
            collection_name,
            "retrieve",
            urgent=True,
            ids=list(ids),
            with_payload=with_payload,
            with_vectors=with_vectors,
        )
        return [models.Record.model_construct(**record) for answer in answers for record in _with_vectors(answer)]

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
        answers = await self._shards.all(
            collection_name,
            "scroll",
            filter=_filter(scroll_filter),
            limit=limit,
            offset=offset,
            with_payload=with_payload,
            order_by=order_by.model_dump(mode="json") if order_by else None,
        )
        records = [record for part, _ in answers for record in part]
        following = [each for _, each in answers if each is not None]
        if len(answers) > 1:
            if order_by is None:
                records.sort(key=itemgetter("id"))
            else:
                downwards = order_by.direction == models.Direction.DESC
                records.sort(key=itemgetter("order_value"), reverse=downwards)
            following += [record["id"] for record in records[limit : limit + 1]]
        page = [models.Record.model_construct(**record) for record in records[:limit]]
        return page, min(following) if following and order_by is None else None

    async def count(
        self, collection_name: str, count_filter: models.Filter | None = None, exact: bool = True
    ) -> models.CountResult:
        """Count points; always exact."""
        counts = await self._shards.all(collection_name, "count", filter=_filter(count_filter))
        return models.CountResult(count=sum(counts))


def _with_vectors(answer: Any) -> list[dict[str, Any]]:
    """The records of an answer to `retrieve`, each with its own vectors."""
    records, arrays = answer if isinstance(answer, WithArrays) else (answer, [])
    return [
        record | {"vector": {name: arrays[number] for name, number in record["vector"].items()}}
        if record["vector"]
        else record
        for record in records
    ]


# ---- models to JSON and arrays ----


def _routed(
    operations: Sequence[models.UpsertOperation | models.DeleteOperation], shards: int
) -> dict[int, tuple[list[dict[str, Any]], list[Array]]]:
    """The operations of each shard that has any, and their arrays."""
    parts: dict[int, tuple[list[dict[str, Any]], list[Array]]] = defaultdict(lambda: ([], []))
    for operation in operations:
        if isinstance(operation, models.DeleteOperation):
            for number, body in _deletions(operation.delete, shards):
                parts[number][0].append(body)
            continue
        assert isinstance(operation.upsert, models.PointsList)
        for number, points in _by_shard(operation.upsert.points, shards):
            bodies, arrays = parts[number]
            bodies.append(_upsert(points, arrays))
    return dict(parts)


def _by_shard(points: Sequence[AnyPoint], shards: int) -> Iterable[tuple[int, Sequence[AnyPoint]]]:
    if shards == 1:
        return [(0, points)]
    parts: dict[int, list[AnyPoint]] = defaultdict(list)
    for point in points:
        parts[shard_of((point.payload or {}).get(DOCUMENT_ID, str(point.id)), shards)].append(point)
    return parts.items()


def _deletions(selector: models.PointsSelector, shards: int) -> list[tuple[int, dict[str, Any]]]:
    """The deletion for each shard: where it names documents, only those that may be there."""
    if isinstance(selector, models.PointIdsList):
        return [(number, {"delete_ids": [str(each) for each in selector.points]}) for number in range(shards)]
    body = _filter(selector.filter)
    assert body is not None
    named = next(
        (each for each in body.get("must") or () if each.get("key") == DOCUMENT_ID and "any" in each.get("match", {})),
        None,
    )
    if shards == 1 or named is None:
        return [(number, {"delete": body}) for number in range(shards)]
    ids: dict[int, list[str]] = defaultdict(list)
    for document_id in named["match"]["any"]:
        ids[shard_of(document_id, shards)].append(document_id)
    rest = [each for each in body["must"] if each is not named]
    return [
        (number, {"delete": {**body, "must": [{"key": DOCUMENT_ID, "match": {"any": some}}, *rest]}})
        for number, some in ids.items()
    ]


def _upsert(points: Sequence[AnyPoint], arrays: list[Array]) -> dict[str, Any]:
    columns = as_columns(points)
    return {
        "ids": columns.ids,
        "payloads": columns.payloads,
        "dense": {name: _add(arrays, values) for name, values in columns.dense.items()},
        "sparse": {name: [_add(arrays, part) for part in parts] for name, parts in columns.sparse.items()},
    }


def _add(arrays: list[Array], array: Array) -> int:
    arrays.append(array)
    return len(arrays) - 1


def _filter(value: models.Filter | None) -> dict[str, Any] | None:
    return None if value is None else value.model_dump(mode="json", exclude_none=True)


def _query_request(request: models.QueryRequest, arrays: list[Array]) -> dict[str, Any]:
    query: Any = request.query.nearest if isinstance(request.query, models.NearestQuery) else request.query
    body: dict[str, Any] = {
        "using": request.using,
        "filter": _filter(request.filter),
        "limit": request.limit,
        "with_payload": request.with_payload,
        "exact": bool(request.params and request.params.exact),
    }
    if isinstance(query, models.SparseVector):
        body["indices"] = _add(arrays, np.asarray(query.indices, dtype=np.uint32))
        body["values"] = _add(arrays, np.asarray(query.values, dtype=np.float32))
    else:
        body["dense"] = _add(arrays, np.asarray(query, dtype=np.float32))
    return body
