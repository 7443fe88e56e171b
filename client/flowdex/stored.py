"""Documents as they come back out of the index: what was sent, and what became of it.

reply of /get or /scroll --from_batch | from_json--> StoredDocument --Client.index--> the same document again
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from flowdex.documents import DocumentBatch
from flowdex.fields import read_fields
from flowdex.inputs import Document

__all__ = ["Page", "StoredDocument", "StoredPassage", "from_batch", "from_json"]

Vector = npt.NDArray[np.float32]


@dataclass(frozen=True)
class StoredPassage:
    """A piece of a document in the index.

    Attributes:
        id: Its own id, "<document id>#<number>".
        text: Its text.
        location: (start, end) character offsets into the document's text, end exclusive.
        context: What was encoded before the text without being part of it, such as the headings above; may be empty.
        embedding: Its vector, float32 of shape (dim,), where asked for.
    """

    id: str
    text: str
    location: tuple[int, int]
    context: str = ""
    embedding: Vector | None = field(default=None, repr=False, compare=False)


@dataclass
class StoredDocument(Document):
    """A document in the index. It can be handed to `Client.index` as it is.

    Attributes:
        embedding: Its vector, where that was the caller's own and was asked for. With cosine distance an index keeps
            directions alone, so the vector comes back with length 1.
        passage_count: How many passages it has.
        passages: Its passages, in order, where asked for.
        digest: Of its content, as the client that sent it computed it; None where that was another kind of client.
    """

    passage_count: int = 0
    passages: list[StoredPassage] = field(default_factory=list, repr=False)
    digest: str | None = field(default=None, repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """As JSON-like values."""
        content: dict[str, Any] = {"id": self.id}
        if self.fields:
            content["fields"] = dict(self.fields)
        elif self.text:
            content["text"] = self.text
        content["tags"] = self.tags
        if self.segment is not None:
            content["segment"] = self.segment
        if self.embedding is not None:
            content["embedding"] = self.embedding.tolist()
        if self.passages:
            content["passages"] = [
                {
                    "id": each.id,
                    "text": each.text,
                    "location": list(each.location),
                    **({"context": each.context} if each.context else {}),
                    **({"embedding": each.embedding.tolist()} if each.embedding is not None else {}),
                }
                for each in self.passages
            ]
        return content


@dataclass(frozen=True)
class Page:
    """Some documents of a scroll.

    Attributes:
        documents: They.
        cursor: Where to go on; None where they are the last.
    """

    documents: list[StoredDocument]
    cursor: str | None = None


def from_batch(batch: DocumentBatch) -> Page:
    """Read the documents of a reply."""
    columns = zip(
        batch.ids,
        batch.texts,
        read_fields(batch),
        batch.tags,
        _vectors(batch),
        batch.column("passages", 0),
        batch.nested("chunks"),
        batch.column("digest"),
        batch.column("segment"),
        strict=True,
    )
    documents = [
        StoredDocument(
            text=text or "",
            id=id_,
            tags=tags,
            embedding=vector,
            fields=fields,
            passage_count=int(count),
            passages=_passages(chunks),
            digest=digest,
            segment=segment,
        )
        for id_, text, fields, tags, vector, count, chunks, digest, segment in columns
    ]
    cursors = batch.column("cursor")
    return Page(documents, cursors[-1] if cursors else None)


def _passages(chunks: DocumentBatch) -> list[StoredPassage]:
    columns = zip(
        chunks.ids,
        chunks.texts,
        chunks.column("location", (0, 0)),
        chunks.column("context", ""),
        _vectors(chunks),
        strict=True,
    )
    return [
        StoredPassage(id_, text or "", (int(place[0]), int(place[1])), context, vector)
        for id_, text, place, context, vector in columns
    ]


def _vectors(batch: DocumentBatch) -> list[Vector | None]:
    return [None if row is None else np.asarray(row, dtype=np.float32) for row in batch.column("embedding")]


def from_json(rows: list[Mapping[str, Any]], cursor: str | None = None) -> Page:
    """Read the documents of a JSON answer."""
    return Page([_from_row(row) for row in rows], cursor)


def _from_row(row: Mapping[str, Any]) -> StoredDocument:
    return StoredDocument(
        text=row.get("text") or "",
        id=row["id"],
        tags=dict(row.get("tags") or {}),
        embedding=_row(row.get("embedding")),
        fields=row.get("fields"),
        passage_count=int(row.get("passage_count") or 0),
        passages=[
            StoredPassage(
                each["id"],
                each.get("text") or "",
                (int(each["location"][0]), int(each["location"][1])),
                each.get("context") or "",
                _row(each.get("embedding")),
            )
            for each in row.get("passages") or ()
        ],
        digest=row.get("digest"),
        segment=row.get("segment"),
    )


def _row(values: Any) -> Vector | None:
    return None if values is None else np.asarray(values, dtype=np.float32)
