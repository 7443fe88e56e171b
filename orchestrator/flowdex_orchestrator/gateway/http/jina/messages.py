"""Jina's requests and replies as JSON: documents as plain objects, as docarray writes and reads them.

    {"data": [{"text": ...}], "parameters": {}, "execEndpoint": "/x"} --JinaRequest--> DocumentBatch, endpoint, ...
    DataRequestProto --reply_json--> {"header": {}, "parameters": {}, "routes": [], "data": [{"text": ..., ...}]}

JSON has no arrays, no bytes and no nested documents of its own: what is read into them is decided by the fields that
everybody's documents share, `embedding` and `tensor`, `chunks` and `matches`. All other values stay what JSON says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from google.protobuf.json_format import MessageToDict
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, field_validator
from pydantic_core import PydanticCustomError

from flowdex import wire
from flowdex.documents import DocumentBatch, new_id
from flowdex.errors import InvalidInput
from flowdex.nodes import EMBEDDING_TYPE, ID_TYPE, NDARRAY_TYPE, as_array, node_to_value, set_array, set_value
from flowdex.proto import flowdex_pb2 as pb
from flowdex_orchestrator.gateway.http.models.base import kind

__all__ = ["JinaReply", "JinaRequest", "documents_from_json", "documents_to_json", "reply_json"]

_ARRAYS = {"embedding": EMBEDDING_TYPE, "tensor": NDARRAY_TYPE}
_OLD_FIELD = "granularity"
_NESTED = frozenset({"chunks", "matches"})
_DEEPEST = 16  # documents inside of each other: protobuf refuses to read more than 100 messages, each costs four


class JinaHeader(BaseModel):
    """The header of a request, as far as it says what to do."""

    model_config = ConfigDict(extra="ignore")

    request_id: str | None = Field(default=None, validation_alias=AliasChoices("request_id", "requestId"))
    exec_endpoint: str | None = Field(default=None, validation_alias=AliasChoices("exec_endpoint", "execEndpoint"))
    target_executor: str | None = Field(
        default=None, validation_alias=AliasChoices("target_executor", "targetExecutor")
    )


class JinaRequest(BaseModel):
    """A request of Jina's HTTP contract; keys are read in snake_case and camelCase, others are ignored."""

    model_config = ConfigDict(extra="ignore")

    data: list[dict[str, Any]] = Field(
        default_factory=list, description="Documents: any fields, such as `id`, `text`, `tags`, `embedding`."
    )
    parameters: dict[str, Any] | None = Field(
        default=None, description="For the executors; an object under an executor's name is for that one alone."
    )
    exec_endpoint: str | None = Field(
        default=None,
        validation_alias=AliasChoices("exec_endpoint", "execEndpoint"),
        serialization_alias="execEndpoint",
        description="The endpoint, such as /search.",
    )
    target_executor: str | None = Field(
        default=None,
        validation_alias=AliasChoices("target_executor", "targetExecutor"),
        serialization_alias="targetExecutor",
        description="A regular expression; only executors whose name it matches are called.",
    )
    header: JinaHeader | None = Field(default=None, description="May hold requestId and targetExecutor instead.")

    @field_validator("data", mode="before")
    @classmethod
    def _documents(cls, data: Any) -> Any:
        if isinstance(data, Mapping):  # one document, or the list under `docs` that older clients send
            data = data["docs"] if isinstance(data.get("docs"), list) else [data]
        if data is None:
            return []
        if not isinstance(data, list):
            raise PydanticCustomError("list_type", "must be a list of documents, not {kind}", {"kind": kind(data)})
        return [{"text": each} if isinstance(each, str) else each for each in data]

    @property
    def old(self) -> bool:
        """Whether its documents are those of docarray before 0.30, which writes out every field they can have."""
        return bool(self.data) and _OLD_FIELD in self.data[0]

    @property
    def endpoint(self) -> str | None:
        """The endpoint it names, if it does."""
        return self.exec_endpoint or (self.header.exec_endpoint if self.header else None)

    @property
    def target(self) -> str | None:
        """The executors it names, if it does."""
        return self.target_executor or (self.header.target_executor if self.header else None)

    @property
    def request_id(self) -> str | None:
        """The name it gives itself."""
        return self.header.request_id if self.header else None

    def to_bytes(self, endpoint: str) -> bytes:
        """Serialise as a `DataRequestProto`.

        Raises:
            InvalidInput: A document or parameter holds what the wire cannot.
        """
        return wire.build_request(
            endpoint,
            documents_from_json(self.data),
            parameters=self.parameters,
            request_id=self.request_id,
            target_executor=self.target,
        )


class JinaReply(BaseModel):
    """A reply of Jina's HTTP contract."""

    header: dict[str, Any]
    parameters: dict[str, Any] | None = None
    routes: list[dict[str, Any]] | None = None
    data: list[dict[str, Any]]


def documents_from_json(documents: Sequence[Mapping[str, Any]]) -> DocumentBatch:
    """Read documents; those without an id get one.

    Raises:
        InvalidInput: A value has no place on the wire.
    """
    batch = DocumentBatch([pb.DocProto() for _ in documents])
    for index, (doc, values) in enumerate(zip(batch, documents, strict=True)):
        try:
            _write(doc, values, _DEEPEST)
        except InvalidInput as error:
            raise InvalidInput(f"document {index}: {error.message}") from None
    return batch


def _write(doc: pb.DocProto, values: Mapping[str, Any], depth: int) -> None:
    if depth <= 0:
        raise InvalidInput(f"documents inside of each other, more than {_DEEPEST} deep, cannot be sent")
    for name, value in values.items():
        node = doc.data[name]
        if name in _ARRAYS and isinstance(value, list):
            array = as_array(value, f"field {name!r}")
            set_array(node, array.astype(np.float32) if array.dtype.kind == "f" else array, _ARRAYS[name])
        elif name in _NESTED and isinstance(value, list) and all(isinstance(each, Mapping) for each in value):
            node.doc_array.SetInParent()
            for each in value:
                _write(node.doc_array.docs.add(), each, depth - 1)
        else:
            set_value(node, value)
    if not values.get("id"):
        doc.data["id"].text = new_id()
    doc.data["id"].type = ID_TYPE


def documents_to_json(batch: DocumentBatch, *, old: bool = False) -> list[dict[str, Any]]:
    """Write documents as objects; arrays stay arrays, which `replies.dump` writes as lists.

    Args:
        batch: The documents.
        old: Whether for docarray before 0.30, where a score is an object with a `value`.
    """
    found = [{name: _plain(node_to_value(node), old) for name, node in doc.data.items()} for doc in batch]
    for document in found if old else ():
        if isinstance(scores := document.get("scores"), dict):
            document["scores"] = {
                name: {"value": value} for name, value in scores.items() if isinstance(value, (int, float))
            }
    return found


def _plain(value: Any, old: bool) -> Any:
    if isinstance(value, pb.DocProto):
        return documents_to_json(DocumentBatch([value]), old=old)[0]
    if isinstance(value, pb.DocListProto):
        return documents_to_json(DocumentBatch(value.docs), old=old)
    if isinstance(value, dict):
        return {key: _plain(item, old) for key, item in value.items()}
    return [_plain(item, old) for item in value] if isinstance(value, (list, tuple, set)) else value


def reply_json(reply: pb.DataRequestProto, *, old: bool = False) -> dict[str, Any]:
    """A reply, as Jina writes it; `old` as for `documents_to_json`."""
    head = pb.DataRequestProtoWoData(header=reply.header, parameters=reply.parameters, routes=reply.routes)
    content: dict[str, Any] = MessageToDict(head, preserving_proto_field_name=True, use_integers_for_enums=True)
    return {**content, "data": documents_to_json(wire.documents_of(reply), old=old)}
