"""A whole flow with keys: two tenants at every route, the flow's own key, the commands, and secrets in no output."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from flow_support import ROOT, RunningFlow, run_flowdex, start_flow, stop_flow
from page_support import Pages, watch_of

from flowdex import Client
from flowdex.errors import PermissionDenied, Unauthenticated

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

FORGED = {"__tenant__": "globex", "tenant": "globex", "indexer": {"tenant": "globex", "__tenant__": "globex"}}
MARKERS = {"acme": "zanzibar", "globex": "kilimanjaro"}


@dataclass(frozen=True)
class Guarded:
    """A running flow and the tokens of its keys."""

    flow: RunningFlow
    tokens: dict[str, str]

    def http(self, name: str) -> httpx.Client:
        return httpx.Client(
            base_url=self.flow.http_url,
            headers={"authorization": f"Bearer {self.tokens[name]}"},
            timeout=120,
            trust_env=False,
        )


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("guarded")
    tokens = {}
    for name, *options in (
        ("acme", "--role", "search", "--role", "index", "--tenant", "acme"),
        ("globex", "--role", "search", "--role", "index", "--tenant", "globex"),
        ("reader", "--role", "search"),
        ("operator", "--role", "admin"),
    ):
        made = run_flowdex("keys", "add", name, *options, "--file", "keys.json", cwd=folder)
        assert made.returncode == 0, made.stderr
        tokens[name] = made.stdout.strip()
    text = (ROOT / "flow.yml").read_text()
    flow = start_flow(folder, text.replace("gateway:\n", "gateway:\n  keys: keys.json\n"))
    guarded = Guarded(flow, tokens)
    for tenant, marker in MARKERS.items():
        with guarded.http(tenant) as http:
            documents = [
                {"id": "same", "text": f"The road to {marker} is long.", "tags": {"place": marker}},
                {"id": f"only-{tenant}", "text": f"Bread from {marker} is baked daily.", "tags": {"place": marker}},
            ]
            http.post("/index", json={"documents": documents}).raise_for_status()
    yield guarded
    stop_flow(flow)


def requests_of(marker: str) -> dict[str, list[tuple[str, str, Any]]]:
    """Requests to every route that keys of a tenant may call, by its path in the OpenAPI document."""
    query, texts = "road bread", ["a text", "another"]
    return {
        "/encode": [("POST", "/encode", {"texts": texts})],
        "/search": [
            ("POST", "/search", {"query": [query], "mode": mode, "limit": 20, **more})
            for mode in ("dense", "sparse", "hybrid")
            for more in ({"explain": True}, {"rerank": "late_interaction"}, {"group": "passage"})
        ]
        + [
            ("POST", "/search", {"query": [query], "mode": "dense", "diversity": 0.7, "limit": 20}),
            ("POST", "/search", {"query": [query], "filter": {"place": marker}}),
            (
                "POST",
                "/search",
                {"query": [query], "parameters": FORGED},
            ),
        ],
        "/rank": [("POST", "/rank", {"query": query, "texts": texts})],
        "/attention": [("POST", "/attention", {"text": "a text"})],
        "/interaction": [("POST", "/interaction", {"query": query, "text": "a text"})],
        "/get": [("POST", "/get", {"ids": ["same", "only-globex", "globex\x1fsame"], "passages": True})],
        "/scroll": [("POST", "/scroll", {"limit": 100}), ("POST", "/scroll", {"filter": {"place": marker}})],
        "/count": [("POST", "/count", {})],
        "/documents": [("GET", "/documents", None), ("DELETE", "/documents?id=only-globex", None)],
        "/documents/{id}": [
            ("GET", "/documents/same", None),
            ("GET", "/documents/only-globex", None),
            ("DELETE", "/documents/only-globex", None),
        ],
        "/map": [("POST", "/map", {"query": query}), ("POST", "/map", {})],
        "/compare": [("GET", "/compare", None), ("POST", "/compare", {"query": query, "modes": ["dense", "sparse"]})],
        "/post": [("POST", "/post", {"data": [{"id": "1", "text": query}], "execEndpoint": "/search"})],
        "/status": [("GET", "/status", None)],
        "/status/server": [("GET", "/status/server", None)],
        "/status/client": [("GET", "/status/client", None)],
        "/metrics": [("GET", "/metrics", None)],
        "/v1/embeddings": [("POST", "/v1/embeddings", {"input": "a", "model": "encoder"})],
        "/v1/models": [("GET", "/v1/models", None)],
        "/v1/models/{model}": [("GET", "/v1/models/encoder", None)],
        "/v1/rerank": [("POST", "/v1/rerank", {"query": query, "documents": texts, "model": "ranker"})],
        "/v2/rerank": [("POST", "/v2/rerank", {"query": query, "documents": texts, "model": "ranker"})],
        "/embed": [("POST", "/embed", {"inputs": "a"})],
        "/embed_all": [("POST", "/embed_all", {"inputs": "a"})],
        "/embed_sparse": [("POST", "/embed_sparse", {"inputs": "a"})],
        "/similarity": [("POST", "/similarity", {"inputs": {"source_sentence": "a", "sentences": texts}})],
        "/rerank": [("POST", "/rerank", {"query": query, "texts": texts})],
        "/tokenize": [("POST", "/tokenize", {"inputs": "a"})],
        "/decode": [("POST", "/decode", {"ids": [101, 102]})],
        "/info": [("GET", "/info", None)],
        "/dry_run": [("GET", "/dry_run", None)],
        "/health": [("GET", "/health", None)],
        "/health/live": [("GET", "/health/live", None)],
        "/health/ready": [("GET", "/health/ready", None)],
        "/admin/scale": [("POST", "/admin/scale", {"replicas": {"encoder": 2}})],
        "/admin/restart": [("POST", "/admin/restart", {"executor": "encoder"})],
        "/index": [("POST", "/index", {"documents": [{"id": "same", "text": f"The road to {marker} is long."}]})],
    }


FORBIDDEN = {"/status/server", "/status/client", "/metrics", "/admin/scale", "/admin/restart"}


def test_no_route_shows_one_tenant_the_other(guarded: Guarded) -> None:
    with guarded.http("acme") as http:
        routes = requests_of(MARKERS["acme"])
        assert set(http.get("/openapi.json").json()["paths"]) == set(routes), "what does the new route show tenants?"
        seen = ""
        for path, requests in routes.items():
            for method, url, body in requests:
                answer = http.request(method, url, json=body)
                where = f"{method} {url} {body}: {answer.status_code} {answer.text[:500]}"
                assert MARKERS["globex"] not in answer.text and "\x1f" not in answer.text, where
                assert "\\u001f" not in answer.text and "\\x1f" not in answer.text, where
                assert answer.status_code == 403 if path in FORBIDDEN else answer.status_code < 500, where
                seen += answer.text
        assert seen.count(MARKERS["acme"]) > 20, "the tenant sees its own"
    with guarded.http("globex") as http:
        assert http.post("/count", json={}).json()["documents"] == 2, "nothing of it was deleted or overwritten"
        assert MARKERS["globex"] in http.get("/documents/same").json()["text"]
        hits = http.post("/search", json={"query": ["road"], "mode": "hybrid"}).json()["results"][0]["hits"]
        assert {hit["id"] for hit in hits} == {"same", "only-globex"}


def test_the_flows_own_executors_have_a_key(guarded: Guarded) -> None:
    """The ranker asks the flow's encoder through the gateway."""
    with guarded.http("reader") as http:
        answer = http.post("/search", json={"query": ["road"], "rerank": "late_interaction"})
    assert answer.status_code == 200, answer.text
    (found,) = answer.json()["results"]
    assert found["hits"] and not found.get("notes")
    assert "rerank" in found["hits"][0]["scores"]


def test_grpc_keeps_tenants_apart_too(guarded: Guarded) -> None:
    with Client(guarded.flow.grpc_url, api_key=guarded.tokens["acme"]) as acme:
        found = acme.search("road bread", limit=20)
        assert {hit.id for hit in found.hits} == {"same", "only-acme"}
        assert MARKERS["globex"] not in str(found)
        assert acme.count() == 2
        status = acme.status()
        assert "documents" not in str([each.status for each in status.executors])
        with pytest.raises(PermissionDenied):
            acme.snapshot(guarded.flow.folder / "stolen")
    with Client(guarded.flow.grpc_url, api_key=guarded.tokens["operator"]) as operator:
        assert operator.count() == 4


def test_the_commands_send_the_key(guarded: Guarded) -> None:
    flow = guarded.flow

    def flowdex(*arguments: str, key: str | None = None) -> subprocess.CompletedProcess[str]:
        environment = {
            "FLOWDEX_URL": flow.grpc_url,
            **({} if key is None else {"FLOWDEX_API_KEY": guarded.tokens[key]}),
        }
        return run_flowdex(*arguments, cwd=flow.folder, **environment)

    refused = flowdex("search", "road")
    assert refused.returncode == 1 and "FLOWDEX_API_KEY" in refused.stderr
    assert flowdex("count", key="reader").returncode == 0
    denied = flowdex("delete", "same", key="reader")
    assert denied.returncode == 1 and "role index" in denied.stderr
    listed = flowdex("keys", "list", "--json")
    assert {each["name"] for each in json.loads(listed.stdout)} == set(guarded.tokens)
    with Client(flow.grpc_url, api_key=guarded.tokens["reader"]) as client, pytest.raises(PermissionDenied):
        client.delete(["same"])


def test_a_removed_key_is_refused_while_the_flow_runs(guarded: Guarded) -> None:
    folder = guarded.flow.folder
    token = run_flowdex("keys", "add", "passing", "--role", "search", cwd=folder).stdout.strip()
    with httpx.Client(base_url=guarded.flow.http_url, trust_env=False) as http:
        headers = {"x-api-key": token}

        def status_within(seconds: float, wanted: int) -> int:
            end = time.monotonic() + seconds
            while (found := http.post("/count", json={}, headers=headers).status_code) != wanted:
                if time.monotonic() > end:
                    break
                time.sleep(0.1)
            return found

        assert status_within(10, 200) == 200
        assert run_flowdex("keys", "remove", "passing", cwd=folder).returncode == 0
        assert status_within(10, 401) == 401
        assert run_flowdex("keys", "remove", "passing", cwd=folder).returncode == 1


def test_the_page_asks_for_a_key_and_forgets_it_with_the_tab(guarded: Guarded, open_page: Pages) -> None:
    page = open_page(f"{guarded.flow.http_url}/#/search?q=road")
    field = page.locator("#key")
    field.wait_for(state="visible")  # the search was refused
    watch = watch_of(page)
    assert all("401" in each for each in watch.complaints), watch.complaints
    watch.complaints.clear()
    token = guarded.tokens["acme"]
    field.fill(token)
    field.press("Enter")
    page.get_by_text(MARKERS["acme"]).first.wait_for()
    assert not field.is_visible()
    assert MARKERS["globex"] not in page.content()
    stored = page.evaluate("[JSON.stringify(localStorage), document.cookie, JSON.stringify(sessionStorage)]")
    assert token not in stored[0] + stored[1] + page.url + page.content()
    assert token in stored[2]
    other = page.context.new_page()
    other.goto(guarded.flow.http_url)
    assert other.evaluate("sessionStorage.length") == 0
    other.close()


def test_the_documents_of_the_api_take_a_key(guarded: Guarded, open_page: Pages) -> None:
    page = open_page(f"{guarded.flow.http_url}/docs")
    route = page.locator("details").filter(has=page.locator("summary code", has_text="/count")).first
    route.locator("summary").click()
    command, answer = route.locator("pre").first, route.locator("pre").nth(1)
    assert "authorization" not in command.inner_text()
    route.get_by_role("button", name="Send").click()
    answer.get_by_text("401").wait_for()
    watch = watch_of(page)
    assert all("401" in each for each in watch.complaints), watch.complaints
    watch.complaints.clear()
    page.get_by_label("API key").fill(guarded.tokens["acme"])
    assert '"authorization: Bearer $FLOWDEX_API_KEY"' in command.inner_text()
    route.get_by_role("button", name="Send").click()
    answer.get_by_text("200").wait_for()
    open_page.screenshot(page, "docs-with-a-key")
    assert guarded.tokens["acme"] not in page.content()


def test_secrets_are_in_no_output(guarded: Guarded) -> None:
    """After all of the above: logs, state, status, metrics, errors and the titles of processes."""
    secrets = set(guarded.tokens.values())
    found = []
    with guarded.http("operator") as http:
        for path in ("/status", "/metrics", "/status/server", "/openapi.json", "/nothing"):
            found.append(http.get(path).text)
        found.append(http.post("/search", json={"query": ["x"], "bad": True}).text)
    wrong = next(iter(secrets))[:-3] + "abc"
    with httpx.Client(base_url=guarded.flow.http_url, trust_env=False) as http:
        found.append(http.get("/status", headers={"authorization": f"Bearer {wrong}"}).text)
        secrets.add(wrong)
    with pytest.raises(Unauthenticated) as raised, Client(guarded.flow.grpc_url, api_key=wrong) as client:
        client.count()
    found.append(str(raised.value))
    run = guarded.flow.folder / ".flowdex"
    token = next(run.rglob("token")).read_text().strip()
    for path in run.rglob("*"):
        if path.is_file() and path.name != "token" and "index" not in path.parts:
            found.append(path.read_text(errors="replace"))
    keys = (guarded.flow.folder / "keys.json").read_text()
    flow_keys = set()
    for process in Path("/proc").iterdir():
        if process.name.isdecimal() and process.name != str(os.getpid()):
            try:
                found.append((process / "cmdline").read_text(errors="replace"))
                environment = (process / "environ").read_text(errors="replace")
            except OSError:
                continue
            if str(guarded.flow.folder) in found[-1]:
                flow_keys |= set(re.findall(r"FLOWDEX_FLOW_KEY=([^\0]+)", environment))
    assert len(flow_keys) == 1, "the gateway has the key of the flow's own executors"
    assert len(found) > 20
    for secret in {*secrets, token, *flow_keys}:
        for text in (*found, keys):
            assert secret not in text
            assert secret[17:] not in text
