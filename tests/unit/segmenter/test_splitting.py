"""Splitting: offsets, token limit, coverage and whole words, for texts of every kind."""

from __future__ import annotations

import itertools
import random
import time
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowdex.errors import ConfigurationError
from flowdex_executors.encoder.model_files import find_model
from flowdex_executors.encoder.tokenising import load_tokenizer
from flowdex_executors.segmenter.splitting import Passage, PassageSplitter

LIMIT = 24
SENTENCES = [
    "The lift of a wing at low speed is small. ",
    "Größe und Übermaß, straßenweise! ",
    "Это предложение на русском языке. ",
    "東京都は日本の首都です。",
    "中文没有空格，但仍然要在词的边界上切分。",
    "한국어 문장도 있습니다. ",
    "هذه جملة عربية. ",
    "don't can't won't 3.14 1,000.50 ",
    "👩‍👩‍👧‍👦 family 🇩🇪 e\u0301clair ",
    "\n",
    "\n\n",
    "\r\n\t ",
    " " * 700,
    "antidisestablishmentarianism ",
    "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVo0NTY3ODkw" * 20,
    "QU+/" * 150,
    "x",
]


@pytest.fixture(scope="module")
def splitter() -> PassageSplitter:
    return make(LIMIT)


def make(limit: int, overlap: int = 0) -> PassageSplitter:
    return PassageSplitter(load_tokenizer(find_model(None)[0]), limit, overlap)


def tokens(splitter: PassageSplitter, text: str) -> int:
    return len(splitter._tokenizer.encode(text, add_special_tokens=False))


def check(splitter: PassageSplitter, text: str, passages: list[Passage]) -> None:
    covered = [False] * len(text)
    for passage in passages:
        assert text[passage.start : passage.end] == passage.text, "offsets are not those of the text"
        assert passage.text and passage.text == passage.text.strip()
        assert tokens(splitter, passage.text) <= splitter.max_tokens
        assert len(passage.text) <= 16 * splitter.max_tokens
        covered[passage.start : passage.end] = [True] * len(passage.text)
    lost = "".join(letter for letter, seen in zip(text, covered, strict=True) if not seen)
    assert not lost.strip(), f"{lost!r} is in no passage"
    assert [passage.start for passage in passages] == sorted(passage.start for passage in passages)


def is_cut(text: str, position: int) -> bool:
    """Whether a position lies inside of a word of an alphabet that spaces its words, or inside of a grapheme."""
    if not 0 < position < len(text):
        return False
    before, after = text[position - 1], text[position]
    if unicodedata.combining(after) or "\u200d" in (before, after):
        return True
    return all(letter.isalnum() and unicodedata.name(letter, "").startswith(("LATIN", "CYRILLIC", "ARABIC", "DIGIT"))
               for letter in (before, after))  # fmt: skip


def word_at(text: str, position: int) -> str:
    start, end = position, position
    while start and not text[start - 1].isspace():
        start -= 1
    while end < len(text) and not text[end].isspace():
        end += 1
    return text[start:end]


@settings(deadline=None, max_examples=60)
@given(st.lists(st.sampled_from(SENTENCES), max_size=60).map("".join))
def test_any_text(splitter: PassageSplitter, text: str) -> None:
    passages = splitter.split(text)
    check(splitter, text, passages)
    for earlier, later in itertools.pairwise(passages):
        assert earlier.end <= later.start
    for passage in passages:
        for position in (passage.start, passage.end):
            if is_cut(text, position):
                word = word_at(text, position)
                too_long = tokens(splitter, word) > splitter.max_tokens or len(word) > 16 * splitter.max_tokens
                assert too_long, f"cut inside of {word[:60]!r}"


@settings(deadline=None, max_examples=60)
@given(st.text(max_size=300))
def test_any_unicode(splitter: PassageSplitter, text: str) -> None:
    check(splitter, text, splitter.split(text))


@settings(deadline=None, max_examples=30)
@given(st.lists(st.sampled_from(SENTENCES[:8]), max_size=40).map("".join), st.integers(1, 23))
def test_overlap(text: str, overlap: int) -> None:
    splitter = make(LIMIT, overlap)
    passages = splitter.split(text)
    check(splitter, text, passages)
    for earlier, later in itertools.pairwise(passages):
        assert later.end > earlier.end
        if later.start < earlier.end:
            assert tokens(splitter, text[later.start : earlier.end]) <= overlap + 1


def test_overlap_repeats_the_end() -> None:
    text = " ".join(f"word{index}" for index in range(200))
    passages = make(LIMIT, 8).split(text)
    assert all(later.start < earlier.end for earlier, later in itertools.pairwise(passages))


def test_windows_do_not_show(splitter: PassageSplitter) -> None:
    """A long text is cut where the splitter library by itself cuts it, given all of it at once."""
    from semantic_text_splitter import TextSplitter

    generator = random.Random(1)
    prose = [sentence for sentence in SENTENCES[:8] if sentence.strip()]
    text = "".join(generator.choice([*prose, "\n", "\n\n"]) for _ in range(600))
    alone = TextSplitter.from_huggingface_tokenizer(splitter._tokenizer, LIMIT).chunk_indices(text)
    assert len(text) > 20 * splitter._max_characters
    assert [(passage.start, passage.text) for passage in splitter.split(text)] == alone


def test_a_short_text_is_one_passage(splitter: PassageSplitter) -> None:
    assert splitter.split("  Hello, world.\n") == [Passage("Hello, world.", 2, 15)]
    assert splitter.split(" \n ") == []
    assert splitter.split("\x1f hello \x1f\x1c") == [Passage("hello", 2, 7)], "white space by Python's rules"


@pytest.mark.parametrize(
    "piece",
    [
        "The lift of a wing at low speed is small, and grows with the square of it.\n",
        "no stop and no line just words and words and more words ",
        "東京都は日本の首都です。",
        "中文没有标点符号的长文本",
        "QUJD",
        "word" + " " * 1000,
    ],
)
def test_time_grows_with_the_text_and_not_with_its_square(piece: str) -> None:
    splitter = make(254)
    times = []
    for size in (20_000, 160_000):
        text = piece * (size // len(piece))
        start = time.thread_time()
        passages = splitter.split(text)
        times.append(time.thread_time() - start)
        assert passages
    assert times[1] < 8 * 3 * times[0] + 0.2


def test_wrong_overlap() -> None:
    with pytest.raises(ConfigurationError, match="less than max_tokens"):
        make(8, 8)
    with pytest.raises(ConfigurationError, match="less than max_tokens"):
        make(8, -1)
