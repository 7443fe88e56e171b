"""Attention at the client: what is read of an answer, and the page that is made of it."""

from __future__ import annotations

import base64
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flowdex import Attention, attention
from flowdex.documents import DocumentBatch
from flowdex.errors import InternalError

HOSTILE = 'a </script><script>alert("x")</script> & {{data}} <!-- \u2028 \' é 日本'
SHAPE = (2, 3, 4, 4)


def made(text: str = "the cat", pair: str | None = "sat", dtype: str = "float32") -> Attention:
    weights = np.random.default_rng(0).random(SHAPE).astype(np.float32)
    weights /= weights.sum(-1, keepdims=True)
    return Attention(
        text=text,
        text_pair=pair,
        model="tiny",
        tokens=["[CLS]", "the", "</script>", "sat"],
        spans=np.array([[0, 0], [0, 3], [4, 7], [0, 3]], dtype=np.int32),
        pair_start=3,
        layers=(1, 4),
        weights=weights.astype(dtype),
    )


class Scripts(HTMLParser):
    """The script elements and the title, as a browser would find them."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[dict[str, str | None], str]] = []
        self.title = ""
        self.links: list[str] = []
        self._in = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._in = tag
        if tag == "script":
            self.found.append((dict(attrs), ""))
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        self._in = ""

    def handle_data(self, data: str) -> None:
        if self._in == "script":
            attributes, text = self.found[-1]
            self.found[-1] = (attributes, text + data)
        elif self._in == "title":
            self.title += data


def test_the_page_holds_any_text_and_asks_nobody() -> None:
    page = made(HOSTILE, HOSTILE).to_html()
    scripts = Scripts()
    scripts.feed(page)
    (data, content), (module, code) = scripts.found
    assert (data["id"], module["type"]) == ("data", "module")
    assert json.loads(content)["text"] == HOSTILE
    assert scripts.title.startswith("Attention: a </script><script>alert")
    assert not scripts.links and "http:" not in code.replace("http://www.w3.org/2000/svg", "")
    assert page.count("</script") == 2


def test_the_drawing_can_stand_in_a_page() -> None:
    folder = Path(attention.__file__).parent
    script = (folder / "draw.js").read_text(encoding="utf-8")
    assert "</script" not in script and "<!--" not in script and not re.search(r"^import\b", script, re.MULTILINE)
    assert "</style" not in (folder / "draw.css").read_text(encoding="utf-8")


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_json_and_back(dtype: str) -> None:
    sent = made(dtype=dtype)
    values = json.loads(json.dumps(sent.to_dict()))
    raw = np.frombuffer(base64.b64decode(values["weights"]["data"]), dtype=f"<{sent.weights.dtype.str[1:]}")
    np.testing.assert_array_equal(raw.reshape(SHAPE), sent.weights)
    found = attention.from_json({**values, "took_ms": 1})
    assert (found.tokens, found.layers, found.pair_start, found.model) == (sent.tokens, (1, 4), 3, "tiny")
    np.testing.assert_array_equal(found.weights, sent.weights)
    np.testing.assert_array_equal(found.spans, sent.spans)


def test_the_page_has_half_precision() -> None:
    scripts = Scripts()
    scripts.feed(made().to_html())
    weights = json.loads(scripts.found[0][1])["weights"]
    assert (weights["dtype"], weights["shape"]) == ("float16", list(SHAPE))


@pytest.mark.parametrize(
    "change", [{"weights": {"dtype": "float32", "shape": [2, 2], "data": "AAAA"}}, {"weights": "none"}, {"spans": "x"}]
)
def test_answers_of_others_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(InternalError, match="not"):
        attention.from_json({**made().to_dict(), **change})


def test_documents_without_attention_are_refused() -> None:
    with pytest.raises(InternalError, match="no attention"):
        attention.from_batch(attention.to_batch("a", "b"))
    with pytest.raises(InternalError, match="no attention"):
        attention.from_batch(DocumentBatch())
