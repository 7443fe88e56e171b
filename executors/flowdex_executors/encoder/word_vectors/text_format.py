"""The text formats of word vectors: a word and its numbers a line (GloVe), after a header (word2vec, fastText's .vec).

    400000 50                            header, optional: words, dimensions
    the 0.418 0.24968 -0.41242 ...       fields are separated by spaces
    . . . 0.1 0.2 0.3 ...                a word may hold spaces: the numbers are the last fields of the line

Parsing is numpy's, some megabytes at a time: the words are cut out and the rest is one array of numbers.
"""

from __future__ import annotations

import mmap
import re
import warnings
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from flowdex.errors import ConfigurationError
from flowdex_executors.encoder.word_vectors.vectors import Matrix

__all__ = ["Header", "read_text", "text_header"]

_CHUNK = 8 << 20  # bytes
_HEADER = re.compile(rb"\s*(\d{1,12})[ \t]+(\d{1,6})[ \t\r]*\n?")
_LARGEST = float(np.finfo(np.float32).max)
_SPACE, _NEWLINE = 32, 10

_Bytes: TypeAlias = npt.NDArray[np.uint8]
_Positions: TypeAlias = npt.NDArray[np.intp]


class Header(NamedTuple):
    """What the beginning of a file says.

    Attributes:
        words: Number of words; None where there is no header.
        dimensions: Size of a vector.
        size: Bytes of the header.
    """

    words: int | None
    dimensions: int
    size: int


def text_header(path: Path, first_line: bytes) -> Header:
    """Read the header, or count the numbers of the first line.

    Raises:
        ConfigurationError: The line is neither.
    """
    match = _HEADER.fullmatch(first_line)
    if match:
        header = Header(int(match[1]), int(match[2]), len(first_line))
        if not header.dimensions:
            raise ConfigurationError(f"{path}, line 1: the header says that vectors have no dimensions")
        return header
    dimensions = len(first_line.split()) - 1
    if dimensions < 1:
        raise ConfigurationError(
            f"{path}, line 1: neither a header nor a word with its numbers; "
            "word vectors are word2vec, GloVe or fastText files, or .npy with a vocabulary"
        )
    return Header(None, dimensions, 0)


def read_text(path: Path, limit: int | None = None) -> tuple[list[str], Matrix]:
    """Read a file of one of the text formats.

    Args:
        path: The file.
        limit: How many words to read, from the first; None for all.

    Returns:
        The words, and their vectors as float32 of shape (words, dimensions). What is not UTF-8 in a word is replaced.

    Raises:
        ConfigurationError: The file is damaged; the message names the line.
    """
    with path.open("rb") as file:
        if not path.stat().st_size:
            raise ConfigurationError(f"{path} is empty")
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        with data:
            header = text_header(path, data.readline())
            expected = _lines(data, header.size) if header.words is None else header.words
            wanted = expected if limit is None else min(limit, expected)
            # Each number takes two bytes at least: a header cannot claim more than the file holds.
            if wanted * header.dimensions * 2 > len(data):
                raise ConfigurationError(
                    f"{path}, line 1: the header claims {wanted} words of {header.dimensions} dimensions, more than "
                    "the file holds; it is not complete, or no file of word vectors"
                )
            words: list[str] = []
            table = np.empty((wanted, header.dimensions), np.float32)
            line = 1 if header.words is None else 2
            for chunk in _chunks(data, header.size):
                if header.words is None and len(words) >= wanted:
                    break
                part = _parse(path, chunk, header.dimensions, line)
                line += part.lines
                end = min(len(words) + len(part.words), wanted)
                table[len(words) : end] = part.values[: end - len(words)]
                words += part.words
                if limit is not None and len(words) >= wanted:
                    break
    if limit is None and header.words is not None and len(words) != header.words:
        raise ConfigurationError(
            f"{path}, line {line - 1}: the file has {len(words)} words, but its header says {header.words}; "
            "it is not complete, or damaged"
        )
    if header.words is not None and len(words) < wanted:
        raise ConfigurationError(f"{path}, line {line - 1}: the file ends after {len(words)} words of {wanted}")
    return words[:wanted], table[: len(words)]


class _Part(NamedTuple):
    words: list[str]
    values: Matrix
    lines: int


def _lines(data: mmap.mmap, start: int) -> int:
    """At least the number of words: line breaks, and one for a last line that has none."""
    whole: _Bytes = np.frombuffer(data, np.uint8)
    total = 1 + sum(
        int(np.count_nonzero(whole[at : at + _CHUNK] == _NEWLINE)) for at in range(start, len(data), _CHUNK)
    )
    del whole  # a map that is looked at cannot be closed
    return total


def _chunks(data: mmap.mmap, start: int) -> Iterator[bytes]:
    """The rest of the file in pieces that end with a line break."""
    while start < len(data):
        end = min(start + _CHUNK, len(data))
        if end < len(data):
            end = data.find(b"\n", end - 1) + 1 or len(data)
        piece = data[start:end]
        yield piece if piece.endswith(b"\n") else piece + b"\n"
        start = end


def _parse(path: Path, chunk: bytes, dimensions: int, line: int) -> _Part:
    """Parse whole lines, of which the first is number `line` of the file."""
    buffer: _Bytes = np.frombuffer(chunk, np.uint8)
    breaks = np.flatnonzero(buffer == _NEWLINE)
    lines = len(breaks)
    starts = np.concatenate(([0], breaks[:-1] + 1))
    # Where each field starts. What is below a space counts as one: it may stand in a word, where it does no harm.
    blank = buffer <= _SPACE
    fields = np.flatnonzero(blank[:-1] > blank[1:]) + 1
    if not blank[0]:
        fields = np.concatenate(([0], fields))
    # Fields up to the end of each line; the last `dimensions` of them are its numbers.
    through = np.searchsorted(fields, breaks)
    own = np.diff(through, prepend=0)
    numbers = fields[np.clip(through - dimensions, 0, len(fields) - 1)] if len(fields) else starts
    # A line of no more fields than numbers is one of the empty word, if a space stands where the word would.
    short = (own < dimensions) | ((own == dimensions) & (numbers == starts))
    if (short & (own > 0)).any():
        bad = int(np.flatnonzero(short & (own > 0))[0])
        raise ConfigurationError(
            f"{path}, line {line + bad}: {max(int(own[bad]) - 1, 0)} numbers after the word, but vectors have "
            f"{dimensions} dimensions; the file is not complete, or damaged"
        )
    used = own > 0
    starts, numbers, breaks = starts[used], numbers[used], breaks[used]
    words = [chunk[start:end].strip(b" \t\r").decode("utf-8", "replace") for start, end in _pairs(starts, numbers)]
    values = _numbers(b" ".join([chunk[start:end] for start, end in _pairs(numbers, breaks)]))
    if values is None or values.size != len(words) * dimensions or not np.isfinite(values).all():
        raise _bad_number(path, chunk, dimensions, line)
    return _Part(words, values.reshape(len(words), dimensions), lines)


def _pairs(starts: _Positions, ends: _Positions) -> Iterator[tuple[int, int]]:
    return zip(starts.tolist(), ends.tolist(), strict=True)


def _numbers(text: bytes) -> Matrix | None:
    """All numbers of the text; None where something is not a number."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)  # how numpy says that it stopped early
        try:
            return np.fromstring(text, dtype=np.float32, sep=" ") if text.strip() else np.empty(0, np.float32)
        except (DeprecationWarning, ValueError):
            return None


def _bad_number(path: Path, chunk: bytes, dimensions: int, line: int) -> ConfigurationError:
    for number, content in zip(count(line), chunk.split(b"\n"), strict=False):
        for field in content.split()[-dimensions:]:
            try:
                fine = abs(float(field)) <= _LARGEST and b"_" not in field
            except ValueError:
                fine = False
            if not fine:
                shown = field[:40].decode("utf-8", "replace")
                return ConfigurationError(f"{path}, line {number}: {shown!r} is not a finite number")
    return ConfigurationError(f"{path}, from line {line}: the numbers cannot be read; the file is damaged")
