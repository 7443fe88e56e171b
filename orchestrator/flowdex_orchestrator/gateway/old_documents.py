"""Documents of docarray before 0.30, which clients like clip-client still send: to today's and back.

    DataRequestProto with DocumentArrayProto inside --upgrade--> with DocListProto --router--> --downgrade--> as it came

The two share their field numbers but not their contents, and nothing in a request says which it is; the first document
does (`is_old`). Fields that an old document has no place for (`highlights`, `error`, ...) travel in its `_metadata`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from flowdex.documents import DocumentBatch, new_id
from flowdex.errors import InvalidInput
from flowdex.nodes import EMBEDDING_TYPE, ID_TYPE, NDARRAY_TYPE, array_from_node, node_to_value, set_value
from flowdex.proto import flowdex_pb2 as pb
from flowdex.proto.encoding import delimited
from flowdex.wire import dict_from_struct, serialize_data, struct_from_dict, whole_numbers

__all__ = ["documents_field", "downgrade", "is_old", "upgrade"]

_DATA, _DOCS, _FIRST, _VALUE = 0x22, 0x0A, 0x0A, 0x12  # field 4; field 1; the key and the value of a map's entry
_TEXTS = ("parent_id", "uri", "modality", "mime_type")
_NUMBERS = ("granularity", "adjacency", "weight", "offset")
_ARRAYS = {"tensor": NDARRAY_TYPE, "embedding": EMBEDDING_TYPE}
_NESTED = ("chunks", "matches")
_SCORES = ("scores", "evaluations")
_PLAIN: dict[str, type | tuple[type, ...]] = {
    "id": str,
    "blob": bytes,
    "text": str,
    **dict.fromkeys(_TEXTS, str),
    **dict.fromkeys(_NUMBERS, (int, float)),
}
_KNOWN = frozenset({"location", "tags", *_PLAIN, *_ARRAYS, *_NESTED, *_SCORES})


def is_old(data: bytes | memoryview) -> bool:
    """Whether the serialised field `data` of a request holds old documents; it looks at the first of them alone.

    Today's document is nothing but the entries of a map, each a key, followed by a value or nothing; an old one begins
    with its id.
    """
    try:
        documents, _ = _inside(data, _inside(data, 0, _DATA)[0], _DOCS)
        position, end = _inside(data, documents, _FIRST)
        if position == end:
            return False
        entry = _inside(data, position, _FIRST)
    except (IndexError, ValueError):
        return False
    try:
        _, key_end = _inside(data, entry[0], _FIRST)
        return key_end != entry[1] and (key_end > entry[1] or data[key_end] != _VALUE)
    except (IndexError, ValueError):
        return True


def _inside(data: bytes | memoryview, position: int, tag: int) -> tuple[int, int]:
    """Where the content of the field at `position` begins and ends, which must have this tag."""
    if data[position] != tag:
        raise ValueError(f"field {data[position]:#x} in the place of {tag:#x}")
    length, start = _varint(data, position + 1)
    return start, start + length


def _varint(data: bytes | memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7


def upgrade(data: bytes | memoryview) -> bytes:
    """The serialised field `data` of a request, with today's documents in the place of old ones.

    Raises:
        InvalidInput: They cannot be read, or hold what cannot be carried, such as a sparse array.
    """
    try:
        old = pb.OldDocumentListProto.FromString(documents_field(data))
        batch = DocumentBatch([pb.DocProto() for _ in old.docs])
        for doc, source in zip(batch, old.docs, strict=True):
            _read(doc, source)
        return serialize_data(batch)
    except DecodeError:
        raise InvalidInput("the documents could not be decoded: neither a DocList nor a DocumentArray") from None


def downgrade(data: bytes | memoryview) -> bytes:
    """The serialised field `data` of a reply, with old documents in the place of today's."""
    documents = pb.DocListProto.FromString(documents_field(data))
    parts = []
    for doc in documents.docs:
        written = _written(doc).SerializeToString()
        parts += [delimited(1, len(written)), written]
    docs = b"".join(parts)
    content = delimited(1, len(docs))  # DataContentProto.docs
    return b"".join((delimited(4, len(content) + len(docs)), content, docs))


def documents_field(data: bytes | memoryview) -> bytes:
    """The documents of a serialised field `data`."""
    if not data:
        return b""
    start = _varint(data, 1)[1]
    if start >= len(data) or data[start] != _DOCS:
        return b""
    length, start = _varint(data, start + 1)
    return bytes(data[start : start + length])


# ---- one document ----


def _read(doc: pb.DocProto, old: pb.OldDocumentProto) -> None:
    values: dict[str, Any] = {name: getattr(old, name) for name in ("text", "blob", *_TEXTS, *_NUMBERS)}
    values["location"] = list(old.location)
    values["tags"] = whole_numbers(dict_from_struct(old.tags))
    for name in _SCORES:
        values[name] = {key: score.value for key, score in getattr(old, name).items()}
    for name, value in values.items():
        if value:
            set_value(doc.data[name], value)
    doc.data["id"].text = old.id or new_id()
    doc.data["id"].type = ID_TYPE
    for name, kind in _ARRAYS.items():
        if old.HasField(name):
            _read_array(doc.data[name], getattr(old, name), name, kind)
    for name in _NESTED:
        if nested := getattr(old, name):
            node = doc.data[name]
            node.doc_array.SetInParent()
            for each in nested:
                _read(node.doc_array.docs.add(), each)


def _read_array(node: pb.NodeProto, array: pb.OldNdArrayProto, name: str, kind: str) -> None:
    if not array.dense.dtype:
        raise InvalidInput(f"field {name!r} holds no dense array; sparse ones are not read: send it dense")
    node.ndarray.dense.CopyFrom(array.dense)
    node.type = kind


def _written(doc: pb.DocProto) -> pb.OldDocumentProto:
    values: dict[str, Any] = {name: node_to_value(node) for name, node in doc.data.items()}
    old = pb.OldDocumentProto()
    for name in _ARRAYS:  # first of all: tensor, blob and text share a place, and the last one written has it
        _write_array(old, name, doc.data.get(name))
    for name, kind in _PLAIN.items():
        if isinstance(value := values.get(name), kind) and value:
            setattr(old, name, value)
    if isinstance(location := values.get("location"), list):
        old.location.extend(float(each) for each in location if isinstance(each, (int, float)))
    if isinstance(tags := values.get("tags"), dict):
        old.tags.CopyFrom(struct_from_dict(_json(tags)))
    for name in _SCORES:
        for key, value in _numbers(values.get(name)):
            getattr(old, name)[key].value = value
    for name in _NESTED:
        getattr(old, name).extend(_written(each) for each in _documents(values.get(name)))
    rest = {name: value for name, value in values.items() if name not in _KNOWN and value is not None}
    old.metadata.CopyFrom(struct_from_dict(_json(rest)))
    return old


def _write_array(old: pb.OldDocumentProto, name: str, node: pb.NodeProto | None) -> None:
    array = None if node is None else array_from_node(node)
    if array is not None:
        target: pb.OldNdArrayProto = getattr(old, name)
        target.cls_name = "numpy"
        target.dense.buffer = array.tobytes()
        target.dense.shape.extend(array.shape)
        target.dense.dtype = array.dtype.str


def _documents(value: Any) -> Iterable[pb.DocProto]:
    if isinstance(value, pb.DocListProto):
        return value.docs
    return [each for each in value if isinstance(each, pb.DocProto)] if isinstance(value, list) else ()


def _numbers(scores: Any) -> Iterable[tuple[str, float]]:
    for key, value in scores.items() if isinstance(scores, dict) else ():
        number = value.get("value") if isinstance(value, dict) else value
        if isinstance(number, (int, float)) and not isinstance(number, bool) and math.isfinite(number):
            yield key, number


def _json(value: Any) -> Any:
    """What of a value a JSON-like structure can hold: arrays as lists, and neither bytes nor documents."""
    if isinstance(value, dict):
        return {key: _json(item) for key, item in value.items() if _has_json(item)}
    if isinstance(value, (list, tuple, set)):
        return [_json(item) for item in value if _has_json(item)]
    return value.tolist() if isinstance(value, np.ndarray) else value


def _has_json(value: Any) -> bool:
    return not isinstance(value, (bytes, pb.DocProto, pb.DocListProto))
