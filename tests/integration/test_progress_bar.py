"""The one progress bar, as it looks: by items and by bytes, known and unknown totals, stages; in pipes, nothing."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
from terminal import Terminal

pytestmark = pytest.mark.skipif(os.name == "nt", reason="needs a pseudo terminal")

WORK = """
import time
from flowdex.progress import Bar, watched
print("watched" if watched() else "unwatched")
with Bar({arguments}) as bar:
    for step in range(1, 9):
        time.sleep(0.15)
        {step}
print("done")
"""


def shown(arguments: str, step: str, **environment: str) -> str:
    terminal = Terminal([sys.executable, "-c", WORK.format(arguments=arguments, step=step)], **environment)
    text = terminal.rest()
    assert terminal.code == 0, text
    assert text.rstrip().endswith("done")
    return re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", text)


def test_items() -> None:
    text = shown("'encoding', 800", "bar.advance(100)")
    assert "watched" in text
    assert re.search(r"encoding .*━.* [1-8]00/800 +[\d,]+/s .*0:00:0\d", text)


def test_bytes() -> None:
    text = shown("'fetching', unit='bytes'", "bar.show(step * 1_000_000, 8_000_000)")
    assert re.search(r"fetching .*\d\.0/8\.0 MB.* [\d.]+ MB/s .*0:00:0\d", text)


def test_an_unknown_total_shows_the_time_that_has_passed() -> None:
    assert re.search(r"reading .* [1-8]0/\? +[\d,]+/s .*0:00:01", shown("'reading'", "bar.show(step * 10, None)"))


def test_stages_and_notes() -> None:
    text = shown("'embedding'", "bar.show(step % 4, 4, what='embedding' if step < 4 else 'storing')")
    assert re.search(r"embedding .* [1-3]/4 ", text) and re.search(r"storing .* [0-3]/4 ", text)
    text = shown("'indexing', unit='share'", "bar.show(step, 8, note=f'{step} documents')")
    assert re.search(r"indexing .* 50% 4 documents 0:00:0\d", text)


@pytest.mark.parametrize("environment", [{}, {"FORCE_COLOR": "1"}])
def test_a_pipe_gets_nothing(environment: dict[str, str]) -> None:
    program = WORK.format(arguments="'encoding', 800", step="bar.advance(100)")
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env={**os.environ, **environment},
    )
    assert (done.stdout, done.stderr) == ("unwatched\ndone\n", "")


def test_a_dumb_terminal_gets_nothing() -> None:
    text = shown("'encoding', 800", "bar.advance(100)", TERM="dumb")
    assert "unwatched" in text and "encoding" not in text
