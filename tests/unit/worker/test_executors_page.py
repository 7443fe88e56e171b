"""The classes that docs/executors.md shows are those of examples/executors."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def test_the_page_shows_the_examples():
    page = (ROOT / "docs" / "executors.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    shown = [block.strip() for block in blocks if "(Executor):" in block]
    files = sorted((ROOT / "examples" / "executors").glob("*.py"))
    assert len(shown) == len(files) == 2
    for block, file in zip(shown, files, strict=True):
        assert block in file.read_text(encoding="utf-8"), f"{file.name} and docs/executors.md differ"
