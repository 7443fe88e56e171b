"""Passages in every mode: offsets, coverage, and the budget of all that the encoder reads."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from flowdex.errors import InvalidInput
from flowdex_executors.encoder.model_files import find_model
from flowdex_executors.encoder.tokenising import load_tokenizer
from flowdex_executors.segmenter.cutting import Cutter, Mode, Passage
from flowdex_executors.segmenter.source import Source, compose
from flowdex_executors.segmenter.tokens import TokenCounter

LIMIT = 32
PARTS = [
    "The lift of a wing at low speed is small. ",
    "Dr. Smith said so, e.g. in Sec. 3.14. ",
    "东京都是日本的首都。",
    "我们使用BERT模型，it has 12 layers，效果很好！",
    "彼は「行きます。」と言った。",
    "# Heading\n\n",
    "\n## Another *one*\n",
    "Setext\n---\n\n",
    "```\n# code\nline\n```\n\n",
    "| a | b |\n|---|---|\n| one | two |\n\n",
    "- item one\n- item two\n",
    "> quoted\n",
    "\n\n",
    "👩‍👩‍👧‍👦 🇩🇪 e\u0301 ",
    "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVo0NTY3ODkw" * 10,
    "\u200d",
    "\x1f",
]
TEXT = st.lists(st.one_of(st.sampled_from(PARTS), st.text(max_size=6)), max_size=25).map("".join)
MODES = st.sampled_from(["passage", "sentence", "markdown"])


def byte_level() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(PARTS * 3, trainer)
    return tokenizer


BERT = load_tokenizer(find_model(None)[0])
COUNTERS = {"BERT": TokenCounter(BERT), "byte level": TokenCounter(byte_level())}


def check(text: str, passages: list[Passage]) -> None:
    covered = [False] * len(text)
    for passage in passages:
        assert text[passage.start : passage.end] == passage.text == passage.text.strip() != ""
        covered[passage.start : passage.end] = [True] * len(passage.text)
    lost = "".join(letter for letter, seen in zip(text, covered, strict=True) if not seen)
    assert not lost.strip(), f"{lost!r} is in no passage"
    starts = [passage.start for passage in passages]
    assert starts == sorted(starts)


@settings(deadline=None, max_examples=250)
@given(
    TEXT,
    MODES,
    st.sampled_from(["", "passage: ", "do:"]),
    st.sampled_from([None, "On wings", "一个很长的标题" * 5, "title " * 40]),
    st.data(),
)
def test_every_mode(text: str, mode: Mode, prompt: str, title: str | None, data: Any) -> None:
    counter = COUNTERS[data.draw(st.sampled_from(list(COUNTERS)))]
    cutter = Cutter(counter, LIMIT, overlap=5, sentences=3, sentence_overlap=1)
    fields = {"body": text} if title is None else {"title": title, "body": text}
    if data.draw(st.booleans()):
        fields = dict(reversed(fields.items()))
    source = compose(fields, {"title": 2.0}, "title")
    passages = cutter.cut(source, mode, prompt)
    check(source.text, passages)
    for passage in passages:
        read = prompt + (passage.context and f"{passage.context}\n") + passage.text
        assert counter.count(read) <= LIMIT, passage
        assert counter.count(f"{passage.context}\n") <= LIMIT // 4
        if title and title in passage.text:
            assert "wings" not in passage.context


@settings(deadline=None, max_examples=100)
@given(TEXT, st.integers(1, 4), st.data())
def test_windows_of_sentences(text: str, size: int, data: Any) -> None:
    overlap = data.draw(st.integers(0, size - 1))
    cutter = Cutter(COUNTERS["BERT"], LIMIT, sentences=size, sentence_overlap=overlap)
    check(text, cutter.cut(Source(text), "sentence"))


def cut(text: str, mode: Mode, limit: int = LIMIT, **options: Any) -> list[str]:
    return [passage.text for passage in Cutter(COUNTERS["BERT"], limit, **options).cut(Source(text), mode)]


def test_sentences() -> None:
    text = "One is here. Two is here. Three is here. Four is here."
    one, two, three, four = [f"{number} is here." for number in ("One", "Two", "Three", "Four")]
    assert cut(text, "sentence") == [one, two, three, four]
    assert cut(text, "sentence", sentences=2) == [f"{one} {two}", f"{three} {four}"]
    windows = [f"{one} {two}", f"{two} {three}", f"{three} {four}"]
    assert cut(text, "sentence", sentences=2, sentence_overlap=1) == windows
    assert cut(text, "sentence", 9, sentences=4) == [f"{one} {two}", f"{three} {four}"], "as many as fit"
    assert cut(text, "sentence", 3)[:2] == ["One is here", "."], "a sentence that does not fit is cut"


def test_document() -> None:
    assert cut("  One. Two.\n\nThree.  " * 50, "document") == [("  One. Two.\n\nThree.  " * 50).strip()]
    assert cut(" \n", "document") == []


def test_mixed_chinese_and_english() -> None:
    """A paragraph in both languages is cut at full stops, and neither a word nor a character of two parts is cut."""
    text = (
        "向量检索（vector search）把文本转换为embedding，然后用cosine similarity比较它们。"
        "与传统的BM25不同，dense retrieval可以找到意思相近但用词不同的passages！"
        "For example, Dr. Wang's 2023 paper reports nDCG@10 of 0.427 on Cranfield. "
        "你可以在laptop上用一条命令启动它吗？当然可以👩‍👩‍👧‍👦。"
    ) * 4
    for mode in ("passage", "sentence"):
        passages = cut(text, mode, 64)
        assert len(passages) >= 8
        assert {passage[-1] for passage in passages} <= set("。！？.")
    assert "For example, Dr. Wang's 2023 paper reports nDCG@10 of 0.427 on Cranfield." in cut(text, "sentence", 64)
    for passage in Cutter(COUNTERS["BERT"], 9).cut(Source(text), "passage"):  # too little for a sentence
        for position in {passage.start, passage.end} - {0, len(text)}:
            around = text[position - 1 : position + 1]
            assert not (around.isascii() and around.isalnum()), around
            assert "\u200d" not in around


# ---- fields ----


def passages_of(fields: dict[str, str], mode: Mode = "passage", limit: int = LIMIT, **weights: float) -> list[Passage]:
    return Cutter(COUNTERS["BERT"], limit).cut(compose(fields, weights, "title"), mode)


def test_the_title_is_the_context_of_the_passages_without_it() -> None:
    body = "Lift grows with the speed. " * 20
    passages = passages_of({"title": " On\nwings ", "body": body})
    assert passages[0].text.startswith("On\nwings \n\nLift grows"), "no passage by itself"
    assert [each.context for each in passages] == ["", *["On wings"] * (len(passages) - 1)]
    assert len(passages) > 3
    sentences = passages_of({"title": "On wings", "body": body}, "sentence")
    assert [(each.text, each.context) for each in sentences[:2]] == [
        ("On wings", ""),
        ("Lift grows with the speed.", "On wings"),
    ]


def test_a_title_that_does_not_come_first() -> None:
    passages = passages_of({"body": "Lift grows with the speed. " * 20, "title": "On wings"})
    assert [each.context for each in passages] == [*["On wings"] * (len(passages) - 1), ""]
    assert passages[-1].text.endswith("On wings")


def test_weights_are_spans_of_the_passages() -> None:
    fields = {"title": "On wings", "body": "Lift grows with the speed. " * 8, "keywords": "lift drag"}
    passages = passages_of(fields, title=2.0, keywords=0.5)
    assert passages[0].weights == [[0, 8, 2.0]]
    assert all(each.weights == [] for each in passages[1:-1])
    ((start, end, weight),) = passages[-1].weights
    assert (passages[-1].text[int(start) : int(end)], weight) == ("lift drag", 0.5)
    assert passages_of({"title": "", "body": "b"}, title=2.0)[0].weights == []


def test_fields_are_joined_in_their_order() -> None:
    source = compose({"b": "two", "a": "", "title": "one"}, {}, "title")
    assert source.text == "two\n\n\n\none"
    assert source.title is not None and source.text[slice(*source.title)] == "one"
    assert compose({"title": " "}, {}, "title").title is None
    assert compose({"title": "x"}, {}, None).title is None


# ---- budget ----


def test_the_prompt_counts() -> None:
    text = "word " * 200
    without, with_prompt = (Cutter(COUNTERS["BERT"], LIMIT).cut(Source(text), "passage", each) for each in ("", "a: "))
    assert (without[0].text.count("word"), with_prompt[0].text.count("word")) == (LIMIT, LIMIT - 2)


def test_a_prompt_without_room() -> None:
    with pytest.raises(InvalidInput, match="raise max_tokens"):
        Cutter(COUNTERS["BERT"], LIMIT).cut(Source("text"), "passage", "word " * 40)
