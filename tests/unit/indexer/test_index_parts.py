"""The small parts of the indexer: frames, settings, grouping, error translation, facts for `flowdex check`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from flowdex.documents import DocumentBatch
from flowdex.errors import (
    ConfigurationError,
    DeadlineExceeded,
    FlowdexError,
    InternalError,
    InvalidInput,
    NotFound,
    Overloaded,
    TooLarge,
    Unavailable,
)
from flowdex_executors import QdrantIndexer
from flowdex_executors.indexer.backend import translate
from flowdex_executors.indexer.columns import SparseRow, point_structs
from flowdex_executors.indexer.filters import compile_filter
from flowdex_executors.indexer.frames import decode, encode, read_frame
from flowdex_executors.indexer.layout import Manifest
from flowdex_executors.indexer.limits import IndexLimits
from flowdex_executors.indexer.points import make_points, read_documents
from flowdex_executors.indexer.search import Query, requests_for
from flowdex_executors.indexer.search_parameters import SearchParameters
from flowdex_executors.indexer.settings import EdgeLocation, IndexerSettings, ServerLocation

# ---- frames ----


def reader(data: bytes, piece: int = 7) -> Any:
    """Reads a few bytes at a time, as a pipe may."""
    position = 0

    def read(size: int) -> bytes:
        nonlocal position
        part = data[position : position + min(size, piece)]
        position += len(part)
        return part

    return read


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@given(json_values, st.lists(st.sampled_from(["<f4", "<u4", "<i8"]), max_size=3))
def test_frames_come_back_as_they_were(body: Any, dtypes: list[str]) -> None:
    arrays = [np.arange(6, dtype=dtype).reshape(2, 3)[:, :size] for size, dtype in enumerate(dtypes)]
    content = read_frame(reader(encode(body, arrays)))
    assert content is not None
    back, back_arrays = decode(content)
    assert back == body
    for array, again in zip(arrays, back_arrays, strict=True):
        assert again.dtype == array.dtype
        np.testing.assert_array_equal(again, array)


def test_a_stream_that_ends_within_a_frame_ends() -> None:
    frame = encode({"a": 1}, [np.ones(3)])
    assert read_frame(reader(b"")) is None
    for size in (3, 9, len(frame) - 1):
        assert read_frame(reader(frame[:size])) is None
    for content in (b"", b"\x05\0\0\0[1,2]", b"\x02\0\0\0{}", b"\xff\xff\0\0{}"):
        with pytest.raises(ValueError):
            decode(content)


# ---- settings ----


def test_locations() -> None:
    assert IndexerSettings(uri="edge://a/b").location == EdgeLocation(directory=Path("a/b").absolute())
    assert IndexerSettings(uri="edge:///a/b").location == EdgeLocation(directory=Path("/a/b"))
    assert IndexerSettings(uri="http://q").location == ServerLocation(host="q", port=6333, grpc=False, tls=False)
    assert IndexerSettings(uri="https://q:1/x/").location == ServerLocation(
        host="q", port=1, grpc=False, tls=True, prefix="x"
    )
    assert IndexerSettings(uri="grpcs://q").location == ServerLocation(host="q", port=6334, grpc=True, tls=True)


@pytest.mark.parametrize(
    ("uses_with", "message"),
    [
        ({"uri": "redis://x"}, "uri: 'redis://x' is not the URI of an index: use edge://DIR"),
        ({"uri": "here"}, "is not the URI"),
        ({"uri": "edge://"}, "names no folder"),
        ({"uri": "http://"}, "names no host"),
        ({"uri": "http://q:99999"}, "uri: "),
        ({"uri": "http://me:pass@q"}, "must not hold credentials"),
        ({"collection": "../x"}, "collection: '../x' cannot name a collection"),
        ({"distance": "hamming"}, "distance: "),
        ({"dimensions": 0}, "dimensions: "),
        ({"colection": "x"}, "colection: "),
    ],
)
def test_wrong_settings(uses_with: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        QdrantIndexer.describe(uses_with)
    assert "pass" not in caught.value.message
    assert QdrantIndexer.check(uses_with, None) == []  # describe has said it


def test_facts_for_check(tmp_path: Path) -> None:
    uses_with = {"uri": f"edge://{tmp_path}"}
    assert QdrantIndexer.describe(uses_with)["embedded"] is True
    assert QdrantIndexer.describe(uses_with)["dimensions"] is None
    assert QdrantIndexer.describe({"uri": "http://q", "dimensions": 3})["dimensions"] == 3
    assert QdrantIndexer.describe({"uri": "http://q"})["embedded"] is False
    manifest = Manifest(1, "data-1", {"dense": {"size": 384, "distance": "Cosine"}}, {})
    (tmp_path / "flowdex").mkdir()
    (tmp_path / "flowdex" / "collection.json").write_text(json.dumps(manifest.to_json()))
    assert QdrantIndexer.describe(uses_with)["dimensions"] is None, (
        "an encoder of another size must start: flowdex reindex"
    )
    assert QdrantIndexer.check(uses_with, None) == []
    (problem,) = QdrantIndexer.check({**uses_with, "dimensions": 300}, None)
    assert problem.startswith("dimensions: ")
    assert "384" in problem and "300" in problem


def test_the_constructor_has_the_defaults_of_the_settings() -> None:
    """Both spell them out: one for readers of the signature, one for validation."""
    import inspect

    parameters = inspect.signature(QdrantIndexer.__init__).parameters
    fields = dict(IndexerSettings.model_fields)
    assert (parameters["limits"].default, fields.pop("limits").default) == (None, IndexLimits())
    assert {name: parameters[name].default for name in fields} == {
        name: field.default for name, field in fields.items()
    }


# ---- errors ----


def rpc(code: grpc.StatusCode, details: str = "why") -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details=details)


def response(code: int, content: bytes = b'{"status": {"error": "why"}}') -> UnexpectedResponse:
    return UnexpectedResponse(code, "Reason", content, httpx.Headers())


@pytest.mark.parametrize(
    ("error", "expected", "message"),
    [
        (response(400), InvalidInput, "why"),
        (response(404), NotFound, "why"),
        (response(401), ConfigurationError, "API key"),
        (response(413), TooLarge, "max_request_size_mb"),
        (response(503, b"<html>"), Unavailable, "503"),
        (response(500), InternalError, "why"),
        (ResponseHandlingException(httpx.ConnectError("refused")), Unavailable, "refused"),
        (ResponseHandlingException(httpx.ReadTimeout("slow")), DeadlineExceeded, "in time"),
        (ResponseHandlingException(ValueError("not json")), InternalError, "not json"),
        (ResourceExhaustedResponse("slow down", 3), Overloaded, "limits"),
        (rpc(grpc.StatusCode.UNAVAILABLE), Unavailable, "is it running"),
        (rpc(grpc.StatusCode.DEADLINE_EXCEEDED), DeadlineExceeded, "in time"),
        (rpc(grpc.StatusCode.UNAUTHENTICATED), ConfigurationError, "API key"),
        (rpc(grpc.StatusCode.INVALID_ARGUMENT), InvalidInput, "why"),
        (rpc(grpc.StatusCode.NOT_FOUND), NotFound, "why"),
        (rpc(grpc.StatusCode.OUT_OF_RANGE, "message larger than max"), TooLarge, "max_request_size_mb"),
        (rpc(grpc.StatusCode.RESOURCE_EXHAUSTED, "busy"), Overloaded, "busy"),
        (rpc(grpc.StatusCode.INTERNAL), InternalError, "why"),
        (ConnectionResetError("gone"), Unavailable, "gone"),
        (InvalidInput("ours"), InvalidInput, "ours"),
    ],
)
def test_backend_errors_become_ours(error: Exception, expected: type[FlowdexError], message: str) -> None:
    translated = translate(error, "http://q:6333")
    assert type(translated) is expected
    assert message in translated.message


# ---- what a server is sent over gRPC ----


def test_what_is_sent_survives_the_conversion_to_grpc() -> None:
    """qdrant-client converts models to protobuf messages only when it sends them; each kind that is used converts."""
    from qdrant_client import models
    from qdrant_client.conversions.conversion import GrpcToRest, RestToGrpc

    passages, failures = read_documents(
        DocumentBatch.from_columns(
            ids=["a"], texts=["x"], tags=[{"n": 1, "deep": [{"b": True}]}], embeddings=np.ones((1, 4), np.float32)
        ),
        max_passages=9,
    )
    assert not failures
    sparse = [models.SparseVector(indices=[3], values=[0.5])]
    row = SparseRow(np.array([3], np.uint32), np.array([0.5], np.float32))
    (point,) = point_structs(make_points(passages, slice(0, 1), [row], 1_700_000_000_000_000))
    back = GrpcToRest.convert_point_struct(RestToGrpc.convert_point_struct(point))
    assert (back.id, back.payload, back.vector) == (point.id, point.payload, point.vector)

    selection = compile_filter(
        {
            "a": "x",
            "b": {"$in": [1, True, "y", "z"]},
            "c": {"$gte": "2024-01-01"},
            "d": {"$exists": False},
            "$or": [{"e": {"$lt": 3}}, {"$not": {"id": "f"}}],
        }
    )
    assert selection is not None
    message = RestToGrpc.convert_filter(selection)
    assert len(message.must) == 5
    assert RestToGrpc.convert_filter(GrpcToRest.convert_filter(message)) == message
    requests = requests_for(
        Query([1.0, 2.0], sparse[0]), 10, selection, SearchParameters(), models.SearchParams(exact=True)
    )
    assert list(requests) == ["dense", "sparse"]
    for request in requests.values():
        message = RestToGrpc.convert_query_request(request, "collection")
        assert message.limit == 10
