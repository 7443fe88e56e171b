"""Results print well, turn into JSON, and show the right piece of a text."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowdex.errors import InvalidInput
from flowdex.results import ExecutorStatus, FlowStatus, Hit, IndexFailure, IndexResult, Passage, SearchResult
from flowdex.snippets import snippet

HIT = Hit(
    id="guide.md",
    score=0.8123,
    text="Start a flow:\n\n    flowdex up <flow.yml>",
    tags={"title": "Guide"},
    location=(10, 50),
    highlights=[(8, 12)],
    scores={"score": 0.8123, "dense": 0.7},
    passages=[Passage("guide.md#0", "Start a flow", (10, 22), 0.8)],
)


def test_a_search_result_is_a_sequence_of_hits() -> None:
    result = SearchResult("q", [HIT], 12.3)
    assert len(result) == 1
    assert result[0] is HIT
    assert list(result) == result[:] == [HIT]
    assert not SearchResult("q")


def test_a_search_result_prints_rank_score_id_and_text() -> None:
    printed = str(SearchResult("how?", [HIT], 12.3))
    assert printed == "'how?': 1 hit in 12 ms\n  1  0.8123  guide.md\n     Start a flow: flowdex up <flow.yml>"
    assert str(SearchResult("how?")) == "'how?': 0 hits in 0 ms"


def test_html_marks_highlights_and_escapes_the_rest() -> None:
    html = SearchResult("<b>", [HIT])._repr_html_()
    assert "Start a <mark>flow</mark>: flowdex up &lt;flow.yml&gt;" in html
    assert "<b>" not in html


def test_everything_turns_into_json() -> None:
    failure = IndexFailure("a", 3, InvalidInput("no"))
    result = IndexResult(2, 5, ["x", "y"], [failure], 1500)
    status = FlowStatus(
        "f", "1", 3.0, {"/e": ["x"]}, [ExecutorStatus("x", replicas=[{"ready": True}], status={"n": 1})]
    )
    for value in (SearchResult("q", [HIT], 1.0), result, status):
        assert json.loads(json.dumps(value.to_dict())) == value.to_dict()
    assert str(result) == "indexed 2 documents, 5 passages in 1.5 s\nnot indexed: 1 document\n  a: no"
    assert "x            1/1 ready  n 1" in str(status)


# ---- snippets ----


def marked(found: object) -> list[str]:
    return [found.text[start:end] for start, end in found.highlights]


def test_a_short_text_is_shown_whole_on_one_line() -> None:
    found = snippet("  one\n\n two\tthree ", [(8, 11), (12, 17)])
    assert found.text == "one two three"
    assert marked(found) == ["two", "three"]


def test_the_window_moves_to_the_highlights() -> None:
    text = "filler " * 100 + "the needle here " + "filler " * 100
    start = text.index("needle")
    found = snippet(text, [(start, start + 6)], length=120)
    assert marked(found) == ["needle"]
    assert found.text.startswith("…filler")
    assert found.text.endswith("filler…")
    assert len(found.text) <= 122


def test_the_densest_place_wins() -> None:
    text = "alpha " + "x " * 300 + "beta gamma beta" + " y" * 300
    places = [(0, 5), *[(text.index(word), text.index(word) + len(word)) for word in ("beta", "gamma")]]
    assert marked(snippet(text, places, length=100)) == ["beta", "gamma"]


def test_without_highlights_the_beginning_is_shown() -> None:
    found = snippet("word " * 200, length=50)
    assert found.text.startswith("word word")
    assert found.text.endswith("word…")


@given(
    st.text(st.sampled_from("ab \n\t中é🙂"), max_size=400),
    st.lists(st.tuples(st.integers(-5, 420), st.integers(-5, 420)), max_size=6),
    st.integers(10, 120),
)
def test_snippets_never_break(text: str, spans: list[tuple[int, int]], length: int) -> None:
    found = snippet(text, spans, length=length)
    assert len(found.text) <= length + 2
    assert "\n" not in found.text
    previous = 0
    for start, end in found.highlights:
        assert 0 <= start < end <= len(found.text)
        assert start >= previous or spans  # in order of their starts
        previous = start
    plain = found.text.strip("…").replace(" ", "")
    assert plain in "".join(text.split())


@pytest.mark.parametrize("text", ["", " ", "\n"])
def test_nothing_to_show(text: str) -> None:
    assert snippet(text, [(0, 1)]).text == ""
