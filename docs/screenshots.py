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
SIZE = {"width": 1120, "height": 860}


def search(page: Page) -> None:
    """A search over the standard library's documentation, with the tokens of its second hit."""
    page.locator(".search-hit").first.wait_for()
    hit = page.locator(".search-hit").nth(1)
    hit.get_by_role("button", name="Tokens").click()
    hit.locator(".search-cell").first.wait_for()
    hit.get_by_role("button", name="directory", exact=True).click()
    page.evaluate("document.activeElement.blur()")


PICTURES: dict[str, tuple[str, Callable[[Page], None]]] = {
    "page-search": ("#/search?q=copy+a+directory+tree&rerank=late_interaction", search),
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
