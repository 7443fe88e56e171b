"""Keys at every protocol of the gateway: who gets in, who does not, in which shape they are told."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from gateway_fakes import FakeExecutor, Flow, append, embed, eventually, result, serving, texts_of, waiting
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from flowdex import AsyncClient, wire
from flowdex.documents import DocumentBatch
from flowdex.errors import ConfigurationError, Overloaded, PermissionDenied, Unauthenticated
from flowdex.proto import flowdex_pb2 as pb
from flowdex_orchestrator.access import Guard, Role, guard_of
from flowdex_orchestrator.access.keys import Key, digest_of, key_id, new_token, write_keys
from flowdex_orchestrator.gateway.server import Gateway
from flowdex_orchestrator.gateway.settings import GatewaySettings
from flowdex_orchestrator.health import HEALTH_SERVICE


class Keys:
    """A key file and the tokens in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.keys: list[Key] = []
        self.tokens: dict[str, str] = {}

    def add(self, name: str, *roles: str, **fields: Any) -> str:
        token = self.tokens[name] = new_token()
        known = {"id": key_id(token), "name": name, "sha256": digest_of(token).hex(), "roles": roles}
        self.keys.append(Key.model_validate({**known, "created": datetime.now(timezone.utc), **fields}))
        write_keys(self.path, self.keys)
        return token

    def remove(self, name: str) -> None:
        self.keys = [key for key in self.keys if key.name != name]
        write_keys(self.path, self.keys)

    def guard(self) -> Guard:
        guard = guard_of(self.path, {"/classify": Role.SEARCH})
        assert guard is not None
        return guard


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    keys = Keys(tmp_path / "keys.json")
    keys.add("searcher", "search")
    keys.add("indexer", "index")
    keys.add("admin", "admin")
    keys.add("prometheus", "metrics")
    return keys


def executor() -> FakeExecutor:
    return FakeExecutor(
        "all",
        {
            "/encode": embed,
            "/index": append("!"),
            "/delete": result("all", deleted=1),
            "/count": result("all", documents=3),
            "/custom": append("?"),
            "/classify": append("."),
            "/status": result("all", documents=3),
        },
    )


@asynccontextmanager
async def guarded(keys: Keys, *executors: FakeExecutor, **options: Any) -> AsyncIterator[Flow]:
    async with serving(*(executors or (executor(),)), guard=keys.guard(), **options) as flow:
        yield flow


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


async def call(flow: Flow, endpoint: str, token: str | None, key: str = "authorization", **options: Any) -> Any:
    data = wire.build_request(endpoint, DocumentBatch.from_columns(texts=["a"]), **options)
    value = f"Bearer {token}" if key == "authorization" else token
    return texts_of(await flow.send(data, metadata=((key, value),) if token is not None else ()))


async def refused(flow: Flow, endpoint: str, token: str | None, **options: Any) -> grpc.StatusCode:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call(flow, endpoint, token, **options)
    code: grpc.StatusCode = raised.value.code()
    return code


async def test_grpc_asks_for_keys_and_roles(keys: Keys) -> None:
    missing, denied = grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED
    tokens = keys.tokens
    async with guarded(keys) as flow:
        for token in (None, "", "wrong", new_token(), tokens["searcher"][:-1]):
            assert await refused(flow, "/encode", token) is missing
        assert await call(flow, "/encode", tokens["searcher"]) == ["a"]
        for header in ("x-api-key", "api-key"):
            assert await call(flow, "/encode", tokens["searcher"], header) == ["a"]
        assert await refused(flow, "/index", tokens["searcher"]) is denied
        assert await refused(flow, "/encode", tokens["indexer"]) is denied
        assert await call(flow, "/index", tokens["indexer"]) == ["a!"]
        assert await refused(flow, "/index", tokens["indexer"], parameters={"reindex": {"store": True}}) is denied
        assert await refused(flow, "/custom", tokens["searcher"]) is denied
        assert await call(flow, "/custom", tokens["admin"]) == ["a?"]
        assert await call(flow, "/classify", tokens["searcher"]) == ["a."]
        assert await refused(flow, "/encode", tokens["prometheus"]) is denied


async def test_every_grpc_method_asks_but_those_about_readiness(keys: Keys) -> None:
    empty = b""
    methods = {
        "/jina.JinaSingleDataRequestRPC/process_single_data": False,
        "/jina.JinaDiscoverEndpointsRPC/endpoint_discovery": False,
        "/jina.JinaInfoRPC/_status": False,
        "/jina.JinaGatewayDryRunRPC/dry_run": True,
        f"/{HEALTH_SERVICE}/Check": True,
    }
    async with guarded(keys) as flow:
        assert flow.gateway.guard is not None
        for method, is_open in methods.items():
            code = grpc.StatusCode.OK
            try:
                await flow.channel.unary_unary(method)(empty, timeout=5)
            except grpc.aio.AioRpcError as error:
                code = error.code()
            assert code is (grpc.StatusCode.OK if is_open else grpc.StatusCode.UNAUTHENTICATED), method
        for method in ("/jina.JinaSingleDocumentRequestRPC/stream_doc",):
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                [each async for each in flow.channel.unary_stream(method)(empty, timeout=5)]
            assert raised.value.code() is grpc.StatusCode.UNAUTHENTICATED
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            stream = flow.channel.stream_stream("/jina.JinaRPC/Call")(iter([wire.build_request("/encode")]), timeout=5)
            [each async for each in stream]
        assert raised.value.code() is grpc.StatusCode.UNAUTHENTICATED
        listed = {
            f"/{service}/{name}" for service, handlers in flow.gateway._grpc.methods().items() for name in handlers
        }
        known = {*methods, "/jina.JinaSingleDocumentRequestRPC/stream_doc", "/jina.JinaRPC/Call"}
        assert listed <= known, "which key does the new method need?"


async def test_http_asks_for_keys_and_roles(keys: Keys) -> None:
    texts = {"texts": ["a"]}
    async with guarded(keys) as flow:
        http, tokens = flow.http, keys.tokens
        answer = await http.post("/encode", json=texts)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["x-request-id"] == answer.json()["request_id"]
        assert "FLOWDEX_API_KEY" in answer.json()["detail"]
        for headers in (bearer(tokens["searcher"]), {"X-API-Key": tokens["searcher"]}, {"api-key": tokens["searcher"]}):
            assert (await http.post("/encode", json=texts, headers=headers)).status_code == 200
        assert (await http.post("/encode", json=texts, headers=bearer("nonsense"))).status_code == 401
        documents = {"documents": [{"text": "a"}]}
        denied = await http.post("/index", json=documents, headers=bearer(tokens["searcher"]))
        assert denied.status_code == 403
        assert denied.json()["type"] == "urn:flowdex:error:PermissionDenied"
        assert "the role index; this one has search" in denied.json()["detail"]
        assert (await http.post("/index", json=documents, headers=bearer(tokens["indexer"]))).status_code == 200
        assert (await http.delete("/documents/a", headers=bearer(tokens["searcher"]))).status_code == 403
        assert (await http.delete("/documents/a", headers=bearer(tokens["indexer"]))).status_code == 200
        assert (await http.get("/nothing", headers=bearer(tokens["searcher"]))).status_code == 404
        assert (await http.get("/nothing")).status_code == 401
        assert (await http.get("/metrics", headers=bearer(tokens["searcher"]))).status_code == 403
        assert (await http.get("/metrics", headers=bearer(tokens["prometheus"]))).status_code == 200
        assert (await http.get("/status", headers=bearer(tokens["prometheus"]))).status_code == 403
        scale = {"replicas": {"all": 2}}
        assert (await http.post("/admin/scale", json=scale, headers=bearer(tokens["indexer"]))).status_code == 403
        assert (await http.post("/admin/scale", json=scale, headers=bearer(tokens["admin"]))).status_code == 404
        for path in ("/", "/health/live", "/health/ready", "/docs", "/openapi.json", "/dry_run", "/page/app.js"):
            assert (await http.get(path)).status_code == 200, path


async def test_an_endpoint_in_a_body_is_guarded_like_its_route(keys: Keys) -> None:
    """Jina's bodies name the endpoint themselves, at any path."""
    async with guarded(keys) as flow:
        body = {"data": [{"id": "1", "text": "a"}], "execEndpoint": "/index"}
        for path in ("/post", "/encode", "/search"):
            answer = await flow.http.post(path, json=body, headers=bearer(keys.tokens["searcher"]))
            assert answer.status_code == 403, path
            assert answer.json()["header"]["status"]["exception"]["name"] == "PermissionDenied"
        allowed = {**body, "execEndpoint": "/encode"}
        answer = await flow.http.post("/post", json=allowed, headers=bearer(keys.tokens["searcher"]))
        assert answer.status_code == 200


async def test_refusals_are_in_the_shape_of_the_contract(keys: Keys) -> None:
    async with guarded(keys) as flow:
        openai = await flow.http.post("/v1/embeddings", json={"input": "a", "model": "all"})
        assert openai.status_code == 401
        assert openai.json()["error"]["code"] == "invalid_api_key"
        tei = await flow.http.post("/embed", json={"inputs": "a"})
        assert tei.status_code == 401 and set(tei.json()) >= {"error", "error_type"}
        cohere = await flow.http.post("/v2/rerank", json={"query": "a", "documents": ["b"], "model": "all"})
        assert cohere.status_code == 401 and "message" in cohere.json()


async def test_websockets_ask_for_keys(keys: Keys) -> None:
    async with guarded(keys) as flow:
        url = f"ws://127.0.0.1:{flow.ports['http']}/"
        with pytest.raises(InvalidStatus) as raised:
            async with connect(url, proxy=None):
                pass
        assert raised.value.response.status_code in (401, 403)
        async with connect(url, proxy=None, additional_headers=bearer(keys.tokens["searcher"])) as socket:
            for endpoint, code in (("/encode", 0), ("/index", 1)):
                await socket.send(json.dumps({"data": [{"id": "1", "text": "a"}], "execEndpoint": endpoint}))
                reply = json.loads(await asyncio.wait_for(socket.recv(), 10))
                status = reply["header"].get("status") or {}
                assert (status.get("code") in (1, "ERROR")) is bool(code), endpoint


async def test_a_key_that_is_removed_or_expires_ends_open_connections(
    keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flowdex_orchestrator.access.keys._LOOK_SECONDS", 0.0)
    short = keys.add("short", "search", expires=datetime.now(timezone.utc) + timedelta(hours=1))
    async with guarded(keys) as flow:
        url = f"ws://127.0.0.1:{flow.ports['http']}/"
        request = json.dumps({"data": [{"id": "1", "text": "a"}], "execEndpoint": "/encode"})
        assert await call(flow, "/encode", short) == ["a"]
        async with connect(url, proxy=None, additional_headers=bearer(keys.tokens["searcher"])) as socket:
            await socket.send(request)
            assert "Unauthenticated" not in str(await asyncio.wait_for(socket.recv(), 10))
            keys.remove("searcher")
            await socket.send(request)
            assert "Unauthenticated" in str(await asyncio.wait_for(socket.recv(), 10))
        assert await refused(flow, "/encode", keys.tokens["searcher"]) is grpc.StatusCode.UNAUTHENTICATED
        later = time.time() + 3601
        monkeypatch.setattr("flowdex_orchestrator.access.keys.time.time", lambda: later)
        assert await refused(flow, "/encode", short) is grpc.StatusCode.UNAUTHENTICATED


async def test_limits_of_a_key_leave_the_others_alone(keys: Keys) -> None:
    slow = keys.add("slow", "search", rate=0.01, burst=2)
    narrow = keys.add("narrow", "search", concurrent=1)
    release = asyncio.Event()
    busy = FakeExecutor("all", {"/encode": embed, "/count": waiting(release)})
    async with guarded(keys, busy) as flow:
        for _ in range(2):
            assert (await flow.http.post("/encode", json={"texts": ["a"]}, headers=bearer(slow))).status_code == 200
        answer = await flow.http.post("/encode", json={"texts": ["a"]}, headers=bearer(slow))
        assert answer.status_code == 429
        assert 1 <= int(answer.headers["retry-after"]) <= 100
        assert await refused(flow, "/encode", slow) is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert await call(flow, "/encode", keys.tokens["searcher"]) == ["a"]

        first = asyncio.ensure_future(flow.http.post("/count", json={}, headers=bearer(narrow)))
        await eventually(lambda: busy.in_flight > 0)
        assert (await flow.http.post("/encode", json={"texts": ["a"]}, headers=bearer(narrow))).status_code == 429
        assert await refused(flow, "/encode", narrow) is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert await call(flow, "/encode", keys.tokens["searcher"]) == ["a"]
        release.set()
        assert (await first).status_code == 200
        assert await call(flow, "/encode", narrow) == ["a"]


async def test_a_stream_that_is_refused_is_no_request_that_took_time(keys: Keys) -> None:
    """As a call that is: it is counted, by its error, and stands in no duration."""
    slow = keys.add("slow", "search", rate=0.001, burst=1)
    async with guarded(keys) as flow:
        method = flow.channel.unary_stream(wire.STREAM_DOC)
        request = pb.SingleDocumentRequestProto(header=pb.HeaderProto(exec_endpoint="/encode")).SerializeToString()
        metadata = (("authorization", f"Bearer {slow}"),)
        assert len([reply async for reply in method(request, timeout=10, metadata=metadata)]) == 3
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            _ = [reply async for reply in method(request, timeout=10, metadata=metadata)]
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        metrics = flow.gateway.router.metrics
        assert metrics.endpoints["/encode"].summary()["count"] == 1
        text = (await flow.http.get("/metrics", headers=bearer(keys.tokens["prometheus"]))).text
        assert 'flowdex_request_errors_total{endpoint="/encode",type="Overloaded"} 1.0' in text


@pytest.mark.parametrize("scheme", ["grpc", "http"])
async def test_the_client_sends_its_key(keys: Keys, scheme: str) -> None:
    async with guarded(keys) as flow:
        url = f"{scheme}://127.0.0.1:{flow.ports[scheme]}"
        async with AsyncClient(url, api_key=keys.tokens["searcher"]) as client:
            assert (await client.encode(["a"])).shape == (1, 2)
            with pytest.raises(PermissionDenied, match="role index"):
                await client.index([{"id": "1", "text": "a"}])
        async with AsyncClient(url) as client:
            with pytest.raises(Unauthenticated, match="api_key"):
                await client.encode(["a"])
        slow = keys.add("slow", "search", rate=0.001, burst=1)
        await asyncio.sleep(1.1)  # until the gateway has seen the new key
        async with AsyncClient(url, api_key=slow, retries=0) as client:
            await client.encode(["a"])
            with pytest.raises(Overloaded, match="rate of its key"):
                await client.encode(["a"])


async def test_refusals_are_counted_without_labels_of_strangers(keys: Keys) -> None:
    slow = keys.add("slow", "search", rate=0.001, burst=1)
    async with guarded(keys) as flow:
        async with AsyncClient(f"http://127.0.0.1:{flow.ports['http']}", api_key=slow) as client:
            await client.encode(["a"])
        encode, body = "/encode", {"texts": ["a"]}
        for path, token, status in (
            (encode, "wrong", 401),
            (encode, keys.tokens["indexer"], 403),
            (encode, slow, 429),
            *((f"/made-up-{number}", "wrong", 401) for number in range(150)),
        ):
            assert (await flow.http.post(path, json=body, headers=bearer(token))).status_code == status
        assert await refused(flow, encode, "wrong") is grpc.StatusCode.UNAUTHENTICATED
        text = (await flow.http.get("/metrics", headers=bearer(keys.tokens["prometheus"]))).text
    for endpoint, status, count in ((encode, 401, 1), (encode, 403, 1), (encode, 429, 1), ("other", 401, 151)):
        assert f'flowdex_requests_total{{endpoint="{endpoint}",status="{status}"}} {count}.0' in text
    assert f'flowdex_request_errors_total{{endpoint="{encode}",type="PermissionDenied"}} 1.0' in text
    assert "made-up" not in text


@pytest.mark.parametrize("with_keys", [True, False])
async def test_the_document_says_where_the_key_goes(keys: Keys, with_keys: bool) -> None:
    async with guarded(keys) if with_keys else serving(executor()) as flow:
        document = (await flow.http.get("/openapi.json")).json()
    schemes = document["components"]["securitySchemes"]
    assert schemes["bearer"] | {"description": ""} == {"type": "http", "scheme": "bearer", "description": ""}
    ways: list[dict[str, Any]] = [{"bearer": []}, {"header": []}]
    assert document["paths"]["/encode"]["post"]["security"] == ways + ([] if with_keys else [{}])
    assert "security" not in document["paths"]["/health/ready"]["get"]


async def test_without_keys_nothing_listens_beyond_this_machine(keys: Keys) -> None:
    async with Gateway([]) as gateway:
        with pytest.raises(ConfigurationError, match=r"flowdex keys add .*--insecure"):
            await gateway.serve("0.0.0.0", grpc_port=0)
        assert gateway.ports == {}
    async with Gateway([], GatewaySettings(insecure=True)) as gateway:
        assert "grpc" in await gateway.serve("0.0.0.0", grpc_port=0)
    async with Gateway([], guard=keys.guard()) as gateway:
        assert "grpc" in await gateway.serve("0.0.0.0", grpc_port=0)


async def test_the_protocol_of_bert_as_service_has_no_keys(keys: Keys) -> None:
    async with Gateway([], guard=keys.guard()) as gateway:
        with pytest.raises(ConfigurationError, match="without_key"):
            await gateway.serve("127.0.0.1", bert_ports=(0, 0))
    async with Gateway([], GatewaySettings(bert_without_key=True), guard=keys.guard()) as gateway:
        assert set(await gateway.serve("127.0.0.1", bert_ports=(0, 0))) == {"bert", "bert-out"}


async def test_the_command_refuses_to_open_the_flow(tmp_path: Path) -> None:
    flow = tmp_path / "flow.yml"
    flow.write_text("jtype: Flow\nwith: {host: 0.0.0.0}\nexecutors: [{name: a, uses: some.Executor, port: 1}]\n")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "flowdex", "gateway", "--flow", str(flow), stderr=asyncio.subprocess.PIPE
    )
    _, errors = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 1
    assert b"--insecure" in errors and b"flowdex keys add" in errors and b"Traceback" not in errors


# ---- browsers ----


async def test_names_that_are_not_ours_are_refused_on_loopback() -> None:
    async with serving(executor(), settings=GatewaySettings(hosts=frozenset({"search.example"}))) as flow:
        port = flow.ports["http"]
        for host in ("127.0.0.1", f"localhost:{port}", "[::1]", "search.example", f"Search.Example:{port}", "10.1.2.3"):
            answer = await flow.http.get("/health/live", headers={"host": host})
            assert answer.status_code == 200, host
        for host in ("evil.example", f"evil.example:{port}", "localhost.evil.example", "127.0.0.1.evil.example", "x"):
            answer = await flow.http.post("/encode", json={"texts": ["a"]}, headers={"host": host})
            assert answer.status_code == 403, host
            assert "gateway: hosts:" in answer.json()["detail"]
        with pytest.raises(InvalidStatus) as raised:
            async with connect(f"ws://127.0.0.1:{port}/", proxy=None, host="127.0.0.1", port=port) as socket:
                await socket.close()
            async with connect(f"ws://evil.example:{port}/", proxy=None, host="127.0.0.1", port=port):
                pass
        assert raised.value.response.status_code == 403


async def test_every_answer_carries_the_headers_that_protect_browsers() -> None:
    async with serving(executor()) as flow:
        for path in ("/", "/status", "/docs", "/nothing", "/openapi.json", "/metrics", "/page/app.js"):
            headers = (await flow.http.get(path)).headers
            assert headers["x-content-type-options"] == "nosniff", path
            assert headers["referrer-policy"] == "no-referrer", path
            policy = headers["content-security-policy"]
            assert "frame-ancestors 'none'" in policy and "default-src 'none'" in policy, path
            assert "unsafe" not in policy, path
            assert headers.get_list("content-security-policy") == [policy]
            assert "access-control-allow-origin" not in headers
        error = await flow.http.post("/encode", content=b"{", headers={"content-type": "application/json"})
        assert error.status_code == 400 and error.headers["x-content-type-options"] == "nosniff"


async def test_cors_is_for_the_origins_that_are_named() -> None:
    ours, other = "https://app.example", "https://evil.example"
    async with serving(executor(), settings=GatewaySettings(cors=frozenset({ours}))) as flow:

        async def allowed(origin: str) -> str | None:
            preflight = {"origin": origin, "access-control-request-method": "POST"}
            first: httpx.Response = await flow.http.options("/encode", headers=preflight)
            second = await flow.http.post("/encode", json={"texts": ["a"]}, headers={"origin": origin})
            assert first.headers.get("access-control-allow-origin") == second.headers.get("access-control-allow-origin")
            return second.headers.get("access-control-allow-origin")

        assert await allowed(ours) == ours
        assert await allowed(other) is None
