"""Documents to points of the collection.

    document {id, text, fields, tags, chunks: [{text, embedding, location, context, weights}]}
        --read_documents--> Passages (columns, validated), and the documents that cannot be indexed, each with its error
        --make_points--> one Point a passage: vectors "dense" and "bm25", and a payload (see payload.py)

Every write of a document is a generation of its own, newer ones have greater numbers, and a point's id is made of
document id, generation and ordinal. So a document is replaced by writing the new generation and then removing all
older ones: at no moment is it half there, and of two writers at once the later one wins as a whole.
"""

from __future__ import annotations

import hashlib
import math
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from itertools import chain
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import orjson
from qdrant_client import models

from flowdex.documents import DocumentBatch
from flowdex.errors import FlowdexError, InvalidInput, TooLarge
from flowdex.fields import joined, read_fields
from flowdex_executors.failures import unmarked
from flowdex_executors.indexer.columns import Point, SparseRow
from flowdex_executors.indexer.limits import IndexLimits
from flowdex_executors.indexer.originals import gaps_between, original_of
from flowdex_executors.indexer.payload import (
    BEFORE,
    BM25,
    CONTEXT,
    DENSE,
    DOCUMENT_ID,
    FLAGS,
    GENERATION,
    ORDINAL,
    ORIGINAL,
    TAGS,
    TENANT,
    TENANT_PATH,
    TENANT_SEPARATOR,
    flag,
    payload_key,
    walk,
)
from flowdex_executors.indexer.sparse import WeightedSpans

__all__ = ["Failures", "Passages", "check_finite", "make_points", "read_documents", "tag_fields"]

MAX_TAG_DEPTH = 16
_DEFAULTS = IndexLimits()
_NAMESPACE = uuid.UUID("6f1c4b1e-9d0f-5b7a-8a53-0d2f7d1c7e55").bytes
_EXACT_INTEGER = 2**63


@dataclass(frozen=True)
class Passages:
    """The passages of some documents, as columns; those of document i are rows `offsets[i]:offsets[i + 1]`.

    Attributes:
        document_ids: Ids of the documents, each once.
        tags: Their tags.
        originals: What is stored to give them back, see `originals.py`.
        offsets: int64 of shape (documents + 1,).
        texts: Text of each passage.
        contexts: What belongs before each text without being part of it, None where nothing does.
        weights: Spans of each text that count more or less in BM25, None where none do.
        spans: (start, end) of each passage in its document's text.
        gaps: What of the document's text lies before each passage and in no other one.
        vectors: float32 of shape (passages, dimensions).
    """

    document_ids: list[str]
    tags: list[dict[str, Any]]
    originals: list[dict[str, Any]]
    offsets: npt.NDArray[np.int64]
    texts: list[str]
    contexts: list[str | None]
    weights: list[WeightedSpans | None]
    spans: list[tuple[int, int]]
    gaps: list[str]
    vectors: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.texts)

    def counts(self) -> dict[str, int]:
        """Number of passages of each document."""
        return dict(zip(self.document_ids, np.diff(self.offsets).tolist(), strict=True))

    def parts(self, size: int) -> Iterator[slice]:
        """Ranges of whole documents with about `size` passages each, at least one document."""
        start, offsets = 0, self.offsets.tolist()
        for end in range(1, len(self.document_ids) + 1):
            last = end == len(self.document_ids)
            if last or offsets[end + 1] - offsets[start] > size:
                yield slice(start, end)
                start = end


# ---- documents to passages ----

Failures: TypeAlias = dict[int, FlowdexError]
"""Why documents cannot be indexed, by their rows."""


def read_documents(
    batch: DocumentBatch,
    *,
    max_passages: int,
    max_tag_bytes: int = 65_536,
    dimensions: int | None = None,
    limits: IndexLimits = _DEFAULTS,
) -> tuple[Passages, Failures]:
    """Read and validate documents, each by itself; where an id occurs twice, the last document counts.

    A document without chunks, but with a vector of its own, is one passage. Documents that something failed on before
    (`failures.py`) are left out.

    Args:
        batch: The documents.
        max_passages: Most passages that a document may have.
        max_tag_bytes: Most bytes of its tags, as JSON.
        dimensions: Size of the collection's vectors; None for that of the first good document's.
        limits: Of what `id_characters` is heeded.

    Returns:
        The passages of the good documents, and why the others cannot be indexed:
        - InvalidInput: No id, nothing to index, a passage without a vector, a vector of another size or one that is not
          finite, tags that are not JSON, ...
        - TooLarge: More than `max_passages` passages, or larger tags than `max_tag_bytes`.
    """
    read = partial(_read, max_passages=max_passages, max_tag_bytes=max_tag_bytes)
    failures: Failures = {}
    last: dict[str, int] = {}
    for row, document_id in enumerate(batch.ids):
        try:
            _check_id(document_id, row, limits)
            last[document_id] = row
        except InvalidInput as error:
            failures[row] = error
    unfailed = set(unmarked(batch))
    rows = sorted(unfailed.intersection(last.values()))
    try:
        return read(batch.select(rows), dimensions), failures
    except InvalidInput:
        good: list[Passages] = []
        for row in rows:
            try:
                good.append(read(batch.select([row]), dimensions))
                dimensions = dimensions or good[0].vectors.shape[1]
            except InvalidInput as error:
                failures[row] = error
        return _joined(good), failures


def _check_id(document_id: str, row: int, limits: IndexLimits) -> None:
    if not document_id:
        raise InvalidInput(f"document {row} has no id; an id must be a string that is not empty")
    if len(document_id) > limits.id_characters:
        raise InvalidInput(
            f"document {row}: the id has {len(document_id)} characters; {limits.remedy('id_characters')}"
        )


def _read(batch: DocumentBatch, dimensions: int | None, *, max_passages: int, max_tag_bytes: int) -> Passages:
    """Read documents with ids of their own.

    Raises:
        InvalidInput: One of them is wrong.
    """
    ids = batch.ids
    chunked = batch.nested("chunks")
    units: list[DocumentBatch] = []
    for index, (chunks, has_vector) in enumerate(zip(chunked, batch.has("embedding"), strict=True)):
        unit = chunks or batch.select([index])  # without chunks the document itself, which must then have a vector
        if not chunks and not has_vector:
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
    offsets = _offsets([len(unit) for unit in units])
    vectors = _vectors(passages, ids, offsets)
    if dimensions is not None and units and vectors.shape[1] != dimensions:
        raise InvalidInput(f"document {ids[0]!r}: its vectors have {vectors.shape[1]} dimensions, not {dimensions}")
    texts = [text or "" for text in passages.texts]
    spans = [_span(location, text) for location, text in zip(passages.column("location"), texts, strict=True)]
    originals, gaps = _originals(batch, [not chunks for chunks in chunked], offsets, texts, spans)
    return Passages(
        document_ids=ids,
        tags=[_checked_tags(tags, id_, max_tag_bytes) for tags, id_ in zip(batch.tags, ids, strict=True)],
        originals=originals,
        offsets=offsets,
        texts=texts,
        contexts=[_context(context) for context in passages.column("context")],
        weights=[_weights(weights) for weights in passages.column("weights")],
        spans=spans,
        gaps=gaps,
        vectors=vectors,
    )


def _offsets(sizes: Sequence[int]) -> npt.NDArray[np.int64]:
    offsets = np.zeros(len(sizes) + 1, dtype=np.int64)
    np.cumsum(sizes, out=offsets[1:])
    return offsets


def _joined(parts: Sequence[Passages]) -> Passages:
    """The documents of all parts, whose vectors are of one size."""

    def column(name: str) -> list[Any]:
        return list(chain.from_iterable(getattr(part, name) for part in parts))

    lists = {each.name: column(each.name) for each in fields(Passages) if each.name not in ("offsets", "vectors")}
    return Passages(
        **lists,
        offsets=_offsets([len(part) for part in parts]),
        vectors=np.concatenate([part.vectors for part in parts]) if parts else np.zeros((0, 0), dtype=np.float32),
    )


def _originals(
    batch: DocumentBatch,
    own: Sequence[bool],
    offsets: npt.NDArray[np.int64],
    texts: Sequence[str],
    spans: Sequence[tuple[int, int]],
) -> tuple[list[dict[str, Any]], list[str]]:
    """What is stored to give each document back, and the gap before each passage."""
    originals: list[dict[str, Any]] = []
    gaps: list[str] = []
    bounds = offsets.tolist()
    kept = [
        _kept(id_, digest, segment)
        for id_, digest, segment in zip(batch.ids, batch.column("digest"), batch.column("segment"), strict=True)
    ]
    columns = zip(batch.texts, read_fields(batch), kept, own, strict=True)
    for index, (text, named, other, is_own) in enumerate(columns):
        rows = slice(bounds[index], bounds[index + 1])
        size = rows.stop - rows.start
        text = joined(named) if text is None and named else text  # noqa: PLW2901
        found = None if text is None else gaps_between(text, texts[rows], spans[rows])
        gaps += found[:size] if found else [""] * size
        originals.append(original_of(text, named, passages=size, gaps=found, own=is_own, **other))
    return originals, gaps


def _kept(document_id: str, digest: Any, segment: Any) -> dict[str, Any]:
    """What of a document comes back as it was sent, once it is known that it can be stored."""
    if digest is not None and not isinstance(digest, str):
        raise InvalidInput(f"document {document_id!r}: 'digest' must be a string, got {digest!r:.40}")
    return {"digest": digest, "segment": _json(segment, f"document {document_id!r}: segment", 1)}


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
        if max(abs(start), abs(end)) < _EXACT_INTEGER:
            return start, end
    except (TypeError, ValueError, OverflowError):
        pass
    raise InvalidInput(f"a passage's location must be [start, end], got {location!r:.60}")


def _context(value: Any) -> str | None:
    if value is not None and not isinstance(value, str):
        raise InvalidInput(f"a passage's context must be a string, got {value!r:.40}")
    return value or None


def _weights(value: Any) -> WeightedSpans | None:
    if value is None:
        return None
    try:
        spans = [(int(start), int(end), float(weight)) for start, end, weight in value]
        if all(0 <= weight < math.inf for _, _, weight in spans):
            return spans
    except (TypeError, ValueError, OverflowError):
        pass
    raise InvalidInput(
        f"a passage's weights must be [[start, end, weight], ...], weights not negative, got {value!r:.60}"
    )


def _checked_tags(tags: dict[str, Any], document_id: str, most: int) -> dict[str, Any]:
    checked = {key: _json(value, f"document {document_id!r}: tags.{key}", 1) for key, value in tags.items()}
    if checked and (size := len(orjson.dumps(checked))) > most:  # each passage of the document holds them
        raise TooLarge(
            f"document {document_id!r}: its tags have {size} bytes as JSON, at most {most} are allowed "
            "(max_tag_bytes in uses_with of the indexer)"
        )
    return checked


def _json(value: Any, place: str, depth: int) -> Any:
    """The value as plain JSON types."""
    if depth > MAX_TAG_DEPTH:
        raise InvalidInput(f"{place}: values are nested deeper than {MAX_TAG_DEPTH} levels")
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
    raise InvalidInput(f"{place}: JSON values (finite numbers) can be stored, not {type(value).__name__} {value!r:.40}")


# ---- passages to points ----


def make_points(passages: Passages, documents: slice, sparse: Sequence[SparseRow], generation: int) -> list[Point]:
    """Make the points of some of the documents.

    Args:
        passages: All passages.
        documents: Which documents.
        sparse: The BM25 vector of each passage of these documents.
        generation: Number of this write.
    """
    points: list[Point] = []
    first = int(passages.offsets[documents.start])
    for index in range(documents.start, documents.stop):
        document_id, tags = passages.document_ids[index], passages.tags[index]
        shared: dict[str, Any] = {DOCUMENT_ID: document_id, GENERATION: generation, TAGS: tags}
        tenant, separator, _ = document_id.partition(TENANT_SEPARATOR)
        if separator:
            shared[TENANT] = tenant
        flags = sorted(set(_flags(tags)))
        if flags:
            shared[FLAGS] = flags
        begin = int(passages.offsets[index])
        for row in range(begin, int(passages.offsets[index + 1])):
            start, end = passages.spans[row]
            payload = {**shared, ORDINAL: row - begin, "text": passages.texts[row], "start": start, "end": end}
            if context := passages.contexts[row]:
                payload[CONTEXT] = context
            if before := passages.gaps[row]:
                payload[BEFORE] = before
            if row == begin and (original := passages.originals[index]):
                payload[ORIGINAL] = original
            vector = {DENSE: passages.vectors[row], BM25: sparse[row - first]}
            points.append(Point(_point_id(document_id, generation, row - begin), vector, payload))
    return points


def _point_id(document_id: str, generation: int, ordinal: int) -> str:
    """The UUID of version 5 (RFC 9562) of these three, without the price of the object in between."""
    name = f"{generation}/{ordinal}/{document_id}".encode()
    digits = hashlib.sha1(_NAMESPACE + name, usedforsecurity=False).hexdigest()
    variant = "89ab"[int(digits[16], 16) & 3]
    return f"{digits[:8]}-{digits[8:12]}-5{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:32]}"


def _flags(tags: Mapping[str, Any]) -> Iterator[str]:
    return (flag(path, value) for path, value in walk(tags) if isinstance(value, bool))


def tag_fields(passages: Passages) -> dict[str, models.PayloadSchemaType]:
    """Payload keys of the tags that can have an index of their own (strings and numbers), with its type."""
    types: dict[str, models.PayloadSchemaType] = {}
    if any(TENANT_SEPARATOR in each for each in passages.document_ids):
        types[TENANT_PATH] = models.PayloadSchemaType.KEYWORD
    for tags in passages.tags:
        for path, value in walk(tags):
            if path not in types and value is not None and not isinstance(value, bool):
                is_text = isinstance(value, str)
                types[path] = models.PayloadSchemaType.KEYWORD if is_text else models.PayloadSchemaType.FLOAT
    keys = {path: payload_key(path) for path in types}
    return {key: types[path] for path, key in keys.items() if key is not None}
