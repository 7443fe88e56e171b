"""The columnar codec: a list of documents on the wire, read and written as columns.

    DocListProto bytes --from_bytes--> DocumentBatch --to_bytes--> DocListProto bytes
                                         .ids .texts .embeddings .tags .column(...)
                                         .nested("chunks"), .nested("matches")

A `DocumentBatch` is a view: it holds the protobuf messages themselves, a column is read out of them when asked for and
written straight back, and a field that nobody touches leaves as it came, unknown fields included. docarray builds one
pydantic object a document for the same purpose; `benchmarks/codec.py` shows what that costs.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError

from flowdex.errors import InvalidInput
from flowdex.nodes import EMBEDDING_TYPE, ID_TYPE, array_from_node, as_array, checked_text, node_to_value, set_value
from flowdex.proto import flowdex_pb2 as pb
from flowdex.proto.encoding import delimited

__all__ = ["DocumentBatch", "new_id", "new_ids"]


def new_id() -> str:
    """A random document id: 32 hexadecimal digits, as docarray makes them."""
    return os.urandom(16).hex()


def new_ids(count: int) -> list[str]:
    """`count` random document ids, from one call for randomness."""
    digits = os.urandom(16 * count).hex()
    return [digits[at : at + 32] for at in range(0, len(digits), 32)]


class DocumentBatch:
    """Documents as columns, over their protobuf messages.

    Two batches may share messages: `select`, `nested` and `flatten` return views, and writing a column of a view
    writes into the same documents.

    Args:
        docs: The messages, in order.
    """

    __slots__ = ("_docs",)

    def __init__(self, docs: Sequence[pb.DocProto] = ()) -> None:
        self._docs = list(docs)

    # ---- making and leaving ----

    @classmethod
    def from_columns(
        cls,
        *,
        ids: Sequence[str] | None = None,
        texts: Sequence[str | None] | None = None,
        embeddings: npt.NDArray[Any] | None = None,
        tags: Sequence[Mapping[str, Any]] | None = None,
        **columns: Sequence[Any],
    ) -> DocumentBatch:
        """Build documents from columns of equal length; ids are made up where none are given.

        Args:
            ids: Document ids.
            texts: Texts; None leaves the field empty.
            embeddings: Array of shape (n, dim), any float dtype; sent as it is.
            tags: One dictionary a document.
            **columns: Any further fields, by name.

        Raises:
            InvalidInput: Columns differ in length, or hold values that the wire cannot carry.
        """
        lengths = {
            name: _length(name, column)
            for name, column in {"ids": ids, "texts": texts, "embeddings": embeddings, "tags": tags, **columns}.items()
            if column is not None
        }
        if len(set(lengths.values())) > 1:
            raise InvalidInput(f"columns differ in length: {lengths}")
        size = next(iter(lengths.values()), 0)
        batch = cls([pb.DocProto() for _ in range(size)])
        batch.ids = ids if ids is not None else new_ids(size)
        if texts is not None:
            batch.texts = texts
        if embeddings is not None:
            batch.embeddings = embeddings
        if tags is not None:
            batch.tags = tags
        for name, values in columns.items():
            batch.set_column(name, values)
        return batch

    @classmethod
    def from_proto(cls, message: pb.DocListProto) -> DocumentBatch:
        """View the documents of a message."""
        return cls(message.docs)

    @classmethod
    def from_bytes(cls, data: bytes) -> DocumentBatch:
        """Parse a serialised `DocListProto`.

        Raises:
            InvalidInput: The bytes are not one (invalid UTF-8 in a text included).
        """
        try:
            return cls.from_proto(pb.DocListProto.FromString(data))
        except DecodeError:
            raise InvalidInput("the documents could not be decoded: not a DocListProto, or text not in UTF-8") from None

    def to_proto(self) -> pb.DocListProto:
        """Copy the documents into one message."""
        return pb.DocListProto(docs=self._docs)

    def to_bytes(self) -> bytes:
        """Serialise as a `DocListProto`."""
        # Each document by itself, then joined: 350 k documents/s of 384-d vectors, against 150 k through one message,
        # which costs a copy of everything and a buffer that grows by doubling.
        parts: list[bytes] = []
        for doc in self._docs:
            data = doc.SerializeToString()
            parts += (delimited(1, len(data)), data)  # DocListProto.docs is field 1
        return b"".join(parts)

    @staticmethod
    def concatenate(batches: Iterable[DocumentBatch]) -> DocumentBatch:
        """One batch that views the documents of all, in order."""
        return DocumentBatch([doc for batch in batches for doc in batch._docs])

    # ---- as a sequence ----

    def __len__(self) -> int:
        return len(self._docs)

    def __bool__(self) -> bool:
        return bool(self._docs)

    def __iter__(self) -> Iterator[pb.DocProto]:
        return iter(self._docs)

    def __repr__(self) -> str:
        return f"DocumentBatch({len(self)} documents, fields: {', '.join(self.fields()) or 'none'})"

    def select(self, indices: Iterable[int]) -> DocumentBatch:
        """View the documents at `indices`, in that order."""
        return DocumentBatch([self._docs[index] for index in indices])

    def copy(self) -> DocumentBatch:
        """Copy the documents: what is written to the copy is not written to these."""
        copies = [pb.DocProto() for _ in self._docs]
        for new, doc in zip(copies, self._docs, strict=True):
            new.CopyFrom(doc)
        return DocumentBatch(copies)

    def fields(self) -> list[str]:
        """Names of all fields that hold something in at least one document, sorted."""
        names: set[str] = set()
        for doc in self._docs:
            names.update(name for name, node in doc.data.items() if node.WhichOneof("content") is not None)
        return sorted(names)

    # ---- any column ----

    def column(self, name: str, default: Any = None) -> list[Any]:
        """Read a field of every document; `default` where it is absent or empty. Nested documents stay messages."""
        values: list[Any] = []
        for doc in self._docs:
            node = doc.data.get(name)  # indexing a protobuf map would insert a missing key
            value = None if node is None else node_to_value(node)
            values.append(default if value is None else value)
        return values

    def has(self, name: str) -> list[bool]:
        """Whether a field holds something, of every document; its value is not read."""
        nodes = (doc.data.get(name) for doc in self._docs)
        return [node is not None and node.WhichOneof("content") is not None for node in nodes]

    def set_column(self, name: str, values: Sequence[Any]) -> None:
        """Write a field of every document; None empties it.

        Raises:
            InvalidInput: The length differs from the batch's, or a value cannot be carried.
        """
        self._check_length(name, values)
        checked_text(name, "the name of a field")
        index = 0
        try:
            for index, (doc, value) in enumerate(zip(self._docs, values, strict=True)):  # noqa: B007
                set_value(doc.data[name], value)
        except InvalidInput as error:
            raise InvalidInput(f"document {index}: field {name!r}: {error.message}") from None

    def drop(self, *names: str) -> None:
        """Remove fields from every document."""
        for doc in self._docs:
            for name in names:
                doc.data.pop(name, None)

    def keep(self, *names: str) -> None:
        """Remove every field but these from every document."""
        for doc in self._docs:
            for name in [name for name in doc.data if name not in names]:
                del doc.data[name]

    def _check_length(self, name: str, values: Sequence[Any] | npt.NDArray[Any]) -> None:
        length = _length(name, values)
        if length != len(self):
            raise InvalidInput(f"column {name!r} has {length} values for {len(self)} documents")

    def _strings(self, name: str) -> list[str | None]:
        values: list[str | None] = []
        for index, doc in enumerate(self._docs):
            node = doc.data.get(name)
            if node is None:
                values.append(None)
            elif text := node.text:  # the usual case, without asking for the kind
                values.append(text)
            elif (kind := node.WhichOneof("content")) is None:
                values.append(None)
            elif kind == "text":
                values.append("")
            else:
                raise InvalidInput(f"document {index}: field {name!r} must be a string, got a value of kind {kind!r}")
        return values

    def _set_strings(self, name: str, values: Sequence[str | None], type_name: str = "") -> None:
        self._check_length(name, values)
        index, value = 0, None
        try:
            for index, (doc, value) in enumerate(zip(self._docs, values, strict=True)):  # noqa: B007
                node = doc.data[name]
                node.Clear()
                if value is not None:
                    node.text = value
                    if type_name:
                        node.type = type_name
        except (TypeError, UnicodeError):
            checked_text(value, f"document {index}: field {name!r}")
            raise

    # ---- the columns everybody uses ----

    @property
    def ids(self) -> list[str]:
        """Document ids; an absent id reads as the empty string."""
        return [value or "" for value in self._strings("id")]

    @ids.setter
    def ids(self, values: Sequence[str]) -> None:
        self._set_strings("id", values, ID_TYPE)

    @property
    def texts(self) -> list[str | None]:
        """Texts; None where a document has none."""
        return self._strings("text")

    @texts.setter
    def texts(self, values: Sequence[str | None]) -> None:
        self._set_strings("text", values)

    @property
    def tags(self) -> list[dict[str, Any]]:
        """Tags, as dictionaries; empty where a document has none."""
        values = self.column("tags")
        for index, value in enumerate(values):
            if value is None:
                values[index] = {}
            elif not isinstance(value, dict):
                raise InvalidInput(f"document {index}: field 'tags' must be a dictionary")
        return values

    @tags.setter
    def tags(self, values: Sequence[Mapping[str, Any]]) -> None:
        self.set_column("tags", values)

    @property
    def embeddings(self) -> npt.NDArray[np.float32] | None:
        """All vectors as one new array, float32 of shape (n, dim); None when no document has one.

        Raises:
            InvalidInput: Some documents have a vector and others none, or sizes differ.
        """
        return self.vectors("embedding")

    @embeddings.setter
    def embeddings(self, values: npt.NDArray[Any]) -> None:
        self.set_vectors("embedding", values)

    def vectors(self, name: str) -> npt.NDArray[np.float32] | None:
        """Read any field of vectors as one float32 array of shape (n, dim); see `embeddings`."""
        if not self._docs:
            return None
        nodes = [doc.data.get(name) for doc in self._docs]
        joined = self._join_equal_rows(nodes)
        if joined is not None:
            return joined
        missing = [index for index, node in enumerate(nodes) if node is None or node.WhichOneof("content") is None]
        if len(missing) == len(nodes):
            return None
        if missing:
            raise InvalidInput(f"document {missing[0]} has no {name!r}, while others of the same request have one")
        return self._vectors_one_by_one(name, nodes)

    @staticmethod
    def _join_equal_rows(nodes: list[pb.NodeProto | None]) -> npt.NDArray[np.float32] | None:
        """The usual case, float32 rows of one size, without an array object for each; None if it is another one."""
        if nodes[0] is None:
            return None
        shape = list(nodes[0].ndarray.dense.shape)
        if len(shape) != 1 or not shape[0]:
            return None
        size, buffers = 4 * shape[0], []
        for node in nodes:
            if node is None:
                return None
            dense = node.ndarray.dense
            buffer = dense.buffer
            if len(buffer) != size or dense.dtype != "<f4" or dense.shape != shape:
                return None
            buffers.append(buffer)
        return np.frombuffer(bytearray().join(buffers), dtype="<f4").reshape(len(nodes), shape[0])

    @staticmethod
    def _vectors_one_by_one(name: str, nodes: list[pb.NodeProto | None]) -> npt.NDArray[np.float32]:
        rows: list[npt.NDArray[Any]] = []
        for index, node in enumerate(nodes):
            assert node is not None
            row = array_from_node(node)
            if row is None or row.dtype.kind not in "fiub":
                raise InvalidInput(f"document {index}: {name!r} must be a vector of numbers")
            row = row.reshape(-1) if row.ndim == 2 and 1 in row.shape else row
            if row.ndim != 1:
                raise InvalidInput(f"document {index}: {name!r} must be one-dimensional, got shape {list(row.shape)}")
            if rows and len(row) != len(rows[0]):
                raise InvalidInput(f"document {index}: {name!r} has {len(row)} values, the first has {len(rows[0])}")
            rows.append(row)
        with np.errstate(
            over="ignore"
        ):  # a float64 beyond float32 becomes infinite, and is found by whoever checks that
            return np.stack(rows).astype(np.float32, copy=False)

    def set_vectors(self, name: str, values: npt.NDArray[Any]) -> None:
        """Write any field of vectors from an array of shape (n, dim); its dtype is kept."""
        array = as_array(values, f"field {name!r}")
        if array.ndim < 2:
            raise InvalidInput(f"{name!r} must be an array with a row for each document, got shape {list(array.shape)}")
        self._check_length(name, array)
        # All but the values is equal in every row, and copied: 400 k documents/s, against 260 k with the values inside
        # of what is copied, and 190 k when each attribute is assigned.
        template = pb.NodeProto(type=EMBEDDING_TYPE)
        template.ndarray.dense.shape.extend(array.shape[1:])
        template.ndarray.dense.dtype = array.dtype.str
        for doc, row in zip(self._docs, array, strict=True):
            node = doc.data[name]
            node.CopyFrom(template)
            node.ndarray.dense.buffer = row.tobytes()

    # ---- nested documents ----

    def nested(self, name: str) -> list[DocumentBatch]:
        """View the documents nested in field `name` ("chunks", "matches"), one batch a document; empty where absent."""
        batches: list[DocumentBatch] = []
        for index, doc in enumerate(self._docs):
            node = doc.data.get(name)
            kind = None if node is None else node.WhichOneof("content")
            if node is None or kind is None:
                batches.append(DocumentBatch())
            elif kind == "doc_array":
                batches.append(DocumentBatch(node.doc_array.docs))
            elif kind == "list" and all(item.WhichOneof("content") == "doc" for item in node.list.data):
                batches.append(DocumentBatch([item.doc for item in node.list.data]))
            else:
                raise InvalidInput(
                    f"document {index}: field {name!r} must hold documents, not a value of kind {kind!r}"
                )
        return batches

    def set_nested(self, name: str, batches: Sequence[DocumentBatch]) -> None:
        """Put copies of `batches[i]` into field `name` of document i."""
        self._check_length(name, batches)
        for doc, batch in zip(self._docs, batches, strict=True):
            node = doc.data[name]
            node.Clear()
            node.doc_array.SetInParent()
            node.doc_array.docs.extend(batch)

    def flatten(self, name: str) -> tuple[DocumentBatch, npt.NDArray[np.int64]]:
        """View all documents nested in `name` as one batch.

        Returns:
            The batch, and offsets, int64 of shape (n + 1,): those of document i are `offsets[i]:offsets[i + 1]`.
        """
        batches = self.nested(name)
        offsets = np.zeros(len(batches) + 1, dtype=np.int64)
        np.cumsum([len(batch) for batch in batches], out=offsets[1:])
        return DocumentBatch.concatenate(batches), offsets


def _length(name: str, column: Sequence[Any] | npt.NDArray[Any]) -> int:
    if isinstance(column, (str, bytes)) or not hasattr(column, "__len__"):
        raise InvalidInput(
            f"column {name!r} must be a list with a value for each document, not {type(column).__name__}"
        )
    return len(column)
