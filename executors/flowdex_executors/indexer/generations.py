"""One collection by name, and the collections behind that name while it is embedded anew.

    NAME          alias --> active    what is searched and written
    NAME--next    alias --> coming    being built by a reindex, of the active one's documents
    NAME--last    alias --> former    what was active before; goes when a last look has found nothing to copy from it
    NAME--kept    alias --> kept      the same, but kept on request

All aliases are changed at once, so at every moment the name stands for a whole collection, also for other indexers on
the same server. Collections are addressed by their own names, never by alias: an indexer that has not heard of a change
yet writes to the former collection, from which a last look copies it.

A copy bears the generation (the number of the write) that the document has where it comes from. So all of it can be
repeated, and be done beside reads and writes:

- a copy is made only where the target has nothing as new, and gives way to what is written there in the meantime;
- a document that has gone from the source when the copy is made is taken out again; a delete removes from the active
  collection first, and then from the others;
- a document with the new encoder's vectors is written to the coming collection, and its words to the active one, whose
  vectors are of another encoder.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qdrant_client import models

from flowdex.errors import Conflict, NotFound
from flowdex_executors.indexer.backend import Backend
from flowdex_executors.indexer.collection import Collection
from flowdex_executors.indexer.columns import Point
from flowdex_executors.indexer.payload import DENSE
from flowdex_executors.indexer.settings import IndexerSettings, ServerLocation

__all__ = ["Generations", "Route"]

_KNOWN_FOR = 1.0
"""Seconds for which an indexer goes by the aliases as it last read them from a server."""
_SETTLED_AFTER = 2.5 * _KNOWN_FOR

MakePoints = Callable[[int], list[Point]]
MakePointsOf = Callable[[list[str]], list[Point]]


@dataclass(frozen=True)
class Route:
    """Where a search goes.

    Attributes:
        collection: What to search.
        note: Where its vectors cannot be compared with the query's, so that its words alone are searched: why.
    """

    collection: Collection
    note: str | None = None


class Generations:
    """The collections behind one name.

    Args:
        backend: Where they live.
        settings: Their name, and how they are laid out.

    Attributes:
        active: What is searched and written.
        coming: What is being built, if anything is.
        former: What was active before, and may have to be copied from yet.
        kept: What was active before and is kept.
    """

    def __init__(self, backend: Backend, settings: IndexerSettings) -> None:
        self._backend = backend
        self._settings = settings
        self._name = settings.collection
        self._on_server = isinstance(settings.location, ServerLocation)
        self._known: dict[str, Collection] = {}
        self._fresh_until = 0.0
        self._refreshing = asyncio.Lock()
        self._building = asyncio.Lock()
        self.active = self._collection(settings.collection)
        self.coming: Collection | None = None
        self.former: Collection | None = None
        self.kept: Collection | None = None

    # ---- what there is ----

    async def refresh(self, *, now: bool = False) -> None:
        """Learn of what other indexers, or this one, did to the aliases.

        Args:
            now: Ask a server also where it was asked a moment ago.
        """
        if not now and time.monotonic() < self._fresh_until:
            return
        async with self._refreshing:
            if now or time.monotonic() >= self._fresh_until:
                await self._read()
                self._fresh_until = time.monotonic() + (_KNOWN_FOR if self._on_server else 0.0)

    async def _read(self) -> None:
        response = await self._call(lambda c: c.get_aliases())
        aliases = {each.alias_name: each.collection_name for each in response.aliases}
        active = aliases.get(self._name) or await self._unnamed()
        names = {key: aliases.get(alias) for key, alias in self._aliases().items()}
        live = {active, *filter(None, names.values())}
        self._known = {name: collection for name, collection in self._known.items() if name in live}
        self.active = self._collection(active)
        self.coming, self.former, self.kept = (
            None if name is None else self._collection(name)
            for name in (names[key] for key in ("next", "last", "kept"))
        )
        for collection in filter(None, (self.coming, self.former, self.kept)):
            await collection.dimensions()  # opens it, which reads its fingerprint

    async def _unnamed(self) -> str:
        """The collection that serves as long as there is no alias."""
        if not self._on_server or await self._call(lambda c: c.collection_exists(self._name)):
            return self._name
        first = f"{self._name}--1"
        if await self._call(lambda c: c.collection_exists(first)):  # created, and interrupted before the alias
            await self._change({self._name: first})
        return first

    def _aliases(self) -> dict[str, str]:
        return {key: f"{self._name}--{key}" for key in ("next", "last", "kept")}

    def _collection(self, name: str) -> Collection:
        if name not in self._known:
            alias = self._name if self._on_server and name == f"{self._name}--1" else None
            self._known[name] = Collection(self._backend, self._settings, name=name, alias=alias)
        return self._known[name]

    # ---- who goes where ----

    def for_writing(self, fingerprints: Iterable[str | None]) -> Collection:
        """Which collection holds such vectors; the coming one only where the active one does not."""
        given = set(fingerprints)
        if self.coming is not None and given == {self.coming.fingerprint.value} != {self.active.fingerprint.value}:
            return self.coming
        return self.active

    def for_search(self, fingerprints: Iterable[str | None], mode: str) -> Route:
        """Which collection can be searched by such vectors.

        Raises:
            Conflict: They are of the encoder for which documents are being embedded, and words do not count.
        """
        given = {each for each in fingerprints if each is not None}
        if mode == "sparse" or not given or given == {self.active.fingerprint.value}:
            return Route(self.active)
        for collection in (self.former, self.kept):
            if collection is not None and given == {collection.fingerprint.value}:
                return Route(collection)
        if self.coming is None or given != {self.coming.fingerprint.value}:
            return Route(self.active)  # which says what is wrong
        if mode == "hybrid":
            return Route(self.active, "documents are being embedded anew: until that is done, words alone are searched")
        raise Conflict(
            f"the documents of {self._name!r} are being embedded anew (flowdex reindex); until that is done, search "
            'with the mode "hybrid" or "sparse", which go by their words'
        )

    # ---- writing ----

    async def replace(self, target: Collection, document_ids: list[str], make_points: MakePoints) -> None:
        """Store documents in `target`; where that is the coming collection, their words in the active one too."""
        generation = await target.replace(document_ids, make_points)
        if target is self.coming:

            def words(_: int) -> list[Point]:
                points = make_points(generation)
                for point in points:
                    assert isinstance(point.vector, dict)
                    point.vector = {name: vector for name, vector in point.vector.items() if name != DENSE}
                return points

            await self.active.replace(document_ids, words, generation=generation)

    async def delete(self, document_ids: Sequence[str]) -> int:
        """Remove documents from all collections; how many the active one had."""
        deleted = await self.active.delete(document_ids)
        for collection in (self.coming, self.former, self.kept):
            if collection is not None:
                await collection.delete(document_ids)
        return deleted

    # ---- building the coming collection ----

    @property
    def stage(self) -> str:
        """`idle`, `building` the coming collection, or `finishing`: copying the last from the former one."""
        return "building" if self.coming else "finishing" if self.former else "idle"

    @property
    def source(self) -> Collection:
        """Where copies come from."""
        return self.former if self.coming is None and self.former is not None else self.active

    async def pending(self, document_ids: Sequence[str]) -> dict[str, int]:
        """The generations of those documents of the source that the target does not have as new."""
        here = await self.source.versions(document_ids)
        target = self.coming if self.coming is not None else self.active if self.former is not None else None
        there = {} if target is None else await target.versions(document_ids)
        return {name: version for name, version in here.items() if there.get(name, -1) < version}

    async def begin(self, dimensions: int, fingerprint: str | None) -> Collection:
        """The collection to copy to, made if it is not there.

        Raises:
            Conflict: It was begun with another encoder's vectors.
        """
        async with self._building:
            await self.refresh(now=True)
            if self.coming is None and self.former is not None:
                return self.active
            if self.coming is None:
                await self._begin(dimensions, fingerprint)
            assert self.coming is not None
            if fingerprint != self.coming.fingerprint.value:
                raise Conflict(
                    f"a reindex of {self._name!r} with another encoder is under way; give it up first: flowdex reindex "
                    "--abort"
                )
            return self.coming

    async def _begin(self, dimensions: int, fingerprint: str | None) -> None:
        if self._on_server and self.active.name == self._name:
            raise Conflict(
                f"{self._name!r} is a collection of the server and no alias, so nothing can take its place at once; "
                "name another in uses_with.collection, and index the documents there"
            )
        name = f"{self._name}--{_number(self.active.name) + 1}"
        await self._call(lambda c: c.delete_collection(name))  # a left-over of one that was given up
        coming = Collection(self._backend, self._settings, name=name)
        await coming.ensure(dimensions)
        await coming.fingerprint.admit([fingerprint])
        await self._change({self._aliases()["next"]: name})
        self._known[name] = coming
        await self._settle()

    async def copy(self, target: Collection, versions: Mapping[str, int], make_points: MakePointsOf) -> None:
        """Store documents in `target` as they were read from the source.

        Args:
            target: As `begin` gave it.
            versions: The generation of each, as `pending` told it.
            make_points: Makes the points of some of them, by name; called in a thread.
        """
        copied = await target.adopt(versions, make_points)
        left = await self.source.versions(copied)
        gone = {name: versions[name] for name in copied if name not in left}
        if gone:  # deleted in the meantime
            await target.remove_up_to(gone)

    async def swap(self) -> None:
        """Make the coming collection the active one.

        Raises:
            NotFound: Nothing is being built.
        """
        async with self._building:
            await self.refresh(now=True)
            if self.coming is None:
                raise NotFound(f"no reindex of {self._name!r} is under way")
            aliases = self._aliases()
            old = self.kept
            await self._change(
                {
                    self._name: self.coming.name,
                    aliases["last"]: self.active.name,
                    aliases["next"]: None,
                    aliases["kept"]: None,
                }
            )
            if old is not None:
                await self._drop(old)
            await self._settle()

    async def finish(self, *, keep: bool) -> None:
        """Let the former collection go, or keep it for the encoder that made it."""
        async with self._building:
            await self.refresh(now=True)
            if self.former is None:
                return
            former, aliases = self.former, self._aliases()
            await self._change({aliases["last"]: None, **({aliases["kept"]: former.name} if keep else {})})
            if not keep:
                await self._drop(former)
            await self.refresh(now=True)

    async def give_up(self) -> bool:
        """Remove the coming collection; whether there was one."""
        async with self._building:
            await self.refresh(now=True)
            if self.coming is None:
                return False
            coming = self.coming
            await self._change({self._aliases()["next"]: None})
            await self._drop(coming)
            await self.refresh(now=True)
            return True

    async def forget_kept(self) -> bool:
        """Remove the collection that was kept; whether there was one."""
        async with self._building:
            await self.refresh(now=True)
            if self.kept is None:
                return False
            await self._change({self._aliases()["kept"]: None})
            await self._drop(self.kept)
            await self.refresh(now=True)
            return True

    # ---- how ----

    async def _settle(self) -> None:
        """Wait until every other indexer on the server has heard of a change."""
        if self._on_server:
            await asyncio.sleep(_SETTLED_AFTER)
        await self.refresh(now=True)

    async def _drop(self, collection: Collection) -> None:
        self._known.pop(collection.name, None)
        await self._call(lambda c: c.delete_collection(collection.name))

    async def _change(self, targets: Mapping[str, str | None]) -> None:
        """Point aliases at collections, or remove them (None), all at once."""
        response = await self._call(lambda c: c.get_aliases())
        existing = {each.alias_name for each in response.aliases}
        operations: list[Any] = [
            models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=alias))
            for alias in targets
            if alias in existing
        ]
        operations += [
            models.CreateAliasOperation(create_alias=models.CreateAlias(alias_name=alias, collection_name=target))
            for alias, target in targets.items()
            if target is not None
        ]
        if operations:
            await self._call(lambda c: c.update_collection_aliases(change_aliases_operations=operations))

    async def _call(self, operation: Any) -> Any:
        return await self._backend.call(operation)


def _number(name: str) -> int:
    match = re.search(r"--(\d+)$", name)
    return int(match[1]) if match else 1
