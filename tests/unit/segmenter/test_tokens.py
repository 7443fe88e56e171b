"""Counts of any part of a text: the same as those of the tokenizer, without asking it again."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from flowdex_executors.encoder.model_files import find_model
from flowdex_executors.encoder.tokenising import load_tokenizer
from flowdex_executors.segmenter.tokens import TokenCounter, word_starts

BERT = load_tokenizer(find_model(None)[0])
BY_WORDS = TokenCounter(BERT)
WORDS = [
    *("the", "antidisestablishmentarianism", "don't", "東京都", "中文abc，", "[SEP]", "e\u0301", "\u0301", "中\u0301"),
    *("\u200d", "\N{WOMAN}\u200d\N{GIRL}", "\x1f", "\x85", "\u3000", "A.B", "x" * 150, "\ufb01", "\u0130"),
    *(" ", "\n", "\r\n", "\t", "\x00"),
]


def byte_level() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(["the cat sat on the mat, and the hat. 東京都。"] * 5, trainer)
    return tokenizer


@settings(deadline=None, max_examples=200)
@given(st.lists(st.one_of(st.sampled_from(WORDS), st.text(max_size=8)), max_size=20).map("".join), st.data())
def test_what_is_called_exact_is(text: str, data: Any) -> None:
    tokens = BY_WORDS.locate(text)
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, len(text)))
    if tokens.is_exact(start, end):
        assert tokens.count(start, end) == BY_WORDS.count(text[start:end])
    assert tokens.is_exact(0, len(text))
    assert tokens.count(0, len(text)) == tokens.count(0, start) + tokens.count(start, len(text))


@pytest.mark.parametrize("text", ["the cat sat. " * 2000, "thecat" * 3000, "東京都。" * 3000, "", " "])
def test_tokenizers_that_look_across_words(text: str) -> None:
    counter = TokenCounter(byte_level())
    assert not counter.by_words
    tokens = counter.locate(text)
    whole = counter.count(text)
    assert abs(tokens.count(0, len(text)) - whole) <= 2 + len(text) // 4096
    assert not text or not tokens.is_exact(0, len(text))


def test_a_tokenizer_whose_own_tokens_hold_white_space_is_not_cut_at_it() -> None:
    tokenizer = Tokenizer.from_str(BERT.to_str())
    assert TokenCounter(tokenizer).by_words
    tokenizer.add_tokens([AddedToken("the cat")])
    assert not TokenCounter(tokenizer).by_words
    other = Tokenizer.from_str(BERT.to_str())
    other.normalizer = normalizers.BertNormalizer(handle_chinese_chars=False)
    assert not TokenCounter(other).by_words


def test_lower_case() -> None:
    cased = Tokenizer.from_str(BERT.to_str())
    cased.normalizer = normalizers.BertNormalizer(lowercase=False)
    plain, lowering = TokenCounter(cased), TokenCounter(cased, lower_case=True)
    text = "WINGLIKE İstanbul LIFT"
    assert plain.count(text) == 3, "unknown"
    assert lowering.count(text) == plain.count(text.lower()) > 3
    assert lowering.locate(text).count(0, 8) == plain.count("winglike")
    assert lowering.locate(text).count(18, 22) == plain.count("lift")


def test_long_words_are_not_kept() -> None:
    counter = TokenCounter(BERT)
    counter.locate("short " + "y" * 1000)
    assert set(counter._known) == {"short"}


def test_word_starts() -> None:
    assert word_starts("one two  three") == [4, 9]
    assert word_starts("a中文b") == [1, 2, 3]
    assert word_starts("") == []
