"""Markdown: which lines are headings, what a section is, and blocks that stay whole."""

from __future__ import annotations

from textwrap import dedent

import pytest

from flowdex_executors.encoder.model_files import find_model
from flowdex_executors.encoder.tokenising import load_tokenizer
from flowdex_executors.segmenter.cutting import Cutter
from flowdex_executors.segmenter.markdown import read_outline
from flowdex_executors.segmenter.source import Source, compose
from flowdex_executors.segmenter.tokens import TokenCounter

COUNTER = TokenCounter(load_tokenizer(find_model(None)[0]))

GUIDE = dedent("""\
    # Guide

    ## Install

    Run this:

    ```sh
    # not a heading
    pip install it
    ```

    Use
    ---

    Call `it`.

    ### In *depth* #

    More words.
    """)


def cut(text: str, limit: int = 100) -> list[tuple[str, str]]:
    """(context, text) of each passage."""
    return [(each.context, each.text) for each in Cutter(COUNTER, limit).cut(Source(text), "markdown")]


def headings(text: str) -> list[tuple[int, str]]:
    return [(heading.level, heading.title) for heading in read_outline(text).headings]


def test_sections_and_their_contexts() -> None:
    assert cut(GUIDE) == [
        ("", "# Guide\n\n## Install\n\nRun this:\n\n```sh\n# not a heading\npip install it\n```"),
        ("Guide", "Use\n---\n\nCall `it`."),
        ("Guide > Use", "### In *depth* #\n\nMore words."),
    ]


def test_the_rest_of_a_section_has_its_heading_too() -> None:
    passages = cut("# Guide\n\n## Install\n\n" + "Some words of a sentence. \n\n" * 20, 24)
    assert passages[0] == (
        "",
        "# Guide\n\n## Install\n\n" + "Some words of a sentence. \n\n" * 2 + "Some words of a sentence.",
    )
    assert {context for context, _ in passages[1:]} == {"Guide > Install"}
    assert all("Some words" in text for _, text in passages)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("# One\n\n###### Six\n", [(1, "One"), (6, "Six")]),
        ("One\n===\n\nTwo\nlines\n---\n", [(1, "One"), (2, "Two lines")]),
        ("#hashtag\n\n####### seven\n\n\\# escaped\n\n    # code\n", []),
        ("~~~\n# in a fence\n```\n# still\n~~~\n# Out\n", [(1, "Out")]),
        ("<!--\n# in a comment\n-->\n", []),
        ("> # in a quotation\n\n- # in a list\n", []),
        ("---\ntitle: x\n# comment\n---\n# One\n", [(1, "One")]),
        ("---\n\n# One\n", [(1, "One")]),
        ("# `code` and [link](http://x) &amp; more\r\n\r\ntext", [(1, "code and link & more")]),
        ("#\n\ntext", [(1, "")]),
        ("# 安装\n\n文字。", [(1, "安装")]),
    ],
)
def test_headings(text: str, expected: list[tuple[int, str]]) -> None:
    assert headings(text) == expected


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_any_line_ends(newline: str) -> None:
    text = GUIDE.replace("\n", newline)
    passages = Cutter(COUNTER, 100).cut(Source(text), "markdown")
    assert [each.context for each in passages] == ["", "Guide", "Guide > Use"]
    assert [text[each.start : each.end] for each in passages] == [each.text for each in passages]
    assert [each.text.replace(newline, "\n") for each in passages] == [text for _, text in cut(GUIDE)]


BLOCKS = {
    "code": "```python\ndef one():\n    return 1\n\n\ndef two():\n    return 2\n```",
    "table": "| a | b |\n|---|---|\n| one | two |\n| three | four |",
    "list": "- one two\n- three four\n\n  with more\n- five six",
    "quotation": "> one two three\n> four five six\n>\n> seven",
    "html": "<div>\none two three\n</div>",
}


@pytest.mark.parametrize("block", BLOCKS.values(), ids=BLOCKS.keys())
def test_blocks_that_fit_stay_whole(block: str) -> None:
    size = COUNTER.count(block)
    before, after = "Some words before it, up to here. " * 2, "Some words after it, and no more. " * 2
    for limit in range(size, size + 12):
        passages = [text for _, text in cut(f"{before}\n\n{block}\n\n{after}", limit)]
        assert any(block in text for text in passages), (limit, passages)


def test_large_lists_are_cut_between_items_and_tables_between_rows() -> None:
    items = [f"- item {number} has some\n  words in two lines" for number in range(20)]
    for _, text in cut("\n".join(items), 40):
        assert text.startswith("- item") and text.endswith("words in two lines")
    rows = [f"| {number} | some words in a cell |" for number in range(20)]
    for _, text in cut("| n | cell |\n|---|---|\n" + "\n".join(rows), 40):
        assert text.startswith("|") and text.endswith("|")


def test_large_code_is_cut_between_lines() -> None:
    lines = [f"value_{number} = compute(value_{number - 1})" for number in range(30)]
    for _, text in cut("```\n" + "\n".join(lines) + "\n```", 40):
        assert all(line in (*lines, "```") for line in text.splitlines())


def test_definitions_of_links_are_in_some_passage() -> None:
    text = "See [it].\n\n[it]: http://example.org/a/b\n\n# Next\n\ntext"
    assert "http://example.org/a/b" in cut(text)[0][1]


def test_long_contexts_lose_their_outermost_parts() -> None:
    body = "Some words of a sentence.\n\n" * 10
    text = "# " + "Outer words " * 8 + "\n\n## Middle part\n\n### Inner\n\n" + body
    contexts = [context for context, _ in cut(text, 40)]
    assert contexts[-1] == "Middle part > Inner"
    (*_, shortened) = [context for context, _ in cut("# one two three four five six seven\n\n" + body, 16)]
    assert shortened == "four five six seven", "and a title alone its first words"
    assert COUNTER.count(shortened + "\n") <= 4


def test_a_title_is_over_all_headings() -> None:
    passages = Cutter(COUNTER, 40).cut(compose({"title": "Manual", "body": GUIDE}, {}, "title"), "markdown")
    assert [each.context for each in passages][:1] == [""]
    assert passages[0].text.startswith("Manual\n\n# Guide\n\n## Install")
    assert passages[-1].context == "Manual > Guide > Use"
    same = Cutter(COUNTER, 40).cut(compose({"title": "Guide", "body": GUIDE}, {}, "title"), "markdown")
    assert same[-1].context == "Guide > Use", "a title that is the first heading counts once"


def test_no_text_below_the_last_heading() -> None:
    assert cut("# One\n\ntext\n\n## Two\n") == [("", "# One\n\ntext"), ("One", "## Two")]
    assert cut("# One\n") == [("", "# One")]
    assert cut("### Deep\n## Less\ntext") == [("", "### Deep\n## Less\ntext")]
