"""Which encoder's vectors a collection holds, and the refusal of any other's.

    /index   fingerprints of the documents --admit--> stored with the first of them; equal to it from then on
    /search  fingerprints of the queries   --check--> equal to the stored one

It is stored as a point without vectors and with the payload `{"fingerprint": "..."}`: no search finds that, and every
backend can hold it. In three cases there is nothing to compare: a collection that was begun with vectors of the
caller's own has no fingerprint and takes all vectors of its size; a query with a vector of the caller's own is the
caller's business; and an empty collection takes the next one.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from qdrant_client import models

from flowdex.errors import Conflict
from flowdex_executors.encoder.fingerprint import differences

__all__ = ["CollectionFingerprint"]

FINGERPRINT = "fingerprint"
_POINT = str(uuid.uuid5(uuid.UUID("6f1c4b1e-9d0f-5b7a-8a53-0d2f7d1c7e55"), FINGERPRINT))


class CollectionFingerprint:
    """The fingerprint of one collection, which exists.

    Args:
        collection: Its name.
        call: Runs an operation on the backend's client.
        is_empty: Says whether the collection holds no passage.
        shown: What messages call it.
    """

    def __init__(
        self,
        collection: str,
        call: Callable[[Any], Awaitable[Any]],
        is_empty: Callable[[], Awaitable[bool]],
        *,
        shown: str,
    ) -> None:
        self._collection = collection
        self._shown = shown
        self._call = call
        self._is_empty = is_empty
        self._lock = asyncio.Lock()
        self.value: str | None = None
        """As it was last read or written; None where there is none."""

    async def read(self) -> str | None:
        """Read it anew."""
        selection = models.Filter(must=[models.HasIdCondition(has_id=[_POINT])])
        records, _ = await self._call(
            lambda c: c.scroll(self._collection, scroll_filter=selection, limit=1, with_payload=[FINGERPRINT])
        )
        self.value = (records[0].payload or {}).get(FINGERPRINT) if records else None
        return self.value

    async def admit(self, fingerprints: Iterable[str | None]) -> None:
        """Let vectors of these in, None for those of the caller's own; the first ones of an empty collection decide.

        Raises:
            Conflict: They are not those that the collection holds.
        """
        given = dict.fromkeys(fingerprints)
        if list(given) == [self.value]:
            return
        async with self._lock:
            # Another replica of the indexer may have written in the meantime.
            stored = await self.read()
            first = next((each for each in given if each is not None), None)
            if stored != first and first is not None and await self._is_empty():
                await self._write(first)
                stored = first
            if stored is not None:
                for each in given:
                    self._compare(stored, each)

    async def check(self, fingerprints: Iterable[str | None]) -> None:
        """Let queries with vectors of these in; None, for a vector of the caller's own, always is.

        Raises:
            Conflict: One is not what the collection holds.
        """
        given = {each for each in fingerprints if each is not None}
        if not given or given == {self.value}:
            return
        stored = await self.read()
        if stored is not None and not await self._is_empty():
            for each in given:
                self._compare(stored, each)

    def _compare(self, stored: str, given: str | None) -> None:
        if given == stored:
            return
        remedy = (
            "have its documents embedded anew by this flow's encoder (flowdex reindex), index into another collection "
            "(uses_with.collection of the indexer), or delete all documents of this one first"
        )
        if given is None:
            raise Conflict(
                f"the collection {self._shown!r} holds an encoder's vectors, and these are of unknown origin; let "
                "the encoder make them (send no embedding), give each document the field `fingerprint` of the encoder "
                f"that made them (flowdex status shows it), or {remedy}"
            )
        raise Conflict(
            f"the collection {self._shown!r} holds vectors that were made otherwise: here "
            f"{', '.join(differences(stored, given))}; encode as it was built, or {remedy}"
        )

    async def _write(self, fingerprint: str) -> None:
        point = models.PointStruct(id=_POINT, vector={}, payload={FINGERPRINT: fingerprint})
        operations = [models.UpsertOperation(upsert=models.PointsList(points=[point]))]
        await self._call(lambda c: c.batch_update_points(self._collection, operations, wait=True))
        self.value = fingerprint
