"""What a caller may hand in, checked before anything is sent, and cut into batches.

    strings, dicts, Documents, docarray documents --check, convert--> (item, bytes) --Batcher--> lists of items

Every refusal names the item by its position (and id, where it has one) and says what to pass instead. docarray is
never imported here: its objects are recognised only if the caller has imported it.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import AsyncIterable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from flowdex.documents import DocumentBatch, new_id
from flowdex.errors import InvalidInput, TooLarge
from flowdex.fields import joined, write_fields
from flowdex.proto import flowdex_pb2 as pb

__all__ = [
    "MAX_MESSAGE_BYTES",
    "Batcher",
    "Document",
    "WrongType",
    "check_collection",
    "check_text",
    "digest_of",
    "from_docarray",
    "is_docarray",
    "to_docarray",
    "to_message",
]

T = TypeVar("T")

MAX_MESSAGE_BYTES = 64 * 2**20
# A request holds more than its documents: leave room, so that one document that passes here can be sent.
_MAX_DOCUMENT_BYTES = MAX_MESSAGE_BYTES - 64 * 2**10


class WrongType(InvalidInput, TypeError):
    """An argument has the wrong type, such as a bare string where a list of strings is expected."""


@dataclass
class Document:
    """A document to index or encode.

    Attributes:
        text: What is encoded and searched. Made of the fields, where it is not given.
        id: Its identity: indexing the same id again replaces the document. Made up when None.
        tags: JSON-like values to filter searches by and to show with hits.
        embedding: float32 of shape (dim,). Set by `Client.encode`; indexed as the document's one vector, in place of
            the encoder's.
        fields: Its text in parts, in order, such as {"title": ..., "body": ...}; `text` is then all of them, with a
            blank line between.
        segment: How to cut it, where the flow's own way is not right: "passage", "sentence", "markdown" or "document".
    """

    text: str = ""
    id: str | None = None
    tags: dict[str, Any] = field(default_factory=dict)
    embedding: npt.NDArray[np.float32] | None = field(default=None, repr=False, compare=False)
    fields: Mapping[str, str] | None = None
    segment: str | None = None

    def __post_init__(self) -> None:
        if self.fields and not self.text and isinstance(self.fields, Mapping):
            self.text = joined({name: str(text) for name, text in self.fields.items()})


# ---- checks ----


def check_collection(items: Any, what: str) -> None:
    """Refuse single things where several are expected; `what` names them in the message.

    Raises:
        WrongType: `items` is a string, bytes, a mapping, a single document, or cannot be iterated.
        InvalidInput: `items` is known to be empty.
    """
    if isinstance(items, (str, bytes, Mapping, Document)) or is_docarray(items):
        raise WrongType(f"expected several {what}, got one {type(items).__name__}: pass a list")
    if not isinstance(items, (Iterable, AsyncIterable)):
        raise WrongType(f"expected a list or an iterable of {what}, got {type(items).__name__}")
    if length_of(items) == 0:
        raise InvalidInput(f"there are no {what}: the list is empty")


def length_of(items: Any) -> int | None:
    """The number of items where it is known beforehand."""
    try:
        return len(items)
    except TypeError:
        return None


def check_text(text: Any, where: str) -> int:
    """Check that `text` can be encoded; `where` names it in the message.

    Returns:
        Its size in UTF-8 bytes.

    Raises:
        WrongType: It is not a string.
        InvalidInput: It is blank or has lone surrogates.
        TooLarge: It does not fit into one request.
    """
    if not isinstance(text, str):
        raise WrongType(f"{where} must be a string, got {type(text).__name__}")
    if not text or text.isspace():
        raise InvalidInput(f"{where} is blank: leave it out, or give it words")
    try:
        size = len(text) if text.isascii() else len(text.encode())
    except UnicodeEncodeError as error:
        raise InvalidInput(
            f"{where} has a lone surrogate (U+{ord(text[error.start]):04X}) at character {error.start}: it was decoded"
            " wrongly; read its bytes again with the right encoding or with errors='replace'"
        ) from None
    _check_size(size, where)
    return size


def _check_size(size: int, where: str) -> None:
    if size > _MAX_DOCUMENT_BYTES:
        raise TooLarge(
            f"{where} has {size / 2**20:.0f} MiB; one request holds {MAX_MESSAGE_BYTES // 2**20} MiB: split it"
        )


# ---- documents ----


def to_message(item: Any, position: int, *, as_text: bool = False) -> tuple[pb.DocProto, int]:
    """Check one document of any accepted kind and turn it into a protocol message.

    Args:
        item: A string, a mapping with `text` or `fields` (and `id`, `tags`, `embedding`, `segment`), a `Document`, or a
            docarray document.
        position: Its position in the caller's input, for messages.
        as_text: Whether to send the text that its fields make, and not them: encoders take texts.

    Returns:
        The message, always with an id, and its size in bytes.

    Raises:
        InvalidInput: The document cannot be sent; the message names it.
    """
    if is_docarray(item):
        return _docarray_message(item, position, as_text=as_text)
    if isinstance(item, str):
        item = Document(item)
    elif isinstance(item, Mapping):
        item = _from_mapping(item, position)
    elif not isinstance(item, Document):
        raise WrongType(
            f"document {position} must be a string, a mapping with a 'text', a flowdex.Document or a docarray document,"
            f" got {type(item).__name__}"
        )
    where = f"document {position}" + (f" (id {item.id!r})" if item.id else "")
    if item.id is not None and not isinstance(item.id, str):
        raise WrongType(f"{where}: its id must be a string, got {type(item.id).__name__}")
    if not isinstance(item.tags, Mapping):
        raise WrongType(f"{where}: its tags must be a mapping, got {type(item.tags).__name__}")
    if item.fields:
        _check_fields(item.fields, item.text, where)
    if item.text or item.embedding is None:
        check_text(item.text, f"the text of {where}")
    try:
        message = _message(item, as_text=as_text)
    except InvalidInput as error:
        raise InvalidInput(f"{where}: {error.message}") from None
    return _sized(message, where)


def _message(item: Document, *, as_text: bool) -> pb.DocProto:
    batch = DocumentBatch.from_columns(ids=[item.id or new_id()])
    if item.fields and not as_text:
        write_fields(batch, [item.fields])
    elif item.text:
        batch.texts = [item.text]
    if item.tags:
        batch.tags = [item.tags]
    if item.embedding is not None:
        batch.embeddings = _vector(item.embedding)[np.newaxis]
    if item.segment is not None and not as_text:
        batch.set_column("segment", [item.segment])
    return next(iter(batch))


def _from_mapping(item: Mapping[str, Any], position: int) -> Document:
    unknown = set(item) - {"id", "text", "fields", "tags", "embedding", "segment"}
    if unknown or not {"text", "fields", "embedding"} & set(item):
        problem = f"has the keys {sorted(unknown)}" if unknown else f"has no 'text' (only {sorted(item)})"
        raise InvalidInput(
            f"document {position} {problem}: a mapping has id, text or fields, tags, embedding and segment; other "
            "values belong in tags"
        )
    return Document(
        text=item.get("text", ""),
        id=item.get("id"),
        tags=item.get("tags") or {},
        embedding=item.get("embedding"),
        fields=item.get("fields"),
        segment=item.get("segment"),
    )


def _check_fields(fields: Any, text: str, where: str) -> None:
    if not isinstance(fields, Mapping) or not all(isinstance(each, str) for each in (*fields, *fields.values())):
        raise WrongType(f"{where}: its fields must be texts by their names, such as a title and a body")
    if joined(fields) != text:
        raise InvalidInput(f"{where} has a text and other fields: give one of them")


def _vector(value: Any) -> npt.NDArray[np.float32]:
    try:
        vector = np.asarray(value, dtype=np.float32)
    except (TypeError, ValueError):
        vector = np.empty((0, 0), dtype=np.float32)
    if vector.ndim != 1 or not vector.size:
        raise InvalidInput("its embedding must be a list or one-dimensional array of numbers")
    return vector


def digest_of(message: pb.DocProto) -> str:
    """A short string that is another one for another content, id included."""
    return hashlib.blake2b(message.SerializeToString(deterministic=True), digest_size=16).hexdigest()


def _docarray_message(item: Any, position: int, *, as_text: bool) -> tuple[pb.DocProto, int]:
    message = from_docarray(item)
    batch = DocumentBatch([message])
    where = f"document {position}" + (f" (id {batch.ids[0]!r})" if batch.ids[0] else "")
    if not batch.nested("chunks")[0]:  # the chunks of a document stand for it
        try:
            text = batch.texts[0]
        except InvalidInput as error:
            raise InvalidInput(f"{where}: {error.message}") from None
        fields = getattr(item, "fields", None)
        if isinstance(fields, Mapping) and fields:
            _check_fields(fields, text or joined(fields), where)
            text = joined(fields)
            if as_text:
                batch.texts = [text]
                batch.drop("fields")
            else:
                batch.drop("text")
                write_fields(batch, [fields])
        if text is None and batch.column("embedding")[0] is None:
            raise InvalidInput(
                f"{where} ({type(item).__name__}) has no text: its class needs a field 'text' that is set"
            )
        if text is not None:
            check_text(text, f"the text of {where}")
    if not batch.ids[0]:
        batch.ids = [new_id()]
    return _sized(message, where)


def _sized(message: pb.DocProto, where: str) -> tuple[pb.DocProto, int]:
    size = message.ByteSize()
    _check_size(size, where)
    return message, size


# ---- docarray, if the caller uses it ----


def is_docarray(item: Any) -> bool:
    """Whether `item` is a docarray document (`BaseDoc`); False when docarray was never imported."""
    module = sys.modules.get("docarray")
    return module is not None and isinstance(item, module.BaseDoc)


def from_docarray(document: Any) -> pb.DocProto:
    """Convert a docarray document of any class, through bytes: docarray has message classes of its own."""
    message: pb.DocProto = pb.DocProto.FromString(document.to_protobuf().SerializeToString())
    return message


def to_docarray(message: pb.DocProto, cls: type[T]) -> T:
    """Convert a message to a docarray document of class `cls`; fields that the class does not have are left out."""
    from docarray.proto import DocProto

    document: T = cls.from_protobuf(DocProto.FromString(message.SerializeToString()))  # type: ignore[attr-defined]
    return document


# ---- batches ----


class Batcher(Generic[T]):
    """Collects items into batches, each of at most `count` items and, unless a single item is larger, `size` bytes."""

    def __init__(self, count: int, size: int) -> None:
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise InvalidInput(f"batch_size must be a positive integer, got {count!r}")
        self._count, self._size = count, size
        self._items: list[T] = []
        self._bytes = 0

    def add(self, item: T, size: int) -> list[T] | None:
        """Add an item of `size` bytes; returns the batch before it when the item does not fit into that any more."""
        full = None
        if self._items and (len(self._items) >= self._count or self._bytes + size > self._size):
            full = self.rest()
        self._items.append(item)
        self._bytes += size
        return full

    def rest(self) -> list[T]:
        """Take what is collected so far; may be empty."""
        items, self._items, self._bytes = self._items, [], 0
        return items
