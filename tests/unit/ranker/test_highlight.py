"""Highlights: which words are marked, and that offsets are those of the text itself."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowdex_executors.highlight import Highlighter


def marked(query: str, text: str) -> list[str]:
    return [text[start:end] for start, end in Highlighter(query).spans(text)]


@pytest.mark.parametrize(
    ("query", "text", "expected"),
    [
        ("fox", "The Fox and the FOX, foxy.", ["Fox", "FOX"]),
        ("foxes", "a fox, foxes, a fox's den", ["fox", "foxes", "fox's"]),
        ("running", "run, runs, running; runner, rerun", ["run", "runs", "running"]),
        ("encoding", "encode encodes encoded encoding encoder", ["encode", "encodes", "encoded", "encoding"]),
        ("studies", "one study, two studies", ["study", "studies"]),
        ("class", "class classes glass", ["class", "classes"]),
        ("the cat of it", "the cat sat on it", ["cat"]),
        ("to be or not to be", "to be, or", ["to", "be", "or"]),
        ("os path", "os.path.join(my_path)", ["os", "path", "path"]),
        ("don't", "I don't, don’t", ["don't", "don’t"]),
        ("cafe", "Un Café, CAFÉ", ["Café", "CAFÉ"]),
        ("STRASSE", "Straße", ["Straße"]),
        ("Москва", "в МОСКВА сити", ["МОСКВА"]),
        ("bus", "bus buses bu", ["bus", "buses"]),
        ("", "anything", []),
        ("?!", "what?!", []),
        ("搜索引擎", "神经网络的搜索引擎。搜寻", ["搜索引擎"]),
        ("搜索 引擎", "搜索和引擎", ["搜索", "引擎"]),
        ("库", "数据库", ["库"]),
        ("神经网络 search", "Search用神经网络", ["Search", "神经网络"]),
    ],
)
def test_marks(query: str, text: str, expected: list[str]) -> None:
    assert marked(query, text) == expected


@given(st.text(max_size=60), st.text(max_size=200))
def test_spans_are_ordered_and_inside(query: str, text: str) -> None:
    previous = 0
    for start, end in Highlighter(query).spans(text):
        assert previous <= start < end <= len(text)
        previous = end


@given(st.text(alphabet=st.characters(categories=["Ll", "Lu", "Lo"], max_codepoint=0x2FFF), max_size=12))
def test_a_word_marks_itself(letters: str) -> None:
    word = f"q{letters}"  # no stop word begins so
    text = f"... {word} ..."
    assert marked(word, text) == [word]
