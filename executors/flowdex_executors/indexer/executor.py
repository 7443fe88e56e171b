"""The executor: requests in, passages stored or found.

/index    documents with chunks (text, embedding, location)  ->  id, passages; or id, error
/search   queries (text, embedding)                          ->  matches: passages, best first
/get      documents (id)                                     ->  id, text, fields, tags, digest, passages
/scroll   a filter, a cursor                                 ->  the same, a page of them; cursor
/count    a filter                                           ->  {"documents": n, "passages": m}
/delete   documents (id), or a filter                        ->  {"deleted": n}
/sample   how many                                           ->  total, fingerprint, matches: passages drawn evenly
/map      how many, a query (embedding)                      ->  the same with a place in the plane for each
/status                                                      ->  {"documents": n, "passages": m, ...}
"""

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from jina import Executor, requests
from pydantic import BaseModel, ValidationError

from flowdex.documents import DocumentBatch
from flowdex.errors import ConfigurationError, FlowdexError, InvalidInput
from flowdex_executors.failures import mark, unmarked
from flowdex_executors.indexer.aliases import AliasFile
from flowdex_executors.indexer.answers import matches, note, note_words, outcomes
from flowdex_executors.indexer.backend import Backend
from flowdex_executors.indexer.collection import Collection
from flowdex_executors.indexer.columns import SparseRow
from flowdex_executors.indexer.edge import AsyncEdgeClient
from flowdex_executors.indexer.filters import compile_filter
from flowdex_executors.indexer.generations import Generations
from flowdex_executors.indexer.layout import read_manifest
from flowdex_executors.indexer.metrics import disk_metrics, size_metrics
from flowdex_executors.indexer.payload import DENSE
from flowdex_executors.indexer.points import Passages, check_finite, make_points, read_documents, tag_fields
from flowdex_executors.indexer.reindexing import (
    CopyParameters,
    PendingParameters,
    ReindexParameters,
    make_copies,
    pending_documents,
    steer,
)
from flowdex_executors.indexer.sample import MapParameters, SampleParameters, Samples
from flowdex_executors.indexer.search import Hit, Query, search
from flowdex_executors.indexer.search_parameters import SearchParameters
from flowdex_executors.indexer.settings import EdgeLocation, IndexerSettings, ServerLocation
from flowdex_executors.indexer.sparse import SparseEncoder
from flowdex_executors.indexer.stored import (
    CountParameters,
    ReadParameters,
    ScrollParameters,
    get_documents,
    scroll_documents,
)
from flowdex_executors.indexer.tenants import confined
from flowdex_executors.indexer.transfer import PieceParameters, RestoreParameters, SnapshotParameters, Snapshots
from flowdex_executors.parameters import parse_parameters
from flowdex_executors.schema import DocumentColumns

if TYPE_CHECKING:
    from prometheus_client.core import Metric

__all__ = ["QdrantIndexer"]

_WRITE_SIZE = 512
"""Passages a write: small enough that searches between writes do not wait long."""


_FEW_CHARACTERS = 1000
"""Queries this short are read in less time than a thread takes to begin."""


class IndexParameters(BaseModel):
    """Parameters of /index.

    Attributes:
        reindex: Given where the documents are copies, see `reindexing.py`.
    """

    reindex: CopyParameters | None = None


class DeleteParameters(BaseModel):
    """Parameters of /delete."""

    filter: dict[str, Any] | None = None


class QdrantIndexer(Executor):  # type: ignore[misc]  # jina is untyped
    """Stores passages in Qdrant, embedded or a server, and finds them again.

    Args:
        uri: Where: `edge://DIR`, `http(s)://HOST:6333` or `grpc(s)://HOST:6334`.
        collection: Name of the collection.
        dimensions: Size of the vectors; fixed by the first vectors where not given.
        distance: `cosine`, `dot`, `euclid` or `manhattan`.
        api_key: Of the server.
        server: How collections are laid out on a server, and what it is trusted by: see `server.py`.
        shards: Into how many parts an embedded collection is split, each with a process of its own.
        durability: What an acknowledged document survives in an embedded index: `process` or `fsync`.
        timeout: Seconds for one call to a server.
        retry_for: Seconds for which calls are repeated while the server is away.
        max_passages: Most passages of one document.
        max_tag_bytes: Most bytes of its tags, as JSON.
        limits: How much a request may ask for, by name: `limit`, `offset`, `ids`, `id_characters`, `filter_depth`,
            `filter_conditions`, `filter_values`; see `limits.py`.
        tag_indexes: How many tag fields get an index of their own.
        exact_up_to: Up to how many passages a server searches exactly.
        rrf_k: Constant of the fusion in hybrid search.
        candidates: How many documents the ranker gets to choose from, where a request does not say; None for what the
            request needs. Give as many as a ranker that reranks by default looks at.
        bm25_average_length: Expected average length of a passage in terms.
        **kwargs: What Jina passes to every executor.

    Raises:
        ConfigurationError: A setting is wrong.
        Conflict: Another process uses the embedded index.
        Unavailable: The folder of the embedded index cannot be used.
    """

    tenants = True
    """Keeps the documents of tenants apart: the gateway lets keys of tenants call nothing else; see `tenants.py`."""

    concurrent = True
    """Endpoints may run at the same time: they wait for the index most of the time."""

    def __init__(
        self,
        *,
        uri: str = "edge://.flowdex/index",
        collection: str = "flowdex",
        dimensions: int | None = None,
        distance: str = "cosine",
        api_key: str | None = None,
        server: dict[str, Any] | None = None,
        shards: int = 1,
        durability: str = "process",
        timeout: float = 30.0,
        retry_for: float = 10.0,
        max_passages: int = 20_000,
        max_tag_bytes: int = 65_536,
        limits: dict[str, Any] | None = None,
        tag_indexes: int = 32,
        exact_up_to: int = 100_000,
        rrf_k: int = 60,
        candidates: int | None = None,
        bm25_average_length: float = 75.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._settings = _settings(
            {
                "uri": uri,
                "collection": collection,
                "dimensions": dimensions,
                "distance": distance,
                "api_key": api_key,
                "server": server,
                "shards": shards,
                "durability": durability,
                "timeout": timeout,
                "retry_for": retry_for,
                "max_passages": max_passages,
                "max_tag_bytes": max_tag_bytes,
                "limits": limits or {},
                "tag_indexes": tag_indexes,
                "exact_up_to": exact_up_to,
                "rrf_k": rrf_k,
                "candidates": candidates,
                "bm25_average_length": bm25_average_length,
            }
        )
        self.embedded = not isinstance(self._settings.location, ServerLocation)
        """Whether there can be only one such process; flowdex's runner asks before it starts another."""
        self._sparse = SparseEncoder(self._settings.bm25_average_length)
        self._backend = Backend(self._settings)
        self._generations = Generations(self._backend, self._settings)
        self._samples = Samples()
        self._snapshots = Snapshots(self._backend, self._generations, self._settings)

    @property
    def _collection(self) -> Collection:
        return self._generations.active

    # ---- life ----

    async def warm_up(self) -> None:
        """Open the index, so that what is wrong with it shows at start.

        Raises:
            ConfigurationError: The collection is not as the settings say.
            Unavailable: The server cannot be reached.
        """
        await self._generations.refresh()
        if self._settings.dimensions is not None:
            await self._collection.ensure(self._settings.dimensions)
        else:
            await self._collection.dimensions()
        await asyncio.to_thread(self._sparse.query, "warm up the tokenizer 搜索")

    def close(self) -> asyncio.Task[None] | None:
        """Write everything to disk and end the engine process, or let go of the server.

        Returns:
            Within a running event loop and with a server: a task that closes its connections, to be awaited.
        """
        return self._backend.close()

    # ---- what can be known before start ----

    @classmethod
    def check(cls, uses_with: Mapping[str, Any], context: Any = None) -> list[str]:
        """What is wrong with `uses_with` beyond what `describe` raises; nothing is started or contacted.

        Args:
            uses_with: As in the flow file.
            context: Where the executor would run; not needed here.
        """
        try:
            settings = _settings(uses_with)
        except ConfigurationError:
            return []
        existing = _dimensions_on_disk(settings)
        if settings.dimensions is None or existing in (None, settings.dimensions):
            return []
        return [
            f"dimensions: the collection {settings.collection!r} of {settings.uri} holds vectors of {existing} "
            f"dimensions, not {settings.dimensions}; make them agree, or name another collection"
        ]

    @classmethod
    def describe(cls, uses_with: Mapping[str, Any]) -> dict[str, Any]:
        """What is known of the index before start: `embedded`, and `dimensions`, None where they are still open.

        Raises:
            ConfigurationError: `uses_with` is wrong.
        """
        settings = _settings(uses_with)
        return {
            "uri": settings.uri,
            "collection": settings.collection,
            "embedded": not isinstance(settings.location, ServerLocation),
            # Not those of what is stored: with an encoder of another size the flow must start, to be reindexed.
            "dimensions": settings.dimensions,
        }

    # ---- endpoints ----

    @requests(on="/index", request_schema=DocumentColumns, response_schema=DocumentColumns)  # type: ignore[untyped-decorator]
    @confined("/index")
    async def index(
        self, docs: DocumentColumns, parameters: dict[str, Any] | None = None, **kwargs: Any
    ) -> DocumentColumns:
        """Store documents, each in place of all that was stored under its id, and each by itself.

        Returns:
            For each document its `id` and `passages`, the number stored: 0 for one whose id comes again later. One that
            cannot be indexed has an `error` instead; the others are stored.

        Raises:
            Conflict: The vectors are of another encoder than the collection's; nothing was stored.
        """
        batch = docs.batch
        reindex = parse_parameters(IndexParameters, parameters).reindex
        if reindex is not None:
            return DocumentColumns(await self._copy(batch, reindex.versions)) if reindex.store else docs
        await self._generations.refresh()
        fingerprints = _fingerprints(batch.select(unmarked(batch)))
        collection = self._generations.for_writing(fingerprints)
        dimensions = await collection.dimensions()
        if dimensions is not None:
            await collection.fingerprint.check(fingerprints)  # before their size: it says more of what is wrong
        passages, failures = await asyncio.to_thread(
            read_documents,
            batch,
            max_passages=self._settings.max_passages,
            max_tag_bytes=self._settings.max_tag_bytes,
            limits=self._settings.limits,
            dimensions=dimensions or self._settings.dimensions,
        )
        mark(batch, failures)
        if passages.document_ids:
            await collection.ensure(passages.vectors.shape[1])
            await collection.fingerprint.admit(_fingerprints(batch.select(unmarked(batch))))
            await collection.index_tags(tag_fields(passages))
        for part in passages.parts(_WRITE_SIZE):
            sparse = await self._words(passages, part)
            await self._generations.replace(
                collection, passages.document_ids[part], partial(make_points, passages, part, sparse)
            )
        return DocumentColumns(outcomes(batch, passages.counts()))

    async def _words(self, passages: Passages, part: slice) -> list[SparseRow]:
        """The BM25 vectors of the passages of some documents."""
        rows = slice(int(passages.offsets[part.start]), int(passages.offsets[part.stop]))
        return await asyncio.to_thread(
            self._sparse.passages,
            passages.texts[rows],
            contexts=passages.contexts[rows],
            weights=passages.weights[rows],
        )

    async def _copy(self, batch: DocumentBatch, versions: Mapping[str, int]) -> DocumentBatch:
        """Store documents that were read by /reindex/pending in the collection that is being built."""
        unknown = [name for name in batch.ids if name not in versions]
        if unknown:
            raise InvalidInput(f"reindex.versions: lacks the document {unknown[0]!r}")
        passages, failures = await asyncio.to_thread(
            read_documents,
            batch,
            max_passages=self._settings.max_passages,
            max_tag_bytes=self._settings.max_tag_bytes,
            limits=self._settings.limits,
        )
        mark(batch, failures)
        if passages.document_ids:
            fingerprints = _fingerprints(batch.select(unmarked(batch)))
            target = await self._generations.begin(passages.vectors.shape[1], fingerprints[0])
            target.check_size(passages.vectors.shape[1])
            await target.fingerprint.admit(fingerprints)
            await target.index_tags(tag_fields(passages))
            for part in passages.parts(_WRITE_SIZE):
                sparse = await self._words(passages, part)
                wanted = {name: versions[name] for name in passages.document_ids[part]}
                make = partial(make_copies, passages, part, sparse, versions)
                await self._generations.copy(target, wanted, make)
        return outcomes(batch, passages.counts())

    @requests(on="/get", request_schema=DocumentColumns, response_schema=DocumentColumns)  # type: ignore[untyped-decorator]
    @confined("/get")
    async def get(
        self, docs: DocumentColumns, parameters: dict[str, Any] | None = None, **kwargs: Any
    ) -> DocumentColumns:
        """Read documents by id: their `text`, `fields`, `tags`, `digest`; see `ReadParameters`.

        Returns:
            Those that are there, in the order of the ids.

        Raises:
            InvalidInput: A parameter is wrong, or a document has no id.
            TooLarge: They are more than one reply holds.
        """
        await self._generations.refresh()
        wanted = parse_parameters(ReadParameters, parameters)
        return DocumentColumns(await get_documents(self._collection, _ids(docs.batch), wanted, self._settings.limits))

    @requests(on="/scroll", request_schema=DocumentColumns, response_schema=DocumentColumns)  # type: ignore[untyped-decorator]
    @confined("/scroll")
    async def scroll(
        self, docs: DocumentColumns, parameters: dict[str, Any] | None = None, **kwargs: Any
    ) -> DocumentColumns:
        """Read all documents, or those that match a filter, page by page; see `ScrollParameters`.

        Returns:
            A page as from /get, in the order in which documents were last written. Where there are more, the last one
            has the field `cursor`.

        Raises:
            InvalidInput: A parameter is wrong.
        """
        await self._generations.refresh()
        wanted = parse_parameters(ScrollParameters, parameters)
        return DocumentColumns(
            await scroll_documents(self._collection, compile_filter(wanted.filter, self._settings.limits), wanted)
        )

    @requests(on="/count", request_schema=DocumentColumns, response_schema=DocumentColumns)  # type: ignore[untyped-decorator]
    @confined("/count")
    async def count(  # type: ignore[no-untyped-def]  # returns a dict; annotated so, Jina would warn
        self, parameters: dict[str, Any] | None = None, **kwargs: Any
    ):
        """Count `documents` and `passages`, all or those that match a filter.

        Raises:
            InvalidInput: The filter cannot be understood.
        """
        await self._generations.refresh()
        wanted = parse_parameters(CountParameters, parameters)
        documents, passages = await self._collection.count(compile_filter(wanted.filter, self._settings.limits))
        return {"documents": documents, "passages": passages}

    @requests(on="/embed_sparse", request_schema=DocumentColumns, response_schema=DocumentColumns)  # type: ignore[untyped-decorator]
    async def embed_sparse(self, docs: DocumentColumns, **kwargs: Any) -> DocumentColumns:
        """Give each document the BM25 vector that a passage of its text has in the index, which is left alone.

        The fields are `sparse_indices` (uint32) and as many `sparse_values` (float32), none for a text without terms.
        How rare a term is does not count in them: the index multiplies that in.

        Raises:
            InvalidInput: A document has no text.
        """
        texts = docs.batch.texts
        for row, text in enumerate(texts):
            if text is None:
                raise InvalidInput(f"document {row} has no text to make a sparse vector of")
        rows = await asyncio.to_thread(self._sparse.passages, [text or "" for text in texts])
        docs.batch.set_column("sparse_indices", [row.indices for row in rows])
        docs.batch.set_column("sparse_values", [row.values for row in rows])
        return docs

    @requests(on="/search", request_schema=DocumentColumns, response_schema=DocumentColumns)  # type: ignore[untyped-decorator]
    @confined("/search")
    async def search(
        self, docs: DocumentColumns, parameters: dict[str, Any] | None = None, **kwargs: Any
    ) -> DocumentColumns:
        """Find the passages of the best documents for each query: field `matches`, best first.

        Raises:
            InvalidInput: A parameter is wrong, or a query lacks what its mode needs.
            Conflict: The queries' vectors are of another encoder than the collection's.
        """
        batch = docs.batch
        wanted = parse_parameters(SearchParameters, {"candidates": self._settings.candidates, **(parameters or {})})
        self._settings.limits.check_search(wanted)
        selection = compile_filter(wanted.filter, self._settings.limits)
        vectors = batch.embeddings
        texts = batch.texts
        if sum(len(text or "") for text in texts) <= _FEW_CHARACTERS:
            queries = self._queries(texts, vectors, wanted.mode)
        else:
            queries = await asyncio.to_thread(self._queries, texts, vectors, wanted.mode)
        fingerprints = _fingerprints(batch)
        batch.drop("embedding", "fingerprint")
        await self._generations.refresh()
        route = self._generations.for_search(fingerprints if vectors is not None else (), wanted.mode)
        collection = route.collection
        if route.note is not None:
            queries = [Query(sparse=query.sparse) if query and query.sparse else None for query in queries]
            vectors = None
            wanted = wanted.model_copy(update={"mode": "sparse", "diversity": None})
            note(batch, [route.note] * len(batch))
        found: list[list[Hit]] = [[] for _ in batch]
        answerable = [index for index, query in enumerate(queries) if query is not None]
        if answerable and await collection.dimensions() is not None:
            if vectors is not None:
                if wanted.mode != "sparse":
                    await collection.fingerprint.check(fingerprints)
                collection.check_size(vectors.shape[1])
            results = await search(collection, [q for q in queries if q is not None], wanted, selection, self._settings)
            for index, hits in zip(answerable, results, strict=True):
                found[index] = hits
        batch.set_nested("matches", [matches(hits, wanted) for hits in found])
        note_words(batch, queries, wanted.mode)
        return docs

    @requests(on="/sample", request_schema=DocumentColumns, response_schema=DocumentColumns)  # type: ignore[untyped-decorator]
    @confined("/sample")
    async def sample(
        self, docs: DocumentColumns, parameters: dict[str, Any] | None = None, **kwargs: Any
    ) -> DocumentColumns:
        """Read an even sample of the passages, see `Samples.passages`.

        Raises:
            InvalidInput: A parameter is wrong.
        """
        await self._generations.refresh()
        wanted = parse_parameters(SampleParameters, parameters)
        return DocumentColumns(await self._samples.passages(self._collection, wanted))

    @requests(on="/map", request_schema=DocumentColumns, response_schema=DocumentColumns)  # type: ignore[untyped-decorator]
    @confined("/map")
    async def map(
        self, docs: DocumentColumns, parameters: dict[str, Any] | None = None, **kwargs: Any
    ) -> DocumentColumns:
        """Draw an even sample of the passages in a plane, and a query with it, see `Samples.draw`.

        Raises:
            InvalidInput: A parameter is wrong.
        """
        await self._generations.refresh()
        wanted = parse_parameters(MapParameters, parameters)
        return DocumentColumns(await self._samples.draw(self._collection, docs.batch, wanted))

    @requests(on="/delete", request_schema=DocumentColumns, response_schema=DocumentColumns)  # type: ignore[untyped-decorator]
    @confined("/delete")
    async def delete(  # type: ignore[no-untyped-def]  # returns a dict; annotated so, Jina would warn
        self, docs: DocumentColumns, parameters: dict[str, Any] | None = None, **kwargs: Any
    ):
        """Remove the documents with the given ids, those that match the filter, or, given both, those of both.

        Returns:
            `deleted`: how many documents were there and are no more.

        Raises:
            InvalidInput: Neither ids nor a filter are given.
        """
        await self._generations.refresh()
        selection = compile_filter(parse_parameters(DeleteParameters, parameters).filter, self._settings.limits)
        ids = _ids(docs.batch)
        if selection is None and not ids:
            raise InvalidInput("name what to delete: documents with their ids, or a filter that is not empty")
        if selection is not None:
            matching = await self._collection.document_ids(selection)
            ids = [document_id for document_id in matching if document_id in set(ids)] if ids else matching
        return {"deleted": await self._generations.delete(ids)}

    @requests(on="/reindex", request_schema=DocumentColumns, response_schema=DocumentColumns)  # type: ignore[untyped-decorator]
    async def reindex(self, parameters: dict[str, Any] | None = None, **kwargs: Any):  # type: ignore[no-untyped-def]  # as above
        """Steer a reindex, see `reindexing.py`; says its `stage`, and what is in the collections.

        Raises:
            NotFound: There is nothing to swap.
        """
        return await steer(self._generations, parse_parameters(ReindexParameters, parameters))

    @requests(on="/reindex/pending", request_schema=DocumentColumns, response_schema=DocumentColumns)  # type: ignore[untyped-decorator]
    async def reindex_pending(
        self, docs: DocumentColumns, parameters: dict[str, Any] | None = None, **kwargs: Any
    ) -> DocumentColumns:
        """Read documents that the collection which is being built lacks: as from /scroll, with `version`."""
        await self._generations.refresh(now=True)
        wanted = parse_parameters(PendingParameters, parameters)
        return DocumentColumns(await pending_documents(self._generations, wanted))

    @requests(on="/reindex/store", request_schema=DocumentColumns, response_schema=DocumentColumns)  # type: ignore[untyped-decorator]
    async def reindex_store(
        self, docs: DocumentColumns, parameters: dict[str, Any] | None = None, **kwargs: Any
    ) -> DocumentColumns:
        """Store such documents, which another flow has split and encoded; the answer is that of /index."""
        return DocumentColumns(await self._copy(docs.batch, parse_parameters(CopyParameters, parameters).versions))

    # ---- snapshots ----

    @requests(on="/snapshot", request_schema=DocumentColumns, response_schema=DocumentColumns)  # type: ignore[untyped-decorator]
    async def snapshot(self, parameters: dict[str, Any] | None = None, **kwargs: Any):  # type: ignore[no-untyped-def]  # as above
        """Take a snapshot, see `transfer.py`: its `name` to fetch it by, `size` in bytes, and `sha256`."""
        return await self._snapshots.take(parse_parameters(SnapshotParameters, parameters))

    @requests(on="/snapshot/read", request_schema=DocumentColumns, response_schema=DocumentColumns)  # type: ignore[untyped-decorator]
    async def snapshot_read(
        self, docs: DocumentColumns, parameters: dict[str, Any] | None = None, **kwargs: Any
    ) -> DocumentColumns:
        """A piece of a snapshot: one document with the field `blob`, which is empty at the end."""
        return DocumentColumns(await self._snapshots.read(parse_parameters(PieceParameters, parameters)))

    @requests(on="/restore/write", request_schema=DocumentColumns, response_schema=DocumentColumns)  # type: ignore[untyped-decorator]
    async def restore_write(self, docs: DocumentColumns, parameters: dict[str, Any] | None = None, **kwargs: Any):  # type: ignore[no-untyped-def]  # as above
        """Take a piece of a snapshot to be restored; the `size` so far."""
        return await self._snapshots.write(docs.batch, parse_parameters(PieceParameters, parameters))

    @requests(on="/restore", request_schema=DocumentColumns, response_schema=DocumentColumns)  # type: ignore[untyped-decorator]
    async def restore(self, parameters: dict[str, Any] | None = None, **kwargs: Any):  # type: ignore[no-untyped-def]  # as above
        """Put a snapshot in the place of all that is stored; then the number of `documents` and `passages`.

        Raises:
            InvalidInput: It is damaged or of another format; nothing has changed.
            Conflict: Its vectors are not as the settings say, or a reindex is under way.
        """
        return await self._snapshots.restore(parse_parameters(RestoreParameters, parameters))

    @requests(on="/status", request_schema=DocumentColumns, response_schema=DocumentColumns)  # type: ignore[untyped-decorator]
    async def status(self, **kwargs: Any):  # type: ignore[no-untyped-def]  # as above
        """Size and place of the index."""
        await self._generations.refresh()
        documents, passages = await self._collection.count()
        return {
            "documents": documents,
            "passages": passages,
            "dimensions": await self._collection.dimensions(),
            "fingerprint": self._collection.fingerprint.value,
            "distance": self._settings.distance,
            "uri": self._settings.uri,
            "collection": self._settings.collection,
            **await self._embedded(),
            **({"reindex": self._generations.stage} if self._generations.stage != "idle" else {}),
            **({"differences": self._collection.differences} if self._collection.differences else {}),
        }

    async def canary(self) -> None:
        """Read from the index: that it answers is all that counts."""
        await self._collection.touch()

    async def metrics(self) -> "list[Metric]":
        """What Prometheus reads beside what it reads of every executor: how large the index is."""
        found = list(size_metrics(*await self._collection.count()))
        if isinstance(self._settings.location, EdgeLocation):
            found += await asyncio.to_thread(
                lambda folder: list(disk_metrics(folder)), self._settings.location.directory
            )
        return found

    async def _embedded(self) -> dict[str, Any]:
        """The state of an embedded index on disk; nothing for a server."""
        client = self._backend.client
        if not isinstance(client, AsyncEdgeClient) or await self._collection.dimensions() is None:
            return {}
        infos = await client.shard_infos(self._collection.name)
        totals = {key: sum(info[key] for info in infos) for key in ("segments", "indexed", "deleted")}
        return {"shards": len(infos), "durability": self._settings.durability, **totals}

    def _queries(
        self, texts: Sequence[str | None], vectors: npt.NDArray[np.float32] | None, mode: str
    ) -> list[Query | None]:
        """What to look for; None for a query of stop words only that has no vector to go by."""
        if vectors is None and mode in ("dense", "hybrid"):
            raise InvalidInput(
                f"the queries have no vectors, which the mode {mode!r} needs; put an encoder before the indexer, "
                'or search with mode "sparse"'
            )
        if vectors is not None:
            check_finite(vectors, "query {}".format)
        queries: list[Query | None] = []
        for index, text in enumerate(texts):
            if mode == "sparse" and not text:
                raise InvalidInput(f"query {index} has no text, which the mode 'sparse' needs")
            dense = vectors[index].tolist() if vectors is not None and mode != "sparse" else None
            sparse = self._sparse.query(text) if text and mode != "dense" else None
            queries.append(Query(dense, sparse) if dense is not None or sparse is not None else None)
        return queries


def _ids(batch: DocumentBatch) -> list[str]:
    ids = batch.ids
    for index, document_id in enumerate(ids):
        if not document_id:
            raise InvalidInput(f"document {index} has no id")
    return ids


def _fingerprints(batch: DocumentBatch) -> list[str | None]:
    """What made each document's vectors, as far as it says."""
    return [None if value is None else str(value) for value in batch.column("fingerprint")]


def _settings(uses_with: Mapping[str, Any]) -> IndexerSettings:
    try:
        return IndexerSettings.model_validate(dict(uses_with))
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(str(step) for step in problem['loc'])}: {problem['msg'].removeprefix('Value error, ')}"
            for problem in error.errors(include_input=False)  # the input may be a key
        )
        raise ConfigurationError(problems) from None


def _dimensions_on_disk(settings: IndexerSettings) -> int | None:
    """Dimensions of an existing embedded collection, read from its manifest."""
    location = settings.location
    if not isinstance(location, EdgeLocation):
        return None
    try:
        name = AliasFile(location.directory).targets.get(settings.collection, settings.collection)
        manifest = read_manifest(location.directory / name)
        return None if manifest is None else int(manifest.dense[DENSE]["size"])
    except (FlowdexError, KeyError, TypeError, ValueError):
        return None  # not readable: starting will say what is wrong
