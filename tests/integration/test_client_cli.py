"""The client's commands as a person types them, against a small flow: output, JSON, exit codes, pipes, Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from fake_flow import DIM, FakeFlow, vector_of

FLOWDEX = [sys.executable, "-m", "flowdex"]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/apples.md").write_text("# Apples\n\nA red apple keeps the doctor away.\n")
    (tmp_path / "docs/pears.txt").write_text("A green pear.\n")
    (tmp_path / "docs/latin.txt").write_bytes(b"caf\xe9")
    (tmp_path / "rows.csv").write_text("id,text,year\nr1,first row,2019\nr2,second row,2021\n")
    return tmp_path


def flowdex(
    flow: FakeFlow, *arguments: str, cwd: Path | None = None, stdin: bytes | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*FLOWDEX, *arguments],
        input=stdin if stdin is not None else b"",
        capture_output=True,
        timeout=60,
        cwd=cwd,
        env={**os.environ, "FLOWDEX_URL": flow.grpc_url, "PYTHONIOENCODING": "utf-8", **environment},
        check=False,
    )
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


def test_index_search_delete_status(flow: FakeFlow, corpus: Path) -> None:
    done = flowdex(flow, "index", "docs", "rows.csv", "missing.txt", cwd=corpus)
    assert done.returncode == 1  # two of them could not be read; the rest is in
    assert done.stdout.startswith("Indexed 4 documents (4 passages) in ")
    assert done.stdout.endswith("; 2 failed\n")
    assert "docs/latin.txt: not UTF-8 text (byte 3): name its encoding with --encoding\n" in done.stderr
    assert "missing.txt: no such file or directory\n" in done.stderr
    assert sorted(flow.documents) == ["docs/apples.md", "docs/pears.txt", "r1", "r2"]

    done = flowdex(flow, "search", "red apple")
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert lines[0] == "  1  1.0000  docs/apples.md  Apples  characters 0-45"
    assert lines[1] == "     # Apples A red apple keeps the doctor away."
    assert lines[-1].startswith("1 hit in ")
    assert "\x1b" not in done.stdout

    done = flowdex(flow, "search", "row", "--filter", '{"year": 2021}', "--json", "-n", "5", "--mode", "dense")
    answer = json.loads(done.stdout)
    assert [hit["id"] for hit in answer["hits"]] == ["r2"]
    assert answer["hits"][0]["highlights"] == [[7, 10]]
    assert flow.parameters[-1] == {"limit": 5.0, "offset": 0.0, "filter": {"year": 2021.0}, "mode": "dense"}

    assert flowdex(flow, "delete", "r1", "nothing").stdout == "Removed 1 document.\n"
    assert json.loads(flowdex(flow, "delete", "--filter", '{"year": 2021}', "--json").stdout) == {"deleted": 1}
    done = flowdex(flow, "status")
    assert done.stdout.splitlines()[0] == f"fake at {flow.grpc_url}, flowdex 0.1.0, up 12 s"
    assert "documents=2" in done.stdout
    assert json.loads(flowdex(flow, "status", "--json").stdout)["executors"][1]["status"] == {"documents": 2}


def test_index_in_json_and_from_standard_input(flow: FakeFlow) -> None:
    rows = b'{"id": "a", "text": "one"}\n{"text": "poison"}\n{broken\n'
    done = flowdex(flow, "index", "-", "--json", stdin=rows)
    assert done.returncode == 1
    answer = json.loads(done.stdout)
    assert (answer["documents"], answer["passages"], answer["skipped_files"]) == (1, 1, 0)
    assert [each["source"] for each in answer["failures"]] == ["-:3", "-:2"]
    assert list(flow.documents) == ["a"]
    done = flowdex(flow, "index", "-", stdin=b"one text\n")
    assert done.returncode == 0
    assert [each["text"] for id_, each in flow.documents.items() if id_.startswith("stdin-")] == ["one text\n"]


def test_index_with_nothing_in_it(flow: FakeFlow, tmp_path: Path) -> None:
    (tmp_path / "empty.txt").touch()
    done = flowdex(flow, "index", ".", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (
        1,
        "Error: there is no text in what was named, only blank or binary files\n",
    )
    done = flowdex(flow, "index", "none.txt", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (1, "none.txt: no such file or directory\n")
    assert not flow.calls


def test_encode(flow: FakeFlow, tmp_path: Path) -> None:
    done = flowdex(flow, "encode", "héllo", "two words")
    assert done.returncode == 0
    assert done.stdout.splitlines()[0] == "héllo"
    assert f"({DIM} values)" in done.stdout
    lines = [json.loads(line) for line in flowdex(flow, "encode", "héllo", "b", "--json").stdout.splitlines()]
    assert [line["text"] for line in lines] == ["héllo", "b"]
    assert np.array_equal(np.asarray(lines[0]["embedding"], dtype=np.float32), vector_of("héllo"))

    (tmp_path / "texts.txt").write_text("a\nb\nc\n")
    done = flowdex(flow, "encode", "-f", "texts.txt", "-o", "v.vectors", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "")
    with (tmp_path / "v.vectors").open("rb") as file:
        assert np.array_equal(np.load(file), np.stack([vector_of(text) for text in "abc"]))
    assert len(flowdex(flow, "encode", "--json", stdin=b"x\ny\n").stdout.splitlines()) == 2
    (tmp_path / "texts.txt").write_text("a\n\nc\n")
    done = flowdex(flow, "encode", "-f", "texts.txt", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (1, "Error: text 1 is blank: leave it out, or give it words\n")


def test_wrong_usage(flow: FakeFlow) -> None:
    for arguments in (
        ["search"],
        ["search", "x", "--filter", "{"],
        ["search", "x", "--filter", "[1]"],
        ["search", "x", "-n", "0"],
        ["search", "x", "--mode", "magic"],
        ["delete"],
        ["delete", "a", "--filter", "{}"],
        ["encode"],
        ["index"],
    ):
        done = flowdex(flow, *arguments)
        assert done.returncode == 2, arguments
        assert done.stderr.startswith("Usage: flowdex")
        assert done.stdout == ""
    assert not flow.calls


def test_errors_are_one_line(flow: FakeFlow) -> None:
    done = flowdex(flow, "search", "  ")
    assert (done.returncode, done.stdout, done.stderr) == (
        1,
        "",
        "Error: the query is blank: leave it out, or give it words\n",
    )
    for arguments in (["search", "x", "-u", "grpc://127.0.0.1:1"], ["-u", "http://127.0.0.1:1", "search", "x"]):
        done = flowdex(flow, *arguments)
        assert done.returncode == 1
        assert done.stderr.startswith("Error: nothing answers at ")
        assert done.stderr.count("\n") == 1
    done = flowdex(flow, "search", "x", "-u", "ftp://x")
    assert (done.returncode, "unknown scheme" in done.stderr) == (1, True)
    flow.trouble = lambda endpoint, number: 5.0
    done = flowdex(flow, "search", "x", "--timeout", "0.5")
    assert (done.returncode, done.stderr.startswith("Error: no answer within 0.5 s")) == (1, True)


def test_the_api_key_is_sent(flow: FakeFlow) -> None:
    flowdex(flow, "--api-key", "k1", "search", "x")
    assert flow.metadata[-1]["authorization"] == "Bearer k1"
    flowdex(flow, "search", "x", FLOWDEX_API_KEY="k2")
    assert flow.metadata[-1]["authorization"] == "Bearer k2"


@pytest.mark.skipif(os.name == "nt", reason="POSIX pipes")
def test_a_closed_pipe_is_quiet(flow: FakeFlow, corpus: Path) -> None:
    command = f"{' '.join(FLOWDEX)} encode {' '.join('abcdefgh' * 200)} --json | head -n 1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", command],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "FLOWDEX_URL": flow.grpc_url},
        check=True,
    )
    assert json.loads(done.stdout.splitlines()[0])["text"] == "a"
    assert done.stdout.splitlines()[-1] == "141"
    assert done.stderr == ""


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_ctrl_c_ends_cleanly_and_says_what_is_done(flow: FakeFlow, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"text": f"row {i}"}) + "\n" for i in range(10_000)))
    flow.trouble = lambda endpoint, number: 0.05
    process = subprocess.Popen(
        [*FLOWDEX, "index", "rows.jsonl"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "FLOWDEX_URL": flow.grpc_url},
    )
    started = time.monotonic()
    while len(flow.calls) < 10 and time.monotonic() - started < 30:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=15)
    assert process.returncode == 130
    assert out == ""
    assert "Traceback" not in err
    assert err.startswith("Interrupted; ")
    assert "documents are indexed." in err


@pytest.mark.skipif(os.name == "nt", reason="needs a pseudo terminal")
def test_progress_and_bold_highlights_on_a_terminal(flow: FakeFlow, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"text": f"row {i}"}) + "\n" for i in range(500)))
    flow.trouble = lambda endpoint, number: 0.1
    shown = on_a_terminal(flow, tmp_path, "index", "rows.jsonl")
    assert "indexing" in shown
    assert "%" in shown
    assert "documents, " in shown
    assert "Indexed 500 documents" in shown
    shown = on_a_terminal(flow, tmp_path, "search", "row 499", "-n", "1")
    assert "\x1b[1;33mrow\x1b[0m" in shown
    assert "\x1b[1;33m" not in on_a_terminal(flow, tmp_path, "search", "row 499", "-n", "1", NO_COLOR="1")


def on_a_terminal(flow: FakeFlow, cwd: Path, *arguments: str, **environment: str) -> str:
    """What a command prints when all of its streams are a terminal."""
    import pty

    mine, theirs = pty.openpty()
    variables = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
    process = subprocess.Popen(
        [*FLOWDEX, *arguments],
        cwd=cwd,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**variables, "FLOWDEX_URL": flow.grpc_url, "TERM": "xterm-256color", "COLUMNS": "100", **environment},
    )
    os.close(theirs)
    shown = b""
    while True:
        try:
            more = os.read(mine, 65536)
        except OSError:  # the other side is closed
            break
        if not more:
            break
        shown += more
    os.close(mine)
    assert process.wait(30) == 0, shown.decode()
    return shown.decode()
