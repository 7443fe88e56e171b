"""Valid requests of every surface, which the mutations start from."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from flowdex import wire
from flowdex.documents import DocumentBatch
from flowdex.fields import write_fields
from flowdex.proto import flowdex_pb2 as pb
from flowdex.proto.encoding import delimited

__all__ = ["BERT_TEXTS", "GRPC", "HTTP", "JINA", "STREAM_DOCS", "Http"]

DIMENSIONS = 64  # of the vectors of the flow's encoder


class Http(NamedTuple):
    """One HTTP request; `body` is a JSON value, None for no body."""

    method: str
    path: str
    body: Any = None


_FILTER = {
    "year": {"$gte": 1960, "$lt": 2000},
    "$or": [{"lang": "en"}, {"lang": {"$in": ["de", "fr"]}}],
    "$not": {"draft": True},
    "when": {"$gt": "2020-01-01"},
    "a.b[]": {"$exists": True},
}
_SEARCH = {
    "query": ["first people on the Moon", "cats"],
    "limit": 5,
    "offset": 1,
    "filter": _FILTER,
    "mode": "hybrid",
    "passages": 2,
    "threshold": 0.0,
    "fusion": {"method": "rrf", "k": 60, "weights": {"dense": 2, "sparse": 1}},
    "candidates": 20,
    "explain": True,
    "diversity": {"weight": 0.3, "candidates": 20},
    "group": "document",
    "highlight": True,
    "aggregate": {"method": "softmax", "top": 3, "temperature": 0.5},
    "rerank": "none",
    "parameters": {"ranker": {"limit": 3}, "indexer__mode": "sparse"},
}
_DOCUMENTS = [
    {
        "id": "apollo",
        "text": "Apollo 11 landed on the Moon.",
        "tags": {"year": 1969, "lang": "en", "a": {"b": [1, "x"]}},
    },
    {"id": "cat", "fields": {"title": "Cats", "body": "Cats purr."}, "segment": "sentence", "digest": "d"},
    {"id": "own", "text": "a vector of its own", "embedding": [0.125] * DIMENSIONS, "tags": {"draft": False}},
]
_ENCODE = {
    "texts": ["The quick brown fox", {"text": "Who?", "text_pair": "Me."}, {"words": ["cut", "already"]}],
    "encoding": "float",
    "normalize": True,
    "dimensions": 32,
    "dtype": "float32",
    "receipt": True,
}
_MODEL = "encoder"

HTTP = (
    Http("POST", "/encode", _ENCODE),
    Http("POST", "/encode", {"texts": "one text", "encoding": "base64", "dtype": "int8"}),
    Http("POST", "/encode", {"id": 7, "texts": ["of", "bert-as-service"], "is_tokenized": False}),
    Http("POST", "/index", {"documents": _DOCUMENTS, "segment": "passage", "parameters": {}}),
    Http("POST", "/search", _SEARCH),
    Http("POST", "/search", {"query": "moon", "fusion": "dbsf", "group": "passage", "diversity": 0.5}),
    Http("POST", "/rank", {"query": "moon", "texts": ["Cats purr.", "Apollo landed."], "method": "dense", "top": 1}),
    Http("POST", "/attention", {"text": "where", "text_pair": "there", "layers": [0], "format": "json"}),
    Http("POST", "/interaction", {"query": "moon", "text": "Apollo landed on the Moon."}),
    Http("POST", "/get", {"ids": ["apollo", "none"], "content": True, "passages": True, "embeddings": True}),
    Http("POST", "/scroll", {"limit": 2, "filter": _FILTER, "cursor": None}),
    Http("POST", "/count", {"filter": _FILTER}),
    Http("POST", "/map", {"limit": 20, "ids": ["apollo"], "query": "moon", "points": True}),
    Http("POST", "/compare", {"texts": ["a", "b c", "d"], "queries": ["a"]}),
    Http("GET", "/documents?limit=2&filter=%7B%22year%22%3A1969%7D"),
    Http("GET", "/documents/apollo?passages=true&embeddings=false"),
    Http("DELETE", "/documents/cat"),
    Http("DELETE", "/documents?id=cat&id=none"),
    Http("DELETE", "/documents", {"ids": ["cat"], "filter": None}),
    Http("POST", "/post", {"data": [{"text": "a", "tags": {"a": 1}}], "parameters": {}, "execEndpoint": "/encode"}),
    Http("POST", "/search", {"data": [{"text": "a"}], "parameters": {"limit": 2}, "header": {"request_id": "r"}}),
    Http("POST", "/v1/embeddings", {"model": _MODEL, "input": ["a", "b"], "encoding_format": "float", "dimensions": 8}),
    Http("POST", "/v1/embeddings", {"model": _MODEL, "input": "a", "encoding_format": "base64", "user": "u"}),
    Http("POST", "/v1/rerank", {"model": "ranker", "query": "moon", "documents": ["a", {"text": "b"}], "top_n": 1}),
    Http("POST", "/v2/rerank", {"model": "ranker", "query": "moon", "documents": ["a", "b"], "top_n": 2}),
    Http("POST", "/embed", {"inputs": ["a", "b"], "normalize": True, "truncate": True, "dimensions": 16}),
    Http("POST", "/embed_all", {"inputs": "a"}),
    Http("POST", "/embed_sparse", {"inputs": ["apollo moon"]}),
    Http("POST", "/similarity", {"inputs": {"source_sentence": "a", "sentences": ["b", "c"]}}),
    Http("POST", "/rerank", {"query": "moon", "texts": ["a", "b"], "raw_scores": True, "return_text": True}),
    Http("POST", "/tokenize", {"inputs": ["a b"], "add_special_tokens": True}),
    Http("POST", "/decode", {"ids": [[1, 2, 3]], "skip_special_tokens": True}),
    Http("GET", "/v1/models"),
    Http("GET", "/v1/models/encoder"),
    Http("GET", "/status"),
    Http("GET", "/metrics"),
    Http("GET", "/health/ready"),
    Http("GET", "/info"),
    Http("GET", "/openapi.json"),
    Http("GET", "/status/server"),
)

JINA = (
    {
        "data": [{"id": "a", "text": "text", "embedding": [1.0, 2.0], "chunks": [{"text": "c"}]}],
        "execEndpoint": "/encode",
    },
    {"data": [{"text": "moon"}], "parameters": {"limit": 2, "filter": _FILTER}, "execEndpoint": "/search"},
    {"data": [], "execEndpoint": "/count", "targetExecutor": "indexer", "header": {"requestId": "r"}},
)
"""Objects of Jina's WebSocket and POST /post."""

BERT_TEXTS = (["a text", "another"], [["in", "tokens"]], ["ünïcödé 漢字"])


def _documents() -> DocumentBatch:
    batch = DocumentBatch.from_columns(
        ids=["apollo", "cat"],
        texts=["Apollo 11 landed on the Moon. It was July.", None],
        tags=[{"year": 1969, "list": [1, "x", None]}, {"lang": "en", "t": (1, 2), "z": b"raw"}],
        digest=["d", None],
        segment=["sentence", None],
    )
    write_fields(batch, [None, {"title": "Cats", "body": "Cats purr."}])
    return batch


def _own_vectors() -> DocumentBatch:
    vectors = np.linspace(-1, 1, 2 * DIMENSIONS, dtype=np.float32).reshape(2, DIMENSIONS)
    return DocumentBatch.from_columns(ids=["v1", "v2"], texts=["a", "b"], embeddings=vectors)


def _chunked() -> DocumentBatch:
    batch = DocumentBatch.from_columns(ids=["q"], texts=["moon"])
    chunks = DocumentBatch.from_columns(ids=["m1", "m2"], texts=["Apollo", "Cats"], scores=[{"score": 1.0}] * 2)
    batch.set_nested("matches", [chunks])
    batch.set_nested("chunks", [chunks.copy()])
    return batch


def _old_documents() -> bytes:
    """A request of docarray before 0.30."""
    old = pb.OldDocumentListProto()
    doc = old.docs.add(id="0" * 32, text="an old one")
    doc.tags["year"] = 1969
    docs = old.SerializeToString()
    content = delimited(1, len(docs)) + docs
    head = pb.DataRequestProtoWoData()
    head.header.request_id, head.header.exec_endpoint = "r", "/encode"
    return head.SerializeToString() + delimited(4, len(content)) + content


def _query() -> DocumentBatch:
    return DocumentBatch.from_columns(ids=["q"], texts=["first people on the Moon"])


_CHOICES = {name: value for name, value in _SEARCH.items() if name not in ("query", "parameters")}
GRPC = (
    wire.build_request("/encode", _query(), parameters={"normalize": False, "dtype": "int8", "receipt": True}),
    wire.build_request("/encode", DocumentBatch.from_columns(ids=["p"], texts=["a"], text_pair=["b"])),
    wire.build_request("/encode", DocumentBatch.from_columns(ids=["w"], words=[["a", "b"]])),
    wire.build_request("/index", _documents(), parameters={"segment": "passage"}),
    wire.build_request("/index", _own_vectors()),
    wire.build_request("/search", _query(), parameters=_CHOICES),
    wire.build_request("/search", _query(), parameters={"limit": 3.0, "rerank": {"method": "late_interaction"}}),
    wire.build_request("/rank", _chunked(), parameters={"method": "dense"}),
    wire.build_request("/rank", _chunked(), target_executor="ranker"),
    wire.build_request("/get", DocumentBatch.from_columns(ids=["apollo", "none"]), parameters={"embeddings": True}),
    wire.build_request("/scroll", parameters={"limit": 2, "filter": _FILTER}),
    wire.build_request("/count", parameters={"filter": _FILTER}),
    wire.build_request("/delete", DocumentBatch.from_columns(ids=["cat"])),
    wire.build_request("/map", parameters={"limit": 10, "ids": ["apollo"], "points": True}),
    wire.build_request("/sample", parameters={"limit": 10, "ids": ["apollo"]}),
    wire.build_request("/embed_sparse", _query()),
    wire.build_request("/tokenize", _query()),
    wire.build_request("/decode", DocumentBatch.from_columns(ids=["t"], token_ids=[np.array([1, 2], np.int32)])),
    wire.build_request("/attention", _query()),
    wire.build_request("/status", target_executor="index.*"),
    _old_documents(),
)
"""Requests of `process_single_data`, of the stream `Call`, of binary WebSockets and of workers."""


def _stream_doc() -> bytes:
    request = pb.SingleDocumentRequestProto()
    request.header.exec_endpoint = "/encode"
    request.document.data["text"].text = "streamed"
    return request.SerializeToString()


STREAM_DOCS = (_stream_doc(),)

DELETE_ALL = wire.build_request("/delete", parameters={"filter": {"$not": {"no such tag": "x"}}})
"""Sent unmutated from time to time, so that the index does not grow with the requests."""
