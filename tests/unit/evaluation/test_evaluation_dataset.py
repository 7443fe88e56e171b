"""Test collections: what is read of them, and how their mistakes are named."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowdex.errors import InvalidInput
from flowdex.evaluation.dataset import CorpusDocument, load_dataset, read_qrels

CORPUS = '{"_id": "d1", "title": "One", "text": "first"}\n{"_id": "d2", "text": "second"}\n{"_id": "d3", "text": " "}\n'
QUERIES = '{"_id": "q1", "text": "what is first"}\n{"_id": "q2", "text": "two"}\n{"_id": "q3", "text": "unjudged"}\n'
QRELS = "query-id\tcorpus-id\tscore\nq2\td2\t1\nq1\td1\t2\nq1\td2\t0\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    found = tmp_path / "tiny"
    (found / "qrels").mkdir(parents=True)
    (found / "corpus.jsonl").write_text(CORPUS)
    (found / "queries.jsonl").write_text(QUERIES)
    (found / "qrels" / "test.tsv").write_text(QRELS)
    return found


def test_a_collection(folder: Path) -> None:
    dataset = load_dataset(folder)
    assert dataset.name == "tiny"
    assert dict(dataset.queries) == {"q1": "what is first", "q2": "two"}
    assert dataset.qrels == {"q1": {"d1": 2, "d2": 0}, "q2": {"d2": 1}}
    assert (dataset.documents, dataset.blank, dataset.unanswerable, dataset.unknown_documents) == (2, ["d3"], 0, 0)
    documents = list(dataset.read_corpus())
    assert documents == [CorpusDocument("d1", "One", "first"), CorpusDocument("d2", "", "second")]
    assert list(dataset.read_corpus()) == documents
    assert list(load_dataset(folder, queries=1).queries) == ["q1"]


def test_compressed_files_and_blank_lines(folder: Path) -> None:
    (folder / "corpus.jsonl").unlink()
    (folder / "corpus.jsonl.gz").write_bytes(gzip.compress(b"\n" + CORPUS.encode() + b"\n\n"))
    (folder / "queries.jsonl").write_text("\ufeff" + QUERIES)
    assert load_dataset(folder).documents == 2


def test_what_no_ranking_can_answer_is_counted(folder: Path) -> None:
    (folder / "qrels" / "test.tsv").write_text(QRELS + "q3\td1\t0\nq2\tgone\t1\n")
    dataset = load_dataset(folder)
    assert (list(dataset.queries), dataset.unanswerable, dataset.unknown_documents) == (["q1", "q2"], 1, 1)


def test_an_index_that_is_there_needs_no_corpus(folder: Path) -> None:
    (folder / "corpus.jsonl").unlink()
    assert len(load_dataset(folder, with_corpus=False).queries) == 2
    with pytest.raises(InvalidInput, match=r"corpus.jsonl is not there"):
        load_dataset(folder)


def test_splits(folder: Path) -> None:
    (folder / "qrels" / "dev.tsv").write_text("query-id\tcorpus-id\tscore\nq2\td2\t1\n")
    assert list(load_dataset(folder, split="dev").queries) == ["q2"]
    assert len(load_dataset(folder).queries) == 2
    with pytest.raises(InvalidInput, match=r"no judgements train.tsv: choose with --split from dev, test"):
        load_dataset(folder, split="train")
    (folder / "qrels" / "test.tsv").rename(folder / "qrels" / "train.tsv")
    with pytest.raises(InvalidInput, match="choose with --split from dev, train"):
        load_dataset(folder)
    (folder / "qrels" / "train.tsv").unlink()
    assert list(load_dataset(folder).queries) == ["q2"]


@pytest.mark.parametrize("name", ["qrels.tsv", "qrels.txt", "qrels.trec"])
def test_judgements_of_a_single_split(folder: Path, name: str) -> None:
    (folder / "qrels" / "test.tsv").rename(folder / name)
    assert len(load_dataset(folder).queries) == 2
    with pytest.raises(InvalidInput, match=f"{name} is the only one, so leave --split out"):
        load_dataset(folder, split="test")
    (folder / name).unlink()
    with pytest.raises(InvalidInput, match=r"qrels.test.tsv is not there"):
        load_dataset(folder)


def test_trec_judgements(tmp_path: Path) -> None:
    file = tmp_path / "qrels.txt"
    file.write_text("301 0 FBIS3-1 1\n301  0  FBIS3-2\t-1\n302 Q0 FBIS3-1 0\n\n")
    assert read_qrels(file) == {"301": {"FBIS3-1": 1, "FBIS3-2": -1}, "302": {"FBIS3-1": 0}}


WRONG = [
    ("corpus.jsonl", 2, '{"_id": "d2"}', r'no "text"; expected \{"_id": ..., "title": ..., "text": ...\}'),
    ("corpus.jsonl", 2, '{"text": "x"}', 'no "_id"'),
    ("corpus.jsonl", 2, '{"_id": "a b", "text": "x"}', "the _id 'a b'; an id is a text without spaces"),
    ("corpus.jsonl", 2, '{"_id": true, "text": "x"}', "the _id True"),
    ("corpus.jsonl", 2, '{"_id": "d1", "text": "x"}', "'d1' occurs twice"),
    ("corpus.jsonl", 2, '{"_id": "d2", "title": 3, "text": "x"}', '"title" is of type int'),
    ("corpus.jsonl", 2, '{"_id": "d2", "text": ', "not JSON"),
    ("corpus.jsonl", 2, '["d2"]', "a JSON list"),
    ("corpus.jsonl", 2, b"\xff", "not UTF-8"),
    ("queries.jsonl", 2, '{"_id": "q2", "text": ""}', "'q2' is blank"),
    ("queries.jsonl", 2, '{"_id": "q1", "text": "x"}', "'q1' occurs twice"),
    ("queries.jsonl", 2, '{"_id": "q2", "title": "x"}', 'no "text"'),
    ("qrels/test.tsv", 2, "q1\td1", "2 columns; expected query-id, corpus-id and score"),
    ("qrels/test.tsv", 2, "q1\td1\thigh", "the score 'high' is not a whole number"),
    ("qrels/test.tsv", 2, "q1\t\t1", "expected query-id"),
    ("qrels/test.tsv", 4, "q1\td1\t0", "'d1' is judged twice for the query 'q1'"),
]


@pytest.mark.parametrize(("name", "number", "line", "message"), WRONG)
def test_a_wrong_line_is_named(folder: Path, name: str, number: int, line: str | bytes, message: str) -> None:
    file = folder / name
    lines = file.read_bytes().splitlines()
    lines[number - 1] = line if isinstance(line, bytes) else line.encode()
    file.write_bytes(b"\n".join(lines))
    with pytest.raises(InvalidInput, match=rf"{re.escape(str(file))}:{number}: .*{message}"):
        load_dataset(folder)


def test_files_that_hold_nothing(folder: Path) -> None:
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n")
    with pytest.raises(InvalidInput, match=r"test.tsv: there are no judgements"):
        load_dataset(folder)
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t0\n")
    with pytest.raises(InvalidInput, match="no query has a document with a score above 0"):
        load_dataset(folder)
    (folder / "qrels" / "test.tsv").write_text("q9\td1\t1\n")
    with pytest.raises(InvalidInput, match="the query 'q9' is judged, but it is not in"):
        load_dataset(folder)
    (folder / "qrels" / "test.tsv").write_text(QRELS)
    (folder / "corpus.jsonl").write_text("\n")
    with pytest.raises(InvalidInput, match=r"corpus.jsonl: there are no documents"):
        load_dataset(folder)
    (folder / "corpus.jsonl").unlink()
    (folder / "corpus.jsonl.gz").write_bytes(gzip.compress(CORPUS.encode())[:-9])
    with pytest.raises(InvalidInput, match=r"corpus.jsonl.gz cannot be read"):
        load_dataset(folder)
    with pytest.raises(InvalidInput, match="is not a folder"):
        load_dataset(folder / "nowhere")


@given(
    st.dictionaries(
        st.from_regex(r"[a-z0-9:._-]{1,8}", fullmatch=True),
        st.dictionaries(
            st.from_regex(r"[a-z0-9:._-]{1,8}", fullmatch=True), st.integers(-2, 5), min_size=1, max_size=5
        ),
        min_size=1,
        max_size=5,
    ),
    st.booleans(),
)
def test_judgements_come_back_as_written(tmp_path_factory: pytest.TempPathFactory, qrels: dict, trec: bool) -> None:
    file = tmp_path_factory.mktemp("qrels") / "q.tsv"
    rows = [(query, document, value) for query, each in qrels.items() for document, value in each.items()]
    form = "{} 0 {} {}\n" if trec else "{}\t{}\t{}\n"
    file.write_text(("" if trec else "query-id\tcorpus-id\tscore\n") + "".join(form.format(*row) for row in rows))
    assert read_qrels(file) == qrels
