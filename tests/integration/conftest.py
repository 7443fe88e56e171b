"""Fixtures of the integration tests: a browser with watched pages in it, and a client's other side (`fake_flow`)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from fake_flow import FakeFlow, running
from page_support import Pages, running_browser

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.fixture(scope="module")  # no longer: while it runs, no test of another module could run an event loop
def browser() -> Iterator[Browser]:
    """Chromium; the test is skipped where there is none."""
    with running_browser() as browser:
        yield browser


@pytest.fixture
def open_page(browser: Browser, tmp_path: Path) -> Iterator[Pages]:
    """Opens pages: `page = open_page(url)`, `open_page.screenshot(page, "name")`."""
    pages = Pages(browser, tmp_path)
    yield pages
    pages.close()


@pytest.fixture(scope="module")
def fake_server() -> Iterator[FakeFlow]:
    """The fronts of a flow over gRPC and HTTP, with nothing but a dictionary behind them."""
    with running(FakeFlow()) as started:
        yield started


@pytest.fixture
def flow(fake_server: FakeFlow) -> FakeFlow:
    """The same, as at the start."""
    fake_server.forget()
    return fake_server
