"""What a request chooses of the encoder, through the running flow and on the wire."""

from __future__ import annotations

import asyncio
import json
from typing import Any, Dict, List, Optional  # noqa: UP035 - docarray's spellings

import numpy as np
import pytest
from docarray import BaseDoc, DocList
from docarray.typing import NdArray
from flow_support import RunningFlow

from flowdex import AsyncClient, Client
from flowdex.errors import Conflict, InvalidInput

# ruff: noqa: UP006, UP045


class Analysed(BaseDoc):
    """What a caller wants to see of a text."""

    text: Optional[str] = None
    text_pair: Optional[str] = None
    words: Optional[List[str]] = None
    embedding: Optional[NdArray] = None
    scale: Optional[float] = None
    token_texts: Optional[List[str]] = None
    token_spans: Optional[NdArray] = None
    token_vectors: Optional[NdArray] = None
    attention: Optional[NdArray] = None
    receipt: Optional[Dict[str, Any]] = None


def test_tokens_attention_and_receipts_arrive(default_flow: RunningFlow) -> None:
    docs = DocList[Analysed](
        [
            Analysed(text="Apollo landed."),
            Analysed(text="Who?", text_pair="Me."),
            Analysed(text="Apollolanded.", words=["Apollo", "landed."]),
        ]
    )
    wanted = {"tokens": True, "attention": True, "receipt": True, "layers": [0, -1]}
    with Client(default_flow.grpc_url) as client:
        apollo, pair, words = client.encode(docs, parameters=wanted)
        status = next(each.status for each in client.status().executors if each.name == "encoder")
    assert apollo.token_texts == ["[CLS]", "apollo", "landed", ".", "[SEP]"]
    assert apollo.token_spans.tolist() == [[0, 0], [0, 6], [7, 13], [13, 14], [0, 0]]
    assert apollo.token_vectors.shape == (5, 2 * 384) and apollo.embedding.shape == (2 * 384,)
    assert apollo.attention.shape == (6, 12, 5, 5)
    assert {"tokens": 5, "dropped": 0}.items() <= apollo.receipt.items()
    assert apollo.receipt["fingerprint"] != json.loads(str(status["fingerprint"]))["id"], "other layers, other vectors"
    assert pair.token_texts == ["[CLS]", "who", "?", "[SEP]", "me", ".", "[SEP]"]
    np.testing.assert_allclose(words.embedding, apollo.embedding, atol=1e-5)


def test_number_types_and_matrices_arrive(default_flow: RunningFlow) -> None:
    def of(**parameters: Any) -> Any:
        return client.encode(DocList[Analysed]([Analysed(text="Apollo landed.")]), parameters=parameters)[0]

    with Client(default_flow.grpc_url) as client:
        full = client.encode(["Apollo landed."])[0]
        whole, bits, matrix = of(dtype="int8"), of(dtype="binary"), of(pooling="none")
        cut = client.encode(["Apollo landed."], parameters={"dimensions": 16})
    np.testing.assert_allclose(whole.embedding.astype(np.float32) * whole.scale, full, atol=whole.scale)
    assert (np.unpackbits(bits.embedding) == (full > 0)).all()
    mean = matrix.embedding.mean(0)
    np.testing.assert_allclose(mean / np.linalg.norm(mean), full, atol=1e-5)
    np.testing.assert_allclose(cut[0], full[:16] / np.linalg.norm(full[:16]), atol=1e-5)


async def test_requests_that_choose_differently_at_once(default_flow: RunningFlow) -> None:
    texts = [f"sentence number {number}, of several words" for number in range(40)]
    choices: list[dict[str, Any]] = [{}, {"pooling": "cls"}, {"layers": [1, 2]}, {"normalize": False, "pooling": "max"}]
    async with AsyncClient(default_flow.grpc_url) as client:
        alone = [await client.encode(texts, parameters=choice) for choice in choices]
        together = await asyncio.gather(*(client.encode(texts, parameters=choice) for choice in choices * 3))
    for index, vectors in enumerate(together):
        np.testing.assert_allclose(vectors, alone[index % len(choices)], atol=1e-5)


def test_wrong_choices_are_the_callers_fault(default_flow: RunningFlow) -> None:
    for url in (default_flow.grpc_url, default_flow.http_url):
        with Client(url) as client, pytest.raises(InvalidInput, match=r"no layer 9; this model has 7"):
            client.encode(["x"], parameters={"layers": [9]})


def test_an_index_refuses_vectors_of_another_making(default_flow: RunningFlow) -> None:
    with Client(default_flow.http_url) as client:
        client.index([{"id": "fp-1", "text": "Apollo landed on the Moon."}])
        try:
            assert client.search(["moon landing"])[0][0].id == "fp-1"
            with pytest.raises(Conflict, match=r'pooling is \["cls"\] instead of \["mean"\]; .*another collection'):
                client.search(["moon landing"], parameters={"pooling": "cls"})
            with pytest.raises(Conflict, match="layers is"):
                client.index([{"id": "fp-2", "text": "Gemini did not."}], parameters={"layers": [3]})
            with pytest.raises(InvalidInput, match="int8 is for /encode only"):
                client.search(["moon landing"], parameters={"dtype": "int8"})
            status = {each.name: each.status for each in client.status().executors}
            assert status["indexer"]["fingerprint"] == status["encoder"]["fingerprint"]
            assert [hit.id for hit in client.search(["moon landing"], parameters={"mode": "sparse"})[0]] == ["fp-1"]
        finally:
            client.delete(["fp-1", "fp-2"])
