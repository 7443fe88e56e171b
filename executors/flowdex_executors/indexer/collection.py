"""The collection: its schema, and everything that is done to it as a whole.

    ensure(dimensions) -> created where it is missing: vectors "dense" and "bm25", payload indexes
    replace(...)       -> the documents' new passages in, their older ones out
    delete(...), count(...), query(...)

Nothing here knows which backend it talks to.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from qdrant_client import models

from flowdex.errors import ConfigurationError, Conflict, InvalidInput
from flowdex_executors.indexer.backend import Backend, VectorClient
from flowdex_executors.indexer.columns import Point
from flowdex_executors.indexer.fingerprints import CollectionFingerprint
from flowdex_executors.indexer.payload import BM25, DENSE, DOCUMENT_ID, FLAGS, GENERATION, ORDINAL, TENANT
from flowdex_executors.indexer.settings import IndexerSettings, ServerLocation

__all__ = ["FIRST_PASSAGE", "Collection", "one_of"]

logger = logging.getLogger(__name__)

_DISTANCES = {
    "cosine": models.Distance.COSINE,
    "dot": models.Distance.DOT,
    "euclid": models.Distance.EUCLID,
    "manhattan": models.Distance.MANHATTAN,
}
_FIELDS = {
    DOCUMENT_ID: models.PayloadSchemaType.KEYWORD,
    ORDINAL: models.PayloadSchemaType.INTEGER,
    GENERATION: models.PayloadSchemaType.INTEGER,
    FLAGS: models.PayloadSchemaType.KEYWORD,
}
FIRST_PASSAGE = models.FieldCondition(key=ORDINAL, match=models.MatchValue(value=0))
"""Each document has one: the condition that counts documents."""
_IS_PASSAGE = models.FieldCondition(key=ORDINAL, range=models.Range(gte=0))  # the fingerprint's point is none
_PAGE = 1000
_QUERIES = 64  # a batch: others get their turn between two
_COUNT_HOLDS = 60.0

_NO_POINT = "00000000-0000-0000-0000-000000000000"


class Collection:
    """One collection of one backend.

    Args:
        backend: Where it lives.
        settings: Its distance and, where given, dimensions; and the name that messages call it by.
        name: Its own name there, where that is another; see `generations.py`.
        alias: What it is to be called as soon as it is created.

    Attributes:
        name: Its own name.
        fingerprint: Which encoder's vectors it holds.
        differences: Where it is laid out otherwise than `uses_with.server` says, in words.
    """

    def __init__(
        self, backend: Backend, settings: IndexerSettings, *, name: str | None = None, alias: str | None = None
    ) -> None:
        self._backend = backend
        self._settings = settings
        self.name = self._name = name or settings.collection
        self._alias = alias
        self._dimensions: int | None = None
        self._fields: set[str] = set()
        self._generation = 0  # of the newest write: microseconds since 1970, which float64 holds exactly
        self.differences: list[str] = []
        self._counted = (0, 0)
        self._counted_until = 0.0
        self._schema_lock = asyncio.Lock()
        self._write_lock = asyncio.Lock()
        self.fingerprint = CollectionFingerprint(
            self._name, self._call, self._is_empty, shown=self._settings.collection
        )

    # ---- the schema ----

    async def dimensions(self) -> int | None:
        """Size of the vectors; None as long as the collection does not exist.

        Raises:
            ConfigurationError: It exists, but not as the settings say.
        """
        if self._dimensions is None:
            async with self._schema_lock:
                await self._open()
        return self._dimensions

    async def ensure(self, dimensions: int) -> None:
        """Create the collection for vectors of that size, if it does not exist.

        Raises:
            InvalidInput: It exists, or is configured, for vectors of another size.
            ConfigurationError: As in `dimensions`.
        """
        expected = self._settings.dimensions
        if self._dimensions is None:
            async with self._schema_lock:
                await self._open()
                if self._dimensions is None and expected in (None, dimensions):
                    await self._create(dimensions)
                    await self._open()
        self.check_size(dimensions)

    def check_size(self, dimensions: int) -> None:
        """Refuse vectors of another size than the collection's.

        Raises:
            InvalidInput: Naming both sizes and the remedy.
        """
        expected = self._dimensions or self._settings.dimensions
        if expected not in (None, dimensions):
            raise InvalidInput(
                f"the vectors have {dimensions} dimensions, but the collection {self._settings.collection!r} holds "
                f"vectors of {expected}; encode with the model that the collection was built with, or index into "
                "another collection (uses_with.collection of the indexer)"
            )

    async def forget(self) -> None:
        """Read everything anew with the next call: other data have taken the collection's place."""
        async with self._schema_lock:
            self._dimensions = None
            self._fields = set()
            self._counted_until = 0.0

    async def _open(self) -> None:
        """Read what exists."""
        if self._dimensions is not None or not await self._call(lambda c: c.collection_exists(self._name)):
            return
        info = await self._call(lambda c: c.get_collection(self._name))
        vectors, sparse = info.config.params.vectors, info.config.params.sparse_vectors
        if not isinstance(vectors, dict) or DENSE not in vectors or BM25 not in (sparse or {}):
            raise ConfigurationError(
                f"the collection {self._settings.collection!r} at {self._settings.uri} was not made by flowdex (it "
                f"lacks the vectors {DENSE!r} and {BM25!r}); name another in uses_with.collection of the indexer"
            )
        existing = vectors[DENSE]
        wanted = _DISTANCES[self._settings.distance]
        if existing.distance != wanted:
            raise ConfigurationError(
                f"the collection {self._settings.collection!r} compares vectors by {existing.distance.lower()}, but "
                f"uses_with.distance of the indexer is {wanted.lower()}; make them agree, or name another collection"
            )
        if self._settings.dimensions not in (None, existing.size):
            raise ConfigurationError(
                f"the collection {self._settings.collection!r} holds vectors of {existing.size} dimensions, but "
                f"uses_with.dimensions of the indexer is {self._settings.dimensions}; make them agree, or name another "
                "collection"
            )
        if isinstance(self._settings.location, ServerLocation):
            self.differences = self._settings.layout.differences(info.config)
            if self.differences:
                logger.warning(
                    "the collection %r at %s was created otherwise than uses_with.server of the indexer says: %s; it "
                    "is used as it is (flowdex reindex makes another)",
                    self._settings.collection,
                    self._settings.uri,
                    ", ".join(self.differences),
                )
        self._fields = set(info.payload_schema)
        await self._index_fields(_FIELDS)  # an earlier creation may have been interrupted here
        self._generation = await self._newest_generation()
        await self.fingerprint.read()
        self._dimensions = existing.size

    async def _create(self, dimensions: int) -> None:
        server = self._settings.layout
        vectors = {
            DENSE: models.VectorParams(
                size=dimensions, distance=_DISTANCES[self._settings.distance], on_disk=server.on_disk.vectors
            )
        }
        sparse = {BM25: models.SparseVectorParams(modifier=models.Modifier.IDF, index=server.sparse_index())}

        async def create(client: VectorClient) -> bool:
            return await client.create_collection(
                self._name, vectors_config=vectors, sparse_vectors_config=sparse, **server.creation()
            )

        try:
            await self._call(create)
        except (Conflict, InvalidInput):
            # Another replica of the indexer may have been faster.
            if not await self._call(lambda c: c.collection_exists(self._name)):
                raise
        if self._alias is not None:
            alias = models.CreateAlias(alias_name=self._alias, collection_name=self._name)
            operations = [models.CreateAliasOperation(create_alias=alias)]
            await self._call(lambda c: c.update_collection_aliases(change_aliases_operations=operations))

    async def index_tags(self, fields: dict[str, models.PayloadSchemaType]) -> None:
        """Give tags a payload index, up to the number that the settings allow.

        Args:
            fields: Payload keys and the types of their values.
        """
        missing = {key: kind for key, kind in fields.items() if key not in self._fields}
        room = self._settings.tag_indexes - len(self._fields - set(_FIELDS))
        if missing and room > 0:
            async with self._schema_lock:
                await self._index_fields(dict(list(missing.items())[:room]))

    async def _index_fields(self, fields: dict[str, models.PayloadSchemaType]) -> None:
        for key, kind in fields.items():
            if key not in self._fields:
                await self._call(lambda c, key=key, kind=kind: c.create_payload_index(self._name, key, kind, wait=True))
                self._fields.add(key)

    async def _newest_generation(self) -> int:
        order = models.OrderBy(key=GENERATION, direction=models.Direction.DESC)
        records, _ = await self._call(
            lambda c: c.scroll(self._name, limit=1, order_by=order, with_payload=[GENERATION])
        )
        return int((records[0].payload or {})[GENERATION]) if records else 0

    # ---- writing ----

    async def replace(
        self,
        document_ids: list[str],
        make_points: Callable[[int], list[Point]],
        *,
        generation: int | None = None,
    ) -> int:
        """Store new points of the documents, and then remove what earlier generations hold of them, in one call.

        Writes follow each other in the order of their generations, so that the newest one stays.

        Args:
            document_ids: The documents.
            make_points: Makes all their points, given the generation; called in a thread.
            generation: Of this write; None for the next one.

        Returns:
            The generation.
        """
        async with self._write_lock:
            generation = generation or max(self._generation + 1, time.time_ns() // 1000)
            self._generation = max(generation, self._generation)
            points = await asyncio.to_thread(make_points, generation)
            older = models.FieldCondition(key=GENERATION, range=models.Range(lt=generation))
            operations: list[Any] = [
                models.UpsertOperation.model_construct(upsert=models.PointsList.model_construct(points=points)),
                _delete(models.Filter(must=[one_of(document_ids), older])),
            ]
            await self._update(operations)
        return generation

    async def adopt(self, versions: Mapping[str, int], make_points: Callable[[list[str]], list[Point]]) -> list[str]:
        """Store documents under the generations that they have elsewhere, but for those that are here as new.

        Args:
            versions: The generation of each document.
            make_points: Makes all points of some of them; called in a thread.

        Returns:
            The documents that were stored.
        """
        async with self._write_lock:
            here = await self.versions(list(versions))
            wanted = [name for name, version in versions.items() if here.get(name, -1) < version]
            if not wanted:
                return []
            points = await asyncio.to_thread(make_points, wanted)
            operations: list[Any] = [
                models.UpsertOperation.model_construct(upsert=models.PointsList.model_construct(points=points))
            ]
            operations += [_delete(_older(name, versions[name])) for name in wanted if name in here]
            await self._update(operations)
        # Another indexer on the same server may have written one of them in the meantime.
        newest = await self.versions(wanted)
        overtaken = [_delete(_older(name, newest[name])) for name in newest if newest[name] > versions[name]]
        if overtaken:
            await self._update(overtaken)
        return wanted

    async def remove_up_to(self, versions: Mapping[str, int]) -> None:
        """Remove documents, unless they are here in a newer generation than the one given."""
        await self._update([_delete(_older(name, version + 1)) for name, version in versions.items()])

    async def delete(self, document_ids: Sequence[str]) -> int:
        """Remove documents; returns how many of them there were."""
        if not document_ids or await self.dimensions() is None:
            return 0
        deleted = 0
        ids = list(dict.fromkeys(document_ids))
        for start in range(0, len(ids), _PAGE):
            page = one_of(ids[start : start + _PAGE])
            async with self._write_lock:
                deleted += await self._count(models.Filter(must=[page, FIRST_PASSAGE]))
                await self._update([_delete(models.Filter(must=[page]))])
        return deleted

    async def _update(self, operations: list[Any]) -> None:
        await self._call(lambda c: c.batch_update_points(self._name, operations, wait=True))

    # ---- reading ----

    async def versions(self, document_ids: Sequence[str]) -> dict[str, int]:
        """The generation of each of these documents that is here."""
        found: dict[str, int] = {}
        if document_ids:
            selection = models.Filter(must=[one_of(list(document_ids)), FIRST_PASSAGE])
            for record in await self.records(selection, [DOCUMENT_ID, GENERATION]):
                name, version = record.payload[DOCUMENT_ID], int(record.payload[GENERATION])
                found[name] = max(version, found.get(name, 0))
        return found

    async def document_ids(self, selection: models.Filter) -> list[str]:
        """Ids of the documents with a passage that matches."""
        if await self.dimensions() is None:
            return []
        found: dict[str, None] = {}
        offset: Any = None
        while True:
            records, offset = await self._call(
                lambda c, offset=offset: c.scroll(
                    self._name, scroll_filter=selection, limit=_PAGE, offset=offset, with_payload=[DOCUMENT_ID]
                )
            )
            ids = ((record.payload or {}).get(DOCUMENT_ID) for record in records)
            found.update((str(each), None) for each in ids if each is not None)  # the fingerprint's point has none
            if offset is None:
                return list(found)

    async def page(
        self, selection: models.Filter, fields: list[str], limit: int, offset: str | None = None
    ) -> tuple[list[Any], str | None]:
        """Points that match, in the order of their ids, from the id `offset` on; and the id after the last, if any."""
        records, following = await self._call(
            lambda c: c.scroll(self._name, scroll_filter=selection, limit=limit, offset=offset, with_payload=fields)
        )
        return records, None if following is None else str(following)

    async def passages_page(
        self, limit: int, offset: str | None = None, tenant: str | None = None
    ) -> tuple[list[Any], str | None]:
        """Passages (of a tenant) in the order of their ids, without payload: see `page`."""
        return await self.page(_passages(tenant), [DOCUMENT_ID], limit, offset)

    async def state(self, tenant: str | None = None) -> tuple[int, int]:
        """The newest generation, and the number of passages (of a tenant).

        Two states of a collection that differ, differ in one of them.
        """
        if await self.dimensions() is None:
            return 0, 0
        return await self._newest_generation(), await self._count(_passages(tenant))

    async def records(self, selection: models.Filter, fields: list[str]) -> list[Any]:
        """All points that match, with `id` and these fields of the payload."""
        if await self.dimensions() is None:
            return []
        found, following = await self.page(selection, fields, _PAGE)
        while following is not None:
            more, following = await self.page(selection, fields, _PAGE, following)
            found += more
        return found

    async def oldest(self, selection: models.Filter, fields: list[str], *, since: int, limit: int) -> list[Any]:
        """Points that match, in the order of their generations, from the generation `since` on."""
        if await self.dimensions() is None:
            return []
        order = models.OrderBy(key=GENERATION, direction=models.Direction.ASC, start_from=since)
        records, _ = await self._call(
            lambda c: c.scroll(self._name, scroll_filter=selection, limit=limit, order_by=order, with_payload=fields)
        )
        found: list[Any] = records
        return found

    async def count(self, selection: models.Filter | None = None) -> tuple[int, int]:
        """Number of documents and of passages, of all or of those that match."""
        if await self.dimensions() is None:
            return 0, 0
        must = [selection] if selection else []
        return (
            await self._count(models.Filter(must=[*must, FIRST_PASSAGE])),
            await self._count(models.Filter(must=[*must, _IS_PASSAGE])),
        )

    async def touch(self) -> None:
        """Read a point that need not be there: the cheapest question that the index itself answers."""
        if await self.dimensions() is not None:
            await self._call(lambda c: c.retrieve(self._name, ids=[_NO_POINT], with_payload=False))

    async def _is_empty(self) -> bool:
        return await self._count(models.Filter(must=[FIRST_PASSAGE])) == 0

    async def _count(self, selection: models.Filter | None) -> int:
        result = await self._call(lambda c: c.count(self._name, count_filter=selection, exact=True))
        return int(result.count)

    async def is_small(self) -> bool:
        """Whether to search exactly: by the settings, and a count that is at most a minute old."""
        _, passages = await self._recent_count()
        return passages <= self._settings.exact_up_to

    async def has_long_documents(self) -> bool:
        """Whether some documents have more than one passage, by the same count."""
        documents, passages = await self._recent_count()
        return passages > documents

    async def _recent_count(self) -> tuple[int, int]:
        if time.monotonic() > self._counted_until:
            self._counted = await self.count()
            self._counted_until = time.monotonic() + _COUNT_HOLDS
        return self._counted

    async def query(self, requests: Sequence[models.QueryRequest]) -> list[list[Any]]:
        """Run queries in batches; the points of each, best first, with `score` and `payload`."""
        found: list[list[Any]] = []
        for start in range(0, len(requests), _QUERIES):
            batch = requests[start : start + _QUERIES]
            responses = await self._call(lambda c, batch=batch: c.query_batch_points(self._name, requests=batch))
            found.extend(response.points for response in responses)
        return found

    async def retrieve(self, point_ids: Sequence[str], fields: list[str], *, vectors: bool) -> list[Any]:
        """Read points by id, in any order, those that are still there: with `id`, `payload` and `vector`.

        Args:
            point_ids: Which.
            fields: What of the payload.
            vectors: Whether to read the dense vectors too.
        """
        found: list[Any] = []
        for start in range(0, len(point_ids), _PAGE):
            page = list(point_ids[start : start + _PAGE])
            found += await self._call(
                lambda c, page=page: c.retrieve(
                    self._name, page, with_payload=fields, with_vectors=[DENSE] if vectors else False
                )
            )
        return found

    async def _call(self, operation: Any) -> Any:
        # Untyped on purpose: the two clients agree in what they do, not in every type of their signatures.
        return await self._backend.call(operation)


def _passages(tenant: str | None) -> models.Filter:
    """All passages; those of a tenant, where one is named."""
    own = [] if tenant is None else [models.FieldCondition(key=TENANT, match=models.MatchValue(value=tenant))]
    return models.Filter(must=[_IS_PASSAGE, *own])


def _older(document_id: str, generation: int) -> models.Filter:
    """What is stored of a document from before a generation."""
    older = models.FieldCondition(key=GENERATION, range=models.Range(lt=generation))
    return models.Filter(must=[one_of([document_id]), older])


def _delete(selection: models.Filter) -> models.DeleteOperation:
    return models.DeleteOperation(delete=models.FilterSelector(filter=selection))


def one_of(document_ids: Sequence[str]) -> models.FieldCondition:
    """The condition that a point belongs to one of these documents."""
    return models.FieldCondition(key=DOCUMENT_ID, match=models.MatchAny(any=list(document_ids)))
