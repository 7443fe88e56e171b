"""The web page in a browser: Debian's Chromium without a window, through Playwright.

`open_page(url)` gives a page that is watched: a request that leaves the gateway, an error on the console or
an exception of a script fails the test when it ends. Tests that use it must be plain functions, not coroutines:
Playwright's synchronous interface and pytest-asyncio both want the thread's event loop.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Request

ARGUMENTS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
NARROW = 390
WAIT = 60_000  # milliseconds for anything to show; a busy machine is slow


def find_chromium() -> str:
    """The browser's program; skips the test where there is none."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("there is no chromium on this machine (apt-get install chromium)")
    return found


@contextmanager
def running_browser() -> Iterator[Browser]:
    """A browser; skips the test where it or Playwright is missing."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
    program = find_chromium()
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=list(ARGUMENTS), timeout=WAIT * 2)
        yield browser
        browser.close()


@dataclass
class Watch:
    """What a page did while it was open.

    Attributes:
        requests: All that left it.
        complaints: What its scripts raised, and errors on its console.
    """

    origin: str
    requests: list[Request] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def foreign(self) -> list[str]:
        """The requests to other places than the gateway."""
        return [each.url for each in self.requests if not each.url.startswith((f"{self.origin}/", "data:", "blob:"))]


_watched: WeakKeyDictionary[Page, Watch] = WeakKeyDictionary()


def watch_of(page: Page) -> Watch:
    """What a page has done since it was opened."""
    return _watched[page]


class Pages:
    """Opens pages, and looks at the end whether they behaved."""

    def __init__(self, browser: Browser, folder: Path) -> None:
        self._browser = browser
        self._folder = folder
        self._watches: list[Watch] = []

    def __call__(self, url: str, *, width: int = 1280, height: int = 900, dark: bool = False) -> Page:
        """Open a page in a fresh profile."""
        context = self._browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme="dark" if dark else "light",
            reduced_motion="reduce",
            accept_downloads=True,
        )
        context.set_default_timeout(WAIT)
        page = context.new_page()
        parts = urlsplit(url)
        watch = Watch(f"{parts.scheme}://{parts.netloc}")
        self._watches.append(watch)
        page.on("request", lambda request: watch.requests.append(request))  # noqa: PLW0108 - Playwright marks it
        page.on("pageerror", lambda error: watch.complaints.append(str(error)))
        page.on("console", lambda said: watch.complaints.append(said.text) if said.type == "error" else None)
        _watched[page] = watch
        page.goto(url)
        return page

    def screenshot(self, page: Page, name: str, *, full: bool = True) -> Path:
        """Keep what the page looks like as NAME.png, in $FLOWDEX_SCREENSHOTS where CI sets that."""
        folder = Path(os.environ.get("FLOWDEX_SCREENSHOTS") or self._folder)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{name}.png"
        page.screenshot(path=path, full_page=full)
        return path

    def close(self) -> None:
        """Close all pages.

        Raises:
            AssertionError: One of them asked another server for something, or its scripts failed.
        """
        for context in self._browser.contexts:
            context.close()
        for watch in self._watches:
            assert not watch.foreign(), f"requests left the gateway: {watch.foreign()}"
            # A refused request is an answer that the page shows; the browser notes it on the console all the same.
            complaints = [each for each in watch.complaints if not each.startswith("Failed to load resource")]
            assert not complaints, f"the page complained: {complaints}"
