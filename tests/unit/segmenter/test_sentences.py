"""Sentences, measured on a small set: abbreviations, numbers, quotations, ellipses, Chinese, Japanese, and mixtures."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowdex_executors.segmenter.sentences import find_sentences

# Each text is its sentences put together.
TEXTS = [
    ["Dr. Smith met Mrs. Jones at 3 p.m. on Monday. ", "They talked."],
    ["Use a list, e.g. apples, or pears, i.e. fruit. ", "Nothing else works."],
    ["He lived in the U.S. for ten years. ", "Then he left."],
    ["She moved to the U.S. ", "He stayed in Spain."],
    ["Pi is about 3.14, and e is 2.718. ", "Both are irrational."],
    ['"Stop!" he said. ', "Nobody stopped."],
    ['He asked, "Why?" ', "She did not answer."],
    ["“I am here.” ", "She waved."],
    ["He said “Go!” and left. ", "She stayed."],
    ["Well... I don't know. ", "Maybe."],
    ["Is this it? ", "Yes! ", "It is."],
    ["Really?! ", "Yes."],
    ["The file is config.yaml, see example.com/a.b for more. ", "Read it."],
    ["Version 2.0.1 came out. ", "It was fine."],
    ["J. R. R. Tolkien wrote it. ", "People read it."],
    ["See Fig. 3 and Sec. 2.1 for details. ", "Eq. 4 follows, as eq. (5) does. ", "The end."],
    ["The company, Apple Inc. of California, grew. ", "Its rivals shrank."],
    ["It works (see below). ", "Try it."],
    ["Prof. A. B. Lee et al. showed it vs. the others. ", "Nobody objected."],
    ["The temperature was -3.5 °C. ", "It rose later."],
    ["A heading without a stop\n\n", "The text below it. ", "It goes on."],
    ["This sentence is wrapped\nover two lines. ", "This one is not."],
    ["今天天气很好。", "我们去公园吧！", "好吗？"],
    ["他说：“我不去。”", "然后他走了。"],
    ["“真的吗？”她问。", "没有人回答。"],
    ["“走吧！”王先生说。", "大家都走了。"],
    ["价格是3.14元。", "很便宜。"],
    ["他等了很久……没有人来。", "天黑了。"],
    ["東京都は日本の首都です。", "人口が多い。"],
    ["彼は「行きます。」と言った。", "私は残った。"],
    ["本当ですか？", "はい！", "本当です。"],
    ["我们使用BERT模型。", "It has 12 layers. ", "效果很好！", "See Sec. 3 for details."],
    ["Dr. Wang said 你好。", "Then he left. ", "大家都很高兴。"],
    ["Python 3.11 发布了。", "速度提高了25%。", "Really? ", "是的。"],
    ["我们用它。", "it is good. ", "下一句。"],
    ["他说“好。ok”。", "下一句。"],
    ["Das kostet 3,50 Euro. ", "Gut so."],
    ["Это предложение. ", "Вот ещё одно."],
    ["यह एक वाक्य है। ", "यह दूसरा है।"],
    ["هل هذا صحيح؟ ", "نعم."],
]
# What the library does and should not; when one of these is right, take it to the others.
KNOWN_MISTAKES = [
    ["It works. ", "(See below.) ", "Try it."],
    ["He waited… ", "Nothing came."],
]


def stripped(parts: list[str]) -> list[str]:
    return [part.strip() for part in parts]


def found(text: str, language: str = "en") -> list[str]:
    return [text[start:end] for start, end in find_sentences(text, language)]


@pytest.mark.parametrize("parts", TEXTS, ids=lambda parts: parts[0].strip()[:30])
def test_sentences(parts: list[str]) -> None:
    assert found("".join(parts)) == stripped(parts)


@pytest.mark.parametrize("parts", KNOWN_MISTAKES, ids=lambda parts: parts[0].strip()[:30])
def test_mistakes_leave_sentences_together(parts: list[str]) -> None:
    sentences = found("".join(parts))
    assert len(sentences) < len(parts), "it has become right"
    assert "".join("".join(sentences).split()) == "".join("".join(parts).split())


def test_all_texts_as_one() -> None:
    """Sentences of one paragraph do not change those of the next."""
    text = "\n\n".join("".join(parts) for parts in TEXTS)
    assert found(text) == [part for parts in TEXTS for part in stripped(parts)]


def test_abbreviations_of_another_language() -> None:
    parts = ["Das kostet z. B. 3,50 Euro. ", "Am 3. Oktober ist frei."]
    assert found("".join(parts), "de") == stripped(parts)


def test_marks_alone_belong_to_the_sentence_before() -> None:
    assert found("It ends here. \n\n* * *\n\nIt begins.") == ["It ends here. \n\n* * *", "It begins."]


@settings(deadline=None, max_examples=200)
@given(
    st.lists(st.one_of(st.sampled_from([each for parts in TEXTS for each in parts]), st.text(max_size=5))).map("".join)
)
def test_any_text(text: str) -> None:
    spans = find_sentences(text)
    position = 0
    for start, end in spans:
        assert start >= position
        assert not text[position:start].strip(), "all of the text is in some sentence"
        assert text[start:end] == text[start:end].strip() != ""
        position = end
    assert not text[position:].strip()


def test_long_texts_are_read_in_parts() -> None:
    sentence = "The lift of a wing, e.g. at low speed, is small. "
    spans = find_sentences(sentence * 2000)
    assert len(spans) == 2000
    assert {end - start for start, end in spans} == {len(sentence) - 1}
    assert [(end - start) for start, end in find_sentences("word " * 10_000)] == [49_999]


def test_time_grows_with_the_text() -> None:
    start = time.thread_time()
    find_sentences("“a " * 30_000)
    assert time.thread_time() - start < 5
