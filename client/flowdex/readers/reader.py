"""Documents out of files: a text is one document, CSV and JSON lines are one a row.

    [Source] --decode--> text | rows --> Document, Document, ...     failures, skipped, position: kept on the side

Rows are read one by one, so a file or a pipe of any length is.
"""

from __future__ import annotations

import codecs
import csv
import hashlib
import json
import re
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast

import numpy as np
import numpy.typing as npt

from flowdex.errors import InvalidInput
from flowdex.inputs import MAX_MESSAGE_BYTES, Document
from flowdex.readers.decoding import HEAD, UTF16, Unreadable, decode, encoding_of, is_binary
from flowdex.readers.sources import STDIN, ReadFailure, Source, reason_of

__all__ = ["EXPORT_VERSION", "Format", "Reader", "ReaderOptions"]

EXPORT_VERSION = "flowdex"
"""The key that marks a line of `flowdex export`; its value is the version of that format, 1."""
Format = Literal["auto", "text", "csv", "jsonl"]
_FORMATS: dict[str, Format] = {".csv": "csv", ".tsv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}
_MARKDOWN = (".md", ".markdown")


@dataclass(frozen=True)
class ReaderOptions:
    """How to read files.

    Attributes:
        format: "auto" goes by the name's ending (and, for standard input, by its first line).
        text_column: Column or key with the text.
        id_column: Column or key with the id; None takes "id" or "_id".
        tag_columns: Columns or keys that become tags; None takes all others.
        encoding: Of all files; a byte order mark goes before it.
        segment: How the flow is to cut all documents; None says so of Markdown files alone.
    """

    format: Format = "auto"
    text_column: str = "text"
    id_column: str | None = None
    tag_columns: Sequence[str] | None = None
    encoding: str = "utf-8"
    segment: str | None = None


@dataclass
class Reader:
    """The documents of some sources, in order. Iterate over it once.

    Attributes:
        sources: What to read.
        options: How to read it.
        stdin: Where "-" is read from.
        failures: What could not be read so far.
        skipped: Files left out so far: blank, or not text though found in a folder.
        position: Bytes read so far, of `total_bytes`.
    """

    sources: Sequence[Source]
    options: ReaderOptions = field(default_factory=ReaderOptions)
    stdin: BinaryIO | None = None
    failures: list[ReadFailure] = field(default_factory=list)
    skipped: int = 0
    position: int = 0

    def __post_init__(self) -> None:
        try:
            codecs.lookup(self.options.encoding)
        except LookupError:
            raise InvalidInput(f"unknown encoding {self.options.encoding!r}") from None
        # Where each document comes from, in 8 bytes: the number of its source, and its line.
        self._origins: tuple[array[int], array[int]] = array("I"), array("I")
        self._ids: set[int] = set()  # hashes: a collection may have many rows

    @property
    def total_bytes(self) -> int | None:
        """Size of all sources; None when standard input is among them."""
        return None if any(source.name == STDIN for source in self.sources) else sum(each.size for each in self.sources)

    def origin(self, position: int) -> str:
        """Where the document at this position of those read so far comes from: a file, or "file:line"."""
        number, line = (column[position] for column in self._origins)
        name = self.sources[number].name
        return f"{name}:{line}" if line else name

    def __iter__(self) -> Iterator[Document]:
        for number, source in enumerate(self.sources):
            end = self.position + source.size
            try:
                for line, document in self._read(source):
                    self._origins[0].append(number)
                    self._origins[1].append(line)
                    yield document
            except Unreadable as error:
                self.failures.append(ReadFailure(source.name, str(error)))
            except OSError as error:
                self.failures.append(ReadFailure(source.name, reason_of(error)))
            self.position = max(end, self.position)

    def _read(self, source: Source) -> Iterator[tuple[int, Document]]:
        """Documents with their lines, 0 where a document is a file."""
        if source.name == STDIN:
            if self.stdin is None:
                raise Unreadable("there is no standard input")
            stdin = self.stdin if isinstance(self.stdin, BufferedReader) else BufferedReader(cast(Any, self.stdin))
            yield from self._read_from(source, stdin)
        else:
            with Path(source.name).open("rb") as file:
                yield from self._read_from(source, file)

    def _read_from(self, source: Source, file: BufferedReader) -> Iterator[tuple[int, Document]]:
        head = file.peek(HEAD)[:HEAD]
        if not head:
            self.skipped += 1
            return
        if is_binary(head):
            if source.asked_for:
                raise Unreadable("not a text file")
            self.skipped += 1
            return
        encoding = encoding_of(head, self.options.encoding)
        kind = self._format_of(source, head)
        if kind == "csv":
            yield from self._rows(source, self._csv(source, file, encoding))
        elif kind == "jsonl":
            yield from self._rows(source, self._json_lines(source, file, encoding))
        else:
            yield from self._text(source, file, encoding)

    def _format_of(self, source: Source, head: bytes) -> Format:
        if self.options.format != "auto":
            return self.options.format
        if source.name == STDIN:
            return "jsonl" if re.match(rb'\s*\{\s*"', head) else "text"
        return _FORMATS.get(Path(source.name).suffix.lower(), "text")

    # ---- one document a file ----

    def _text(self, source: Source, file: BinaryIO, encoding: str) -> Iterator[tuple[int, Document]]:
        if source.size > MAX_MESSAGE_BYTES:
            raise Unreadable(f"{source.size >> 20} MiB is more than one document may have; split it")
        data = file.read()
        text = decode(data, encoding).replace("\r\n", "\n").replace("\r", "\n")
        self.position += len(data)
        if not text or text.isspace():
            self.skipped += 1
            return
        name = f"stdin-{hashlib.sha256(data).hexdigest()[:12]}" if source.name == STDIN else source.name
        tags: dict[str, Any] = {"path": name}
        is_markdown = Path(name).suffix.lower() in _MARKDOWN
        if is_markdown and (title := re.search(r"^# +(.+?)[ #]*$", text, re.MULTILINE)):
            tags["title"] = title[1]
        segment = self.options.segment or ("markdown" if is_markdown else None)
        yield 0, Document(text, id=name, tags=tags, segment=segment)

    # ---- one document a row ----

    def _rows(self, source: Source, rows: Iterator[tuple[int, int, dict[str, Any]]]) -> Iterator[tuple[int, Document]]:
        """Documents of (line, row number, values)."""
        for line, number, values in rows:
            try:
                document = self._document(source, number, values)
            except Unreadable as error:
                self.failures.append(ReadFailure(f"{source.name}:{line}", str(error)))
            else:
                yield line, document

    def _document(self, source: Source, number: int, values: dict[str, Any]) -> Document:
        if EXPORT_VERSION in values:
            return self._exported(values)
        options = self.options
        embedding = _vector(values.pop("embedding")) if _is_vector(values.get("embedding")) else None
        text, fields = ("", None) if embedding is not None and not self._has_text(values) else self._content(values)
        column = options.id_column or ("id" if "id" in values else "_id")
        if options.id_column and options.id_column not in values:
            raise Unreadable(f"no {options.id_column!r} (but {', '.join(values)}): see --id-column")
        given = values.pop(column, None)
        id_ = f"{source.name}#{number}" if given is None or given == "" else str(given)
        self._check_new(id_)
        nested = values.pop("tags", None)
        if isinstance(nested, dict):
            values.update(nested)
        elif nested is not None:
            values["tags"] = nested
        if options.tag_columns is not None:
            values = {name: values[name] for name in options.tag_columns if name in values}
        tags = {name: value for name, value in values.items() if value is not None and value != ""}
        tags.setdefault("path", source.name)
        return Document(text, id=id_, tags=tags, embedding=embedding, fields=fields, segment=options.segment)

    def _check_new(self, id_: str) -> None:
        if hash(id_) in self._ids:
            raise Unreadable(f"the id {id_!r} was there before; only the first is taken")
        self._ids.add(hash(id_))

    def _has_text(self, values: dict[str, Any]) -> bool:
        return bool(values.get(self.options.text_column) or values.get("fields"))

    def _exported(self, values: dict[str, Any]) -> Document:
        """A line of `flowdex export`, exactly as it is."""
        if values[EXPORT_VERSION] != 1 or not isinstance(values.get("id"), str):
            raise Unreadable("not a line that this version's 'flowdex export' writes")
        self._check_new(values["id"])
        return Document(
            values.get("text") or "",
            id=values["id"],
            tags=values.get("tags") or {},
            embedding=_vector(values["embedding"]) if values.get("embedding") else None,
            fields=values.get("fields"),
            segment=self.options.segment or values.get("segment"),
        )

    def _content(self, values: dict[str, Any]) -> tuple[str, dict[str, str] | None]:
        """Take the text, or the fields, out of a row."""
        column = self.options.text_column
        fields = values.get("fields")
        if column not in values and isinstance(fields, dict):
            if not all(isinstance(text, str) for text in fields.values()):
                raise Unreadable("'fields' are not texts by their names")
            if not "".join(fields.values()).strip():
                raise Unreadable("'fields' are blank")
            del values["fields"]
            return "", fields
        if column not in values:
            raise Unreadable(f"no {column!r} (but {', '.join(values)}): name it with --text-column")
        text = values.pop(column)
        if not isinstance(text, str):
            raise Unreadable(f"{column!r} is not a text: {text!r:.40}")
        title = values.get("title")
        if "_id" in values and isinstance(title, str) and title.strip():  # BEIR's corpus format
            return "", {"title": title, column: text}
        if not text or text.isspace():
            raise Unreadable(f"{column!r} is blank")
        return text, None

    def _csv(self, source: Source, file: BinaryIO, encoding: str) -> Iterator[tuple[int, int, dict[str, Any]]]:
        lines = self._lines(file, encoding)
        header = next(lines, "")
        delimiter = max(",;\t|", key=header.count)
        names = [name.strip() for name in next(csv.reader([header], delimiter=delimiter))]
        if self.options.text_column not in names:
            raise Unreadable(
                f"no column {self.options.text_column!r} (but {', '.join(names)}): name it with --text-column"
            )
        reader = csv.reader(lines, delimiter=delimiter)
        number = 0
        csv.field_size_limit(MAX_MESSAGE_BYTES)
        while True:
            line = reader.line_num + 2  # the header is line 1, and a row may have several
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                raise Unreadable(f"line {line}: {error}") from None
            if not cells:
                continue
            number += 1
            texts = {name: cell for name, cell in zip(names, cells, strict=False) if name}
            exact = {self.options.text_column, self.options.id_column, "id", "_id"}
            yield line, number, {name: cell if name in exact else _number(cell) for name, cell in texts.items()}

    def _json_lines(self, source: Source, file: BinaryIO, encoding: str) -> Iterator[tuple[int, int, dict[str, Any]]]:
        number = 0
        for line, text in enumerate(self._lines(file, encoding, source.name), 1):
            if not text.strip():
                continue
            number += 1
            try:
                values = json.loads(text)
            except ValueError as error:
                self.failures.append(ReadFailure(f"{source.name}:{line}", f"not JSON: {error}"))
                continue
            if not isinstance(values, dict):
                self.failures.append(ReadFailure(f"{source.name}:{line}", "not a JSON object"))
                continue
            yield line, number, values

    def _lines(self, file: BinaryIO, encoding: str, tolerant: str | None = None) -> Iterator[str]:
        """Decoded lines, counted into `position`; with `tolerant` (a name) wrong ones are listed and left blank."""
        if encoding == UTF16:  # its lines do not end where the bytes say
            data = file.read()
            self.position += len(data)
            yield from decode(data, encoding).splitlines(keepends=True)
            return
        for number, raw in enumerate(file, 1):
            self.position += len(raw)
            try:
                yield decode(raw, encoding if number == 1 else encoding.removesuffix("-sig"))
            except Unreadable as error:
                if tolerant is None:
                    raise Unreadable(f"line {number}: {error}") from None
                self.failures.append(ReadFailure(f"{tolerant}:{number}", str(error)))
                yield ""


def _is_vector(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(type(each) in (int, float) for each in value)


def _vector(values: Any) -> npt.NDArray[np.float32]:
    try:
        return np.asarray(values, dtype=np.float32)
    except (TypeError, ValueError):
        raise Unreadable("'embedding' is not a list of numbers") from None


def _number(cell: str) -> str | int | float:
    """A cell as a number where it is written as one and nothing else: "7" and "0.5", but not "007"."""
    if re.fullmatch(r"-?(0|[1-9]\d{0,14})", cell):
        return int(cell)
    if re.fullmatch(r"-?(0|[1-9]\d*)\.\d+", cell):
        return float(cell)
    return cell
