"""Log files: rotated, cut, read from the end, followed."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowdex_orchestrator.runner import logs
from flowdex_orchestrator.runner.logs import cut, follow, read_from, rotate, tail


def test_the_previous_log_is_kept_once(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    rotate(log)  # there is none yet
    for text in ("first", "second"):
        log.write_text(text)
        rotate(log)
    assert not log.exists()
    assert (tmp_path / "a.log.1").read_text() == "second"


def test_a_log_that_grew_is_cut_under_the_writer(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    with log.open("a") as writer:
        writer.write("x" * 100)
        writer.flush()
        assert not cut(log, limit=100)
        assert cut(log, limit=99)
        writer.write("after")
    assert log.read_text() == "after"
    assert (tmp_path / "a.log.1").read_text() == "x" * 100
    assert not cut(tmp_path / "none.log")


def test_read_from_gives_the_end(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    assert read_from(log, 0) == ""
    log.write_text("0123456789")
    assert read_from(log, 4) == "456789"
    assert read_from(log, 4, limit=2) == "89"
    assert read_from(log, 99) == "0123456789"  # it was cut since


@given(
    st.lists(st.text(alphabet="aé\r ", max_size=12), max_size=12),
    st.integers(0, 14),
    st.booleans(),
    st.integers(1, 9),
)
def test_tail_is_the_last_lines(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], count: int, ended: bool, block: int
) -> None:
    log = tmp_path_factory.getbasetemp() / "tail.log"
    log.write_bytes("\n".join(lines).encode() + (b"\n" if ended and lines else b""))
    written = "\n".join(lines).split("\n")
    if not ended and written[-1] == "":
        written = written[:-1]  # an empty rest is no line
    if not lines:
        written = []
    expected = [line.rstrip("\r") for line in (written[-count:] if count else [])]
    original = logs._BLOCK
    logs._BLOCK = block
    try:
        assert tail(log, count) == expected
    finally:
        logs._BLOCK = original


def test_follow_sees_new_lines_rotation_and_new_files(tmp_path: Path) -> None:
    one, two = tmp_path / "one.log", tmp_path / "two.log"
    one.write_text("old 1\nold 2\nold 3\n")
    over = threading.Event()
    seen: list[tuple[str, str]] = []
    got = threading.Condition()

    def read() -> None:
        for log, line in follow([one, two], 2, until=over.is_set, poll=0.005):
            with got:
                seen.append((log.stem, line))
                got.notify()

    def wait_for(*items: tuple[str, str]) -> None:
        with got:
            assert got.wait_for(lambda: all(item in seen for item in items), 5), seen

    thread = threading.Thread(target=read)
    thread.start()
    try:
        wait_for(("one", "old 2"), ("one", "old 3"))
        with one.open("a") as file:
            file.write("half")
            file.flush()
            threading.Event().wait(0.05)
            assert ("one", "half") not in seen
            file.write(" whole\n")
        two.write_text("begin\n")
        wait_for(("one", "half whole"), ("two", "begin"))
        rotate(one)
        one.write_text("fresh\n")
        wait_for(("one", "fresh"))
        two.write_text("cut\n")  # shorter than before
        wait_for(("two", "cut"))
        with two.open("a") as file:
            file.write("last\n")
        over.set()
        thread.join(5)
        assert ("two", "last") in seen  # written before the end, read before the end
        assert ("one", "old 1") not in seen
    finally:
        over.set()
        thread.join(5)
