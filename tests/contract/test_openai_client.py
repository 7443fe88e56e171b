"""The stock clients of OpenAI, Cohere, Hugging Face and LangChain, unmodified, against a running flow.

What the contracts themselves demand stands in flowdex/conformance/recorded, and test_conformance.py runs it; here is
that those clients work, and that the answers are those of flowdex's own client.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from flow_support import RunningFlow

from flowdex import Client

TEXTS = ["Apollo 11 landed on the Moon.", "a recipe for bread", "東京 is a city", "x" * 3000]


@pytest.fixture(scope="module")
def expected(default_flow: RunningFlow) -> Any:
    with Client(default_flow.grpc_url) as client:
        return client.encode(TEXTS)


@pytest.fixture(scope="module")
def openai_client(default_flow: RunningFlow) -> Iterator[Any]:
    openai = pytest.importorskip("openai", reason="the openai package is not installed")
    with openai.OpenAI(base_url=f"{default_flow.http_url}/v1", api_key="none", max_retries=0, timeout=30) as client:
        yield client


# ---- openai ----


@pytest.mark.parametrize("encoding", [None, "float", "base64"])
def test_embeddings_equal_our_own_client(openai_client: Any, expected: Any, encoding: str | None) -> None:
    options = {} if encoding is None else {"encoding_format": encoding}
    reply = openai_client.embeddings.create(model="encoder", input=TEXTS, **options)
    assert reply.object == "list"
    assert [each.index for each in reply.data] == [0, 1, 2, 3]
    vectors = [
        np.frombuffer(base64.b64decode(each.embedding), "<f4") if encoding == "base64" else each.embedding
        for each in reply.data
    ]
    np.testing.assert_allclose(np.array(vectors), expected, atol=1e-6)
    assert reply.model == "encoder"
    assert reply.usage.prompt_tokens == reply.usage.total_tokens > len(TEXTS)


def test_one_text_fewer_dimensions_and_the_name_of_the_model(openai_client: Any, expected: Any) -> None:
    model = next(each.id for each in openai_client.models.list() if each.id != "encoder")
    reply = openai_client.embeddings.create(model=model, input=TEXTS[0], dimensions=64, user="someone")
    vector = np.array(reply.data[0].embedding)
    short = expected[0][:64]
    np.testing.assert_allclose(vector, short / np.linalg.norm(short), atol=1e-6)


def test_token_ids_are_texts(openai_client: Any, default_flow: RunningFlow, expected: Any) -> None:
    tokens = httpx.post(f"{default_flow.http_url}/tokenize", json={"inputs": TEXTS[:2]}, timeout=30).json()
    ids = [[token["id"] for token in text] for text in tokens]
    reply = openai_client.embeddings.create(model="encoder", input=ids)
    np.testing.assert_allclose([each.embedding for each in reply.data], expected[:2], atol=1e-6)
    one = openai_client.embeddings.create(model="encoder", input=ids[0])
    np.testing.assert_allclose(one.data[0].embedding, expected[0], atol=1e-6)


def test_models(openai_client: Any) -> None:
    names = [each.id for each in openai_client.models.list()]
    assert names[0] == "encoder"
    assert openai_client.models.retrieve(names[-1]).id == names[-1]


def test_errors_are_raised_as_openai_raises_them(openai_client: Any) -> None:
    import openai

    with pytest.raises(openai.NotFoundError) as missing:
        openai_client.embeddings.create(model="text-embedding-3-small", input="a")
    assert missing.value.code == "model_not_found"
    assert "'encoder'" in missing.value.message
    for wrong, named in ((["a", ""], "input[1]"), ([], None), (["a"] * 2049, None)):
        with pytest.raises(openai.BadRequestError) as refused:
            openai_client.embeddings.create(model="encoder", input=wrong)
        assert refused.value.type == "invalid_request_error"
        assert refused.value.param == named
    with pytest.raises(openai.BadRequestError, match="384"):
        openai_client.embeddings.create(model="encoder", input="a", dimensions=9999)


async def test_the_asynchronous_client(default_flow: RunningFlow, expected: Any) -> None:
    openai = pytest.importorskip("openai", reason="the openai package is not installed")
    async with openai.AsyncOpenAI(base_url=f"{default_flow.http_url}/v1", api_key="none", timeout=30) as client:
        reply = await client.embeddings.create(model="encoder", input=TEXTS)
    np.testing.assert_allclose([each.embedding for each in reply.data], expected, atol=1e-6)


# ---- LangChain ----


def test_langchain_openai(default_flow: RunningFlow, expected: Any) -> None:
    langchain = pytest.importorskip("langchain_openai", reason="langchain-openai is not installed")
    embeddings = langchain.OpenAIEmbeddings(
        model="encoder",
        base_url=f"{default_flow.http_url}/v1",
        api_key="none",
        check_embedding_ctx_length=False,  # it would send the token ids of OpenAI's own models
    )
    np.testing.assert_allclose(embeddings.embed_documents(TEXTS), expected, atol=1e-6)
    np.testing.assert_allclose(embeddings.embed_query(TEXTS[0]), expected[0], atol=1e-6)


# ---- rerankers ----

QUERY = "Who landed on the Moon?"


def test_cohere(default_flow: RunningFlow) -> None:
    cohere = pytest.importorskip("cohere", reason="the cohere package is not installed")
    client = cohere.ClientV2(api_key="none", base_url=default_flow.http_url, timeout=30)
    reply = client.rerank(model="ranker", query=QUERY, documents=TEXTS[:3], top_n=2)
    assert len(reply.results) == 2
    assert reply.results[0].index == 0
    assert reply.results[0].relevance_score > reply.results[1].relevance_score
    assert reply.id
    with pytest.raises(cohere.errors.NotFoundError):
        client.rerank(model="rerank-v3.5", query=QUERY, documents=TEXTS[:3])


def test_cohere_v1(default_flow: RunningFlow) -> None:
    cohere = pytest.importorskip("cohere", reason="the cohere package is not installed")
    if not hasattr(cohere.Client, "rerank"):
        pytest.skip("this release of the cohere package has no client for /v1")
    client = cohere.Client(api_key="none", base_url=default_flow.http_url, timeout=30)
    reply = client.rerank(model="dense", query=QUERY, documents=TEXTS[:3], return_documents=True)
    assert reply.results[0].index == 0
    assert reply.results[0].document.text == TEXTS[0]


def test_jina(default_flow: RunningFlow) -> None:
    body = {"model": "late_interaction", "query": QUERY, "documents": [TEXTS[1], {"text": TEXTS[0]}]}
    reply = httpx.post(f"{default_flow.http_url}/v1/rerank", json=body, timeout=30).json()
    assert [each["index"] for each in reply["results"]] == [1, 0]
    assert reply["results"][0]["document"] == {"text": TEXTS[0]}
    assert reply["model"] == "late_interaction"
    assert reply["usage"]["total_tokens"] > 10
    unnamed = httpx.post(f"{default_flow.http_url}/v1/rerank", json={**body, "model": None}, timeout=30).json()
    assert unnamed["model"] == "ranker"
    short = httpx.post(f"{default_flow.http_url}/v1/rerank", json={**body, "return_documents": False, "top_n": 1})
    assert [set(each) for each in short.json()["results"]] == [{"index", "relevance_score"}]
    with Client(default_flow.grpc_url) as client:
        own = client.rank(QUERY, [TEXTS[1], TEXTS[0]])
    scores = [each["relevance_score"] for each in reply["results"]]
    np.testing.assert_allclose(scores, [each.score for each in own], atol=1e-6)


# ---- text-embeddings-inference ----


def post(flow: RunningFlow, path: str, body: Any) -> httpx.Response:
    return httpx.post(f"{flow.http_url}{path}", json=body, timeout=30)


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Hugging Face's client post, even to this machine: the tests keep it offline otherwise."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)


@pytest.mark.usefixtures("online")
@pytest.mark.parametrize("path", ["", "/embed"])
def test_huggingface_inference_client(default_flow: RunningFlow, expected: Any, path: str) -> None:
    hub = pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")
    client = hub.InferenceClient(model=f"{default_flow.http_url}{path}", timeout=30)
    np.testing.assert_allclose(client.feature_extraction(TEXTS[0])[0], expected[0], atol=1e-6)
    np.testing.assert_allclose(client.feature_extraction(TEXTS), expected, atol=1e-6)


@pytest.mark.usefixtures("online")
def test_huggingface_similarity(default_flow: RunningFlow, expected: Any) -> None:
    hub = pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")
    client = hub.InferenceClient(model=f"{default_flow.http_url}/similarity", timeout=30)
    found = client.sentence_similarity(TEXTS[0], other_sentences=TEXTS[1:])
    np.testing.assert_allclose(found, expected[1:] @ expected[0], atol=1e-5)


def test_embed_equals_our_own_client(default_flow: RunningFlow, expected: Any) -> None:
    reply = post(default_flow, "/embed", {"inputs": TEXTS})
    np.testing.assert_allclose(reply.json(), expected, atol=1e-6)
    assert int(reply.headers["x-compute-tokens"]) > len(TEXTS)
    assert int(reply.headers["x-compute-characters"]) == sum(map(len, TEXTS))


def test_embed_all_is_a_vector_a_token(default_flow: RunningFlow, expected: Any) -> None:
    found = post(default_flow, "/embed_all", {"inputs": TEXTS[:2]}).json()
    tokens = post(default_flow, "/tokenize", {"inputs": TEXTS[:2]}).json()
    assert [len(matrix) for matrix in found] == [len(each) for each in tokens]
    mean = np.mean(found[0], axis=0)
    np.testing.assert_allclose(mean / np.linalg.norm(mean), expected[0], atol=1e-5)


def test_sparse_vectors_are_those_of_the_index(default_flow: RunningFlow) -> None:
    first, again, nothing = post(
        default_flow, "/embed_sparse", {"inputs": ["Moon landing", "moon landings Moon", "the"]}
    ).json()
    weights = {each["index"]: each["value"] for each in first}
    assert len(weights) == 2
    assert all(0 < value < 2.2 for value in weights.values())
    assert {each["index"] for each in again} == set(weights)
    assert max(each["value"] for each in again) > max(weights.values()), "a term that is there twice weighs more"
    assert nothing == []


def test_tokenize_and_decode(default_flow: RunningFlow) -> None:
    text = "Apollo 11 landed"
    (tokens,) = post(default_flow, "/tokenize", {"inputs": text}).json()
    assert [set(token) for token in tokens] == [{"id", "text", "special", "start", "stop"}] * len(tokens)
    assert [token["special"] for token in tokens] == [True, *[False] * (len(tokens) - 2), True]
    assert (tokens[0]["start"], tokens[0]["stop"]) == (None, None)
    assert text[tokens[1]["start"] : tokens[1]["stop"]] == "Apollo"
    (bare,) = post(default_flow, "/tokenize", {"inputs": text, "add_special_tokens": False}).json()
    assert bare == tokens[1:-1]
    ids = [token["id"] for token in tokens]
    assert post(default_flow, "/decode", {"ids": ids}).json() == ["apollo 11 landed"]
    special = post(default_flow, "/decode", {"ids": [ids], "skip_special_tokens": False}).json()
    assert special == ["[CLS] apollo 11 landed [SEP]"]


def test_info(default_flow: RunningFlow) -> None:
    info = httpx.get(f"{default_flow.http_url}/info", timeout=30).json()
    assert info["max_input_length"] == 256
    assert info["model_type"] == {"embedding": {"pooling": "mean"}}
    assert info["max_client_batch_size"] > 0
