"""Tokenising: the same ids as the tokenizer by itself, whatever the length, and quick on megabytes."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowdex.errors import ConfigurationError, InvalidInput
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


@given(
    st.lists(st.sampled_from(PIECES), max_size=60).map("".join),
    st.integers(3, 40),
    st.sampled_from(["head", "tail", "window_mean"]),
)
def test_what_truncation_keeps(tokenizer: TextTokenizer, text: str, limit: int, truncation: Any) -> None:
    (whole,) = tokenizer.tokenise([text], TokeniseOptions(spans=True))
    content = list(zip(whole.ids[1:-1], (whole.spans or [])[1:-1], strict=True))
    options = TokeniseOptions(limit, truncation, spans=True, exact=True)
    (sequence,) = tokenizer.tokenise([text], options)
    parts = [sequence, *sequence.windows]
    kept = [list(zip(part.ids[1:-1], (part.spans or [])[1:-1], strict=True)) for part in parts]
    room = limit - 2
    if truncation == "window_mean":
        assert [pair for part in kept for pair in part] == content
        assert all(len(part) == limit for part in parts[:-1])
    else:
        expected = content[:room] if truncation == "head" else content[len(content) - min(room, len(content)) :]
        assert kept == [expected]
    assert sequence.dropped == (0 if truncation == "window_mean" else max(0, len(content) - room))
    for part in parts:
        assert len(part) <= limit and tuple(part.special) == (0, len(part) - 1)
        assert part.ids[0] == whole.ids[0] and part.ids[-1] == whole.ids[-1]


@pytest.mark.parametrize("truncation", ["head", "tail"])
def test_a_part_of_a_long_text_gives_the_tokens_of_the_whole(tokenizer: TextTokenizer, truncation: Any) -> None:
    texts = ["word, and another (word) " * 4000, "naïve Größe 東京 " * 3000]
    options = [TokeniseOptions(LIMIT, truncation, spans=True, exact=exact) for exact in (False, True)]
    for part, whole in zip(*(tokenizer.tokenise(texts, each) for each in options), strict=True):
        assert (part.ids, part.spans) == (whole.ids, whole.spans)
        assert 0 < part.dropped <= whole.dropped


def test_too_small_a_limit(tokenizer: TextTokenizer) -> None:
    with pytest.raises(InvalidInput, match="at least 3 tokens, got 2"):
        tokenizer.tokenise(["a"], TokeniseOptions(2))
    with pytest.raises(InvalidInput, match="at least 5 tokens for pairs"):
        tokenizer.tokenise([("a", "b")], TokeniseOptions(4))


@given(st.integers(0, 30), st.integers(0, 30), st.integers(2, 30))
def test_pairs_share_the_room(tokenizer: TextTokenizer, first: int, second: int, room: int) -> None:
    (sequence,) = tokenizer.tokenise([("a " * first, "b " * second)], TokeniseOptions(room + 3, spans=True))
    assert len(sequence) == min(first + second, room) + 3
    assert sequence.dropped == max(0, first + second - room)
    if first + second > room:
        kept = sequence.special[1] - 1
        assert min(first, room // 2) <= kept and min(second, room // 2) <= len(sequence) - 3 - kept
