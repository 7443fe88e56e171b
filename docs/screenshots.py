"""Takes the pictures of the web page that stand in the documentation, from a flow that runs.

    python examples/stdlib_docs.py -o stdlib.jsonl && flowdex up --detach && flowdex index stdlib.jsonl
    python docs/screenshots.py http://127.0.0.1:8080      --> docs/images/page-*.png

It needs Playwright (the extra `dev`) and a Chromium on the PATH, as the tests of the page do.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Page

IMAGES = Path(__file__).resolve().parent / "images"
_TRIES = 10
SIZE = {"width": 1120, "height": 900}


def search(page: Page) -> None:
    """A search over the standard library's documentation, with the tokens of its first hit."""
    hit = page.locator(".search-hit").first
    for _ in range(_TRIES):  # a busy machine has no time to rerank at first; it keeps what it has done
        hit.wait_for()
        if not page.locator(".note").count():
            break
        page.reload()
    hit.get_by_role("button", name="Tokens").click()
    hit.locator(".search-cell").first.wait_for()
    hit.get_by_role("button", name="largest", exact=True).click()
    page.evaluate("document.activeElement.blur()")


def attention(page: Page) -> None:
    """Three heads of a layer, and where one token looks."""
    page.locator(".attention-lines path").first.wait_for(state="attached")
    page.get_by_label("Layer", exact=True).select_option("Layer 1")
    page.get_by_role("button", name="Head 4", exact=True).dblclick()
    for head in (7, 8):
        page.get_by_role("button", name=f"Head {head}", exact=True).click()
    page.locator('.attention-token[data-side=left][data-token="10"]').hover()


PICTURES: dict[str, tuple[str, Callable[[Page], None]]] = {
    "page-attention": ("#/attention", attention),
    "page-search": ("#/search?q=find+the+largest+number+in+a+list&rerank=late_interaction", search),
}


def main() -> None:
    """Take all pictures."""
    parser = argparse.ArgumentParser(description="Take the pictures of the web page in docs/images.")
    parser.add_argument("url", help="address of a flow's gateway that has indexed stdlib.jsonl")
    url = parser.parse_args().url.rstrip("/")
    from playwright.sync_api import sync_playwright

    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--headless", "--no-sandbox"])
        for name, (address, arrange) in PICTURES.items():
            page = browser.new_page(viewport=SIZE, color_scheme="light")  # type: ignore[arg-type]
            page.goto(f"{url}/{address}")
            arrange(page)
            page.wait_for_timeout(300)
            page.screenshot(path=IMAGES / f"{name}.png")
        browser.close()


if __name__ == "__main__":
    main()
