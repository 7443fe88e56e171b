"""The word splitter: Penn Treebank's conventions, any script, any text, in linear time."""

from __future__ import annotations

import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowdex_executors.encoder.words import split_words, word_spans


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Don't panic, Dr. Who's well-known!", "Do n't panic , Dr. Who 's well-known !"),
        ("I can't; he couldn’t. They'll've gone...", "I ca n't ; he could n’t . They 'll 've gone ..."),
        ("O'Neill's rock'n'roll", "O'Neill 's rock'n'roll"),
        ("the U.S. grew 3.5% at 10:30, e.g. $1,000.50.", "the U.S. grew 3.5 % at 10:30 , e.g. $ 1,000.50 ."),
        ("(cannot) gonna -- ok?", "( can not ) gon na -- ok ?"),
        ("see https://a.b/c?d=e. mail me@x.org.", "see https://a.b/c?d=e . mail me@x.org ."),
        ("'quoted' \"twice\" [x]", "' quoted ' \" twice \" [ x ]"),
        ("état naïve 東京 हिन्दी நிரல் می‌خواهم", "état naïve 東京 हिन्दी நிரல் می‌خواهم"),
        ("葛\U000e0100城 ❤\ufe0f!", "葛\U000e0100城 ❤\ufe0f !"),
        ("snake_case a/b", "snake_case a / b"),
        ("ISN'T", "IS N'T"),
        ("", ""),
        (" \n\t ", ""),
    ],
)
def test_words(text: str, words: str) -> None:
    assert split_words(text) == words.split()


def test_hyphens_as_spacy_has_them() -> None:
    assert split_words("well-known 2020-2021 x-ray's --", split_hyphens=True) == [
        "well",
        "-",
        "known",
        "2020",
        "-",
        "2021",
        "x",
        "-",
        "ray",
        "'s",
        "--",
    ]


def test_composed_and_decomposed_letters_make_the_same_words() -> None:
    text = "L'état naïve, Åse's"
    composed, decomposed = (split_words(unicodedata.normalize(form, text)) for form in ("NFC", "NFD"))
    assert [unicodedata.normalize("NFC", word) for word in decomposed] == composed


@given(st.text())
def test_words_are_all_of_a_text_but_its_white_space(text: str) -> None:
    for split_hyphens in (False, True):
        spans = word_spans(text, split_hyphens=split_hyphens)
        done = 0
        for start, end in spans:
            assert done <= start < end <= len(text)
            assert not text[done:start].strip()
            assert not any(character.isspace() for character in text[start:end])
            done = end
        assert not text[done:].strip()


@pytest.mark.parametrize(
    "unit",
    [
        "a",
        "a-",
        "a.",
        "'s",
        "1.,",
        "1:",
        "a@",
        "n't",
        "a.b+",
        "www.",
        "https://.",
        "x'",
        "a@b.-",
        "!",
        "\u0301",
        "a\u0301",
    ],
)
def test_no_text_takes_more_than_linear_time(unit: str) -> None:
    text = unit * (100_000 // len(unit)) + " <"
    start = time.process_time()
    split_words(text)
    assert time.process_time() - start < 5  # quadratic would be minutes
