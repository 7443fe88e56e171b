"""Attention through a running flow: the route, the client, the command, the view of the page and the file it saves."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pytest
from flow_support import RunningFlow, start_flow, stop_flow
from page_support import Pages

from flowdex import Client, attention
from flowdex.errors import InvalidInput, NotFound, TooLarge

if TYPE_CHECKING:
    from playwright.sync_api import Page

FLOW = """
jtype: Flow
with:
  protocol: [grpc, http]
  port: [51000, 8080]
executors:
  - name: words
    uses: flowdex_executors.WordVectorEncoder
    uses_with: {model: table.txt}
  - name: encoder
    uses: flowdex_executors.BertEncoder
  - name: short
    uses: flowdex_executors.BertEncoder
    uses_with: {attention_tokens: 8}
"""
CAT, RUG = "The cat sat on the mat", "The cat lay on the rug"
HOSTILE = 'the </script><script>document.title = "owned"</script> cat'
TOKENS = ["[CLS]", "the", "cat", "sat", "on", "the", "mat", "[SEP]", "the", "cat", "lay", "on", "the", "rug", "[SEP]"]


@pytest.fixture(scope="module")
def flow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningFlow]:
    folder = tmp_path_factory.mktemp("attention")
    (folder / "table.txt").write_text("the 1 2\ncat 3 4\n")
    flow = start_flow(folder, FLOW)
    yield flow
    stop_flow(flow)


def post(flow: RunningFlow, **body: Any) -> httpx.Response:
    return httpx.post(f"{flow.http_url}/attention", json=body, timeout=60)


# ---- route, client, command ----


def test_the_route(flow: RunningFlow) -> None:
    answer = post(flow, text=CAT, text_pair=RUG).json()  # of three encoders, the first that has attention
    assert (answer["model"], answer["tokens"], answer["pair_start"]) == ("all-MiniLM-L6-v2", TOKENS, 8)
    assert (answer["layers"], answer["weights"]["shape"]) == ([*range(6)], [6, 12, 15, 15])
    assert (answer["weights"]["dtype"], answer["spans"][14], answer["spans"][13]) == ("float16", [0, 0], [19, 22])
    weights = attention.from_json(answer).weights.astype(np.float32)
    np.testing.assert_allclose(weights.sum(-1), 1, atol=3e-3)
    top = post(flow, text=CAT, layers=-1, dtype="float32", model="encoder").json()
    assert (top["layers"], top["weights"]["dtype"], top["text_pair"]) == ([5], "float32", None)
    page = post(flow, text=HOSTILE, format="html")
    assert page.headers["content-type"].startswith("text/html") and "attachment" in page.headers["content-disposition"]
    assert page.text.count("</script") == 2


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({"text": CAT, "text_pair": RUG, "model": "short"}, 413, "more than the 8 tokens"),
        ({"text": CAT, "model": "words"}, 422, "no attention to show"),
        ({"text": CAT, "model": "no such"}, 404, "'encoder'"),
        ({"text": CAT, "layers": 6}, 422, "this model has 6: 0 to 5"),
        ({"text": " "}, 422, "blank"),
        ({"text": CAT, "text_b": RUG}, 422, "text_b"),
    ],
)
def test_what_is_refused(flow: RunningFlow, body: dict[str, Any], status: int, message: str) -> None:
    answer = post(flow, **body)
    assert answer.status_code == status
    assert message in answer.json()["detail"]


def test_the_client_over_grpc_and_http(flow: RunningFlow) -> None:
    with Client(flow.grpc_url) as client, Client(flow.http_url) as over_http:
        first, second = (each.attention(CAT, RUG, layers=[0, -1], executor="encoder") for each in (client, over_http))
        with pytest.raises(TooLarge, match="8 tokens"):
            client.attention(CAT, RUG, executor="short")
        with pytest.raises(InvalidInput, match="no attention"):
            client.attention(CAT, executor="words")
        with pytest.raises(InvalidInput, match="the second text"):
            client.attention(CAT, "")
        with pytest.raises(NotFound, match="nobody"):
            over_http.attention(CAT, executor="nobody")
    assert first.tokens == second.tokens == TOKENS
    assert (first.layers, first.pair_start, first.text_pair) == ((0, 5), 8, RUG)
    assert first.weights.dtype == second.weights.dtype == np.float32
    np.testing.assert_allclose(first.weights, second.weights, atol=1e-6)


def test_the_command(flow: RunningFlow, tmp_path: Path) -> None:
    written = tmp_path / "cat.html"
    done = flow.flowdex("attention", CAT, RUG, "--executor", "encoder", "--layer", "3", "-o", str(written))
    assert done.returncode == 0, done.stderr
    assert "1 layers of 12 heads, 15 tokens" in done.stderr and not done.stdout
    assert "<title>Attention: The cat sat on the mat / The cat lay on the rug</title>" in written.read_text()
    shown = flow.flowdex("attention", CAT, "--executor", "encoder")
    assert shown.stdout.splitlines()[0] == "all-MiniLM-L6-v2, layer 5, mean of 12 heads"
    assert [line.split()[0] for line in shown.stdout.splitlines()[1:]] == TOKENS[:8]
    refused = flow.flowdex("attention", CAT, "--executor", "words")
    assert refused.returncode == 1 and "no attention to show" in refused.stderr


# ---- in a browser ----


def lines(page: Page) -> int:
    """How many lines are drawn; those of one head that are as strong are one path."""
    return len(re.findall("M", " ".join(paths(page))))


def paths(page: Page) -> list[str]:
    found: list[str] = page.locator(".attention-lines path").evaluate_all(
        "all => all.map(each => each.getAttribute('d'))"
    )
    return found


def heads_drawn(page: Page) -> set[str]:
    return set(page.locator(".attention-lines path").evaluate_all("all => all.map(each => each.dataset.head)"))


def wait_for_lines(page: Page) -> None:
    page.locator(".attention-lines path").first.wait_for(state="attached")


def test_the_head_view(flow: RunningFlow, open_page: Pages) -> None:
    page = open_page(f"{flow.http_url}/#/attention")  # a first visit shows an example
    wait_for_lines(page)
    assert page.locator(".attention-token[data-side=left] text:not(.attention-number)").all_text_contents() == TOKENS
    open_page.screenshot(page, "attention-head")

    whole = paths(page)
    page.get_by_label("Layer", exact=True).select_option("Layer 0")
    assert paths(page) != whole
    assert heads_drawn(page) == {str(head) for head in range(12)}
    third = page.get_by_role("button", name="Head 2", exact=True)
    third.click()
    assert (third.get_attribute("aria-pressed"), len(heads_drawn(page))) == ("false", 11)
    third.dblclick()
    assert heads_drawn(page) == {"2"} and third.get_attribute("aria-pressed") == "true"
    alone = lines(page)

    # Head 2 of layer 0 looks at the token before: one strong line a token.
    lay = page.locator('.attention-token[data-side=left][data-token="10"]')
    lay.hover()
    assert 0 < lines(page) < alone
    assert float(page.locator('[data-side=right][data-token="9"] .attention-number').text_content() or 0) > 0.5
    assert page.locator(".attention-said").inner_text().startswith("lay looks at: cat")
    open_page.screenshot(page, "attention-hover")
    page.mouse.move(1, 1)
    assert lines(page) == alone
    lay.focus()  # by keyboard too: what is focused is looked at, Enter keeps it, Escape lets go
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.mouse.move(1, 1)
    assert page.locator(".attention-pinned").get_attribute("data-token") == "11"
    assert page.locator(".attention-said").inner_text().startswith("on looks at: lay")
    page.keyboard.press("Escape")
    assert lines(page) == alone

    page.get_by_role("button", name="All", exact=True).click()
    assert len(heads_drawn(page)) == 12
    page.get_by_label("Sentences").select_option("A → B")
    assert page.locator(".attention-token[data-side=left]").count() == 8
    assert page.locator(".attention-token[data-side=right]").count() == 7


def test_the_model_view(flow: RunningFlow, open_page: Pages) -> None:
    page = open_page(f"{flow.http_url}/#/attention?text=The+cat+sat", dark=True)
    wait_for_lines(page)
    page.get_by_role("button", name="Model view").click()
    assert page.locator(".attention-thumbnail").count() == 72
    open_page.screenshot(page, "attention-model-dark")
    page.get_by_role("button", name="Layer 2, head 8").click()
    assert page.get_by_label("Layer", exact=True).input_value() == "2"
    assert heads_drawn(page) == {"8"}
    # Another text in the same place: the layer and the head stay.
    page.get_by_label("Second text").fill(HOSTILE)
    page.get_by_role("button", name="Show", exact=True).click()
    page.locator('.attention-token[data-token="5"]').first.wait_for()
    assert page.get_by_label("Layer", exact=True).input_value() == "2"
    assert heads_drawn(page) == {"8"} and page.title() == "Attention · flowdex"


def test_the_saved_file_draws_the_same(flow: RunningFlow, open_page: Pages, tmp_path: Path) -> None:
    page = open_page(f"{flow.http_url}/#/attention")
    wait_for_lines(page)
    page.get_by_label("Text", exact=True).fill(HOSTILE)
    page.get_by_label("Second text").fill("")
    page.get_by_role("button", name="Show", exact=True).click()
    page.locator('.attention-token[data-token="20"]').first.wait_for()
    with page.expect_download() as download:
        page.get_by_role("button", name="Save as HTML").click()
    saved = tmp_path / "saved.html"
    download.value.save_as(saved)
    written = tmp_path / "written.html"
    done = flow.flowdex("attention", HOSTILE, "--executor", "encoder", "-o", str(written))
    assert done.returncode == 0, done.stderr
    for path in (saved, written):
        alone = open_page(path.as_uri())
        wait_for_lines(alone)
        assert alone.title().startswith("Attention: the </script>")
        assert lines(alone) == lines(page) > 0
    open_page.screenshot(alone, "attention-file")


def test_what_is_wrong_is_said(flow: RunningFlow, open_page: Pages) -> None:
    page = open_page(f"{flow.http_url}/#/attention?model=short&text=The+cat+sat+on+the+mat+and+slept", width=390)
    page.get_by_role("alert").wait_for()
    assert "the text has more than the 8 tokens" in page.get_by_role("alert").inner_text()
    assert page.get_by_label("Encoder").input_value() == "short"
    assert page.get_by_label("Encoder").locator("option").all_inner_texts() == ["encoder", "short"]
    assert page.get_by_role("button", name="Save as HTML").is_disabled()
    open_page.screenshot(page, "attention-error-narrow")
    page.get_by_label("Text", exact=True).fill("The cat sat")
    page.get_by_role("button", name="Show", exact=True).click()
    wait_for_lines(page)
    assert page.get_by_role("alert").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
