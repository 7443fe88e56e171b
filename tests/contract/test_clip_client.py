"""clip-client 0.8, of clip-as-service, against a running flowdex flow: what it sent once, and itself where it is.

clip-client needs docarray below 0.30 and so an environment of its own:

    python -m venv clip && clip/bin/pip install clip-client==0.8.3 'docarray<0.30' 'jina==3.14.1' 'pydantic<2'
    FLOWDEX_CLIP_CLIENT_PYTHON=clip/bin/python pytest tests/contract/test_clip_client.py

`recorded/clip_client.json` holds the requests of the calls in `PROGRAM`, in their order, over gRPC and HTTP.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from flow_support import RunningFlow

from flowdex import Client, wire
from flowdex.proto import flowdex_pb2 as pb

RECORDED = json.loads((Path(__file__).parent / "recorded" / "clip_client.json").read_text())["requests"]
PROGRAM = """
import json, sys
from clip_client import Client
from docarray import Document, DocumentArray
client = Client(sys.argv[1])
vectors = client.encode(["hello", "good day", "third"], batch_size=2)
documents = client.encode(DocumentArray([Document(id="x", text="x", tags={"k": 1}), Document(id="y", text="y")]))
matches = [Document(id="m1", text="a train"), Document(id="m2", text="a cake")]
ranked = client.rank([Document(id="q", text="bread", matches=matches)])
client.index([Document(id="c1", text="Bread is baked.", tags={"year": 2}), Document(id="c2", text="Trains run.")])
found = client.search(["baking bread"], limit=1)
times = client.profile()
print("ANSWER " + json.dumps({
    "shape": vectors.shape, "first": vectors[0].tolist(), "texts": documents.texts,
    "dims": [len(each.embedding) for each in documents],
    "ranked": [each.text for each in ranked[0].matches],
    "scores": [each.scores["score"].value for each in ranked[0].matches],
    "found": [[each.id, each.text, each.tags] for each in found[0].matches],
    "times": times,
}))
"""


@pytest.fixture(autouse=True)
def clean(default_flow: RunningFlow) -> Iterator[None]:
    yield
    with Client(default_flow.grpc_url) as client:
        client.delete(["c1", "c2"])


def over_grpc(flow: RunningFlow) -> list[dict[str, Any]]:
    """The documents of each reply, read as clip-client reads them."""
    replies = []
    with grpc.insecure_channel(f"127.0.0.1:{flow.grpc_port}") as channel:
        call = channel.stream_stream(wire.CALL)
        for each in RECORDED:
            if each["protocol"] == "grpc":
                (data,) = call(iter([base64.b64decode(each["body"])]), timeout=60)
                reply = wire.read_head(data)
                assert wire.error_of(reply.header) is None, reply.header
                replies.append({"docs": [_plain(doc) for doc in _documents(data)], "routes": len(reply.routes)})
    return replies


def _documents(data: bytes) -> Any:
    from flowdex_orchestrator.gateway.frame import split
    from flowdex_orchestrator.gateway.old_documents import documents_field

    return pb.OldDocumentListProto.FromString(documents_field(split(data).data)).docs


def _plain(doc: Any) -> dict[str, Any]:
    import numpy as np

    dense = doc.embedding.dense
    return {
        "id": doc.id,
        "text": doc.text,
        "tags": wire.dict_from_struct(doc.tags),
        "embedding": np.frombuffer(dense.buffer, dense.dtype).tolist() if dense.dtype else None,
        "scores": {name: {"value": score.value} for name, score in doc.scores.items()},
        "matches": [_plain(each) for each in doc.matches],
    }


def over_http(flow: RunningFlow) -> list[dict[str, Any]]:
    replies = []
    for each in RECORDED:
        if each["protocol"] == "http":
            reply = httpx.post(flow.http_url + each["path"], json=each["body"], timeout=60, trust_env=False)
            assert reply.status_code == 200, reply.text
            replies.append({"docs": reply.json()["data"], "routes": len(reply.json()["routes"])})
    return replies


@pytest.mark.parametrize("send", [over_grpc, over_http])
def test_recorded_requests_are_answered_as_it_reads_them(
    default_flow: RunningFlow, send: Callable[[RunningFlow], list[dict[str, Any]]]
) -> None:
    two, one, documents, ranked, indexed, found, profiled = send(default_flow)
    with Client(default_flow.grpc_url) as client:
        expected = client.encode(["hello", "good day", "third"])
    vectors = [doc["embedding"] for doc in two["docs"] + one["docs"]]
    assert vectors == pytest.approx(expected, abs=1e-5)
    assert [(doc["id"], doc["text"]) for doc in documents["docs"]] == [("x", "x"), ("y", "y")]
    assert documents["docs"][0]["tags"] == {"k": 1}
    matches = ranked["docs"][0]["matches"]
    assert [match["text"] for match in matches] == ["a cake", "a train"]
    assert matches[0]["scores"]["score"]["value"] > matches[1]["scores"]["score"]["value"]
    assert [doc["id"] for doc in indexed["docs"]] == ["c1", "c2"]
    (hit,) = found["docs"][0]["matches"]
    assert (hit["id"], hit["text"], hit["tags"]) == ("c1", "Bread is baked.", {"year": 2})
    assert profiled["routes"] == 2  # the gateway, and the model whose time it shows


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_the_client_itself(default_flow: RunningFlow, protocol: str) -> None:
    python = os.environ.get("FLOWDEX_CLIP_CLIENT_PYTHON")
    if not python:
        pytest.skip("FLOWDEX_CLIP_CLIENT_PYTHON names no Python with clip-client, which needs docarray below 0.30")
    url = {"grpc": default_flow.grpc_url, "http": default_flow.http_url}[protocol]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [python, "-W", "ignore", "-c", PROGRAM, url],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**environment, "NO_VERSION_CHECK": "1", "JINA_OPTOUT_TELEMETRY": "1"},
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("ANSWER ")]
    assert lines, done.stdout + done.stderr
    answer = json.loads(lines[-1].removeprefix("ANSWER "))
    assert answer["shape"] == [3, 384]
    assert answer["texts"] == ["x", "y"]
    assert answer["dims"] == [384, 384]
    assert answer["ranked"] == ["a cake", "a train"]
    assert answer["scores"] == sorted(answer["scores"], reverse=True)
    assert answer["found"] == [["c1", "Bread is baked.", {"year": 2}]]
    assert answer["times"]["Server"] > 0
    with Client(default_flow.grpc_url) as client:
        assert client.encode(["hello"])[0] == pytest.approx(answer["first"], abs=1e-5)
