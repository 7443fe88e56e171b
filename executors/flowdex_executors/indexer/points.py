"""Documents to points of the collection.

    document {id, tags, chunks: [{text, embedding, location}]}
        --read_documents--> Passages (columns, validated)
        --make_points--> one PointStruct a passage: vectors "dense" and "bm25", and a payload (see payload.py)

Every write of a document is a generation of its own, newer ones have greater numbers, and a point's id is made of
document id, generation and ordinal. So a document is replaced by writing the new generation and then removing all
older ones: at no moment is it half there, and of two writers at once the later one wins as a whole.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from qdrant_client import models

from flowdex.documents import DocumentBatch
from flowdex.errors import InvalidInput, TooLarge
from flowdex_executors.indexer.payload import (
    BM25,
    DENSE,
    DOCUMENT_ID,
    FLAGS,
    GENERATION,
    ORDINAL,
    TAGS,
    flag,
    payload_key,
    walk,
)

__all__ = ["Passages", "check_finite", "make_points", "read_documents", "tag_fields"]

MAX_ID_LENGTH = 2048
MAX_TAG_DEPTH = 16
_NAMESPACE = uuid.UUID("6f1c4b1e-9d0f-5b7a-8a53-0d2f7d1c7e55")
_EXACT_INTEGER = 2**63


@dataclass(frozen=True)
class Passages:
    """The passages of some documents, as columns; those of document i are rows `offsets[i]:offsets[i + 1]`.

    Attributes:
        document_ids: Ids of the documents, each once.
        tags: Their tags.
        offsets: int64 of shape (documents + 1,).
        texts: Text of each passage.
        spans: (start, end) of each passage in its document's text.
        vectors: float32 of shape (passages, dimensions).
    """

    document_ids: list[str]
    tags: list[dict[str, Any]]
    offsets: npt.NDArray[np.int64]
    texts: list[str]
    spans: list[tuple[int, int]]
    vectors: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.texts)

    def counts(self) -> dict[str, int]:
        """Number of passages of each document."""
        return dict(zip(self.document_ids, np.diff(self.offsets).tolist(), strict=True))

    def parts(self, size: int) -> Iterator[slice]:
        """Ranges of whole documents with about `size` passages each, at least one document."""
        start = 0
        for end in range(1, len(self.document_ids) + 1):
            last = end == len(self.document_ids)
            if last or self.offsets[end + 1] - self.offsets[start] > size:
                yield slice(start, end)
                start = end


# ---- documents to passages ----


def read_documents(batch: DocumentBatch, *, max_passages: int) -> Passages:
    """Read and validate documents; where an id occurs twice, the last document counts.

    A document without chunks, but with a vector of its own, is one passage.

    Raises:
        InvalidInput: A document has no id, nothing to index, a passage without a vector, a vector that is not finite,
            or tags that are not JSON; or vectors differ in size.
        TooLarge: A document has more than `max_passages` passages.
    """
    ids = batch.ids
    for index, document_id in enumerate(ids):
        if not document_id:
            raise InvalidInput(f"document {index} has no id; an id must be a string that is not empty")
        if len(document_id) > MAX_ID_LENGTH:
            raise InvalidInput(
                f"document {index}: the id has {len(document_id)} characters, at most {MAX_ID_LENGTH} fit"
            )
    last = {document_id: index for index, document_id in enumerate(ids)}
    batch = batch.select(sorted(last.values()))
    ids = batch.ids

    units: list[DocumentBatch] = []
    for index, chunks in enumerate(batch.nested("chunks")):
        unit = chunks or batch.select([index])  # without chunks the document itself, which must then have a vector
        if not chunks and unit.embeddings is None:
            raise InvalidInput(
                f"document {ids[index]!r} has neither passages nor a vector, so there is nothing to index; "
                "give it text (and put a segmenter and an encoder before the indexer) or an embedding"
            )
        if len(chunks) > max_passages:
            raise TooLarge(
                f"document {ids[index]!r} has {len(chunks)} passages, at most {max_passages} are allowed; "
                "split it into several documents, or raise max_passages in uses_with of the indexer"
            )
        units.append(unit)
    passages = DocumentBatch.concatenate(units)
    offsets = np.zeros(len(units) + 1, dtype=np.int64)
    np.cumsum([len(unit) for unit in units], out=offsets[1:])
    texts = [text or "" for text in passages.texts]
    return Passages(
        document_ids=ids,
        tags=[_checked_tags(tags, document_id) for tags, document_id in zip(batch.tags, ids, strict=True)],
        offsets=offsets,
        texts=texts,
        spans=[_span(location, text) for location, text in zip(passages.column("location"), texts, strict=True)],
        vectors=_vectors(passages, ids, offsets),
    )


def _vectors(passages: DocumentBatch, ids: Sequence[str], offsets: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    if not passages:
        return np.zeros((0, 0), dtype=np.float32)

    def name(row: int) -> str:
        document = int(np.searchsorted(offsets, row, side="right")) - 1
        return f"passage {row - int(offsets[document])} of document {ids[document]!r}"

    missing = [row for row, doc in enumerate(passages) if "embedding" not in doc.data]
    if missing:
        raise InvalidInput(f"{name(missing[0])} has no embedding; put an encoder before the indexer")
    vectors = passages.embeddings
    if vectors is None:
        raise InvalidInput("the passages have no embeddings; put an encoder before the indexer")
    if not vectors.shape[1]:
        raise InvalidInput("the embeddings are empty")
    check_finite(vectors, name)
    return vectors


def check_finite(vectors: npt.NDArray[np.float32], name: Any) -> None:
    """Refuse vectors that an index would accept and never find again: NaN, infinite, or of infinite length.

    Args:
        vectors: float32 of shape (n, dimensions).
        name: Function from a row to its name in the message.

    Raises:
        InvalidInput: Naming the first such vector.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        lengths = np.einsum("ij,ij->i", vectors, vectors)
    bad = np.flatnonzero(~np.isfinite(lengths))
    if len(bad):
        row = int(bad[0])
        what = "is too large to be compared" if np.isfinite(vectors[row]).all() else "holds NaN or an infinity"
        raise InvalidInput(f"the vector of {name(row)} {what}")


def _span(location: Any, text: str) -> tuple[int, int]:
    if location is None:
        return 0, len(text)
    try:
        start, end = (int(value) for value in location)
    except (TypeError, ValueError):
        raise InvalidInput(f"a passage's location must be [start, end], got {location!r}") from None
    return start, end


def _checked_tags(tags: dict[str, Any], document_id: str) -> dict[str, Any]:
    return {key: _json(value, f"document {document_id!r}: tags.{key}", 1) for key, value in tags.items()}


def _json(value: Any, place: str, depth: int) -> Any:
    """The value as plain JSON types."""
    if depth > MAX_TAG_DEPTH:
        raise InvalidInput(f"{place}: tags are nested deeper than {MAX_TAG_DEPTH} levels")
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, int) and -_EXACT_INTEGER <= value < _EXACT_INTEGER:
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    if isinstance(value, Mapping):
        return {key: _json(item, f"{place}.{key}", depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_json(item, f"{place}[{index}]", depth + 1) for index, item in enumerate(value)]
    raise InvalidInput(f"{place}: tags hold JSON values (finite numbers), not {type(value).__name__} {value!r:.40}")


# ---- passages to points ----


def make_points(
    passages: Passages, documents: slice, sparse: Sequence[models.SparseVector], generation: int
) -> list[models.PointStruct]:
    """Make the points of some of the documents.

    Args:
        passages: All passages.
        documents: Which documents.
        sparse: The BM25 vector of each passage of these documents.
        generation: Number of this write.
    """
    points: list[models.PointStruct] = []
    first = int(passages.offsets[documents.start])
    dense = passages.vectors[first : int(passages.offsets[documents.stop])].tolist()
    for index in range(documents.start, documents.stop):
        document_id, tags = passages.document_ids[index], passages.tags[index]
        shared: dict[str, Any] = {DOCUMENT_ID: document_id, GENERATION: generation, TAGS: tags}
        flags = sorted(set(_flags(tags)))
        if flags:
            shared[FLAGS] = flags
        begin = int(passages.offsets[index])
        for row in range(begin, int(passages.offsets[index + 1])):
            start, end = passages.spans[row]
            points.append(
                # Validated above; pydantic would look at each number of each vector again.
                models.PointStruct.model_construct(
                    id=_point_id(document_id, generation, row - begin),
                    vector={DENSE: dense[row - first], BM25: sparse[row - first]},
                    payload={**shared, ORDINAL: row - begin, "text": passages.texts[row], "start": start, "end": end},
                )
            )
    return points


def _point_id(document_id: str, generation: int, ordinal: int) -> str:
    return str(uuid.uuid5(_NAMESPACE, f"{generation}/{ordinal}/{document_id}"))


def _flags(tags: Mapping[str, Any]) -> Iterator[str]:
    return (flag(path, value) for path, value in walk(tags) if isinstance(value, bool))


def tag_fields(passages: Passages) -> dict[str, models.PayloadSchemaType]:
    """Payload keys of the tags that can have an index of their own (strings and numbers), with its type."""
    types: dict[str, models.PayloadSchemaType] = {}
    for tags in passages.tags:
        for path, value in walk(tags):
            if path not in types and value is not None and not isinstance(value, bool):
                is_text = isinstance(value, str)
                types[path] = models.PayloadSchemaType.KEYWORD if is_text else models.PayloadSchemaType.FLOAT
    keys = {path: payload_key(path) for path in types}
    return {key: types[path] for path, key in keys.items() if key is not None}
