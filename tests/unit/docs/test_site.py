"""The site builds without a warning, has every page, and asks nobody else for anything."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from flow_support import ROOT

pytest.importorskip("mkdocs", reason="the extra `docs` is not installed")

PAGES = sorted((ROOT / "docs").rglob("*.md"))
FETCHED = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src", "object": "data"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )
    assert done.returncode == 0, (
        f"{done.stderr}\nA new page needs its line under `nav` in mkdocs.yml; links are checked with their anchors."
    )
    return folder


class _Fetched(HTMLParser):
    """What a browser fetches with a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag in FETCHED and (tag != "link" or values.get("rel") not in ("canonical", "next", "prev")):
            self.found.append(values.get(FETCHED[tag]) or "")


def test_every_page_is_there(site: Path) -> None:
    for page in PAGES:
        assert (site / page.relative_to(ROOT / "docs").with_suffix("") / "index.html").is_file(), page
    assert "Serve any text representation" in (site / "index.html").read_text(encoding="utf-8")


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > len(PAGES)
    for page in pages:
        parser = _Fetched()
        parser.feed(page.read_text(encoding="utf-8"))
        assert parser.found
        assert [each for each in parser.found if re.match(r"(https?:)?//", each)] == [], page
    for style in site.rglob("*.css"):
        assert re.findall(r"(?:@import|url\()\s*['\"]?(?:https?:)?//[^)]*", style.read_text(encoding="utf-8")) == []


def test_links_to_files_of_the_repository_lead_to_copies(site: Path) -> None:
    assert (site / "files/flow.yml").read_text() == (ROOT / "flow.yml").read_text()


def test_no_program_of_ours_is_in_it(site: Path) -> None:
    assert list(site.rglob("*.py")) == []
