"""Test collections in BEIR's layout: documents, queries, and judgements of which documents answer which query.

    corpus.jsonl      {"_id": "d1", "title": "...", "text": "..."}            title may be left out
    queries.jsonl     {"_id": "q1", "text": "..."}
    qrels/test.tsv    query-id <tab> corpus-id <tab> score, with a header     or qrels.tsv; or TREC's four columns

    folder --load_dataset--> Dataset: judged queries, judgements, and the corpus, which is read anew each time

Thakur et al. 2021, "BEIR: A Heterogeneous Benchmark for Zero-shot Evaluation of Information Retrieval Models". The
corpus and the queries may be compressed (.gz). Every mistake is named with its file and line.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, NoReturn, cast

from flowdex.errors import InvalidInput

__all__ = ["CorpusDocument", "Dataset", "Qrels", "load_dataset", "read_qrels"]

Qrels = Mapping[str, Mapping[str, int]]
"""Query id -> document id -> relevance: 0 is judged and not relevant."""

_QRELS_SUFFIXES = (".tsv", ".txt", ".qrels", ".trec")
_DEFAULT_SPLIT = "test"
_DOCUMENT = '{"_id": ..., "title": ..., "text": ...}'
_QUERY = '{"_id": ..., "text": ...}'
_JUDGEMENT = "query-id, corpus-id and score with tabs between, or TREC's query-id, 0, corpus-id and relevance"


class CorpusDocument(NamedTuple):
    """A document of a corpus; one of title and text may be empty."""

    id: str
    title: str
    text: str

    @property
    def blank(self) -> bool:
        """Whether there is nothing to index."""
        return not self.title and not self.text

    def to_index(self) -> dict[str, Any]:
        """As `Client.index` takes it: with a title, in fields."""
        if self.title and self.text:
            return {"id": self.id, "fields": {"title": self.title, "text": self.text}}
        return {"id": self.id, "text": self.title or self.text}


@dataclass(frozen=True)
class Dataset:
    """A test collection.

    Attributes:
        name: Name of its folder.
        queries: Id -> text, of the queries with at least one relevant document, in the order of the file.
        qrels: The judgements of these queries.
        corpus: The file of documents.
        documents: How many documents it holds that are not blank.
        blank: Ids of documents without any text, which cannot be indexed.
        unanswerable: How many judged queries have no relevant document; they are left out, as any ranking is as good.
        unknown_documents: How many documents are judged relevant but are not in the corpus; no ranking can find them.
    """

    name: str
    queries: Mapping[str, str]
    qrels: Qrels
    corpus: Path
    documents: int = 0
    blank: list[str] = field(default_factory=list)
    unanswerable: int = 0
    unknown_documents: int = 0

    def read_corpus(self) -> Iterator[CorpusDocument]:
        """The documents that are not blank, in the order of the file."""
        return (document for document in _read_corpus(self.corpus) if not document.blank)


def load_dataset(
    folder: Path, *, split: str | None = None, queries: int | None = None, with_corpus: bool = True
) -> Dataset:
    """Read a test collection and check all of it.

    Args:
        folder: In the layout above.
        split: Which judgements: `test` for qrels/test.tsv. Default: `test`, or the only ones there are.
        queries: Only so many, the first ones.
        with_corpus: Whether the documents are needed; False for an index that holds them already.

    Raises:
        InvalidInput: A file is missing or wrong; the message names file and line, and what is expected there.
    """
    if not folder.is_dir():
        raise InvalidInput(f"{folder} is not a folder: name one with corpus.jsonl, queries.jsonl and qrels/test.tsv")
    judged = read_qrels(qrels_file := _qrels_file(folder, split))
    texts = _read_queries(_file(folder, "queries.jsonl"))
    if unknown := next((query for query in judged if query not in texts), None):
        raise InvalidInput(
            f"{qrels_file}: the query {unknown!r} is judged, but it is not in {folder / 'queries.jsonl'}"
        )
    answerable = {query for query, judgements in judged.items() if any(value > 0 for value in judgements.values())}
    chosen = [query for query in texts if query in answerable][:queries]
    if not chosen:
        raise InvalidInput(f"{qrels_file}: no query has a document with a score above 0: there is nothing to measure")
    dataset = Dataset(
        name=folder.resolve().name,
        queries={query: texts[query] for query in chosen},
        qrels={query: judged[query] for query in chosen},
        corpus=_file(folder, "corpus.jsonl") if with_corpus else folder / "corpus.jsonl",
        unanswerable=len(judged) - len(answerable),
    )
    return _checked(dataset) if with_corpus else dataset


def _checked(dataset: Dataset) -> Dataset:
    """The same with what only reading the whole corpus tells."""
    ids: set[str] = set()
    blank: list[str] = []
    for document in _read_corpus(dataset.corpus):
        ids.add(document.id)
        if document.blank:
            blank.append(document.id)
    if not ids:
        raise InvalidInput(f"{dataset.corpus}: there are no documents; expected a line {_DOCUMENT} for each")
    relevant = {name for judgements in dataset.qrels.values() for name, value in judgements.items() if value > 0}
    return Dataset(
        dataset.name,
        dataset.queries,
        dataset.qrels,
        dataset.corpus,
        documents=len(ids) - len(blank),
        blank=blank,
        unanswerable=dataset.unanswerable,
        unknown_documents=len(relevant - ids),
    )


# ---- documents and queries ----


def _read_corpus(path: Path) -> Iterator[CorpusDocument]:
    seen: set[str] = set()
    for number, row in _json_lines(path, _DOCUMENT):
        identifier = _id(row, path, number, _DOCUMENT)
        if identifier in seen:
            _fail(path, number, f"the document {identifier!r} occurs twice; ids must differ")
        seen.add(identifier)
        title = _text(row, "title", path, number, _DOCUMENT) if row.get("title") is not None else ""
        yield CorpusDocument(identifier, title, _text(row, "text", path, number, _DOCUMENT))


def _read_queries(path: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for number, row in _json_lines(path, _QUERY):
        identifier = _id(row, path, number, _QUERY)
        if identifier in found:
            _fail(path, number, f"the query {identifier!r} occurs twice; ids must differ")
        found[identifier] = _text(row, "text", path, number, _QUERY)
        if not found[identifier]:
            _fail(path, number, f"the query {identifier!r} is blank; expected {_QUERY}")
    return found


def _json_lines(path: Path, expected: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a file of JSON lines, with their line numbers; blank lines are passed over."""
    try:
        with _open(path) as lines:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                try:
                    row = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
                except UnicodeDecodeError as error:
                    _fail(path, number, f"not UTF-8 (byte {error.start} of the line); expected {expected}")
                except ValueError as error:
                    _fail(path, number, f"not JSON: {error}; expected {expected}")
                if not isinstance(row, dict):
                    _fail(path, number, f"a JSON {type(row).__name__}; expected {expected}")
                yield number, row
    except (OSError, EOFError) as error:
        raise InvalidInput(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None


def _open(path: Path) -> BinaryIO:
    return cast(BinaryIO, gzip.open(path)) if path.suffix == ".gz" else path.open("rb")


def _id(row: dict[str, Any], path: Path, number: int, expected: str) -> str:
    value = row.get("_id", row.get("id"))
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not value or len(value.split()) != 1:
        problem = 'no "_id"' if value is None else f"the _id {value!r}"
        _fail(path, number, f"{problem}; an id is a text without spaces, as in {expected}")
    return value


def _text(row: dict[str, Any], key: str, path: Path, number: int, expected: str) -> str:
    value = row.get(key)
    if not isinstance(value, str):
        problem = f'no "{key}"' if value is None else f'"{key}" is of type {type(value).__name__}'
        _fail(path, number, f"{problem}; expected {expected}")
    return value.strip()


# ---- judgements ----


def read_qrels(path: Path) -> dict[str, dict[str, int]]:
    """Read judgements: BEIR's three columns with a header, or TREC's four without.

    Raises:
        InvalidInput: The file cannot be read, a line is wrong, or two lines contradict each other.
    """
    found: dict[str, dict[str, int]] = {}
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{path} is not UTF-8 (byte {error.start}); expected {_JUDGEMENT}") from None
    for number, line in enumerate(lines, 1):
        columns = line.split("\t")
        if len(columns) < 3:
            columns = line.split()
        if not line.strip() or (number == 1 and _is_header(columns)):
            continue
        if len(columns) not in (3, 4) or not all(each.strip() for each in columns):
            _fail(path, number, f"{len(columns)} columns; expected {_JUDGEMENT}")
        query, document, value = (columns[index].strip() for index in (0, -2, -1))
        try:
            relevance = int(value)
        except ValueError:
            _fail(path, number, f"the score {value!r} is not a whole number; expected {_JUDGEMENT}")
        if found.setdefault(query, {}).setdefault(document, relevance) != relevance:
            _fail(path, number, f"{document!r} is judged twice for the query {query!r}, with different scores")
    if not found:
        raise InvalidInput(f"{path}: there are no judgements; expected {_JUDGEMENT}")
    return found


def _is_header(columns: list[str]) -> bool:
    return len(columns) >= 3 and not columns[-1].strip().lstrip("-").isdecimal()


def _qrels_file(folder: Path, split: str | None) -> Path:
    own = {path.stem: path for path in sorted((folder / "qrels").glob("*")) if path.suffix in _QRELS_SUFFIXES}
    if split is not None and split in own:
        return own[split]
    single = [path for suffix in _QRELS_SUFFIXES if (path := folder / f"qrels{suffix}").is_file()]
    if split is None:
        if _DEFAULT_SPLIT in own or len(own) == 1:
            return own.get(_DEFAULT_SPLIT) or next(iter(own.values()))
        if single and not own:
            return single[0]
    if not own:
        where = f"{single[0].name} is the only one, so leave --split out" if single else "there are none"
        raise InvalidInput(f"{folder / 'qrels' / f'{split or _DEFAULT_SPLIT}.tsv'} is not there: {where}")
    raise InvalidInput(
        f"{folder / 'qrels'} has no judgements {f'{split}.tsv' if split else 'test.tsv'}: "
        f"choose with --split from {', '.join(own)}"
    )


def _file(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise InvalidInput(f"{folder / name} is not there: the folder needs corpus.jsonl, queries.jsonl and qrels/test.tsv")


def _fail(path: Path, number: int, problem: str) -> NoReturn:
    raise InvalidInput(f"{path}:{number}: {problem}")
