"""The web page in a browser."""

from __future__ import annotations

import pytest
from flow_support import RunningFlow
from page_support import Pages

pytest.importorskip("playwright", reason="playwright is not installed")


def test_the_views_are_reached_by_keyboard(default_flow: RunningFlow, open_page: Pages) -> None:
    page = open_page(default_flow.http_url)
    page.get_by_role("searchbox", name="Query").wait_for()
    page.get_by_role("link", name="Search", exact=True).focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="encoder").wait_for()
    assert page.title() == "Flow · flowdex"
    page.go_back()
    page.get_by_role("searchbox", name="Query").wait_for()
    open_page.screenshot(page, "skeleton")
