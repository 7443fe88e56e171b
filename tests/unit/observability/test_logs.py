"""Lines of the log: of one request each, whatever a caller calls it."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator

import pytest

from flowdex_orchestrator.observability.logs import about, configure_logging, shown

FORGED = "1\n2026-01-01 00:00:00,000 INFO    flowdex: all is well\x1b[2J"


@pytest.fixture(autouse=True)
def _root() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


async def logged(log_format: str, request_id: str) -> None:
    async def request() -> None:
        about(request_id, ())
        logging.getLogger("flowdex").warning("something is odd")

    configure_logging("encoder-0", "INFO", log_format)
    await asyncio.create_task(request())


async def test_a_request_id_cannot_add_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    await logged("text", FORGED)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and "\x1b" not in lines[0]
    assert lines[0].endswith(r"[request 1\n2026-01-01 00:00:00,000 INFO    flowdex: all is well\x1b[2J]")


async def test_nor_fill_the_log(capsys: pytest.CaptureFixture[str]) -> None:
    await logged("text", "x" * 1_000_000)
    assert len(capsys.readouterr().err) < 400
    await logged("json", "x" * 1_000_000)
    line = capsys.readouterr().err
    assert len(line) < 500 and json.loads(line)["request_id"] == "x" * 200 + "..."


@pytest.mark.parametrize("name", ["", "4f1c", "/encode", "größe 東京"])
def test_ordinary_names_are_shown_as_they_are(name: str) -> None:
    assert shown(name) == name
