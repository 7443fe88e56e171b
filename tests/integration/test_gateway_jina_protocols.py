"""Jina's HTTP and WebSocket contracts: a gateway in front of fake executors, spoken to as the stock client does."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from gateway_fakes import FakeExecutor, Flow, append, embed, eventually, failing, result, serving, sleeping
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from flowdex import wire
from flowdex.documents import DocumentBatch
from flowdex.errors import InvalidInput
from flowdex.proto import flowdex_pb2 as pb
from flowdex_orchestrator.gateway.settings import GatewaySettings

END = b"\0"  # bytes(True)


def executor() -> FakeExecutor:
    return FakeExecutor(
        "all",
        {
            "/encode": embed,
            "/mark": append("!"),
            "/count": result("all", count=3),
            "/fail": failing(InvalidInput("no such luck")),
            "/slow": sleeping(0.5),
        },
    )


def request_bytes(endpoint: str, *texts: str, name: str = "r1", **options: Any) -> bytes:
    return wire.build_request(endpoint, DocumentBatch.from_columns(texts=list(texts)), request_id=name, **options)


@asynccontextmanager
async def socket(flow: Flow, path: str = "/", kind: str | None = "bytes", **options: Any) -> AsyncIterator[Any]:
    url = f"ws://127.0.0.1:{flow.ports['http']}{path}"
    async with connect(url, subprotocols=[kind] if kind else None, proxy=None, **options) as connection:  # type: ignore[list-item]
        yield connection


async def receive(connection: ClientConnection) -> Any:
    return await asyncio.wait_for(connection.recv(), 20)


# ---- HTTP ----


@pytest.mark.parametrize(
    "body",
    [
        {"execEndpoint": "/encode", "targetExecutor": "al", "header": {"requestId": "r1"}},
        {"exec_endpoint": "/encode", "target_executor": "al", "header": {"request_id": "r1"}},
        {"header": {"request_id": "r1", "exec_endpoint": "/encode", "target_executor": "al"}},
    ],
)
async def test_post_in_every_spelling(body: dict[str, Any]) -> None:
    all_ = executor()
    async with serving(all_) as flow:
        data = [{"id": "a", "text": "abc", "tags": {"n": 1}, "url": None}, {"text": "d"}]
        reply = await flow.http.post("/post", json={"data": data, "parameters": {"x": {"y": 2}}, **body})
        assert reply.status_code == 200, reply.text
        found = reply.json()
        assert found["header"]["request_id"] == "r1"
        assert [route["executor"] for route in found["routes"]] == ["gateway", "all"]
        assert found["parameters"]["x"] == {"y": 2}
        first, second = found["data"]
        assert first == {"id": "a", "text": "abc", "tags": {"n": 1}, "url": None, "embedding": [3.0, 0.5]}
        assert len(second["id"]) == 32
        assert all_.seen[-1].header.target_executor == "al"


async def test_jinas_body_at_the_path_of_an_endpoint_and_our_own_body_beside_it() -> None:
    async with serving(executor()) as flow:
        theirs = (await flow.http.post("/encode", json={"data": [{"text": "abc"}], "parameters": None})).json()
        assert theirs["data"][0]["embedding"] == [3.0, 0.5]
        ours = (await flow.http.post("/encode", json={"texts": ["abc"]})).json()
        assert ours["embeddings"] == [[3.0, 0.5]]
        one = (await flow.http.post("/encode", json={"data": {"text": "ab"}})).json()
        assert [each["embedding"] for each in one["data"]] == [[2.0, 0.5]]
        count = (await flow.http.post("/post", json={"execEndpoint": "/count"})).json()
        assert count["parameters"]["__results__"] == {"all": {"count": 3}}
        assert count["data"] == []


async def test_arrays_and_nested_documents_have_their_types_on_the_wire() -> None:
    all_ = executor()
    async with serving(all_) as flow:
        document = {"embedding": [1, 2.5], "tensor": [[1, 2]], "matches": [{"text": "m", "chunks": [{"text": "c"}]}]}
        reply = (await flow.http.post("/post", json={"data": [document], "execEndpoint": "/mark"})).json()
        sent = wire.documents_of(all_.seen[-1])
        assert sent.vectors("embedding") is not None
        (tensor,) = sent.column("tensor")
        assert tensor.tolist() == [[1, 2]]
        assert sent.nested("matches")[0].nested("chunks")[0].texts == ["c"]
        (found,) = reply["data"]
        assert (found["embedding"], found["tensor"]) == ([1.0, 2.5], [[1, 2]])
        assert found["matches"][0]["chunks"][0]["text"] == "c"


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        ({"execEndpoint": "/nope", "data": []}, 404, "no executor serves the endpoint '/nope'"),
        ({"execEndpoint": "/fail", "data": []}, 422, "no such luck"),
        ({"data": [{"text": "a"}]}, 422, "name the endpoint of the flow"),
        ({"execEndpoint": "/mark", "data": 5}, 422, "must be a list of documents, not a number"),
        ({"execEndpoint": "/mark", "data": [{"embedding": ["a"]}]}, 422, "document 0: field 'embedding'"),
        ({"execEndpoint": "/mark", "data": [{}] * 6}, 413, "gateway.uses_with.max_texts"),
    ],
)
async def test_errors_are_problem_documents_with_jinas_header(body: Any, status: int, reason: str) -> None:
    async with serving(executor(), settings=GatewaySettings(max_texts=5)) as flow:
        reply = await flow.http.post("/post", json={**body, "header": {"request_id": "r1"}})
        assert reply.status_code == status
        found = reply.json()
        assert reason in found["detail"]
        assert found["header"]["request_id"] == "r1"
        assert found["header"]["status"]["code"] == pb.StatusProto.ERROR
        assert found["header"]["status"]["description"] == found["detail"]


async def test_a_dry_run_says_whether_the_flow_is_ready() -> None:
    all_ = executor()
    async with serving(all_) as flow:
        assert (await flow.http.get("/dry_run")).json() == {"code": 0, "description": ""}
        async with socket(flow, "/dry_run") as connection:
            await connection.send(b"")
            assert pb.StatusProto.FromString(await receive(connection)).code == pb.StatusProto.SUCCESS
        await all_.stop()
        await eventually(lambda: not flow.gateway.ready)
        found = (await flow.http.get("/dry_run")).json()
        assert found["code"] == 1
        assert "no replica is ready of executor all" in found["description"]
        async with socket(flow, "/dry_run", kind="json") as connection:
            await connection.send("{}")
            assert json.loads(await receive(connection))["code"] == 1


async def test_profiling_at_the_root_encodes_a_text() -> None:
    all_ = executor()
    async with serving(all_) as flow:
        reply = await flow.send(wire.build_request("/", DocumentBatch.from_columns(ids=["empty"])))
        assert [route.executor for route in reply.routes] == ["gateway", "all"]
        assert all_.seen[-1].header.exec_endpoint == "/encode"
        assert wire.documents_of(all_.seen[-1]).texts[0]
        assert wire.documents_of(reply).ids == ["empty"]
        nothing = (await flow.http.post("/post", json={"execEndpoint": "/"})).json()
        assert len(nothing["routes"]) == 2
    bound = FakeExecutor("own", {"/": append("own"), "/encode": embed})
    async with serving(bound) as flow:  # an executor that binds it is asked itself
        reply = await flow.send(wire.build_request("/", DocumentBatch.from_columns(texts=["a"])))
        assert wire.documents_of(reply).texts == ["aown"]


# ---- WebSocket ----


async def test_binary_frames_are_answered_as_they_are_done_and_the_end_closes() -> None:
    async with serving(executor()) as flow, socket(flow) as connection:
        assert connection.subprotocol == "bytes"
        await connection.send(request_bytes("/slow", "s", name="slow"))
        await connection.send(request_bytes("/mark", "a", name="fast"))
        await connection.send(request_bytes("/fail", "b", name="bad"))
        await connection.send(b"\xff\xff nonsense")
        await connection.send(END)
        replies = [wire.read_request(await receive(connection)) for _ in range(4)]
        with pytest.raises(ConnectionClosed):
            await receive(connection)
        assert connection.close_code == 1000
        by_name = {reply.header.request_id: reply for reply in replies}
        assert replies[-1].header.request_id == "slow"
        assert wire.documents_of(by_name["fast"]).texts == ["a!"]
        assert [route.executor for route in by_name["fast"].routes] == ["gateway", "all"]
        assert by_name["bad"].header.status.description == "no such luck"
        assert "could not be decoded" in by_name[""].header.status.description


@pytest.mark.parametrize("kind", ["json", None])
async def test_text_frames_hold_the_objects_of_post(kind: str | None) -> None:
    async with serving(executor()) as flow, socket(flow, kind=kind) as connection:
        await connection.send(json.dumps({"execEndpoint": "/encode", "data": [{"text": "abc"}]}))
        found = json.loads(await receive(connection))
        assert found["data"][0]["embedding"] == [3.0, 0.5]
        for wrong in ("{", '{"data": 5}', '{"data": []}'):
            await connection.send(wrong)
            assert json.loads(await receive(connection))["header"]["status"]["code"] == 1
        await connection.send("{}")
        with pytest.raises(ConnectionClosed):
            await receive(connection)


async def test_a_page_of_another_origin_is_refused() -> None:
    async with serving(executor()) as flow:
        with pytest.raises(InvalidStatus):
            async with socket(flow, origin="http://evil.example"):
                pass
        async with socket(flow, origin=f"http://127.0.0.1:{flow.ports['http']}") as connection:
            await connection.send(request_bytes("/mark", "a"))
            assert await receive(connection)
    allowed = serving(executor(), settings=GatewaySettings(cors=frozenset({"*"})))
    async with allowed as flow, socket(flow, origin="http://page.example") as connection:
        await connection.send(request_bytes("/mark", "a"))
        assert await receive(connection)


async def test_a_client_that_hangs_up_stops_its_work() -> None:
    all_ = FakeExecutor("all", {"/slow": sleeping(30)})
    async with serving(all_) as flow:
        async with socket(flow) as connection:
            await connection.send(request_bytes("/slow", "s"))
            await eventually(lambda: all_.in_flight == 1)
        await eventually(lambda: all_.cancelled == 1)


async def test_a_gateway_that_stops_answers_what_it_has_begun() -> None:
    all_ = executor()
    async with serving(all_) as flow, socket(flow) as idle, socket(flow) as busy:
        await busy.send(request_bytes("/slow", "s", name="slow"))
        await eventually(lambda: all_.in_flight == 1)
        stopping = asyncio.create_task(flow.gateway.stop())
        assert wire.read_request(await receive(busy)).header.request_id == "slow"
        for connection in (busy, idle):
            with pytest.raises(ConnectionClosed):
                await receive(connection)
            assert connection.close_code == 1012
        await asyncio.wait_for(stopping, 20)
