"""Links between the pages of the repository lead to files and headings that are there, as GitHub names them."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest
from flow_support import ROOT

PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")])
FENCE = re.compile(r"^ *(```+).*?^ *\1$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#\s]*)(#[^)\s]*)?(?: \"[^\"]*\")?\)")


@cache
def anchors(page: Path) -> frozenset[str]:
    """What `#...` may stand behind a link to a page: its headings in small letters, without punctuation."""
    found: list[str] = []
    for heading in re.findall(r"^#+ +(.*?) *$", FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
        repeated = sum(re.fullmatch(rf"{re.escape(slug)}(-\d+)?", each) is not None for each in found)
        found.append(f"{slug}-{repeated}" if repeated else slug)
    return frozenset(found)


def broken(page: Path) -> list[str]:
    """The links of a page that lead nowhere."""
    found = []
    for target, anchor in LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", target):
            continue
        path = (page.parent / target).resolve() if target else page
        if not path.exists():
            found.append(f"{target}: there is no such file")
        elif anchor and anchor[1:] not in anchors(path):
            found.append(f"{target}{anchor}: {path.name} has no such heading")
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    assert broken(page) == []


def test_a_link_to_nowhere_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# A `heading`, twice\n\n# A heading twice\n\n[a](none.md) [b](#a-heading-twice-1) [c](page.md#d)\n"
    )
    assert broken(page) == ["none.md: there is no such file", "page.md#d: page.md has no such heading"]
