"""What a client imports stays light: nothing of the server's, and no model library."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("jina", "docarray", "torch", "transformers", "pydantic", "fastapi", "qdrant_client", "httpx", "rich", "click")
LIGHT = ("flowdex", "flowdex.documents", "flowdex.wire", "flowdex.merge", "flowdex.proto.reflection", "flowdex.errors")


@pytest.mark.parametrize("modules", [LIGHT[:3], LIGHT])
def test_the_codec_imports_nothing_heavy(modules: tuple[str, ...]) -> None:
    program = f"import {', '.join(modules)}, sys; print(*sorted(set({HEAVY!r}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == []
