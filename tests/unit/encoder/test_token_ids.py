"""Token ids in the place of texts, /tokenize and /decode: the same vectors as of the texts, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from flowdex.documents import DocumentBatch
from flowdex.errors import InvalidInput
from flowdex_executors import BertEncoder, DocumentColumns
from flowdex_executors.encoder.elmo.tokenizer import WordTokenizer
from flowdex_executors.encoder.tokenising import TextTokenizer, TokenIds, TokeniseOptions

TEXTS = ["hello world", "the flow of search", "vectors!"]


@pytest.fixture(scope="module")
def encoder(make_model: Any) -> Iterator[BertEncoder]:
    encoder = BertEncoder(str(make_model("bert")), threads=1)
    yield encoder
    encoder.close()


@pytest.fixture
def tokenizer(encoder: BertEncoder) -> TextTokenizer:
    assert isinstance(encoder.tokenizer, TextTokenizer)
    return encoder.tokenizer


def documents(texts: list[str | None] | None = None, ids: list[Any] | None = None) -> DocumentColumns:
    batch = DocumentBatch.from_columns(texts=texts or [None] * len(ids or ()))
    if ids is not None:
        batch.set_column("token_ids", ids)
    return DocumentColumns(batch)


async def test_ids_of_tokenize_give_the_vectors_of_the_texts(encoder: BertEncoder) -> None:
    expected = (await encoder.encode(documents(list(TEXTS)))).batch.embeddings
    ids = (await encoder.tokenize(documents(list(TEXTS)))).batch.column("token_ids")
    found = (await encoder.encode(documents(ids=ids), {"receipt": True})).batch
    np.testing.assert_array_equal(found.embeddings, expected)
    assert [receipt["tokens"] for receipt in found.column("receipt")] == [len(each) for each in ids]


async def test_tokenize_says_what_and_where_each_token_is(encoder: BertEncoder) -> None:
    batch = (await encoder.tokenize(documents(["hello world"]))).batch
    (tokens,), (spans,) = batch.column("token_texts"), batch.column("token_spans")
    assert (tokens[0], tokens[-1]) == ("[CLS]", "[SEP]")
    assert spans[0].tolist() == spans[-1].tolist() == [0, 0]
    assert [start for start, _ in spans[1:-1].tolist()] == sorted(start for start, _ in spans[1:-1].tolist())
    assert spans[-2].tolist()[1] == len("hello world")


async def test_decode_is_the_way_back(encoder: BertEncoder) -> None:
    ids = (await encoder.tokenize(documents(["hello world"]))).batch.column("token_ids")
    assert (await encoder.decode(documents(ids=ids))).batch.texts == ["hello world"]
    (special,) = (await encoder.decode(documents(ids=ids), {"skip_special": False})).batch.texts
    assert special == "[CLS] hello world [SEP]"


@pytest.mark.parametrize("ids", [np.zeros((1, 2), np.int32), np.zeros(2, np.float32), np.array([10**6]), [], ["a"]])
async def test_what_are_no_ids_is_refused(encoder: BertEncoder, ids: Any) -> None:
    for endpoint in (encoder.encode, encoder.decode):
        with pytest.raises(InvalidInput, match="token"):
            await endpoint(documents(ids=[ids]))


async def test_without_ids_there_is_nothing_to_decode(encoder: BertEncoder) -> None:
    with pytest.raises(InvalidInput, match="token_ids"):
        await encoder.decode(documents(["text"]))


def test_ids_are_cut_like_the_text_they_were_made_of(tokenizer: TextTokenizer) -> None:
    text = "hello world " * 10
    (whole,) = tokenizer.tokenise([text], TokeniseOptions())
    for truncation in ("head", "tail", "window_mean"):
        options = TokeniseOptions(8, truncation, spans=True)  # type: ignore[arg-type]
        (expected,) = tokenizer.tokenise([text], options)
        (found,) = tokenizer.tokenise([TokenIds(whole.ids)], options)
        assert found.ids == expected.ids
        assert [window.ids for window in found.windows] == [window.ids for window in expected.windows]
        assert (found.dropped, found.special) == (expected.dropped, expected.special)
        assert found.spans == [(0, 0)] * len(found)


def test_ids_without_special_tokens_get_none(tokenizer: TextTokenizer) -> None:
    (whole,) = tokenizer.tokenise(["hello world the flow of"], TokeniseOptions())
    (found,) = tokenizer.tokenise([TokenIds(whole.ids[1:-1])], TokeniseOptions(3))
    assert found.ids == whole.ids[1:4]


def test_a_family_without_ids_says_so() -> None:
    with pytest.raises(InvalidInput, match="no token ids"):
        WordTokenizer(lambda text: []).tokenise([TokenIds([1])], TokeniseOptions())
