"""The route that serves the web page: its files and no others, headers, what browsers keep."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from flowdex_orchestrator.gateway.http.page import HEADERS, Page, make_page_router
from flowdex_orchestrator.gateway.http.problems import install_handlers

FOLDER = Path(__file__).parents[3] / "orchestrator" / "flowdex_orchestrator" / "gateway" / "page"


@pytest.fixture
async def page() -> AsyncIterator[httpx.AsyncClient]:
    app = FastAPI()
    app.include_router(make_page_router())
    install_handlers(app)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as client:
        yield client


async def test_every_file_of_the_page_is_served_as_what_it_is(page: httpx.AsyncClient) -> None:
    types = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
    found = [path for path in FOLDER.rglob("*") if path.is_file()]
    assert {path.name for path in found} >= {"index.html", "app.js", "api.js", "style.css", "search.js", "flow.js"}
    for path in found:
        reply = await page.get(f"/page/{path.relative_to(FOLDER).as_posix()}")
        assert reply.status_code == 200, path
        assert reply.content == path.read_bytes()
        assert reply.headers["content-type"].startswith(types[path.suffix])
    assert (await page.get("/")).content == (FOLDER / "index.html").read_bytes()
    head = await page.head("/")
    assert head.status_code == 200
    assert head.headers["content-length"] == str((FOLDER / "index.html").stat().st_size)


async def test_no_code_but_that_of_the_page_may_run(page: httpx.AsyncClient) -> None:
    for path in ("/", "/page/app.js", "/page/style.css"):
        reply = await page.get(path)
        assert {name: reply.headers[name] for name in HEADERS} == HEADERS
    policy = dict(part.strip().split(" ", 1) for part in HEADERS["Content-Security-Policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert not any("unsafe" in value or "http" in value or "*" in value for value in policy.values())


def test_the_files_keep_to_that_policy() -> None:
    for path in FOLDER.rglob("*"):
        if path.is_dir():
            continue
        text = path.read_text(encoding="utf-8")
        outside = [url for url in re.findall(r"https?://[\w./-]+", text) if not url.startswith("http://www.w3.org/")]
        assert not outside, f"{path.name} names another server: {outside}"
        assert not re.search(r"\.innerHTML|insertAdjacentHTML|\beval\(|new Function", text), path.name
    index = (FOLDER / "index.html").read_text()
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", index)


@pytest.mark.parametrize(
    "path",
    [
        "/page/../http/app.py",
        "/page/%2e%2e/http/app.py",
        "/page/..%2fhttp%2fapp.py",
        "/page/views/..%2f..%2f..%2fmetrics.py",
        "/page/..%5chttp%5capp.py",
        "/page//etc/passwd",
        "/page/%2fetc%2fpasswd",
        "/page/app.js%00",
        "/page/",
        "/page/views",
        "/page/nothing.js",
    ],
)
async def test_nothing_else_is(page: httpx.AsyncClient, path: str) -> None:
    reply = await page.request("GET", httpx.URL(f"http://gateway{path}"))
    assert reply.status_code == 404
    assert reply.headers["content-type"] == "application/problem+json"


async def test_only_files_that_a_page_has_are_read(tmp_path: Path) -> None:
    (tmp_path / "views").mkdir()
    (tmp_path / "views" / "a.js").write_text("1")
    (tmp_path / "notes.py").write_text("secret = 1")
    page = Page(tmp_path)
    assert (await page.file("views/a.js")).content == b"1"
    with pytest.raises(Exception, match="no file"):
        await page.file("notes.py")


async def test_a_file_that_the_browser_has_is_not_sent_again(page: httpx.AsyncClient) -> None:
    first = await page.get("/page/app.js")
    etag = first.headers["etag"]
    assert first.headers["cache-control"] == "no-cache", "asked for each time, so that an upgrade shows"
    for known in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        again = await page.get("/page/app.js", headers={"if-none-match": known})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
    assert (await page.get("/page/app.js", headers={"if-none-match": '"other"'})).status_code == 200
    assert (await page.get("/page/api.js")).headers["etag"] != etag
