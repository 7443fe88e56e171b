"""Tokenising: the same ids as the tokenizer by itself, whatever the length, and quick on megabytes."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowdex.errors import ConfigurationError
from flowdex_executors.encoder.model_files import read_model
from flowdex_executors.encoder.tokenising import TextTokenizer, TokeniseOptions, load_tokenizer

LIMIT = 16
OPTIONS = TokeniseOptions(LIMIT)
PIECES = ["word", "Größe ", " ", "\n", "東京", "x" * 300, " " * 5000, "a,b.c ", "naïve ", "\u200b", "end. "]


@pytest.fixture(scope="module")
def tokenizer() -> TextTokenizer:
    return TextTokenizer(read_model(None))


@pytest.fixture(scope="module")
def whole() -> object:
    loaded = load_tokenizer(read_model(None).path)
    loaded.enable_truncation(LIMIT)
    return loaded


@settings(deadline=None, max_examples=60)
@given(st.lists(st.lists(st.sampled_from(PIECES), max_size=400).map("".join), min_size=1, max_size=4))
def test_a_prefix_gives_the_tokens_of_the_whole_text(tokenizer: TextTokenizer, whole, texts: list[str]) -> None:  # type: ignore[no-untyped-def]
    for text, sequence in zip(texts, tokenizer.tokenise(texts, OPTIONS), strict=True):
        expected = whole.encode(text)
        assert sequence.ids == expected.ids
        assert bool(sequence.dropped) == bool(expected.overflowing)


@pytest.mark.parametrize("piece", ["word and word ", "word,", "東京都は", "the end.\n\n"])
def test_five_megabytes_cost_no_more_than_a_prefix(tokenizer: TextTokenizer, piece: str) -> None:
    text = piece * (5_000_000 // len(piece.encode()))
    start = time.thread_time()
    (sequence,) = tokenizer.tokenise([text], OPTIONS)
    assert sequence.dropped and len(sequence) == LIMIT
    assert time.thread_time() - start < 1


def test_one_endless_word_is_one_unknown_word(tokenizer: TextTokenizer) -> None:
    (sequence,) = tokenizer.tokenise(["é" * 200_000], OPTIONS)
    assert (len(sequence), sequence.dropped) == (3, 0)


def test_what_a_published_file_says_about_padding_and_truncation_is_ignored(make_model) -> None:  # type: ignore[no-untyped-def]
    files = read_model(make_model("bert"))
    short, long = TextTokenizer(files).tokenise(["hello", "hello world the flow of search " * 9], TokeniseOptions(32))
    assert len(short) == 3
    assert len(long) == 32
    assert long.dropped and not short.dropped


def test_an_older_folder_with_only_a_vocabulary(tmp_path: Path) -> None:
    default = read_model(None)
    for name in ("vocab.txt", "tokenizer_config.json", "config.json", "special_tokens_map.json"):
        shutil.copy(default.path / name, tmp_path)
    texts = ["Hello, Wörld!", "東京都"]
    expected = [encoding.ids for encoding in load_tokenizer(default.path).encode_batch(texts)]
    assert [encoding.ids for encoding in load_tokenizer(tmp_path).encode_batch(texts)] == expected


def test_a_folder_without_a_tokenizer(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ConfigurationError, match="no tokenizer that can be loaded"):
        load_tokenizer(tmp_path)
