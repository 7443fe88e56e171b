"""Splitting: offsets, token limit, coverage and whole words, for texts of every kind."""

from __future__ import annotations

import itertools
import random
import time
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowdex_executors.encoder.model_files import find_model
from flowdex_executors.encoder.tokenising import load_tokenizer
from flowdex_executors.segmenter.cutting import Cutter, Passage
from flowdex_executors.segmenter.source import Source
from flowdex_executors.segmenter.tokens import TokenCounter

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


TOKENIZER = load_tokenizer(find_model(None)[0])
COUNTER = TokenCounter(TOKENIZER)


def split(text: str, limit: int = LIMIT, overlap: int = 0) -> list[Passage]:
    return Cutter(COUNTER, limit, overlap=overlap).cut(Source(text), "passage")


def tokens(text: str) -> int:
    return len(TOKENIZER.encode(text, add_special_tokens=False))


def check(text: str, passages: list[Passage]) -> None:
    covered = [False] * len(text)
    for passage in passages:
        assert text[passage.start : passage.end] == passage.text, "offsets are not those of the text"
        assert passage.text and passage.text == passage.text.strip()
        assert tokens(passage.text) <= LIMIT
        assert len(passage.text) <= 16 * LIMIT or not tokens(passage.text[16 * LIMIT :])
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
def test_any_text(text: str) -> None:
    passages = split(text)
    check(text, passages)
    for earlier, later in itertools.pairwise(passages):
        assert earlier.end <= later.start
    for passage in passages:
        for position in (passage.start, passage.end):
            if is_cut(text, position):
                word = word_at(text, position)
                too_long = tokens(word) > LIMIT or len(word) > 16 * LIMIT
                assert too_long, f"cut inside of {word[:60]!r}"


@settings(deadline=None, max_examples=60)
@given(st.text(max_size=300))
def test_any_unicode(text: str) -> None:
    check(text, split(text))


@settings(deadline=None, max_examples=30)
@given(st.lists(st.sampled_from(SENTENCES[:8]), max_size=40).map("".join), st.integers(1, 23))
def test_overlap(text: str, overlap: int) -> None:
    passages = split(text, overlap=overlap)
    check(text, passages)
    for earlier, later in itertools.pairwise(passages):
        assert later.end > earlier.end
        if later.start < earlier.end:
            assert tokens(text[later.start : earlier.end]) <= overlap + 1


def test_overlap_repeats_the_end() -> None:
    text = " ".join(f"word{index}" for index in range(200))
    passages = split(text, overlap=8)
    assert all(later.start < earlier.end for earlier, later in itertools.pairwise(passages))


def test_windows_do_not_show() -> None:
    """A long text is cut where the splitter library by itself cuts it, given all of it at once."""
    from semantic_text_splitter import TextSplitter

    generator = random.Random(1)
    prose = [sentence for sentence in SENTENCES[:8] if sentence.strip()]
    text = "".join(generator.choice([*prose, "\n", "\n\n"]) for _ in range(600))
    alone = TextSplitter.from_huggingface_tokenizer(TOKENIZER, LIMIT).chunk_indices(text)
    assert len(text) > 20 * 16 * LIMIT
    assert [(passage.start, passage.text) for passage in split(text)] == alone


def test_a_short_text_is_one_passage() -> None:
    assert split("  Hello, world.\n") == [Passage("Hello, world.", 2, 15)]
    assert split(" \n ") == []
    assert split("\x1f hello \x1f\x1c") == [Passage("hello", 2, 7)], "white space by Python's rules"


def test_what_has_no_token_is_no_passage() -> None:
    blank = "\u200d" * 1000
    assert [(each.start, each.end) for each in split(f"hello {blank}")] == [(0, 1006)]
    assert [(each.start, each.end) for each in split(f"{blank} hello")] == [(0, 1006)]
    assert [(each.start, each.end) for each in split(blank)] == [(0, 1000)], "there is nothing else"


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
    times = []
    for size in (20_000, 160_000):
        text = piece * (size // len(piece))
        start = time.thread_time()
        passages = split(text, 254)
        times.append(time.thread_time() - start)
        assert passages
    assert times[1] < 8 * 3 * times[0] + 0.2
