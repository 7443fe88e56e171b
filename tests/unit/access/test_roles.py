"""The table of roles knows every route of the HTTP API, every endpoint of our executors, and fails closed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from fastapi.routing import APIRoute, APIWebSocketRoute

from flowdex.errors import ConfigurationError
from flowdex_orchestrator.access.network import check_executor, check_gateway, is_loopback
from flowdex_orchestrator.access.roles import ENDPOINTS, OPEN, ROUTES, Role, allows, endpoint_role, route_role
from flowdex_orchestrator.gateway.http import openapi_document
from flowdex_orchestrator.gateway.http.compat import compat_routers
from flowdex_orchestrator.gateway.http.page import make_page_router
from flowdex_orchestrator.gateway.http.routes import make_routers

ROOT = Path(__file__).resolve().parents[3]
SEARCH, INDEX, ADMIN = Role.SEARCH, Role.INDEX, Role.ADMIN
ADMINISTRATION = {"/reindex", "/snapshot", "/restore"}
WITH_VARIABLE = {"/documents/{id}", "/v1/models/{model}", "/documents"}


def test_every_route_of_the_openapi_document_is_in_the_table() -> None:
    document = openapi_document()
    for path in document["paths"]:
        assert path in OPEN or path in ROUTES or path in WITH_VARIABLE, f"which role does {path} need?"
        for method in document["paths"][path]:
            role = route_role(method.upper(), re.sub(r"\{\w+\}", "x/y", path))
            assert (role is None) == (path in OPEN)
            if method == "delete" or path in ("/index",):
                assert role is INDEX
            if path.startswith("/admin"):
                assert role is ADMIN


def test_every_route_that_the_document_does_not_show_is_known_too() -> None:
    shown = set(openapi_document()["paths"])
    for router in (*make_routers(), *compat_routers(), make_page_router()):
        for route in router.routes:
            assert isinstance(route, (APIRoute, APIWebSocketRoute))
            path = re.sub(r":\w+\}", "}", route.path)
            if path not in shown:
                assert path in ("/", "/page/{path}"), f"which role does {path} need?"


def test_every_endpoint_of_our_executors_has_its_role() -> None:
    found = set()
    for file in (ROOT / "executors").rglob("*.py"):
        found |= set(re.findall(r"""@requests\(\s*on="(/[^"]+)\"""", file.read_text()))
    assert {"/index", "/search", "/reindex", "/snapshot"} <= found - {"/upper"}
    for endpoint in found - {"/upper"}:
        expected = ADMIN if "/" + endpoint.split("/")[1] in ADMINISTRATION else ENDPOINTS[endpoint]
        assert endpoint_role(endpoint, {}) is expected, endpoint


def test_what_is_unknown_needs_admin_unless_the_flow_says_otherwise() -> None:
    assert endpoint_role("/classify", {}) is ADMIN
    assert endpoint_role("", {}) is ADMIN
    assert endpoint_role("/classify", {"/classify": SEARCH}) is SEARCH
    assert endpoint_role("/index", {"/index": SEARCH}) is INDEX, "not for our own"
    assert route_role("GET", "/nothing/here") is SEARCH
    assert route_role("POST", "/admin/anything") is ADMIN


def test_reading_and_writing_are_told_apart() -> None:
    assert route_role("GET", "/documents/a") is SEARCH
    assert route_role("DELETE", "/documents/a") is INDEX
    assert route_role("DELETE", "/documents") is INDEX
    assert route_role("GET", "/") is None
    assert route_role("POST", "/") is SEARCH
    assert route_role("GET", "/page/app.js") is None
    assert allows({ADMIN}, SEARCH) and allows({SEARCH}, SEARCH)
    assert not allows({SEARCH}, INDEX) and not allows({INDEX}, SEARCH) and not allows({SEARCH, INDEX}, ADMIN)
    assert not allows({SEARCH, INDEX}, Role.METRICS) and allows({ADMIN}, Role.METRICS)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "::1", "[::1]", "localhost", "LOCALHOST.", "a.localhost"])
def test_addresses_of_this_machine_alone(host: str) -> None:
    assert is_loopback(host)
    check_gateway(host, keys=False, insecure=False)
    check_executor(host, mutual=False, insecure=False)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example.com", "localhost.example.com", ""])
def test_addresses_of_others(host: str) -> None:
    assert not is_loopback(host)
    with pytest.raises(ConfigurationError, match=r"flowdex keys add .*--insecure"):
        check_gateway(host, keys=False, insecure=False)
    check_gateway(host, keys=True, insecure=False)
    check_gateway(host, keys=False, insecure=True)
    with pytest.raises(ConfigurationError, match=r"with: tls:.*--insecure"):
        check_executor(host, mutual=False, insecure=False)
    check_executor(host, mutual=True, insecure=False)
    check_executor(host, mutual=False, insecure=True)
