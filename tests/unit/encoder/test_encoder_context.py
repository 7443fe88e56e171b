"""A document's `context`: encoded before its text, and no part of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flowdex.documents import DocumentBatch
from flowdex.errors import InvalidInput
from flowdex_executors import BertEncoder, DocumentColumns
from flowdex_executors.encoder import Encoder


class Letters(Encoder):
    """Has no tokenizer: the base class alone."""

    def encode_batch(self, batch: list[Any]) -> Any:
        return np.array([[len(text), text.count("\n")] for text in batch], dtype=np.float32)


def columns(texts: list[str], **fields: Any) -> DocumentColumns:
    return DocumentColumns(DocumentBatch.from_columns(ids=[f"d{i}" for i in range(len(texts))], texts=texts, **fields))


async def test_every_encoder_encodes_the_context_first() -> None:
    encoder = Letters(threads=1)
    reply = (await encoder.encode(docs=columns(["text", "text", "text"], context=["head", None, " "]))).batch
    assert reply.embeddings is not None
    assert reply.embeddings.tolist() == [[9, 1], [4, 0], [4, 0]]
    assert reply.texts == ["text"] * 3
    with pytest.raises(InvalidInput, match=r"document 1 \(id 'd1'\).*'context' must be a string"):
        await encoder.encode(docs=columns(["text", "text"], context=["head", ["head"]]))
    encoder.close()


async def test_between_prompt_and_text(make_model: Any) -> None:
    folder: Path = make_model("bert")
    encoder = BertEncoder(str(folder), threads=1, prompts={"passage": "flow: "})
    batch = DocumentBatch.from_columns(ids=["d"], texts=["whole text"])
    batch.set_nested("chunks", [DocumentBatch.from_columns(texts=["hello world"] * 2, context=["search", None])])
    (indexed,) = (await encoder.index(docs=DocumentColumns(batch))).batch.nested("chunks")
    plain = await encoder.encode(docs=columns(["flow: search\nhello world", "flow: hello world"]))
    np.testing.assert_allclose(indexed.embeddings, plain.batch.embeddings, atol=1e-5)
    encoder.close()


async def test_token_spans_are_those_of_the_text(make_model: Any) -> None:
    encoder = BertEncoder(str(make_model("bert")), threads=1)
    docs = columns(["hello world", "hello world"], context=["search flow", None])
    reply = (await encoder.encode(docs=docs, parameters={"tokens": True})).batch
    with_context, without = reply.column("token_spans")
    assert without.tolist()[1:-1] == [[0, 5], [6, 11]]
    assert with_context.tolist()[-3:-1] == [[0, 5], [6, 11]]
    assert not with_context[:-3].any(), "tokens of the context have empty spans"
    assert reply.column("token_texts")[0][1:-3], "and are shown"
    encoder.close()
