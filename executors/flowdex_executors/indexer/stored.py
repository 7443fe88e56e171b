"""Reading documents back: by id, page by page, and counted.

    ids | filter, cursor --> heads (the first passage of each document) --with the other passages--> documents

A document's first passage knows how many there are; a document that is replaced between the two reads is read anew.

A scroll goes through documents in the order of their last write: by generation, and within one by the id of the first
passage. So a document that is written during a scroll moves to the end, and may come a second time. None is missed,
as could be if ids alone made the order, which change with each write.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import BaseModel, Field
from qdrant_client import models

from flowdex.documents import DocumentBatch
from flowdex.errors import InvalidInput, TooLarge, Unavailable
from flowdex.fields import write_fields
from flowdex_executors.indexer.collection import FIRST_PASSAGE, Collection, one_of
from flowdex_executors.indexer.limits import IndexLimits
from flowdex_executors.indexer.originals import fields_of, text_of
from flowdex_executors.indexer.payload import (
    BEFORE,
    CONTEXT,
    DENSE,
    DOCUMENT_ID,
    GENERATION,
    ORDINAL,
    ORIGINAL,
    TAGS,
)

__all__ = ["CountParameters", "ReadParameters", "ScrollParameters", "get_documents", "scroll_documents"]

MAX_PAGE = 1000
_DEFAULTS = IndexLimits()
_PAGE_CHARACTERS = 8 * 2**20  # of a page's documents: in UTF-8 within what a message may have
_ATTEMPTS = 5
_KEYS = [DOCUMENT_ID, GENERATION, ORDINAL, ORIGINAL, TAGS, CONTEXT, BEFORE, "text", "start", "end"]
_FIRST_ID = "00000000-0000-0000-0000-000000000000"


class ReadParameters(BaseModel):
    """Parameters of /get.

    Attributes:
        content: Whether to read texts and fields; without, a document is its id, tags, number of passages and digest.
        passages: Whether to give the passages too, as chunks.
        embeddings: Whether to give vectors: a document's where it was the caller's own, and those of the passages.
    """

    content: bool = True
    passages: bool = False
    embeddings: bool = False

    @property
    def whole(self) -> bool:
        """Whether all passages must be read."""
        return self.content or self.passages


class ScrollParameters(ReadParameters):
    """Parameters of /scroll.

    Attributes:
        filter: See `filters.py`.
        limit: Most documents of a page, which may also be shorter.
        cursor: Where to go on: `cursor` of the last page's last document.
    """

    filter: dict[str, Any] | None = None
    limit: int = Field(default=100, ge=1, le=MAX_PAGE)
    cursor: str | None = None


class CountParameters(BaseModel):
    """Parameters of /count."""

    filter: dict[str, Any] | None = None


@dataclass(frozen=True)
class _Cursor:
    """A place in the order of a scroll: in a generation, at the id of a document's first passage."""

    generation: int = 0
    point: str = _FIRST_ID

    def __str__(self) -> str:
        return f"{self.generation}.{self.point}"

    @classmethod
    def parse(cls, text: str | None) -> _Cursor:
        if text is None:
            return cls()
        generation, _, point = text.partition(".")
        if not generation.isdecimal() or len(point) != len(_FIRST_ID):
            raise InvalidInput(f"cursor: {text!r:.60} is none; pass the one of the page before, or none for the first")
        return cls(int(generation), point)


# ---- by id ----


async def get_documents(
    collection: Collection, ids: Sequence[str], wanted: ReadParameters, limits: IndexLimits = _DEFAULTS
) -> DocumentBatch:
    """Read documents; those that are not there are passed over, the others keep the order of their ids.

    Raises:
        TooLarge: They are too many, or too long for one reply.
    """
    names = list(dict.fromkeys(ids))
    if len(names) > limits.ids:
        raise TooLarge(f"{len(names)} ids in one request are too many: {limits.remedy('ids')}; ask for fewer at a time")
    heads = await _heads(collection, names)
    if wanted.content and sum(map(_length, heads)) > _PAGE_CHARACTERS and len(heads) > 1:
        raise TooLarge(f"these {len(heads)} documents have more text than one reply holds; ask for fewer at a time")
    return await _documents(collection, heads, wanted)


async def _heads(collection: Collection, ids: Sequence[str]) -> list[models.Record]:
    """The first passage of each document, in the order of the ids."""
    if not ids:
        return []
    found: dict[str, models.Record] = {}
    for record in await collection.records(models.Filter(must=[one_of(ids), FIRST_PASSAGE]), _KEYS):
        name = _payload(record)[DOCUMENT_ID]
        if name not in found or _payload(record)[GENERATION] > _payload(found[name])[GENERATION]:
            found[name] = record
    return [found[name] for name in ids if name in found]


# ---- page by page ----


async def scroll_documents(
    collection: Collection, selection: models.Filter | None, wanted: ScrollParameters
) -> DocumentBatch:
    """Read a page of documents; where there are more, its last one has the field `cursor`.

    Raises:
        InvalidInput: The cursor is none.
    """
    cursor: _Cursor | None = _Cursor.parse(wanted.cursor)
    must: list[Any] = [FIRST_PASSAGE, *([selection] if selection else [])]
    documents = DocumentBatch()
    while cursor is not None and not documents:  # the documents of a page may all have been deleted in the meantime
        heads, cursor = await _page(collection, must, cursor, wanted.limit)
        if wanted.whole:
            heads, cursor = _fitting(heads, cursor)
        documents = await _documents(collection, heads, wanted)
    if documents and cursor is not None:
        documents.select([len(documents) - 1]).set_column("cursor", [str(cursor)])
    return documents


async def _page(
    collection: Collection, must: list[Any], cursor: _Cursor, limit: int
) -> tuple[list[models.Record], _Cursor | None]:
    """The next first passages, in order, and where to go on; the page may be short, or empty."""
    generation = cursor.generation
    if cursor.point == _FIRST_ID:
        # One more than asked for, as the last generation may go on beyond: it waits for the next page.
        records = await collection.oldest(models.Filter(must=must), _KEYS, since=generation, limit=limit + 1)
        records.sort(key=_order)
        if len(records) <= limit:
            return records, None
        last = _payload(records[-1])[GENERATION]
        complete = [record for record in records if _payload(record)[GENERATION] < last]
        if complete:
            return complete, _Cursor(last)
        generation = last  # of one generation, all of them
    written = models.FieldCondition(key=GENERATION, range=models.Range(gte=generation, lte=generation))
    records, following = await collection.page(models.Filter(must=[*must, written]), _KEYS, limit, cursor.point)
    return records, _Cursor(generation + 1) if following is None else _Cursor(generation, str(following))


def _fitting(heads: list[models.Record], cursor: _Cursor | None) -> tuple[list[models.Record], _Cursor | None]:
    """As many documents as fit a reply, at least one."""
    characters = 0
    for index, head in enumerate(heads):
        characters += _length(head)
        if index and characters > _PAGE_CHARACTERS:
            return heads[:index], _Cursor(_payload(head)[GENERATION], str(head.id))
    return heads, cursor


def _order(record: models.Record) -> tuple[int, str]:
    return _payload(record)[GENERATION], str(record.id)


# ---- first passages to documents ----


async def _documents(collection: Collection, heads: list[models.Record], wanted: ReadParameters) -> DocumentBatch:
    order = [_payload(head)[DOCUMENT_ID] for head in heads]
    found: dict[str, list[models.Record]] = {}
    for _ in range(_ATTEMPTS):
        found.update(await _with_rest(collection, heads) if wanted.whole else _alone(heads))
        missing = [name for name in order if name not in found]
        heads = await _heads(collection, missing)
        if not heads:  # those still missing have been deleted
            break
    else:
        raise Unavailable(f"document {order[0]!r} is written all the time; try again", retry_after=0.5)
    documents = [found[name] for name in order if name in found]
    vectors: dict[str, list[float]] = {}
    if wanted.embeddings:
        rows = [record for records in documents if wanted.passages or _is_own(records) for record in records]
        points = await collection.retrieve([str(record.id) for record in rows], [DOCUMENT_ID], vectors=True)
        vectors = {str(point.id): point.vector[DENSE] for point in points}
    return _batch(documents, vectors, wanted)


def _alone(heads: Iterable[models.Record]) -> dict[str, list[models.Record]]:
    return {_payload(head)[DOCUMENT_ID]: [head] for head in heads}


async def _with_rest(collection: Collection, heads: list[models.Record]) -> dict[str, list[models.Record]]:
    """All passages of each document; without those that are no longer as their first passage says."""
    documents = _alone(heads)
    expected = {name: int(_original(head).get("passages", 1)) for name, (head,) in documents.items()}
    longer = [name for name, count in expected.items() if count > 1]
    if longer:
        others = models.FieldCondition(key=ORDINAL, range=models.Range(gte=1))
        for record in await collection.records(models.Filter(must=[one_of(longer), others]), _KEYS):
            records = documents[_payload(record)[DOCUMENT_ID]]
            if _payload(record)[GENERATION] == _payload(records[0])[GENERATION]:
                records.append(record)
    for name in longer:
        documents[name].sort(key=lambda record: int(_payload(record)[ORDINAL]))
    return {name: records for name, records in documents.items() if len(records) == expected[name]}


def _batch(
    documents: list[list[models.Record]], vectors: dict[str, list[float]], wanted: ReadParameters
) -> DocumentBatch:
    originals = [_original(records[0]) for records in documents]
    batch = DocumentBatch.from_columns(
        ids=[_payload(records[0])[DOCUMENT_ID] for records in documents],
        tags=[_payload(records[0]).get(TAGS) or {} for records in documents],
        passages=[int(original.get("passages", 1)) for original in originals],
        digest=[original.get("digest") for original in originals],
        segment=[original.get("segment") for original in originals],
    )
    if wanted.content:
        texts = [text_of(map(_payload, records)) for records in documents]
        batch.texts = texts
        write_fields(batch, [fields_of(original, text) for original, text in zip(originals, texts, strict=True)])
    if wanted.passages:
        batch.set_nested("chunks", [_chunks(records, vectors) for records in documents])
    own = [index for index, records in enumerate(documents) if _is_own(records) and str(records[0].id) in vectors]
    if own:
        rows = [vectors[str(documents[index][0].id)] for index in own]
        batch.select(own).embeddings = np.asarray(rows, dtype=np.float32)
    return batch


def _chunks(records: list[models.Record], vectors: dict[str, list[float]]) -> DocumentBatch:
    payloads = [_payload(record) for record in records]
    chunks = DocumentBatch.from_columns(
        ids=[f"{payload[DOCUMENT_ID]}#{payload[ORDINAL]}" for payload in payloads],
        texts=[payload["text"] for payload in payloads],
        location=[[payload["start"], payload["end"]] for payload in payloads],
        parent_id=[payload[DOCUMENT_ID] for payload in payloads],
        context=[payload.get(CONTEXT) for payload in payloads],
    )
    rows = [vectors[str(record.id)] for record in records if str(record.id) in vectors]
    if len(rows) == len(records):
        chunks.embeddings = np.asarray(rows, dtype=np.float32)
    return chunks


def _payload(record: models.Record) -> dict[str, Any]:
    assert record.payload is not None
    return record.payload


def _original(record: models.Record) -> dict[str, Any]:
    return _payload(record).get(ORIGINAL) or {}


def _is_own(records: list[models.Record]) -> bool:
    return bool(_original(records[0]).get("own"))


def _length(head: models.Record) -> int:
    """Characters of a document's text, about."""
    return int(_original(head).get("length") or len(_payload(head)["text"]))
