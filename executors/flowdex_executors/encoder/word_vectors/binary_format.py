r"""The binary format of word2vec: a header, then each word, a space and its vector.

b"3000000 300\n" b"the " <300 float32, little endian> [b"\n"] b"of " <...> ...
"""

from __future__ import annotations

import mmap
from pathlib import Path

import numpy as np

from flowdex.errors import ConfigurationError
from flowdex_executors.encoder.word_vectors.text_format import text_header
from flowdex_executors.encoder.word_vectors.vectors import Matrix

__all__ = ["read_binary"]

_LONGEST_WORD = 4096  # bytes; beyond that, it is no word
_ROWS = 16_384


def read_binary(path: Path, limit: int | None = None) -> tuple[list[str], Matrix]:
    """Read a file of word2vec's binary format.

    Args:
        path: The file.
        limit: How many words to read, from the first; None for all.

    Returns:
        The words, and their vectors as float32 of shape (words, dimensions). What is not UTF-8 in a word is replaced.

    Raises:
        ConfigurationError: The file is damaged; the message names the byte.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        header = text_header(path, data.readline())
        total = header.words or 0
        wanted = total if limit is None else min(limit, total)
        size = 4 * header.dimensions
        if wanted * (size + 1) > len(data):
            raise ConfigurationError(
                f"{path}, byte {len(data)}: the file ends here, but {wanted} words of {header.dimensions} dimensions "
                "take more; it is not complete"
            )
        words: list[str] = []
        starts = np.empty(wanted, np.intp)
        position = header.size
        for index in range(wanted):
            space = data.find(b" ", position, position + _LONGEST_WORD)
            if space < 0:
                raise ConfigurationError(
                    f"{path}, byte {position}: no word is here, where that of vector {index + 1} of {total} should be; "
                    "the file is not complete, or damaged"
                )
            words.append(data[position:space].lstrip(b"\n").decode("utf-8", "replace"))
            starts[index] = space + 1
            position = space + 1 + size
        if position > len(data):
            raise ConfigurationError(
                f"{path}, byte {len(data)}: the file ends in vector {wanted} of {total}; it is not complete"
            )
        if wanted == total and data[position : position + 2] not in (b"", b"\n"):
            raise ConfigurationError(f"{path}, byte {position}: more follows the {total} words of the header")
        table = _gather(data, starts, header.dimensions)
    finite = np.isfinite(table).all(axis=1)
    if not finite.all():
        bad = int(np.flatnonzero(~finite)[0])
        raise ConfigurationError(
            f"{path}, byte {int(starts[bad])}: vector {bad + 1}, of {words[bad]!r}, holds what is not a finite number; "
            "the file is damaged"
        )
    return words, table


def _gather(data: mmap.mmap, starts: np.ndarray[tuple[int], np.dtype[np.intp]], dimensions: int) -> Matrix:
    """The vectors at these bytes."""
    table = np.empty((len(starts), dimensions), np.float32)
    size = 4 * dimensions
    if not len(starts):
        return table
    whole = np.frombuffer(data, np.uint8)
    windows = np.lib.stride_tricks.sliding_window_view(whole, size)
    for first in range(0, len(starts), _ROWS):
        table[first : first + _ROWS] = windows[starts[first : first + _ROWS]].view("<f4")
    del whole, windows  # a map that is looked at cannot be closed
    return table
