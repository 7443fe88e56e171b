"""A document's text from its passages and what lies between them: exact, whatever the passages."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from flowdex_executors.indexer.originals import fields_of, gaps_between, original_of, text_of

TEXT = st.text(alphabet=" \n\tabä東𝕏", max_size=40)


def stored(text: str | None, spans: list[tuple[int, int]], texts: list[str], fields: dict[str, str] | None = None):
    """Payloads as `make_points` writes them."""
    gaps = None if text is None else gaps_between(text, texts, spans)
    original = original_of(text, fields, passages=len(texts), gaps=gaps, digest=None, own=False)
    return [
        {"text": each, "start": span[0], "end": span[1], "before": gaps[row] if gaps else "", "original": original}
        for row, (each, span) in enumerate(zip(texts, spans, strict=True))
    ]


@given(TEXT, st.data())
def test_any_pieces_give_the_text_back(text: str, data: st.DataObject) -> None:
    place = st.integers(0, len(text))
    spans = sorted(data.draw(st.lists(st.tuples(place, place).map(sorted).map(tuple), min_size=1, max_size=6)))
    payloads = stored(text, spans, [text[start:end] for start, end in spans])
    assert text_of(payloads) == text
    assert "text" not in payloads[0]["original"], "nothing is stored twice"


def test_little_is_stored() -> None:
    assert stored("whole", [(0, 5)], ["whole"])[0]["original"] == {}
    first, second = stored("One. Two.\n", [(0, 4), (5, 9)], ["One.", "Two."])
    assert first["original"] == {"passages": 2, "length": 10, "end": "\n"}
    assert (first["before"], second["before"]) == ("", " ")


def test_chunks_that_are_not_pieces_of_the_text() -> None:
    for spans in ([(0, 3), (4, 9)], [(-1, 3), (4, 7)], [(0, 0), (0, 0)]):
        payloads = stored("the real text", spans, ["own", "chunks"])
        assert payloads[0]["original"]["text"] == "the real text"
        assert text_of(payloads) == "the real text"
    assert text_of(stored(None, [(0, 3)], ["own"])) is None


@given(st.dictionaries(TEXT, TEXT, min_size=1, max_size=4))
def test_fields(fields: dict[str, str]) -> None:
    text = "\n\n".join(fields.values())
    original = original_of(text, fields, passages=1, gaps=["", ""], digest="d", own=True)
    assert not any(value in str(original["fields"]) for value in fields.values() if len(value) > 3 and value.isalpha())
    assert list(fields_of(original, text).items()) == list(fields.items())
    other = original_of("another", fields, passages=1, gaps=["", ""], digest=None, own=False)
    assert fields_of(other, "another") == fields
    assert (original["digest"], original["own"]) == ("d", True)
    assert fields_of({}, text) is None
