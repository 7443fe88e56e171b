"""What `encode` gives beyond rows of float32, from plain strings: Python, HTTP, command line, on the stock flow."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from flow_support import RunningFlow, run_flowdex

from flowdex import AsyncClient, Client, Document, Encodings, InvalidInput, WrongType

MOON = "Apollo landed."


@pytest.fixture(params=["grpc", "http"])
def url(request: pytest.FixtureRequest, default_flow: RunningFlow) -> str:
    return default_flow.grpc_url if request.param == "grpc" else default_flow.http_url


def test_plain_calls_give_an_array(url: str) -> None:
    with Client(url) as client:
        full = client.encode([MOON, "another text"])
        half = client.encode([MOON], dtype="float16", dimensions=16)
        pooled = client.encode([MOON], pooling=["cls", "mean"], layers=[-2, -1], layer_mode="mean", normalize=False)
    assert isinstance(full, np.ndarray) and full.shape == (2, 384) and full.dtype == np.float32
    assert half.dtype == np.float32
    np.testing.assert_allclose(half[0], full[0, :16] / np.linalg.norm(full[0, :16]), atol=2e-3)
    assert pooled.shape == (1, 768) and not np.isclose(np.linalg.norm(pooled), 1)


def test_tokens_attention_and_receipts(url: str) -> None:
    with Client(url) as client:
        found = client.encode([MOON, "one " * 600], tokens=True, attention=False, receipt=True)
        attended = client.encode([MOON], attention=True)
        rows = client.encode([MOON])
    assert isinstance(found, Encodings) and len(found) == 2 and found.embeddings.shape == (2, 384)
    np.testing.assert_allclose(found.embeddings[0], rows[0], atol=1e-5)
    moon = found.tokens[0]
    assert moon.texts == ["[CLS]", "apollo", "landed", ".", "[SEP]"]
    assert moon.spans.tolist() == [[0, 0], [0, 6], [7, 13], [13, 14], [0, 0]]
    assert moon.vectors.shape == (5, 384) and moon.vectors.dtype == np.float32
    mean = moon.vectors.mean(0)
    np.testing.assert_allclose(mean / np.linalg.norm(mean), rows[0], atol=1e-5)
    short, long = found.receipts
    assert (short.tokens, short.dropped, long.tokens, long.dropped) == (5, 0, 256, 346)
    assert short.compute_ms > 0 and len(short.fingerprint) == 16
    assert attended.attentions[0].shape == (6, 12, 5, 5)
    np.testing.assert_allclose(attended.attentions[0].sum(-1), 1, atol=1e-4)
    with pytest.raises(InvalidInput, match="receipt=True"):
        _ = attended.receipts
    assert json.loads(json.dumps(found[0].to_dict())).keys() == {"embedding", "tokens", "receipt"}


def test_number_types(url: str) -> None:
    with Client(url) as client:
        full = client.encode([MOON, "two"])
        whole = client.encode([MOON, "two"], dtype="int8")
        bits = client.encode([MOON, "two"], dtype="binary")
        halves = client.encode([MOON], dtype="float16", tokens=True)
    assert whole.embeddings.dtype == np.int8
    np.testing.assert_allclose(whole.embeddings * whole.scales[:, None], full, atol=float(whole.scales.max()))
    assert (np.unpackbits(bits.embeddings, axis=1) == (full > 0)).all()
    assert halves.tokens[0].vectors.dtype == halves.embeddings.dtype == np.float16


def test_matrices(url: str) -> None:
    with Client(url) as client:
        (plain, longer) = client.encode([MOON, "a somewhat longer text"], pooling="none")
        (whole,) = client.encode([MOON], pooling="none", dtype="int8")
        found = client.encode([MOON], pooling="none")
    assert plain.embedding.shape == (5, 384) and longer.embedding.shape[0] > 5
    assert isinstance(whole.scale, np.ndarray)
    np.testing.assert_allclose(whole.embedding * whole.scale[:, None], plain.embedding, atol=float(np.max(whole.scale)))
    with pytest.raises(InvalidInput, match="matrix"):
        _ = found.embeddings


def test_pairs_and_words(url: str) -> None:
    with Client(url) as client:
        found = client.encode([("Who?", "Me."), ["Apollo", "landed."], MOON], tokens=True)
        alone = client.encode([("Who?", "Me.")])
        with pytest.raises(WrongType, match="text 0 must be a string, a pair of texts"):
            client.encode([("one", "two", "three")])  # type: ignore[list-item]
        with pytest.raises(InvalidInput, match="text 1, part 2 is blank"):
            client.encode([MOON, ("one", " ")])
    assert found.tokens[0].texts == ["[CLS]", "who", "?", "[SEP]", "me", ".", "[SEP]"]
    np.testing.assert_allclose(found.embeddings[1], found.embeddings[2], atol=1e-5)
    np.testing.assert_allclose(alone[0], found.embeddings[0], atol=1e-5)


async def test_many_texts_in_order_and_asynchronously(url: str) -> None:
    texts = [f"number {number}" for number in range(70)]
    async with AsyncClient(url) as client:
        found = await client.encode(texts, receipt=True, batch_size=16)
        rows = await client.encode(texts)
    assert len(found.receipts) == 70
    np.testing.assert_allclose(found.embeddings, rows, atol=1e-5)


def test_what_cannot_be(url: str) -> None:
    with Client(url) as client:
        with pytest.raises(InvalidInput, match="no layer 9; this model has 7"):
            client.encode([MOON], layers=9)
        with pytest.raises(InvalidInput, match="Document, which holds no more than a vector"):
            client.encode([Document(MOON)], tokens=True)
        with pytest.raises(TypeError, match="no argument 'token'"):
            client.encode([MOON], token=True)  # type: ignore[call-overload]


def test_http_fields(default_flow: RunningFlow) -> None:
    with httpx.Client(base_url=default_flow.http_url, timeout=60) as http:

        def post(**body: Any) -> httpx.Response:
            return http.post("/encode", json={"texts": MOON, **body})

        plain = post().json()
        assert set(plain) == {"embeddings", "dimensions", "dtype", "count", "took_ms"}
        full = post(tokens=True, receipt=True, attention=True, dtype="int8", dimensions=8).json()
        assert (full["dtype"], full["dimensions"], len(full["embeddings"][0])) == ("int8", 8, 8)
        assert len(full["scales"]) == 1 and full["receipts"][0]["tokens"] == 5
        assert full["tokens"][0]["texts"][1] == "apollo" and np.shape(full["tokens"][0]["vectors"]) == (5, 384)
        assert np.shape(full["attentions"][0]) == (6, 12, 5, 5)
        matrix = post(pooling="none").json()["embeddings"]
        assert np.shape(matrix) == (1, 5, 384)
        (packed,) = post(pooling="none", encoding="base64").json()["embeddings"]
        array = np.frombuffer(base64.b64decode(packed["data"]), "<f4").reshape(packed["shape"])
        np.testing.assert_allclose(array, matrix[0], atol=1e-5)
        pair = http.post("/encode", json={"texts": [{"text": "Who?", "text_pair": "Me."}], "tokens": True}).json()
        assert len(pair["tokens"][0]["texts"]) == 7
        for body, where in (
            ({"pooling": "median"}, "#/pooling"),
            ({"texts": [{"words": []}]}, "#/texts/0"),
            ({"texts": [{"text": "a", "pair": "b"}]}, "#/texts/0"),
            ({"dimensions": 0}, "#/dimensions"),
        ):
            refused = post(**body)
            assert refused.status_code == 422 and where in refused.text, refused.text
        assert post(layers=[9]).status_code == 422


def test_command_line(default_flow: RunningFlow, tmp_path: Path) -> None:
    address = ("--url", default_flow.grpc_url)
    shown = run_flowdex("encode", MOON, "--tokens", "--receipt", "--pooling", "cls", "--layers", "-2,-1", *address)
    assert shown.returncode == 0, shown.stderr
    assert "apollo" in shown.stdout and "[7, 13)" in shown.stdout and "dropped 0" in shown.stdout
    assert "(768 values)" in shown.stdout
    told = run_flowdex("encode", MOON, "--json", "--dtype", "int8", "--dimensions", "16", "--receipt", *address)
    line = json.loads(told.stdout)
    assert line.keys() == {"text", "embedding", "scale", "receipt"} and len(line["embedding"]) == 16
    file = tmp_path / "bits.npy"
    assert run_flowdex("encode", MOON, "--dtype", "binary", "-o", str(file), *address).returncode == 0
    assert np.load(file).shape == (1, 48) and np.load(file).dtype == np.uint8
    refused = run_flowdex("encode", MOON, "--pooling", "none", "-o", str(file), *address)
    assert refused.returncode == 2 and "use --json" in refused.stderr
    wrong = run_flowdex("encode", MOON, "--layers", "top", *address)
    assert wrong.returncode == 2 and "whole numbers" in wrong.stderr
