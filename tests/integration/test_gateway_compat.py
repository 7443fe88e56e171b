"""The compatible routes on a gateway in front of executors that are played: models, shapes of errors, headers."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest
from gateway_fakes import FakeExecutor, append, failing, result, serving

from flowdex.documents import DocumentBatch
from flowdex.errors import ExecutorError, Overloaded
from flowdex.proto import flowdex_pb2 as pb
from flowdex_orchestrator.gateway.settings import GatewaySettings


def encoder(name: str, value: float, **about: Any) -> FakeExecutor:
    async def encode(request: pb.DataRequestProto) -> None:
        batch = DocumentBatch.from_proto(request.data.docs)
        batch.embeddings = np.array([[len(text or ""), value] for text in batch.texts], np.float32)
        receipt = {"tokens": 4, "dropped": 0, "queue_ms": 1.0, "compute_ms": 2.0, "fingerprint": "f"}
        batch.set_column("receipt", [receipt] * len(batch))

    return FakeExecutor(name, {"/encode": encode, "/status": result(name, **about)})


async def embeddings(flow: Any, **body: Any) -> Any:
    return await flow.http.post("/v1/embeddings", json=body)


async def test_several_encoders_are_chosen_by_model() -> None:
    small = encoder("small", 1.0, model="all-MiniLM-L6-v2", dimensions=2)
    large = encoder("large", 2.0, model="bert-large", dimensions=2)
    async with serving(small, large) as flow:
        models = (await flow.http.get("/v1/models")).json()
        assert [each["id"] for each in models["data"]] == ["small", "all-MiniLM-L6-v2", "large", "bert-large"]
        for model, value in (("small", 1.0), ("all-MiniLM-L6-v2", 1.0), ("large", 2.0), ("bert-large", 2.0)):
            reply = (await embeddings(flow, input="abc", model=model)).json()
            assert reply["data"][0]["embedding"] == [3.0, value]
            assert reply["model"] == model
        seen = (len(small.seen), len(large.seen))
        assert (await flow.http.post("/embed", json={"inputs": "abc"})).json() == [[3.0, 1.0]]
        assert (await flow.http.post("/embed", json={"inputs": "abc", "model": "large"})).json() == [[3.0, 2.0]]
        assert (len(small.seen), len(large.seen)) == (seen[0] + 1, seen[1] + 1), "each was asked once"
        missing = await embeddings(flow, input="abc", model="smal")
    assert missing.status_code == 404
    error = missing.json()["error"]
    assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", "model", "model_not_found")
    assert all(name in error["message"] for name in ("small", "all-MiniLM-L6-v2", "large", "bert-large"))


async def test_what_is_no_encoder_takes_part_as_in_encode() -> None:
    cleaner = FakeExecutor("cleaner", {"/encode": append("!"), "/status": result("cleaner", version=1)})
    one, two = encoder("one", 1.0, dimensions=2), encoder("two", 2.0, dimensions=2)
    async with serving(cleaner, one, two) as flow:
        assert [each["id"] for each in (await flow.http.get("/v1/models")).json()["data"]] == ["one", "two"]
        assert (await flow.http.post("/embed", json={"inputs": "ab", "model": "one"})).json() == [[3.0, 1.0]]


async def test_an_executor_that_says_nothing_is_still_a_model() -> None:
    plain = encoder("plain", 5.0)
    del plain.handlers["/status"]
    async with serving(plain) as flow:
        assert (await embeddings(flow, input="ab", model="plain")).json()["data"][0]["embedding"] == [2.0, 5.0]


async def test_executors_are_not_asked_what_they_are_for_every_request() -> None:
    one, plain = encoder("one", 1.0, model="m", dimensions=2), encoder("plain", 2.0)
    del plain.handlers["/status"]
    async with serving(one, plain) as flow:
        replies = await asyncio.gather(*(embeddings(flow, input="ab", model=name) for name in ("one", "m") * 5))
        wrong = [await embeddings(flow, input="ab", model="wrong") for _ in range(5)]
    assert {reply.status_code for reply in replies} == {200}
    assert {reply.status_code for reply in wrong} == {404}
    asked = [request for request in one.seen if request.header.exec_endpoint == "/status"]
    assert len(asked) <= 2


async def test_an_encoder_that_is_away_does_not_change_the_other() -> None:
    one, two = encoder("one", 1.0, dimensions=2), encoder("two", 2.0, dimensions=2)
    async with serving(one, two) as flow:
        one.handlers["/status"] = failing(ExecutorError("not now"))
        assert (await embeddings(flow, input="ab", model="two")).json()["data"][0]["embedding"] == [2.0, 2.0]
    assert not [request for request in one.seen if request.header.exec_endpoint == "/encode"]


async def test_usage_and_headers_come_from_the_receipt() -> None:
    async with serving(encoder("small", 1.0, dimensions=2)) as flow:
        reply = await embeddings(flow, input=["ab", "c"], model="small")
    assert reply.json()["usage"] == {"prompt_tokens": 8, "total_tokens": 8}
    assert (reply.headers["x-compute-tokens"], reply.headers["x-compute-characters"]) == ("8", "3")
    assert (reply.headers["x-queue-time"], reply.headers["x-inference-time"]) == ("1", "2")
    assert int(reply.headers["x-total-time"]) >= int(reply.headers["x-compute-time"]) >= 0


@pytest.mark.parametrize(
    ("path", "body", "status", "found"),
    [
        ("/v1/embeddings", {"input": ["a"] * 2049, "model": "small"}, 400, "2048"),
        ("/v1/embeddings", {"input": [], "model": "small"}, 400, "empty"),
        ("/v1/embeddings", {"input": ["a", ""], "model": "small"}, 400, "input[1]"),
        ("/v1/embeddings", {"input": "a"}, 400, "model"),
        ("/v1/embeddings", {"input": "a", "model": "small", "encoding_format": "int8"}, 400, "encoding_format"),
        ("/embed", {"inputs": []}, 400, "Empty"),
        ("/embed", {"inputs": ["a", 5]}, 422, "Validation"),
        ("/embed", {"inputs": ["a"] * 3000}, 413, "max_texts"),
        ("/similarity", {"inputs": {"source_sentence": "a", "sentences": []}}, 400, "Empty"),
        ("/embed_sparse", {"inputs": "a"}, 424, "Backend"),
        ("/tokenize", {"inputs": "a"}, 404, "/tokenize"),
        ("/rerank", {"query": "a", "texts": ["b"]}, 404, "/rank"),
        ("/v1/rerank", {"query": "a", "documents": []}, 422, "detail"),
        ("/v2/rerank", {"query": "a", "documents": [{"title": "b"}]}, 400, "message"),
    ],
)
async def test_what_is_refused(path: str, body: dict[str, Any], status: int, found: str) -> None:
    settings = GatewaySettings(max_texts=2500)
    async with serving(encoder("small", 1.0, dimensions=2), settings=settings) as flow:
        reply = await flow.http.post(path, json=body)
    assert reply.status_code == status, reply.text
    assert found in reply.text
    assert reply.headers["content-type"] == "application/json"


async def test_errors_of_the_framework_have_the_shape_too() -> None:
    async with serving(encoder("small", 1.0, dimensions=2), settings=GatewaySettings(max_message_bytes=500)) as flow:
        wrong_method = await flow.http.get("/v1/embeddings")
        no_json = await flow.http.post("/embed", content=b"{", headers={"content-type": "application/json"})
        wrong_type = await flow.http.post("/v2/rerank", content=b"x", headers={"content-type": "text/plain"})
        too_large = await flow.http.post("/embed", json={"inputs": "x" * 1000})
    assert (wrong_method.status_code, wrong_method.json()["error"]["type"]) == (405, "invalid_request_error")
    assert (no_json.status_code, no_json.json()["error_type"]) == (400, "Validation")
    assert wrong_type.status_code == 415 and wrong_type.json()["message"]
    assert (too_large.status_code, too_large.json()["error_type"]) == (413, "Validation")


async def test_errors_of_executors_have_the_shape() -> None:
    small = encoder("small", 1.0, dimensions=2)
    async with serving(small) as flow:
        small.handlers["/encode"] = failing(Overloaded("too much", retry_after=3))
        busy = [await embeddings(flow, input="a", model="small"), await flow.http.post("/embed", json={"inputs": "a"})]
        small.handlers["/encode"] = failing(ExecutorError("broken"))
        broken = [
            await embeddings(flow, input="a", model="small"),
            await flow.http.post("/embed", json={"inputs": "a"}),
        ]
    assert [reply.status_code for reply in busy] == [429, 429]
    assert busy[0].json()["error"]["code"] == "rate_limit_exceeded"
    assert busy[1].json()["error_type"] == "Overloaded"
    assert [reply.status_code for reply in broken] == [500, 424]
    assert broken[1].json() == {"error": "broken", "error_type": "Backend"}


async def test_health_as_tei_has_it() -> None:
    small = encoder("small", 1.0, dimensions=2)
    async with serving(small) as flow:
        healthy = await flow.http.get("/health")
        await small.stop()
        for _ in range(100):
            sick = await flow.http.get("/health")
            if sick.status_code != 200:
                break
            await asyncio.sleep(0.05)
    assert (healthy.status_code, healthy.content) == (200, b"")
    assert (sick.status_code, sick.json()["error_type"]) == (503, "Unhealthy")


@pytest.mark.parametrize(("cross", "raw"), [(True, True), (True, False), (False, False)])
async def test_logits_become_probabilities_and_cosines_stay(cross: bool, raw: bool) -> None:
    async def rank(request: pb.DataRequestProto) -> None:
        batch = DocumentBatch.from_proto(request.data.docs)
        (matches,) = batch.nested("matches")
        matches = matches.select([1, 0])
        matches.set_column("scores", [{"score": 2.0}, {"score": 0.0}])
        batch.set_nested("matches", [matches])

    about = {"rerank": None, "cross_encoder": {"model": "ms-marco"} if cross else None}
    ranker = FakeExecutor("ranker", {"/rank": rank, "/status": result("ranker", **about)})
    async with serving(ranker) as flow:
        found = await flow.http.post("/rerank", json={"query": "q", "texts": ["a", "b"], "raw_scores": raw})
        named = await flow.http.post("/v2/rerank", json={"model": "ms-marco", "query": "q", "documents": ["a", "b"]})
    best = 1 / (1 + np.exp(-2.0)) if cross and not raw else 2.0
    assert [each["index"] for each in found.json()] == [1, 0]
    assert found.json()[0]["score"] == pytest.approx(best)
    assert named.status_code == (200 if cross else 404)
