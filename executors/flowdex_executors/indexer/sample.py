"""An even sample of the passages, with their vectors and as a map of them.

    state of the collection (newest write, count) --unchanged--> the sample as it was
                                                  --changed----> ids in order --first n--> payloads, vectors --> Sample
    Sample --projection.fit, once--> the plane --place--> coordinates of the sample, of queries, of any other passage

The id of a point is a hash (`points.py`), so the first n in the order of ids are as good as n drawn at random: every
passage has the same chance, whatever was written when, in whichever shard it is; and it costs n reads, not a look at
each point of the collection. The same collection gives the same sample, and so the same map.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, Field
from qdrant_client import models

from flowdex.documents import DocumentBatch
from flowdex.errors import InvalidInput
from flowdex_executors.indexer.answers import note
from flowdex_executors.indexer.collection import Collection, one_of
from flowdex_executors.indexer.payload import CONTEXT, DENSE, DOCUMENT_ID, GENERATION, ORDINAL, TAGS
from flowdex_executors.indexer.projection import Projection, fit

__all__ = ["MapParameters", "Sample", "SampleParameters", "Samples"]

MAX_PASSAGES = 10_000
_KEPT = 2  # samples: of two limits, or of a collection and the one that takes its place
_PAGE = 1000
_FIELDS = [DOCUMENT_ID, GENERATION, ORDINAL, TAGS, CONTEXT, "text", "start", "end"]

Vectors = npt.NDArray[np.float32]


class SampleParameters(BaseModel):
    """Parameters of /sample.

    Attributes:
        limit: Most passages.
        vectors: Whether to give their vectors too.
        ids: Further passages to give, such as the hits of a search.
        tenant: Whose passages; None for all.
    """

    limit: int = Field(default=1000, ge=1, le=MAX_PASSAGES)
    vectors: bool = False
    ids: list[str] = Field(default_factory=list, max_length=_PAGE)
    tenant: str | None = None


class MapParameters(BaseModel):
    """Parameters of /map.

    Attributes:
        limit: Most passages.
        characters: How much of each text to give.
        points: Whether to give the passages of the sample.
        ids: Further passages to find a place for, such as the hits of a search.
        tenant: Whose passages; None for all.
    """

    limit: int = Field(default=2000, ge=1, le=MAX_PASSAGES)
    characters: int = Field(default=240, ge=0)
    points: bool = True
    ids: list[str] = Field(default_factory=list, max_length=_PAGE)
    tenant: str | None = None


@dataclass(frozen=True)
class Sample:
    """Some passages of a collection.

    Attributes:
        total: How many passages the collection has.
        payloads: What is stored with each.
        vectors: float32 of shape (passages, dimensions).
    """

    total: int
    payloads: list[dict[str, Any]] = field(repr=False)
    vectors: Vectors = field(repr=False)

    @cached_property
    def ids(self) -> list[str]:
        """The passages' ids."""
        return [_passage_id(payload) for payload in self.payloads]

    @cached_property
    def projection(self) -> Projection:
        """The plane to draw them in."""
        return fit(self.vectors)

    @cached_property
    def places(self) -> Vectors:
        """Where they are in it, of shape (passages, 2)."""
        return self.projection.place(self.vectors)


class Samples:
    """Samples of collections, read once as long as nothing is written."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[Any, ...], Sample] = OrderedDict()
        self._reading = asyncio.Lock()

    async def sample(self, collection: Collection, limit: int, tenant: str | None = None) -> Sample:
        """A sample of the collection (or of what a tenant has in it) as it is now."""
        async with self._reading:  # several that ask at once are answered by one read
            state = await collection.state(tenant)
            key = (collection.name, tenant, limit, *state)
            if key not in self._known:
                self._known[key] = await _read(collection, limit, state[1], tenant)
                while len(self._known) > _KEPT:
                    self._known.popitem(last=False)
            self._known.move_to_end(key)
            return self._known[key]

    async def passages(self, collection: Collection, wanted: SampleParameters) -> DocumentBatch:
        """Answer /sample with one document.

        Its fields are

        - `total`, how many passages there are, and `fingerprint`, of the encoder that made their vectors;
        - `matches`, the passages of the sample; `chunks`, the others that were asked for, those that are there.

        Raises:
            InvalidInput: An id is not that of a passage.
        """
        sample = await self.sample(collection, wanted.limit, wanted.tenant)
        others = await _others(collection, sample, wanted.ids)
        batch = DocumentBatch.from_columns(total=[sample.total], fingerprint=[collection.fingerprint.value])
        for name, passages in (("matches", sample), ("chunks", others)):
            found = await asyncio.to_thread(_documents, passages.payloads, None)
            if wanted.vectors and found:
                found.embeddings = passages.vectors
            batch.set_nested(name, [found])
        return batch

    async def draw(self, collection: Collection, query: DocumentBatch, wanted: MapParameters) -> DocumentBatch:
        """Answer /map with one document.

        Its fields are

        - `total`, how many passages there are, `shown`, how many of them the map was made of, and `variance`, the
          shares of all variance along its two axes;
        - `matches`, the passages of the sample, and `places`, float32 of shape (shown, 2);
        - `chunks`, the other passages that were asked for, those that are there, and `chunk_places`;
        - `place`, float32 of shape (2,), of the query's vector, or a note why there is none.

        Args:
            collection: What to draw.
            query: At most one document, with an embedding where there is something to place.
            wanted: See `MapParameters`.

        Raises:
            InvalidInput: An id is not that of a passage.
        """
        sample = await self.sample(collection, wanted.limit, wanted.tenant)
        batch = DocumentBatch.from_columns(total=[sample.total], shown=[len(sample.payloads)])
        if not sample.payloads:
            batch.set_column("variance", [[0.0, 0.0]])
            return batch
        projection, places = await asyncio.to_thread(lambda: (sample.projection, sample.places))
        batch.set_column("variance", [projection.variance.tolist()])
        if wanted.points:
            points = await asyncio.to_thread(_documents, sample.payloads, wanted.characters)
            batch.set_nested("matches", [points])
            batch.set_column("places", [places])
        others = await _others(collection, sample, wanted.ids)
        if others.payloads:
            batch.set_nested("chunks", [_documents(others.payloads, wanted.characters)])
            batch.set_column("chunk_places", [projection.place(others.vectors)])
        vectors = query.embeddings if query else None
        if vectors is not None:
            given = {each for each in query.column("fingerprint") if each is not None}
            if vectors.shape[1] == sample.vectors.shape[1] and given <= {collection.fingerprint.value}:
                batch.set_column("place", [projection.place(_as_stored(vectors[:1], sample.vectors))[0]])
            else:
                note(batch, ["the query's vector is of another encoder than the map's, and has no place in it"])
        return batch


async def _read(collection: Collection, limit: int, total: int, tenant: str | None) -> Sample:
    if await collection.dimensions() is None:
        return Sample(0, [], np.zeros((0, 0), np.float32))
    found: list[str] = []
    following: str | None = None
    while len(found) < limit and (not found or following is not None):
        records, following = await collection.passages_page(min(_PAGE, limit - len(found)), following, tenant)
        found += [str(record.id) for record in records]
        if not records:
            break
    return await _retrieve(collection, found, total)


async def _others(collection: Collection, sample: Sample, names: Sequence[str]) -> Sample:
    """Passages by their own ids, those that are there and not in the sample."""
    known = set(sample.ids)
    wanted = {_split(name) for name in names if name not in known}
    if not wanted or not sample.payloads:
        return Sample(0, [], np.zeros((0, 0), np.float32))
    ordinals = models.FieldCondition(key=ORDINAL, match=models.MatchAny(any=sorted({each for _, each in wanted})))
    selection = models.Filter(must=[one_of(sorted({name for name, _ in wanted})), ordinals])
    records = await collection.records(selection, [DOCUMENT_ID, ORDINAL])
    ids = [str(record.id) for record in records if (record.payload[DOCUMENT_ID], record.payload[ORDINAL]) in wanted]
    return await _retrieve(collection, ids, len(ids))


async def _retrieve(collection: Collection, point_ids: list[str], total: int) -> Sample:
    """Points with their vectors, in the order of the ids; those that have gone, or have words alone, are left out."""
    records = {str(each.id): each for each in await collection.retrieve(point_ids, _FIELDS, vectors=True)}
    there = [records[name] for name in point_ids if name in records and DENSE in (records[name].vector or {})]
    vectors = await asyncio.to_thread(np.asarray, [record.vector[DENSE] for record in there], np.float32)
    return Sample(total, [record.payload for record in there], vectors)


def _documents(payloads: Sequence[dict[str, Any]], characters: int | None) -> DocumentBatch:
    batch = DocumentBatch.from_columns(
        ids=[_passage_id(payload) for payload in payloads],
        parent_id=[payload[DOCUMENT_ID] for payload in payloads],
        texts=[payload["text"][:characters] for payload in payloads],
        location=[[payload["start"], payload["end"]] for payload in payloads],
        tags=[payload.get(TAGS) or {} for payload in payloads],
    )
    contexts = [payload.get(CONTEXT) for payload in payloads]
    if characters is None and any(contexts):
        batch.set_column("context", contexts)
    return batch


def _as_stored(vectors: Vectors, stored: Vectors) -> Vectors:
    """Vectors as the index would keep them: with the cosine distance, of length 1."""
    if not np.allclose(np.linalg.norm(stored[:100], axis=1), 1.0, atol=1e-3):
        return vectors
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: Vectors = (vectors / np.where(lengths > 0, lengths, 1.0)).astype(np.float32)
    return unit


def _passage_id(payload: dict[str, Any]) -> str:
    return f"{payload[DOCUMENT_ID]}#{payload[ORDINAL]}"


def _split(passage_id: str) -> tuple[str, int]:
    document_id, mark, ordinal = passage_id.rpartition("#")
    if not mark or not ordinal.isdecimal():
        raise InvalidInput(f"{passage_id[:80]!r} is not the id of a passage, which is its document's, '#' and a number")
    return document_id, int(ordinal)
