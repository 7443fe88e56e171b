"""Readers: every format, stable ids, tags, and failures by name that never stop the rest."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flowdex.errors import InvalidInput
from flowdex.inputs import Document
from flowdex.readers import Reader, ReaderOptions, find_sources


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(name: str, content: str | bytes) -> str:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return name


def read(*paths: str, stdin: bytes | None = None, **options: object) -> tuple[list[Document], Reader]:
    sources, failures = find_sources(paths)
    given = None if stdin is None else io.BytesIO(stdin)
    reader = Reader(sources, ReaderOptions(**options), stdin=given, failures=failures)
    documents = list(reader)
    if reader.total_bytes is not None:
        assert reader.position == reader.total_bytes
    return documents, reader


def failures(reader: Reader) -> dict[str, str]:
    return {each.source: each.reason for each in reader.failures}


# ---- files and folders ----


def test_a_folder_is_read_in_order_without_hidden_and_binary_files() -> None:
    for name in ("docs/b.txt", "docs/a.md", "docs/sub/c.py", "docs/sub/d.rst", "docs/README"):
        write(name, f"# Title of {name}\n\nbody")
    for name in ("docs/.hidden", "docs/.git/x", "docs/__pycache__/x.txt", "docs/node_modules/x.js", "docs/venv/lib.py"):
        write(name, "text")
    write("docs/venv/pyvenv.cfg", "")
    write("docs/picture.png", b"\x89PNG\r\n\x1a\n\0\0\0")
    write("docs/archive.gz", bytes(range(256)))
    write("docs/empty.txt", "")
    write("docs/blank.txt", " \n\n")
    documents, reader = read("docs")
    assert [each.id for each in documents] == [
        "docs/README",
        "docs/a.md",
        "docs/b.txt",
        "docs/sub/c.py",
        "docs/sub/d.rst",
    ]
    assert documents[1].tags == {"path": "docs/a.md", "title": "Title of docs/a.md"}
    assert documents[2].tags == {"path": "docs/b.txt"}
    assert documents[2].text == "# Title of docs/b.txt\n\nbody"
    assert [each.segment for each in documents] == [None, "markdown", None, None, None]
    assert reader.skipped == 4
    assert not reader.failures


@pytest.mark.parametrize("spelling", ["docs", "./docs", "docs/", "docs/../docs", "docs//"])
def test_ids_do_not_depend_on_how_the_folder_is_spelled(spelling: str) -> None:
    write("docs/a.txt", "x")
    assert [each.id for each in read(spelling)[0]] == ["docs/a.txt"]
    assert [each.id for each in read(spelling, "docs/a.txt")[0]] == ["docs/a.txt"]


def test_the_current_folder() -> None:
    write("a.txt", "x")
    assert [each.id for each in read(".")[0]] == ["a.txt"]


def test_what_cannot_be_read_is_named_and_the_rest_is_read() -> None:
    write("good.txt", "fine")
    write("latin.txt", "déjà vu".encode("latin-1"))
    write("binary.bin", b"\0\1\2")
    Path("broken-link").symlink_to("nowhere")
    Path("folder").mkdir()
    Path("folder/broken").symlink_to("nowhere")
    documents, reader = read("missing", "latin.txt", "binary.bin", "broken-link", "folder", "good.txt")
    assert [each.id for each in documents] == ["good.txt"]
    found = failures(reader)
    assert found["missing"] == found["broken-link"] == found["folder/broken"] == "no such file or directory"
    assert found["latin.txt"] == "not UTF-8 text (byte 1): name its encoding with --encoding"
    assert found["binary.bin"] == "not a text file"


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_files_without_permission() -> None:
    write("secret.txt", "x")
    Path("secret.txt").chmod(0)
    assert failures(read("secret.txt")[1]) == {"secret.txt": "permission denied"}


def test_a_file_that_vanishes_after_the_scan() -> None:
    write("a.txt", "x")
    sources, _ = find_sources(["a.txt"])
    Path("a.txt").unlink()
    reader = Reader(sources)
    assert list(reader) == []
    assert failures(reader) == {"a.txt": "no such file or directory"}


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le"])
def test_byte_order_marks(encoding: str) -> None:
    mark = b"\xff\xfe" if encoding == "utf-16-le" else b""
    for name in ("a.txt", "a.jsonl", "a.csv"):
        content = {"a.txt": "héllo 中", "a.jsonl": '{"text": "héllo 中"}\n', "a.csv": "text\nhéllo 中\n"}[name]
        write(name, mark + content.encode(encoding))
        assert [each.text for each in read(name)[0]] == ["héllo 中"]


def test_another_encoding_and_line_ends() -> None:
    write("a.txt", "déjà\r\nvu\rencore".encode("latin-1"))
    assert read("a.txt", encoding="latin-1")[0][0].text == "déjà\nvu\nencore"
    with pytest.raises(InvalidInput, match="unknown encoding"):
        read("a.txt", encoding="latin-99")


# ---- CSV ----


def test_csv_columns() -> None:
    write("r.csv", 'id,text,stars,year,zip,note\n7,"good, ""very""\ngood",4.5,2020,01234,\n8,bad,1,2021,10115,x\n')
    documents, _ = read("r.csv")
    assert [each.id for each in documents] == ["7", "8"]
    assert documents[0].text == 'good, "very"\ngood'
    assert documents[0].tags == {"stars": 4.5, "year": 2020, "zip": "01234", "path": "r.csv"}
    assert documents[1].tags == {"stars": 1, "year": 2021, "zip": 10115, "note": "x", "path": "r.csv"}
    documents, _ = read("r.csv", text_column="note", id_column="zip", tag_columns=["year"])
    assert [(each.id, each.text, each.tags) for each in documents] == [("10115", "x", {"year": 2021, "path": "r.csv"})]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_csv_delimiters_and_rows_without_ids(delimiter: str) -> None:
    write("r.csv", f"text{delimiter}n\na{delimiter}1\n\nb{delimiter}2\n")
    documents, _ = read("r.csv")
    assert [(each.id, each.text, each.tags["n"]) for each in documents] == [("r.csv#1", "a", 1), ("r.csv#2", "b", 2)]


def test_csv_mistakes() -> None:
    write("a.csv", "title,body\nx,y\n")
    write("b.csv", "id,text\n1, \n1,ok\n1,again\n2\n")
    write("c.csv", b"text\nfine\n\xff\n")
    write("good.csv", "text\nfine\n")
    documents, reader = read("a.csv", "b.csv", "c.csv", "good.csv")
    assert [each.id for each in documents] == ["1", "c.csv#1", "good.csv#1"]
    assert failures(reader) == {
        "a.csv": "no column 'text' (but title, body): name it with --text-column",
        "b.csv:2": "'text' is blank",
        "b.csv:4": "the id '1' was there before; only the first is taken",
        "b.csv:5": "no 'text' (but id): name it with --text-column",
        "c.csv": "line 3: not UTF-8 text (byte 0): name its encoding with --encoding",
    }


def test_lines_of_rows_with_line_breaks() -> None:
    write("r.csv", 'id,text\n1,"a\nb\nc"\n2, \n')
    assert list(failures(read("r.csv")[1])) == ["r.csv:5"]


# ---- JSON lines ----


def test_json_lines() -> None:
    rows = [
        {"id": "a", "text": "one", "year": 2020, "none": None},
        {"text": "two", "tags": {"lang": "en", "deep": {"x": 1}}, "n": 1},
        {"id": 5, "text": "three", "tags": ["x", "y"]},
    ]
    write("d.jsonl", "\n".join(map(json.dumps, rows)) + "\n\n")
    documents, reader = read("d.jsonl")
    assert [(each.id, each.text) for each in documents] == [("a", "one"), ("d.jsonl#2", "two"), ("5", "three")]
    assert documents[0].tags == {"year": 2020, "path": "d.jsonl"}
    assert documents[1].tags == {"n": 1, "lang": "en", "deep": {"x": 1}, "path": "d.jsonl"}
    assert documents[2].tags == {"tags": ["x", "y"], "path": "d.jsonl"}
    assert not reader.failures


def test_the_corpus_format_of_beir() -> None:
    write("corpus.jsonl", json.dumps({"_id": "d1", "title": "Title", "text": "Body", "metadata": {}}) + "\n")
    (document,) = read("corpus.jsonl")[0]
    assert (document.id, document.text) == ("d1", "Title\n\nBody")
    assert document.fields == {"title": "Title", "text": "Body"}
    assert document.tags == {"title": "Title", "metadata": {}, "path": "corpus.jsonl"}


def test_fields() -> None:
    rows = [
        {"id": "a", "fields": {"title": "Title", "body": "Body"}, "year": 2020},
        {"id": "b", "fields": {"title": 3}},
        {"id": "c", "fields": {"title": " "}},
        {"id": "d", "text": "Text", "fields": {"a": "tag"}},
    ]
    write("d.jsonl", "\n".join(map(json.dumps, rows)))
    documents, reader = read("d.jsonl")
    assert [(each.id, each.text, each.fields) for each in documents] == [
        ("a", "Title\n\nBody", {"title": "Title", "body": "Body"}),
        ("d", "Text", None),
    ]
    assert documents[0].tags == {"year": 2020, "path": "d.jsonl"}
    assert failures(reader) == {"d.jsonl:2": "'fields' are not texts by their names", "d.jsonl:3": "'fields' are blank"}


def test_the_way_to_cut_that_is_asked_for_is_that_of_all_documents() -> None:
    write("a.md", "# One")
    write("b.jsonl", json.dumps({"text": "x"}))
    documents, _ = read("a.md", "b.jsonl", segment="sentence")
    assert [each.segment for each in documents] == ["sentence", "sentence"]


def test_json_lines_mistakes() -> None:
    lines = [
        b'{"text": "ok"}',
        b"{",
        b"[1]",
        b'{"title": "x"}',
        b'{"text": 5}',
        b'{"text": "\xff"}',
        b'{"text": "last"}',
    ]
    write("d.jsonl", b"\n".join(lines))
    documents, reader = read("d.jsonl")
    assert [each.text for each in documents] == ["ok", "last"]
    found = failures(reader)
    assert list(found) == [f"d.jsonl:{line}" for line in (2, 3, 4, 5, 6)]
    assert found["d.jsonl:3"] == "not a JSON object"
    assert found["d.jsonl:5"] == "'text' is not a text: 5"
    assert found["d.jsonl:6"].startswith("not UTF-8")


def test_the_reference_corpus(shared_data: Path) -> None:
    documents, reader = read(str(shared_data / "cranfield" / "corpus.jsonl"))
    assert len(documents) + len(reader.failures) == sum(1 for _ in (shared_data / "cranfield" / "corpus.jsonl").open())
    assert all("is blank" in each.reason for each in reader.failures)
    assert len(documents) > 1000


# ---- standard input ----


def test_standard_input_is_guessed() -> None:
    rows = b'{"id": "a", "text": "x"}\n{"id": "b", "text": "y"}\n'
    assert [each.id for each in read("-", stdin=rows)[0]] == ["a", "b"]
    (document,) = read("-", stdin=b"just text\nof lines")[0]
    assert document.text == "just text\nof lines"
    assert document.id == read("-", stdin=b"just text\nof lines")[0][0].id != read("-", stdin=b"other")[0][0].id
    assert [each.text for each in read("-", stdin=b"text\nx\n", format="csv")[0]] == ["x"]
    assert read("-", stdin=b"")[1].skipped == 1


def test_rows_of_standard_input_are_read_as_they_come() -> None:
    class Endless(io.RawIOBase):
        lines = 0

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: memoryview) -> int:
            self.lines += 1
            row = b'{"text": "row"}\n'
            buffer[: len(row)] = row
            return len(row)

    stream = Endless()
    reader = Reader(find_sources(["-"])[0], stdin=io.BufferedReader(stream))
    documents = iter(reader)
    for number in range(1, 50):
        assert next(documents).id == f"-#{number}"
    assert stream.lines < 60


# ---- anything at all ----


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.binary(max_size=300), st.sampled_from(["x.txt", "x.csv", "x.jsonl", "x.md", "x.tsv"]))
def test_no_bytes_break_a_reader(content: bytes, name: str) -> None:
    documents, _ = read(write(name, content))
    for document in documents:
        assert document.id
        assert not document.text.isspace()
        document.text.encode()
