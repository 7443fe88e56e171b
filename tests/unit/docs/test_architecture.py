"""docs/architecture.md: every file and folder that it sends people to is there."""

from __future__ import annotations

import re

import pytest
from flow_support import ROOT

PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
SECTIONS = PAGE.partition("## Where do I change X?")[2].split("\n### ")[1:]


def places() -> list[str]:
    """Paths from the root of the repository, by the folder in the heading that each stands under."""
    found = []
    for section in SECTIONS:
        heading = re.match(r"`([^`]+)`", section)
        folder = f"{heading[1]}/" if heading else ""
        names = re.findall(r"`([^` ]+)`", section.partition("\n")[2])
        found += [folder + name for name in names if "/" in name[1:] or name.endswith((".py", ".yml"))]
    return found


def test_there_are_four_tables() -> None:
    assert len(SECTIONS) == 4 and len(places()) > 100


@pytest.mark.parametrize("place", places())
def test_what_it_names_is_there(place: str) -> None:
    assert (ROOT / place).exists()
