"""The collector rests while a command imports, and works as usual where it serves; in a process of its own."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import gc
usual = gc.get_threshold()
from flowdex.collector import rest, settle
rest()
assert gc.get_threshold()[0] >= 10 * usual[0]
before = gc.get_stats()[0]["collections"]
kept = [[number] for number in range(20_000)]
assert gc.get_stats()[0]["collections"] == before, "it did not rest"
settle()
assert gc.get_freeze_count() > 20_000, "what is loaded is walked over again and again"
assert gc.get_threshold()[0] == usual[0] or usual[0] != 700
before = gc.get_stats()[0]["collections"]
more = [[number] for number in range(20_000)]
assert gc.get_stats()[0]["collections"] > before, "it rests for ever"
"""


def test_it_rests_and_settles() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
