"""The web page in a browser, in front of flow.yml: searching, why hits are where they are, the flow as it runs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import httpx
import pytest
from flow_support import RunningFlow
from page_support import NARROW, Pages, watch_of

pytest.importorskip("playwright", reason="playwright is not installed: pip install playwright")

if TYPE_CHECKING:
    from playwright.sync_api import Page

DOCUMENTS: list[dict[str, Any]] = [
    {
        "id": "apollo",
        "text": "🚀🌕 Apollo 11 landed the first people on the Moon.",
        "tags": {"year": 1969, "crew": True},
    },
    {
        "id": "moon",
        "text": "The Moon is a natural satellite of the Earth.",
        "tags": {"title": "The Moon", "year": 2001},
    },
    {"id": "cats", "text": "Cats purr when they are content, and sometimes when they are not.", "tags": {"year": 1999}},
    {"id": "voyager", "text": "Voyager 1 left the solar system.", "tags": {"year": 1977, "mission": {"by": "NASA"}}},
    {"id": "bread", "text": "Bread rises because yeast turns sugar into gas.", "tags": {"year": 2001}},
    {
        "id": "tides",
        "text": "\n\n".join(
            [
                "Tides rise and fall because the Moon and the Sun pull at the oceans. " * 12,
                "Harbours publish tables of high and low water for sailors. " * 12,
                "<b>A spring tide</b> comes when Sun, Moon and Earth stand in a line. " * 12,
            ]
        ),
        "tags": {"year": 1985, "<script>alert(1)</script>": "<img src=x onerror=alert(1)>"},
    },
    *({"id": f"filler{n}", "text": f"The Moon seen on night {n} of the journey.", "tags": {"n": n}} for n in range(12)),
]
QUERY = "first people on the Moon"


@pytest.fixture(scope="module")
def flow(default_flow: RunningFlow) -> Iterator[RunningFlow]:
    with httpx.Client(base_url=default_flow.http_url, timeout=120) as http:
        http.post("/index", json={"documents": DOCUMENTS}).raise_for_status()
        yield default_flow
        http.request("DELETE", "/documents", json={"ids": [each["id"] for each in DOCUMENTS]}).raise_for_status()


def search_url(flow: RunningFlow, query: str = QUERY, **choices: str) -> str:
    more = "".join(f"&{name}={quote(value)}" for name, value in choices.items())
    return f"{flow.http_url}/#/search?q={quote(query)}{more}"


def searches(page: Page) -> list[dict[str, Any]]:
    """The bodies of all searches that a page has made."""
    return [json.loads(each.post_data or "{}") for each in watch_of(page).requests if each.url.endswith("/search")]


def first_hit(page: Page, id_: str) -> None:
    page.locator(".search-hit").first.get_by_role("heading", name=id_, exact=True).wait_for()


def test_a_search_by_keyboard_alone(flow: RunningFlow, open_page: Pages) -> None:
    page = open_page(flow.http_url)
    page.get_by_text(re.compile(r"\d+ documents, \d+ passages")).wait_for()
    page.keyboard.press("Tab")  # from the box, which has the focus, to the button ...
    page.keyboard.press("/")  # ... and back
    page.keyboard.type(QUERY)
    page.keyboard.press("Enter")
    first_hit(page, "apollo")
    assert page.url.endswith("#/search?q=first+people+on+the+Moon"), "the address can be shared"
    assert searches(page) == [{"query": QUERY, "mode": "hybrid", "limit": 10, "offset": 0, "explain": True}]
    page.get_by_role("searchbox", name="Query").focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")  # past the button, to the modes
    page.keyboard.press("ArrowRight")
    page.wait_for_url("**mode=dense**")
    first_hit(page, "apollo")
    assert searches(page)[-1]["mode"] == "dense"
    assert page.locator(".search-why dt").first.text_content() == "Dense"
    page.go_back()
    page.wait_for_url(lambda url: "mode" not in url)
    assert page.get_by_role("radio", name="Hybrid").is_checked()
    page.locator(".search-results:not([aria-busy]) .search-hit").first.wait_for()
    assert len(searches(page)) == 3, "one request a search: the history has no entry twice"


def test_words_are_marked_where_they_are(flow: RunningFlow, open_page: Pages) -> None:
    page = open_page(search_url(flow))
    first_hit(page, "apollo")
    hit = page.locator(".search-hit").first
    # Offsets count characters, and emoji are two units in JavaScript's strings.
    assert hit.locator("mark").all_text_contents() == ["first", "people", "Moon"]
    assert hit.locator(".search-text").first.text_content() == DOCUMENTS[0]["text"]


def test_why_a_hit_is_where_it_is(flow: RunningFlow, open_page: Pages) -> None:
    page = open_page(search_url(flow, rerank="late_interaction"))
    first_hit(page, "apollo")
    assert searches(page)[-1]["rerank"] == "late_interaction"
    body = {"query": QUERY, "limit": 10, "explain": True, "rerank": {"method": "late_interaction", "timeout": 60}}
    hit = httpx.post(f"{flow.http_url}/search", json=body, timeout=60).json()["results"][0]["hits"][0]
    if page.locator(".note").count():  # a busy machine had no time for it; the ranker knows all texts by now
        page.reload()
        first_hit(page, "apollo")
    shown = page.locator(".search-hit").first.locator(".search-why dd")
    stages = shown.evaluate_all("all => all.map(each => each.dataset.stage)")
    assert stages == ["dense", "sparse", "fusion", "rerank"]
    for index, stage in enumerate(stages):
        place, _, value = shown.nth(index).locator(":scope > span").all()
        assert place.text_content() == f"#{hit['explain'][stage]['rank']}"
        assert float(value.text_content() or "") == pytest.approx(hit["explain"][stage]["score"], rel=0.02)
    open_page.screenshot(page, "search")


def test_the_heat_map_of_a_hit(flow: RunningFlow, open_page: Pages) -> None:
    page = open_page(search_url(flow))
    first_hit(page, "apollo")
    hit = page.locator(".search-hit").first
    hit.get_by_role("button", name="Tokens").click()
    body = {"query": QUERY, "text": DOCUMENTS[0]["text"]}
    answer = httpx.post(f"{flow.http_url}/interaction", json=body, timeout=60).json()
    asked, found, cosines = answer["query"]["texts"], answer["text"]["texts"], answer["cosines"]
    assert "moon" in asked and "moon" in found
    hit.locator(".search-cell").first.wait_for()
    assert hit.locator(".search-cell").count() == len(asked) * len(found)
    assert hit.locator(".search-token").all_text_contents() == asked
    assert hit.locator(".search-grid .search-best").count() == len(asked)
    words = hit.locator(".search-word")
    assert words.all_text_contents()[-2:] == ["Moon", "."], "tokens stand where they are in the text"
    moon, there = asked.index("moon"), len(found) - 2
    hit.get_by_role("button", name="moon", exact=True).click()
    assert hit.locator(".search-word.search-best").text_content() == "Moon"
    assert f"{cosines[moon][there]:.3f}" in (hit.locator(".search-said").text_content() or "")
    hit.locator(f'.search-cell[data-row="0"][data-column="{there}"]').hover()
    assert hit.locator(".search-said").text_content() == f"“{asked[0]}” × “moon”: {cosines[0][there]:.3f}"
    open_page.screenshot(page, "search-tokens")


def test_filters(flow: RunningFlow, open_page: Pages) -> None:
    page = open_page(search_url(flow))
    first_hit(page, "apollo")
    page.locator(".search-hit").first.get_by_role("button", name="year 1969").click()
    page.wait_for_url("**filter=**")
    page.get_by_role("status").filter(has_text=re.compile(r"^1 hit in")).wait_for()
    assert searches(page)[-1]["filter"] == {"year": 1969}
    page.get_by_label("Condition", exact=True).select_option(label="at least")
    page.get_by_label("Value", exact=True).fill("1970")
    page.get_by_role("button", name="Add a condition").click()
    page.get_by_label("Field", exact=True).nth(1).fill("year")
    page.get_by_label("Condition", exact=True).nth(1).select_option(label="is none of")
    page.get_by_label("Value", exact=True).nth(1).fill('2001, "text, with comma"')
    page.keyboard.press("Enter")
    page.get_by_role("status").filter(has_text=re.compile(r"^3 hits in")).wait_for()
    expected = {"$and": [{"year": {"$gte": 1970}}, {"year": {"$nin": [2001, "text, with comma"]}}]}
    assert searches(page)[-1]["filter"] == expected
    page.get_by_role("checkbox", name="as JSON").check()
    assert json.loads(page.get_by_label("Filter as JSON").input_value()) == expected
    page.get_by_label("Filter as JSON").fill("{")
    page.get_by_role("button", name="Apply").click()
    page.get_by_role("alert").filter(has_text="not JSON").wait_for()
    page.get_by_label("Filter as JSON").fill('{"$or": [{"id": "cats"}, {"id": "bread"}]}')
    page.get_by_role("button", name="Apply").click()
    page.get_by_role("status").filter(has_text=re.compile(r"^2 hits in")).wait_for()
    page.reload()
    page.get_by_role("status").filter(has_text=re.compile(r"^2 hits in")).wait_for()
    open_page.screenshot(page, "search-filter")


def test_further_pages(flow: RunningFlow, open_page: Pages) -> None:
    page = open_page(search_url(flow, "Moon"))
    page.get_by_role("button", name="Next").click()
    page.get_by_role("status").filter(has_text=re.compile(r"^Hits 11 to")).wait_for()
    assert (searches(page)[-1]["offset"], searches(page)[-1]["limit"]) == (10, 10)
    assert page.locator(".search-rank").first.text_content() == "11"
    page.get_by_role("button", name="Previous").click()
    page.get_by_role("status").filter(has_text=re.compile(r"^10 hits in")).wait_for()


def test_documents_stay_text(flow: RunningFlow, open_page: Pages) -> None:
    page = open_page(search_url(flow, "spring tide", filter='{"id": "tides"}'))
    hit = page.locator(".search-hit")
    hit.get_by_role("button", name="more passage").click()
    assert hit.locator(".search-others li").count() >= 1
    hit.get_by_role("button", name="Document").click()
    hit.locator(".search-here").wait_for()
    document = hit.locator(".search-document").text_content()
    assert document == DOCUMENTS[5]["text"]
    assert page.locator("main b, main img, main script").count() == 0
    open_page.screenshot(page, "search-document")


def test_no_documents_no_hits_and_errors(flow: RunningFlow, open_page: Pages) -> None:
    page = open_page(search_url(flow, filter='{"year": 1}'))
    page.get_by_role("heading", name="No hits").wait_for()
    page.get_by_role("button", name="Search without the filter").click()
    first_hit(page, "apollo")
    page.goto(search_url(flow, filter='{"year": {"$about": 1}}'))
    page.get_by_role("alert").filter(has_text="unknown operator '$about'").wait_for()
    open_page.screenshot(page, "search-error")
    page.route("**/search", lambda route: route.abort())
    page.goto(search_url(flow, "away"))
    page.get_by_role("alert").filter(has_text="The gateway does not answer").wait_for()
    page.unroute("**/search")
    page.get_by_role("button", name="Try again").click()
    page.locator(".search-hit").first.wait_for()
    page.route("**/count", lambda route: route.fulfill(json={"documents": 0, "passages": 0, "took_ms": 1}))
    page.goto(f"{flow.http_url}/#/search")
    page.get_by_role("heading", name="There are no documents yet").wait_for()
    assert f"flowdex index docs/ --url {flow.http_url}" in page.locator(".command code").all_text_contents()
    open_page.screenshot(page, "search-empty")
    page.goto(f"{flow.http_url}/#/nowhere")
    page.get_by_role("alert").filter(has_text="no view named").wait_for()


@pytest.mark.parametrize(("name", "dark", "width"), [("dark", True, 1280), ("narrow", False, NARROW)])
def test_other_screens(flow: RunningFlow, open_page: Pages, name: str, dark: bool, width: int) -> None:
    page = open_page(search_url(flow), dark=dark, width=width)
    first_hit(page, "apollo")
    page.locator(".search-hit").first.get_by_role("button", name="Tokens").click()
    page.locator(".search-cell").first.wait_for()
    open_page.screenshot(page, f"search-{name}")
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", paper)[:3])) < 200) == dark
    assert page.evaluate("document.documentElement.scrollWidth") <= width, "nothing sticks out"
    page.goto(f"{flow.http_url}/#/flow")
    page.locator(".flow-card").first.wait_for()
    open_page.screenshot(page, f"flow-{name}")
    assert page.evaluate("document.documentElement.scrollWidth") <= width, "nothing sticks out"


def test_the_flow_as_it_runs(flow: RunningFlow, open_page: Pages) -> None:
    page = open_page(flow.http_url)
    page.get_by_role("searchbox", name="Query").wait_for()
    page.get_by_role("link", name="Search", exact=True).focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    page.locator(".flow-card").first.wait_for()
    status = httpx.get(f"{flow.http_url}/status", timeout=60).json()
    names = [each["name"] for each in status["executors"]]
    assert page.locator(".flow-card h2").all_text_contents() == names == ["segmenter", "encoder", "indexer", "ranker"]
    assert page.locator(".flow-box strong").all_text_contents() == ["gateway", *names]
    assert page.locator(".flow-lines path").count() == len(names), "each line is there"
    for executor in status["executors"]:
        card = page.locator(f"#flow-{executor['name']}")
        assert card.locator("tbody code").all_text_contents() == [each["address"] for each in executor["replicas"]]
        assert card.get_by_text("ready", exact=True).count() == len(executor["replicas"])
    row = page.locator(".flow-endpoints tr").filter(has=page.get_by_text("/search", exact=True))
    before = int(row.locator("td").nth(2).text_content() or "")
    httpx.post(f"{flow.http_url}/search", json={"query": QUERY}, timeout=60).raise_for_status()
    page.wait_for_function(
        """before => [...document.querySelectorAll(".flow-endpoints tr")].some(row =>
             row.cells[0].textContent === "/search" && Number(row.cells[2].textContent) > before)""",
        arg=before,
    )
    open_page.screenshot(page, "flow")
    assert re.fullmatch(r"[\d.]+ (ms|s)", row.locator("td").nth(4).text_content() or ""), "a median"
    page.route("**/status", lambda route: route.abort())
    page.get_by_role("alert").filter(has_text="The gateway does not answer").wait_for()
    open_page.screenshot(page, "flow-away")
    page.unroute("**/status")
    page.get_by_role("alert").wait_for(state="detached")


def test_scaling_with_the_key(flow: RunningFlow, open_page: Pages) -> None:
    page = open_page(f"{flow.http_url}/#/flow")
    card = page.locator("#flow-segmenter")
    card.wait_for()
    assert not card.get_by_role("button", name="Scale").is_visible(), "only with a key"

    def give(key: str) -> None:
        page.get_by_label("Admin key", exact=True).fill(key)
        page.get_by_role("button", name="Use it").click()

    page.get_by_role("button", name="Admin key").click()
    give("wrong")
    card.get_by_role("button", name="Restart").click()
    card.get_by_role("alert").filter(has_text="token").wait_for()
    (token,) = flow.folder.glob(".flowdex/run/*/token")
    give(token.read_text().strip())
    for count in (2, 1):
        card.get_by_label("Replicas of segmenter").fill(str(count))
        card.get_by_role("button", name="Scale").click()
        card.get_by_text(f"It had {3 - count} replica").wait_for(timeout=120_000)
        page.wait_for_function(
            "count => document.querySelectorAll('#flow-segmenter tbody tr').length === count", arg=count
        )
        if count == 2:
            open_page.screenshot(page, "flow-scaled")
    secret = token.read_text().strip()
    assert secret not in page.url
    assert secret not in page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie])")
    asked = [each for each in watch_of(page).requests if "/admin/" not in each.url]
    assert not [each.url for each in asked if secret in each.url or secret in str(each.headers)]
    page.reload()
    card.wait_for()
    assert not card.get_by_role("button", name="Scale").is_visible(), "it is forgotten"
