"""Terms are counted as the engine counts them, word by word or not."""

from __future__ import annotations

import qdrant_edge as edge
from hypothesis import example, given, settings
from hypothesis import strategies as st

from flowdex_executors.indexer.terms import TermCounter

ENGINE = {"k": 1e15, "b": 0.0, "avg_len": 1.0, "language": "english", "lowercase": True}
_texts = st.one_of(
    st.text(st.characters(max_codepoint=127), max_size=60),
    st.text(alphabet="abcXYZ019 '-_.,/@#&()\t\n", max_size=60),
    st.text(max_size=40),
    st.lists(
        st.sampled_from(["the", "running", "Fox's", "state-of-the-art", "v1.2", "搜索引擎", "café"]), max_size=12
    ).map(" ".join),
)


def engine_counts(text: str) -> dict[int, float]:
    bm25 = edge.Bm25(edge.Bm25Config(tokenizer=edge.TokenizerType.Multilingual, **ENGINE))
    vector = bm25.embed_document(text)
    return {index: round(count) for index, count in zip(vector.indices, vector.values, strict=True)}


@settings(max_examples=400, deadline=None)
@example(["fox\vdog\fcat", "0\x1fA", "a\x1cb\x1dc\x1ed"])
@given(st.lists(_texts, min_size=1, max_size=4))
def test_counts_are_the_engines(texts: list[str]) -> None:
    counter = TermCounter()
    for text in [*texts, *texts]:  # the second time all words are known
        indices, counts = counter.count(text)
        assert len(set(indices)) == len(indices)
        assert dict(zip(indices, counts, strict=True)) == engine_counts(text)


def test_memory_is_bounded() -> None:
    counter = TermCounter()
    counter._terms = {f"w{number}": number for number in range(200_000)}
    counter.count("fresh words " + "x" * 100)
    assert len(counter._terms) == 2
