"""The HTTP API: requests and answers, limits, errors as problem documents, the OpenAPI document."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import numpy as np
import pytest
from gateway_fakes import FakeExecutor, eventually, failing, result, serving, sleeping, waiting

from flowdex import wire
from flowdex.documents import DocumentBatch
from flowdex.errors import Conflict, InternalError, InvalidInput
from flowdex.proto import flowdex_pb2 as pb
from flowdex_orchestrator.gateway.settings import GatewaySettings

JSON = {"content-type": "application/json"}


async def encode(request: pb.DataRequestProto) -> None:
    batch = DocumentBatch.from_proto(request.data.docs)
    batch.embeddings = np.array([[len(text or ""), 0.5, -1e-7] for text in batch.texts], np.float32)


async def index(request: pb.DataRequestProto) -> None:
    batch = DocumentBatch.from_proto(request.data.docs)
    batch.set_column("passages", [len((text or "").split()) for text in batch.texts])
    batch.keep("id", "passages")


async def search(request: pb.DataRequestProto) -> None:
    batch = DocumentBatch.from_proto(request.data.docs)
    chunk = DocumentBatch.from_columns(
        ids=["d#0"], texts=["a Passage"], location=[[10, 19]], scores=[{"score": 0.9, "dense": 0.8}]
    )
    match = DocumentBatch.from_columns(
        ids=["d"],
        texts=["a Passage"],
        tags=[{"year": 1969, "deep": {"x": [1, None]}}],
        location=[[10, 19]],
        highlights=[[[2, 9]]],
        scores=[{"score": 0.9}],
    )
    match.set_nested("chunks", [chunk])
    nothing = DocumentBatch()
    batch.set_nested("matches", [match if "Moon" in (text or "") else nothing for text in batch.texts])


def everything() -> FakeExecutor:
    return FakeExecutor(
        "all",
        {
            "/encode": encode,
            "/index": index,
            "/search": search,
            "/delete": result("all", deleted=2),
            "/status": result("all", documents=5),
        },
    )


def problem(reply: httpx.Response, status: int, name: str) -> dict[str, Any]:
    """The problem document of a reply, after what holds for all of them."""
    assert reply.status_code == status, reply.text
    assert reply.headers["content-type"] == "application/problem+json"
    found: dict[str, Any] = reply.json()
    assert found["status"] == status
    assert found["type"] == f"urn:flowdex:error:{name}"
    assert found["title"]
    assert found["detail"]
    assert found["request_id"] == reply.headers["x-request-id"]
    return found


async def test_encode_in_both_forms() -> None:
    async with serving(everything()) as flow:
        reply = (await flow.http.post("/encode", json={"texts": ["a", "bcd"]})).json()
        assert reply.pop("took_ms") > 0
        assert reply == {
            "embeddings": [[1.0, 0.5, pytest.approx(-1e-7)], [3.0, 0.5, pytest.approx(-1e-7)]],
            "dimensions": 3,
            "dtype": "float32",
            "count": 2,
        }
        packed = (await flow.http.post("/encode", json={"texts": "bcd", "encoding": "base64"})).json()
        assert packed["count"] == 1
        vector = np.frombuffer(base64.b64decode(packed["embeddings"][0]), "<f4")
        assert vector.tolist() == np.array([3, 0.5, -1e-7], np.float32).tolist()


async def test_large_requests_and_replies() -> None:
    texts = ["x" * 1000] * 5000
    async with serving(everything()) as flow:
        reply = (await flow.http.post("/encode", json={"texts": texts}, timeout=30)).json()
        assert len(reply["embeddings"]) == 5000
        assert reply["embeddings"][4999][0] == 1000


async def test_every_choice_of_a_search_travels_as_a_parameter() -> None:
    executor = everything()
    choices = {
        "limit": 2.0,
        "passages": 1.0,
        "threshold": 0.25,
        "candidates": 20.0,
        "explain": True,
        "group": "passage",
        "highlight": False,
        "fusion": {"method": "dbsf", "weights": {"sparse": 0.5}},
        "diversity": {"weight": 0.3},
        "aggregate": {"method": "sum", "top": 3.0},
        "rerank": {"method": "late_interaction", "top": 20.0},
    }
    body = choices | {"diversity": 0.3, "limit": 2, "passages": 1, "candidates": 20}
    body |= {"aggregate": {"method": "sum", "top": 3}, "rerank": {"method": "late_interaction", "top": 20}}
    async with serving(executor) as flow:
        assert (await flow.http.post("/search", json={"query": "a", **body})).status_code == 200
        assert wire.dict_from_struct(executor.seen[-1].parameters) == choices
        for short in ({"fusion": "rrf"}, {"aggregate": "mean"}, {"rerank": "cross_encoder"}):
            assert (await flow.http.post("/search", json={"query": "a", **short})).status_code == 200
            ((name, method),) = short.items()
            assert wire.dict_from_struct(executor.seen[-1].parameters) == {name: {"method": method}}


async def test_index_search_delete() -> None:
    executor = everything()
    async with serving(executor) as flow:
        documents = [{"id": "a", "text": "one two", "tags": {"n": 1}}, {"text": "Grüße 世界"}]
        reply = (await flow.http.post("/index", json={"documents": documents})).json()
        assert (reply["documents"], reply["passages"]) == (2, 4)
        assert reply["ids"][0] == "a"
        assert len(reply["ids"][1]) == 32
        sent = wire.documents_of(executor.seen[-1])
        assert (sent.texts, sent.tags) == (["one two", "Grüße 世界"], [{"n": 1}, {}])

        body = {"query": ["the Moon", "nothing"], "limit": 3, "filter": {"year": 1969}, "parameters": {"all": {"k": 1}}}
        reply = (await flow.http.post("/search", json=body)).json()
        assert reply.pop("took_ms") > 0
        scores = {"score": 0.9, "dense": 0.8}
        hit = {
            "id": "d",
            "score": 0.9,
            "text": "a Passage",
            "tags": {"year": 1969, "deep": {"x": [1, None]}},
            "location": [10, 19],
            "highlights": [[2, 9]],
            "scores": {"score": 0.9},
            "passages": [{"id": "d#0", "text": "a Passage", "location": [10, 19], "score": 0.9, "scores": scores}],
        }
        assert reply == {
            "results": [
                {"query": "the Moon", "hits": [hit], "notes": []},
                {"query": "nothing", "hits": [], "notes": []},
            ]
        }
        parameters = wire.dict_from_struct(executor.seen[-1].parameters)
        assert parameters == {"limit": 3.0, "filter": {"year": 1969.0}, "all": {"k": 1.0}, "k": 1.0}

        for options in ({"json": {"ids": ["a", "b"]}}, {"params": {"id": ["a", "b"]}}):
            reply = (await flow.http.request("DELETE", "/documents", **options)).json()
            assert reply.pop("took_ms") > 0
            assert reply == {"deleted": 2}
            assert wire.documents_of(executor.seen[-1]).ids == ["a", "b"]


@pytest.mark.parametrize(
    ("path", "body", "pointer", "words"),
    [
        ("/encode", {"texts": 5}, "#/texts", "must be a string or a list of strings, not a number"),
        ("/encode", {"texts": []}, "#/texts", "must not be empty"),
        ("/encode", {"texts": ["a", " \n"]}, "#/texts/1", "must not be blank"),
        ("/encode", {"texts": ["a", None]}, "#/texts/1", "must be a string, not null"),
        ("/encode", {"texts": {"a": 1}}, "#/texts", "not an object"),
        ("/encode", {"text": ["a"]}, "#", "unknown key 'text'; did you mean 'texts'?"),
        ("/encode", {}, "#/texts", "is required"),
        ("/encode", [], "#", "must be a JSON object, not a list"),
        ("/encode", {"texts": "a", "encoding": "hex"}, "#/encoding", "'float' or 'base64'"),
        ("/encode", {"texts": "a", "parameters": 5}, "#/parameters", "dictionary"),
        ("/index", {"documents": []}, "#/documents", "at least 1"),
        ("/index", {"documents": ["a"]}, "#/documents/0", "must be a JSON object, not a string"),
        ("/index", {"documents": [{"id": 1, "text": "a"}]}, "#/documents/0/id", "string"),
        ("/index", {"documents": [{"id": "", "text": "a"}]}, "#/documents/0/id", "at least 1 character"),
        ("/index", {"documents": [{"id": "a"}]}, "#/documents/0", "has no text (nor fields, nor an embedding)"),
        ("/index", {"documents": [{"text": "a", "fields": {"t": "b"}}]}, "#/documents/0", "has a text and fields"),
        ("/index", {"documents": [{"fields": {"t": " "}}]}, "#/documents/0", "has blank fields only"),
        ("/get", {}, "#/ids", "is required"),
        ("/scroll", {"limit": 0}, "#/limit", "greater than or equal to 1"),
        ("/index", {"documents": [{"text": "a"}, {"text": ""}]}, "#/documents/1/text", "must not be blank"),
        ("/index", {"documents": [{"text": "a", "tag": {}}]}, "#/documents/0", "did you mean 'tags'?"),
        ("/search", {"query": "a", "limit": 0}, "#/limit", "greater than or equal to 1"),
        ("/search", {"query": "a", "limit": "10"}, "#/limit", "integer"),
        ("/search", {"query": "a", "offset": -1}, "#/offset", "greater than or equal to 0"),
        ("/search", {"query": "a", "mode": "fuzzy"}, "#/mode", "'hybrid', 'dense' or 'sparse'"),
        ("/search", {"query": "a", "filter": []}, "#/filter", "dictionary"),
        ("/search", {"query": "a", "reranker": "x"}, "#", "unknown key 'reranker'; did you mean 'rerank'?"),
        ("/search", {"query": "a", "rerank": "x"}, "#/rerank/method", "'late_interaction', 'cross_encoder' or 'none'"),
        ("/search", {"query": "a", "rerank": {"top": 0}}, "#/rerank/top", "greater than or equal to 1"),
        ("/search", {"query": "a", "fusion": "max"}, "#/fusion/method", "'rrf' or 'dbsf'"),
        ("/search", {"query": "a", "fusion": ["rrf"]}, "#/fusion", "not a list"),
        ("/search", {"query": "a", "fusion": {"weight": 1}}, "#/fusion", "did you mean 'weights'?"),
        ("/search", {"query": "a", "fusion": {"weights": {"dense": -1}}}, "#/fusion/weights/dense", "greater than"),
        ("/search", {"query": "a", "diversity": 1.5}, "#/diversity/weight", "less than or equal to 1"),
        ("/search", {"query": "a", "aggregate": {"tops": 3}}, "#/aggregate", "did you mean 'top'?"),
        ("/search", {"query": "a", "explain": "yes"}, "#/explain", "boolean"),
        ("/search", {"query": "a", "group": "page"}, "#/group", "'document' or 'passage'"),
    ],
)
async def test_bad_bodies_are_told_where_and_what(path: str, body: object, pointer: str, words: str) -> None:
    executor = everything()
    async with serving(executor) as flow:
        found = problem(await flow.http.post(path, json=body), 422, "InvalidInput")
        assert not executor.seen
    assert found["errors"][0]["pointer"] == pointer
    assert words in found["errors"][0]["detail"]
    assert words in found["detail"]


async def test_what_is_no_json() -> None:
    async with serving(everything()) as flow:
        for body in (b"{", b"\xff\xfe", b'{"texts": ["\xff"]}', b'{"texts": NaN}', b"[" * 100_000):
            problem(await flow.http.post("/encode", content=body, headers=JSON), 400, "InvalidInput")
        found = problem(await flow.http.post("/encode", content=b""), 422, "InvalidInput")
        assert "the body: is required" in found["detail"]
        for kind in ("text/plain", "application/x-www-form-urlencoded"):
            reply = await flow.http.post("/encode", content=b'{"texts":"a"}', headers={"content-type": kind})
            assert "application/json" in problem(reply, 415, "InvalidInput")["detail"]
        reply = await flow.http.post(
            "/encode", content=b'{"texts":"a"}', headers={"content-type": "application/x+json"}
        )
        assert reply.status_code == 200


async def test_limits() -> None:
    settings = GatewaySettings(max_message_bytes=20_000, max_texts=3)
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(10_000):
            sent += 10_000
            yield b"x" * 10_000

    async with serving(everything(), settings=settings) as flow:
        found = problem(await flow.http.post("/encode", json={"texts": "x" * 30_000}), 413, "TooLarge")
        assert "max_message_bytes" in found["detail"]
        headers = JSON | {"content-length": "30000", "expect": "100-continue"}
        problem(await flow.http.post("/encode", content=b"x" * 30_000, headers=headers), 413, "TooLarge")
        with contextlib.suppress(httpx.TransportError):  # the connection is closed on whoever goes on sending
            problem(await flow.http.post("/encode", content=endless(), headers=JSON), 413, "TooLarge")
        assert sent < 50_000_000
        found = problem(await flow.http.post("/encode", json={"texts": ["a"] * 4}), 413, "TooLarge")
        assert "max_texts" in found["detail"]
        assert (await flow.http.post("/encode", json={"texts": ["a"] * 3})).status_code == 200


async def test_paths_and_methods() -> None:
    async with serving(FakeExecutor("a", {"/encode": encode})) as flow:
        assert "did you mean /encode?" in problem(await flow.http.post("/encoed", json={}), 404, "NotFound")["detail"]
        reply = await flow.http.get("/encode")
        assert "use POST" in problem(reply, 405, "InvalidInput")["detail"]
        assert reply.headers["allow"] == "POST"
        for path, methods in (("/documents/7", "DELETE, GET"), ("/compare", "GET, POST"), ("/status", "GET")):
            reply = await flow.http.request("OPTIONS", path)
            assert (reply.status_code, reply.headers["allow"]) == (405, methods)
        found = problem(await flow.http.post("/search", json={"query": "a"}), 404, "NotFound")
        assert "Known endpoints: /encode" in found["detail"]
        problem(await flow.http.request("DELETE", "/documents"), 422, "InvalidInput")
        problem(await flow.http.request("DELETE", "/documents?id="), 422, "InvalidInput")


async def test_errors_of_executors_and_of_the_gateway() -> None:
    executor = everything()
    async with serving(executor, settings=GatewaySettings(replica_wait=0.2, max_in_flight=1)) as flow:
        executor.handlers["/encode"] = failing(Conflict("vectors of another model"))
        found = problem(await flow.http.post("/encode", json={"texts": "a"}), 409, "Conflict")
        assert (found["detail"], found["executor"]) == ("vectors of another model", "all")
        executor.handlers["/encode"] = failing(InvalidInput("document 0 is odd"))
        problem(await flow.http.post("/encode", json={"texts": "a"}), 422, "InvalidInput")
        executor.handlers["/encode"] = failing(InternalError("see the log"))
        problem(await flow.http.post("/encode", json={"texts": "a"}), 500, "InternalError")
        executor.handlers["/encode"] = None  # answers without vectors
        found = problem(await flow.http.post("/encode", json={"texts": "a"}), 500, "ExecutorError")
        assert "0 vectors to 1 texts" in found["detail"]

        go_on = asyncio.Event()
        executor.handlers["/encode"] = waiting(go_on)
        busy = asyncio.ensure_future(flow.http.post("/encode", json={"texts": "a"}))
        await eventually(lambda: executor.in_flight == 1)
        reply = await flow.http.post("/encode", json={"texts": "a"})
        problem(reply, 429, "Overloaded")
        assert int(reply.headers["retry-after"]) >= 1
        go_on.set()
        await busy
        go_on.clear()

        reply = await flow.http.post("/encode", json={"texts": "a"}, headers={"x-request-timeout-ms": "100"})
        problem(reply, 504, "DeadlineExceeded")
        for bad in ("-5", "soon", "nan", "inf"):
            reply = await flow.http.post("/encode", json={"texts": "a"}, headers={"x-request-timeout-ms": bad})
            problem(reply, 422, "InvalidInput")

        await executor.stop(grace=None)
        reply = await flow.http.post("/encode", json={"texts": "a"})
        problem(reply, 503, "Unavailable")
        assert int(reply.headers["retry-after"]) >= 1


async def test_what_would_be_written_back_is_not_nested() -> None:
    """No JSON can be written that is as deep as what can be read."""
    nested: Any = "x"
    for _ in range(900):
        nested = {"a": nested}
    async with serving(everything()) as flow:
        reply = await flow.http.post("/encode", json={"id": nested, "texts": ["a"]})
        assert (reply.status_code, reply.json()["description"]) == (400, "id: expected a string or a number")
        body = {"data": [{"text": "a"}], "execEndpoint": "/encode", "header": {"request_id": nested}}
        reply = await flow.http.post("/post", json=body)
        assert (reply.status_code, reply.json()["header"]["request_id"]) == (422, "")


async def test_an_incident_tells_nothing_of_itself(caplog: pytest.LogCaptureFixture) -> None:
    async with serving(everything()) as flow:

        async def broken(*_: object, **__: object) -> None:
            raise RuntimeError("the secret of the house")

        flow.gateway.router.handle = broken  # type: ignore[method-assign,assignment]
        found = problem(await flow.http.post("/encode", json={"texts": "a"}), 500, "InternalError")
        assert "secret" not in json.dumps(found)
        assert (await flow.http.get("/health/live")).status_code == 200
    assert "the secret of the house" in caplog.text


async def test_the_name_of_a_request_comes_back_and_goes_on() -> None:
    executor = everything()
    async with serving(executor) as flow:
        reply = await flow.http.post("/encode", json={"texts": "a"}, headers={"x-request-id": "mine"})
        assert reply.headers["x-request-id"] == "mine"
        assert executor.seen[-1].header.request_id == "mine"
        assert executor.metadata[-1]["x-request-id"] == "mine"
        first = (await flow.http.get("/health/live")).headers["x-request-id"]
        assert first != (await flow.http.get("/health/live")).headers["x-request-id"]
        for odd in ("x" * 200, "a\tb"):
            assert (await flow.http.get("/health/live", headers={"x-request-id": odd})).headers["x-request-id"] != odd


async def test_a_caller_that_hangs_up_stops_the_work() -> None:
    executor = FakeExecutor("a", {"/encode": sleeping(30)})
    async with serving(executor) as flow:
        call = asyncio.ensure_future(flow.http.post("/encode", json={"texts": "a"}, timeout=60))
        await eventually(lambda: executor.in_flight == 1)
        call.cancel()
        await eventually(lambda: executor.cancelled == 1)
        await eventually(lambda: flow.gateway.router.in_flight == 0)


async def test_status_and_health() -> None:
    a, b = everything(), FakeExecutor("b", {"/search": None, "/status": failing(InternalError("no idea"))})
    async with serving(a, b) as flow:
        status = (await flow.http.get("/status")).json()
        assert status["name"] == "flowdex"
        assert status["ready"] is True
        assert status["requests"] == {}
        assert status["endpoints"]["/search"] == ["all", "b"]
        for executor in status["executors"]:
            assert executor.pop("queue_ms") == 0
            assert executor.pop("calls")["count"] == 0
            for replica in executor["replicas"]:
                assert [replica.pop(name) for name in ("versions", "uptime_s", "restarts", "canary")] == [None] * 4
        assert status["executors"] == [
            {
                "name": "all",
                "uses": "",
                "needs": [],
                "replicas": [{"address": a.address, "ready": True, "in_flight": 0, "failure": None}],
                "status": {"documents": 5},
            },
            {
                "name": "b",
                "uses": "",
                "needs": ["all"],
                "replicas": [{"address": b.address, "ready": True, "in_flight": 0, "failure": None}],
                "status": {"error": "no idea"},
            },
        ]
        assert (await flow.http.get("/health/ready")).status_code == 200
        await b.stop(grace=None)
        await eventually(lambda: not flow.gateway.ready)
        found = problem(await flow.http.get("/health/ready"), 503, "Unavailable")
        assert "executor b" in found["detail"]
        assert (await flow.http.get("/health/live")).status_code == 200
        replicas = (await flow.http.get("/status")).json()["executors"][1]["replicas"]
        assert replicas[0]["ready"] is False
        assert replicas[0]["failure"]


async def test_status_says_what_requests_and_calls_took() -> None:
    a, b = everything(), FakeExecutor("b", {"/encode": None, "/rank": failing(InvalidInput("no"))})
    async with serving(a, b) as flow:
        for _ in range(3):
            await flow.http.post("/encode", json={"texts": "a"})
        await flow.http.post("/index", json={"documents": [{"text": "a"}]})
        await flow.http.post("/rank", json={"query": "a", "texts": ["b"]})
        status = (await flow.http.get("/status")).json()
    counts = {name: (each["count"], each["failed"]) for name, each in status["requests"].items()}
    assert counts == {"/encode": (3, 0), "/index": (1, 0), "/rank": (1, 1)}
    calls = {each["name"]: (each["calls"]["count"], each["calls"]["failed"]) for each in status["executors"]}
    assert calls == {"all": (4, 0), "b": (4, 1)}
    for each in (*status["requests"].values(), *(executor["calls"] for executor in status["executors"])):
        assert len(each["buckets"]) == len(status["bounds_ms"]) + 1
        assert sum(each["buckets"]) == each["count"]
        assert 0 < each["p50_ms"] <= each["p95_ms"] <= each["p99_ms"]


async def test_which_token_met_which() -> None:
    async def tokens(request: pb.DataRequestProto) -> None:
        batch = DocumentBatch.from_proto(request.data.docs)
        words = [(text or "").split() for text in batch.texts]
        batch.set_column("token_texts", [["[CLS]", *each] for each in words])
        spans = [[[0, 0], *([index, index + 1] for index in range(len(each)))] for each in words]
        batch.set_column("token_spans", [np.array(each) for each in spans])
        vectors = [[[1, 1], *([len(word), 1] for word in each)] for each in words]
        batch.set_column("token_vectors", [np.array(each, np.float16) for each in vectors])
        batch.set_column("receipt", [{"dropped": 2} for _ in words])

    encoder = FakeExecutor("e", {"/encode": tokens})
    async with serving(encoder) as flow:
        reply = await flow.http.post("/interaction", json={"query": "aa b", "text": "aa"})
        found = reply.json()
        assert reply.status_code == 200, found
        assert found.pop("took_ms") > 0
        slanted = pytest.approx(3 / 10**0.5, rel=1e-3)
        assert found["cosines"] == [[pytest.approx(1, rel=1e-3)], [slanted]]
        assert (found["query"]["texts"], found["text"]["dropped"]) == (["aa", "b"], 2)
        assert wire.dict_from_struct(encoder.seen[-1].parameters)["truncation"] == "head"
        found = problem(await flow.http.post("/interaction", json={"query": " ", "text": "a"}), 422, "InvalidInput")
        assert found["errors"][0]["pointer"] == "#/query"
        problem(await flow.http.post("/interaction", json={"query": "a", "text": "a", "model": "x"}), 404, "NotFound")
    async with serving(everything()) as flow:
        found = problem(await flow.http.post("/interaction", json={"query": "a", "text": "a"}), 422, "InvalidInput")
        assert "token vectors" in found["detail"]
    async with serving(FakeExecutor("i", {"/search": None})) as flow:
        problem(await flow.http.post("/interaction", json={"query": "a", "text": "a"}), 404, "NotFound")


async def test_the_query_and_the_text_have_prompts_of_their_own() -> None:
    encoder = FakeExecutor(
        "e", {"/encode": encode, "/status": result("e", dimensions=2, prompts={"query": "q: ", "passage": "p: "})}
    )
    async with serving(encoder) as flow:
        await flow.http.post("/interaction", json={"query": "a", "text": "b"})
    asked = {
        DocumentBatch.from_proto(each.data.docs).texts[0]: wire.dict_from_struct(each.parameters).get("prompt")
        for each in encoder.seen
        if each.header.exec_endpoint == "/encode"
    }
    assert asked == {"a": "query", "b": "passage"}


async def test_the_page_is_served_beside_the_api() -> None:
    async with serving(everything()) as flow:
        page = await flow.http.get("/")
        assert page.headers["content-type"].startswith("text/html")
        assert "x-request-id" in page.headers
        assert (await flow.http.get("/page/app.js")).status_code == 200
        problem(await flow.http.get("/page/app.py"), 404, "NotFound")
        assert (await flow.http.post("/", json={"inputs": "a"})).status_code == 200, "that is the TEI client's"


async def test_the_documents_of_the_api() -> None:
    async with serving(everything()) as flow:
        page = await flow.http.get("/docs")
        assert page.headers["content-type"].startswith("text/html")
        assert "http://" not in page.text and "https://" not in page.text, "it must work offline"
        document = (await flow.http.get("/openapi.json")).json()
    assert document["openapi"].startswith("3.1")
    assert set(document["paths"]) == {
        "/encode", "/index", "/search", "/get", "/scroll", "/count", "/documents", "/documents/{id}",
        "/rank", "/attention", "/map", "/compare", "/interaction",
        "/status", "/metrics", "/health/live", "/health/ready",
        "/admin/scale", "/admin/restart",
        "/v1/embeddings", "/v1/models", "/v1/models/{model}", "/v1/rerank", "/v2/rerank",
        "/embed", "/embed_all", "/embed_sparse", "/rerank", "/similarity", "/tokenize", "/decode", "/info", "/health",
        "/status/server", "/status/client", "/post", "/dry_run",
    }  # fmt: skip
    shapes = {"OpenAI": "OpenAIError", "rerank": "RerankError", "text-embeddings-inference": "TeiError"}
    for operations in document["paths"].values():
        for operation in operations.values():
            assert operation["description"]
            shape = shapes.get(operation["tags"][0], "Problem")
            for status, response in operation["responses"].items():
                if int(status) >= 400:
                    ((kind, content),) = response["content"].items()
                    assert kind == ("application/problem+json" if shape == "Problem" else "application/json")
                    assert content["schema"]["$ref"].endswith(f"/{shape}")
    for name in ("EncodeRequest", "IndexRequest", "SearchRequest", "DeleteRequest", "Document"):
        schema = document["components"]["schemas"][name]
        assert schema["additionalProperties"] is False
        assert schema["description"]


async def test_the_examples_of_the_api_are_valid() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    executor = everything()
    async with serving(executor) as flow:
        document = (await flow.http.get("/openapi.json")).json()
        for path, name in (("/encode", "Encode"), ("/index", "Index"), ("/search", "Search")):
            fields = document["components"]["schemas"][f"{name}Request"]["properties"]
            body = {key: field["examples"][0] for key, field in fields.items() if "examples" in field}
            reply = await flow.http.post(path, json=body)
            assert reply.status_code == 200, reply.text
            schema = {"$ref": f"#/components/schemas/{name}Response", "components": document["components"]}
            jsonschema.validate(reply.json(), schema)
        schema = {"$ref": "#/components/schemas/Problem", "components": document["components"]}
        jsonschema.validate((await flow.http.post("/encode", json={"text": 1})).json(), schema)
        schema = {"$ref": "#/components/schemas/Status", "components": document["components"]}
        jsonschema.validate((await flow.http.get("/status")).json(), schema)


async def test_other_origins_only_if_allowed() -> None:
    origin = {"origin": "http://elsewhere.example"}
    async with serving(everything()) as flow:
        reply = await flow.http.get("/health/live", headers=origin)
        assert "access-control-allow-origin" not in reply.headers
    async with serving(everything(), settings=GatewaySettings(cors=frozenset({"*"}))) as flow:
        reply = await flow.http.get("/health/live", headers=origin)
        assert reply.headers["access-control-allow-origin"] == "*"
