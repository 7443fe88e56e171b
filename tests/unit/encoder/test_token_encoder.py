"""What a request may choose, against transformers one text at a time; in one batch whatever the others choose."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flowdex.documents import DocumentBatch
from flowdex.errors import ConfigurationError, ExecutorError, InvalidInput, TooLarge
from flowdex_executors import BertEncoder, DocumentColumns
from flowdex_executors.encoder.options import EncodeParameters

TEXTS = ["hello world", "the flow of search", "東京 日本", "a", "vectors!", "neural " * 30, "b c d e f g", "ü"]
LIMIT = 64
LAYERS = 4  # of the tiny BERT: its embeddings and three layers
SIZE = 32


@pytest.fixture(scope="module")
def folder(make_model: Any) -> Path:
    return make_model("bert")


@pytest.fixture(scope="module", params=["packed", "transformers"])
def encoder(request: pytest.FixtureRequest, folder: Path) -> Iterator[BertEncoder]:
    encoder = BertEncoder(str(folder), backend=request.param, threads=2, batch_tokens=96)
    yield encoder
    encoder.close()


def columns(texts: list[Any], **fields: Any) -> DocumentColumns:
    return DocumentColumns(DocumentBatch.from_columns(ids=[f"d{i}" for i in range(len(texts))], texts=texts, **fields))


async def encode(encoder: Any, texts: list[Any], fields: dict[str, Any] | None = None, **parameters: Any) -> Any:
    return (await encoder.encode(docs=columns(texts, **(fields or {})), parameters=parameters)).batch


class Reference:
    """The tiny model through transformers and numpy, one text at a time."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoModel, PreTrainedTokenizerFast

        self.tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
        self.tokenizer.backend_tokenizer.no_truncation()
        self.tokenizer.backend_tokenizer.no_padding()
        self.model = AutoModel.from_pretrained(folder, attn_implementation="eager").eval()

    def ids(self, text: str) -> list[int]:
        return list(self.tokenizer.backend_tokenizer.encode(text).ids)

    def layers(self, ids: list[int], types: list[int] | None = None) -> list[np.ndarray[Any, Any]]:
        types_of = None if types is None else torch.tensor([types])
        with torch.no_grad():
            output = self.model(torch.tensor([ids]), token_type_ids=types_of, output_hidden_states=True)
        return [hidden[0].numpy() for hidden in output.hidden_states]

    def attention(self, ids: list[int]) -> np.ndarray[Any, Any]:
        with torch.no_grad():
            output = self.model(torch.tensor([ids]), output_attentions=True)
        return np.stack([layer[0].numpy() for layer in output.attentions])

    def vector(self, text: str, options: dict[str, Any]) -> np.ndarray[Any, Any]:
        ids = self.ids(text)
        limit = options.get("max_length", LIMIT)
        room, content = limit - 2, ids[1:-1]
        kept = content[-room:] if options.get("truncation") == "tail" else content[:room]
        pieces = [kept]
        if options.get("truncation") == "window_mean":
            pieces = [content[start : start + room] for start in range(0, max(len(content), 1), room)]
        pieces = [[ids[0], *piece, ids[-1]] for piece in pieces]
        vectors = [self.pooled(piece, options) for piece in pieces]
        vector = np.average(vectors, axis=0, weights=[len(piece) for piece in pieces])
        vector = vector[: options.get("dimensions")]
        return vector / np.linalg.norm(vector) if options.get("normalize") else vector

    def pooled(self, ids: list[int], options: dict[str, Any]) -> np.ndarray[Any, Any]:
        layers = self.layers(ids)
        chosen = [layers[layer] for layer in options.get("layers", [-1])]
        t = np.mean(chosen, axis=0) if options.get("layer_mode") == "mean" else np.concatenate(chosen, axis=1)
        modes = options.get("pooling", ["mean"])
        positions = np.arange(1, len(ids) + 1)
        parts = {
            "mean": t.mean(0),
            "max": t.max(0),
            "mean_max": np.concatenate([t.mean(0), t.max(0)]),
            "cls": t[0],
            "sep": t[-1],
            "last": t[-1],
            "weighted_mean": np.average(t, axis=0, weights=positions),
            "mean_sqrt_len": t.sum(0) / np.sqrt(len(ids)),
        }
        return np.concatenate([parts[mode] for mode in ([modes] if isinstance(modes, str) else modes)])


@pytest.fixture(scope="module")
def reference(folder: Path) -> Reference:
    return Reference(folder)


POOLING = ("mean", "max", "mean_max", "cls", "sep", "last", "weighted_mean", "mean_sqrt_len")
OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "pooling": st.one_of(st.sampled_from(POOLING), st.lists(st.sampled_from(POOLING), min_size=1, max_size=3)),
        "layers": st.lists(st.integers(-LAYERS, LAYERS - 1), min_size=1, max_size=3),
        "layer_mode": st.sampled_from(["concat", "mean"]),
        "normalize": st.booleans(),
        "truncation": st.sampled_from(["head", "tail", "window_mean"]),
        "max_length": st.integers(3, LIMIT),
        "dimensions": st.integers(1, SIZE),
    },
)


@settings(max_examples=25)
@given(requests=st.lists(st.tuples(st.lists(st.sampled_from(TEXTS), min_size=1, max_size=6), OPTIONS), max_size=5))
def test_requests_of_different_options_share_batches_and_get_what_they_would_alone(
    encoder: BertEncoder, reference: Reference, requests: list[tuple[list[str], dict[str, Any]]]
) -> None:
    async def together() -> list[Any]:
        return await asyncio.gather(*(encode(encoder, texts, **options) for texts, options in requests))

    for (texts, options), batch in zip(requests, asyncio.run(together()), strict=True):
        expected = np.stack([reference.vector(text, options) for text in texts])
        np.testing.assert_allclose(batch.embeddings, expected, rtol=1e-3, atol=1e-4)


async def test_one_forward_pass_serves_all_options(folder: Path) -> None:
    encoder = BertEncoder(str(folder), threads=1)
    forward, passes = encoder.backend.forward, []
    started, go_on = threading.Event(), threading.Event()

    def counting(sequences: Any, layers: Any = (-1,), **kwargs: Any) -> Any:
        passes.append((len(sequences), list(layers)))
        started.set()
        assert go_on.wait(10)
        return forward(sequences, layers, **kwargs)

    encoder.backend.forward = counting  # type: ignore[method-assign]
    held = asyncio.create_task(encode(encoder, ["held"]))  # keeps the thread busy while the others queue
    await asyncio.to_thread(started.wait, 10)
    others = asyncio.gather(
        encode(encoder, ["hello"], layers=[0]),
        encode(encoder, ["world", "flow"], pooling="cls", layers=[-1, 1]),
        encode(encoder, ["flow"], pooling="none"),
    )
    while (await encoder.status())["queue"] < 4:  # noqa: ASYNC110 - nothing tells when all have come
        await asyncio.sleep(0.01)
    go_on.set()
    await asyncio.gather(held, others)
    encoder.close()
    assert passes == [(1, [3]), (4, [0, 1, 3])], "one pass for all, with the union of their layers"


# ---- tokens and attention ----


@pytest.mark.parametrize("layers", [[-1], [0, 2]])
async def test_tokens(encoder: BertEncoder, reference: Reference, layers: list[int]) -> None:
    texts = ["Hello, World!", "東京 ab", "neural " * 80]
    batch = await encode(encoder, texts, tokens=True, layers=layers)
    rows = zip(
        texts, batch.column("token_texts"), batch.column("token_spans"), batch.column("token_vectors"), strict=True
    )
    for index, (text, tokens, spans, vectors) in enumerate(rows):
        ids = reference.ids(text)[: LIMIT - 1]
        assert tokens[0] == "[CLS]" and tokens[-1] == "[SEP]"
        assert tokens[1:-1] == [reference.tokenizer.convert_ids_to_tokens(each) for each in ids[1 : len(tokens) - 1]]
        assert spans.shape == (len(tokens), 2) and spans[0].tolist() == spans[-1].tolist() == [0, 0]
        for token, (start, end) in list(zip(tokens, spans, strict=True))[1:-1]:
            assert token == "[UNK]" or text[start:end].lower() == token.removeprefix("##")
        expected = [
            reference.layers([*ids[: len(tokens) - 1], ids[-1] if len(tokens) < LIMIT else 3])[n] for n in layers
        ]
        if index < 2:
            np.testing.assert_allclose(vectors, np.concatenate(expected, axis=1), rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(vectors.mean(0), batch.embeddings[index], rtol=1e-4, atol=1e-5)
    assert len(batch.column("token_texts")[2]) == LIMIT


async def test_no_pooling(encoder: BertEncoder, reference: Reference) -> None:
    batch = await encode(encoder, TEXTS[:4], pooling="none")
    for text, matrix in zip(TEXTS[:4], batch.column("embedding"), strict=True):
        np.testing.assert_allclose(matrix, reference.layers(reference.ids(text))[-1], rtol=1e-3, atol=1e-4)
    unit = await encode(encoder, TEXTS[:2], pooling="none", normalize=True, dimensions=8)
    np.testing.assert_allclose(np.linalg.norm(unit.column("embedding")[1], axis=1), 1, rtol=1e-5)


async def test_attention(encoder: BertEncoder, reference: Reference) -> None:
    mixed, plain = await asyncio.gather(
        encode(encoder, TEXTS[:5], attention=True, pooling=["cls"], layers=[0, -1]), encode(encoder, TEXTS[:5])
    )
    for text, attention in zip(TEXTS, mixed.column("attention"), strict=False):
        ids = reference.ids(text)
        assert attention.shape == (3, 4, len(ids), len(ids))
        np.testing.assert_allclose(attention.sum(-1), 1, rtol=1e-5)
        np.testing.assert_allclose(attention, reference.attention(ids), rtol=1e-3, atol=1e-5)
    assert "attention" not in plain.fields()
    expected = [reference.vector(text, {"pooling": "cls", "layers": [0, -1]}) for text in TEXTS[:5]]
    np.testing.assert_allclose(mixed.embeddings, expected, rtol=1e-3, atol=1e-4)


async def test_too_much_attention(encoder: BertEncoder) -> None:
    with pytest.raises(TooLarge, match=r"more than the 32 MiB .* fewer or shorter texts"):
        await encode(encoder, ["neural " * 80] * 200, attention=True)


# ---- other input ----


async def test_pairs(encoder: BertEncoder, reference: Reference) -> None:
    batch = await encode(
        encoder, ["hello world", "flow"], {"text_pair": ["the flow", None]}, pooling="none", tokens=True
    )
    assert batch.column("token_texts")[0] == ["[CLS]", "hello", "world", "[SEP]", "the", "flow", "[SEP]"]
    assert batch.column("token_spans")[0][4:6].tolist() == [[0, 3], [4, 8]]
    encoded = reference.tokenizer.backend_tokenizer.encode("hello world", "the flow")
    expected = reference.layers(encoded.ids, encoded.type_ids)[-1]
    np.testing.assert_allclose(batch.column("embedding")[0], expected, rtol=1e-3, atol=1e-4)
    assert set(encoded.type_ids) == {0, 1}, "or this would prove nothing"


@pytest.mark.parametrize(
    ("truncation", "expected"),
    [
        ("head", ["[CLS]", "a", "b", "[SEP]", "d", "e", "[SEP]"]),
        ("tail", ["[CLS]", "b", "c", "[SEP]", "f", "g", "[SEP]"]),
    ],
)
async def test_pairs_lose_what_the_longer_one_has_too_much(
    encoder: BertEncoder, truncation: str, expected: list[str]
) -> None:
    fields = {"text_pair": ["d e f g"]}
    batch = await encode(encoder, ["a b c"], fields, max_length=7, truncation=truncation, tokens=True, receipt=True)
    assert batch.column("token_texts")[0] == expected
    assert batch.column("receipt")[0]["dropped"] == 3
    with pytest.raises(InvalidInput, match="window_mean is for single texts"):
        await encode(encoder, ["a"], fields, truncation="window_mean")


async def test_words(encoder: BertEncoder, reference: Reference) -> None:
    words = ["Hello", "world", "flows"]
    batch = await encode(encoder, ["this is not read"], {"words": [words]}, tokens=True)
    bare = await encode(encoder, [None], {"words": [words]})
    np.testing.assert_array_equal(bare.embeddings, batch.embeddings)
    assert batch.column("token_texts")[0][:3] == ["[CLS]", "hello", "world"]
    spans = batch.column("token_spans")[0].tolist()
    joined = " ".join(words)
    assert [joined[start:end].lower() for start, end in spans[1:4]] == ["hello", "world", "flow"]
    expected = reference.pooled(reference.ids(joined), {})
    np.testing.assert_allclose(batch.embeddings[0], expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("text", "fields", "message"),
    [
        ("text", {"words": [["a"]], "text_pair": ["b"]}, "words and a text_pair"),
        (None, {"words": [[" ", ""]]}, "no words to encode"),
        (None, {"words": [[1, 2]]}, "list of strings"),
        (None, {"words": ["a text"]}, "list of strings"),
        ("text", {"text_pair": [" "]}, "blank text"),
        ("text", {"text_pair": [7]}, "must be a string"),
        (None, {"text_pair": ["x"]}, "no text"),
    ],
)
async def test_input_that_is_none(encoder: BertEncoder, text: str | None, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=rf"document 0 \(id 'd0'\).*{message}"):
        await encode(encoder, [text], fields)


# ---- truncation ----


async def test_truncation_can_be_refused_and_is_reported(encoder: BertEncoder) -> None:
    long = "a " * 100
    with pytest.raises(InvalidInput, match=r"document 1 \(id 'd1'\) has more than 64 tokens; shorten it, or choose"):
        await encode(encoder, ["a", long], truncation="error")
    receipts = (await encode(encoder, ["a", long], receipt=True)).column("receipt")
    assert [(each["tokens"], each["dropped"]) for each in receipts] == [(3, 0), (64, 38)]
    receipts = (await encode(encoder, ["a", long], receipt=True, truncation="window_mean")).column("receipt")
    assert [(each["tokens"], each["dropped"]) for each in receipts] == [(3, 0), (100 + 2 * 2, 0)]


async def test_the_tail_of_megabytes(encoder: BertEncoder) -> None:
    batch = await encode(encoder, ["word " * 500_000 + "the end."], truncation="tail", max_length=6, tokens=True)
    assert batch.column("token_texts")[0][-4:-1] == ["##n", "##d", "."]
    end = batch.column("token_spans")[0].tolist()[-2]
    assert end == [2_500_007, 2_500_008]


# ---- number types ----


async def test_number_types(encoder: BertEncoder) -> None:
    full = (await encode(encoder, TEXTS)).embeddings
    half = await encode(encoder, TEXTS, dtype="float16", tokens=True)
    assert {each.dtype for each in half.column("embedding") + half.column("token_vectors")} == {np.dtype(np.float16)}
    np.testing.assert_allclose(half.embeddings, full, rtol=2e-3, atol=2e-3)
    whole = await encode(encoder, TEXTS, dtype="int8")
    scales = np.array(whole.column("scale"))
    rows = np.stack(whole.column("embedding"))
    assert rows.dtype == np.int8
    assert np.abs(rows).max(axis=1).tolist() == [127] * len(TEXTS)
    assert (np.abs(rows * scales[:, None] - full) <= scales[:, None] * 0.5 + 1e-4).all()
    bits = np.stack((await encode(encoder, TEXTS, dtype="binary", dimensions=20)).column("embedding"))
    assert (bits.dtype, bits.shape) == (np.uint8, (len(TEXTS), 3))
    sure = np.abs(full[:, :20]) > 1e-4
    assert (np.unpackbits(bits, axis=1)[:, :20] == (full[:, :20] > 0))[sure].all()
    tokens = await encode(encoder, TEXTS[:2], pooling="none", dtype="int8")
    assert tokens.column("embedding")[0].dtype == np.int8
    assert tokens.column("scale")[0].shape == (len(tokens.column("embedding")[0]),)


# ---- what cannot be ----


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"pooling": "median"}, "'median' is unknown; choose from mean"),
        ({"pooling": ["none", "mean"]}, "cannot be combined"),
        ({"pooling": []}, "at least one"),
        ({"pooling": 3}, "name of a mode"),
        ({"pooling": "idf"}, "idf needs weights of words"),
        ({"layers": [4]}, "no layer 4; this model has 4: 0 .* to 3"),
        ({"layers": [-5]}, "no layer -5"),
        ({"layers": []}, "layers"),
        ({"layers": "top"}, "layers"),
        ({"layers": [1.5]}, "layers"),
        ({"layer_mode": "sum"}, "layer_mode"),
        ({"truncation": "middle"}, "truncation"),
        ({"truncation": "window_mean", "tokens": True}, "one vector for all of a text"),
        ({"truncation": "window_mean", "pooling": "none"}, "one vector for all of a text"),
        ({"truncation": "window_mean", "attention": True}, "one vector for all of a text"),
        ({"max_length": 65}, "more than this encoder's 64 tokens; raise max_length in uses_with"),
        ({"max_length": 2}, "at least 3 tokens"),
        ({"max_length": 0}, "max_length"),
        ({"dimensions": 33}, "the vectors have 32"),
        ({"dimensions": 0}, "dimensions"),
        ({"dtype": "float64"}, "dtype"),
        ({"normalize": "perhaps"}, "normalize"),
        ({"tokens": "some"}, "tokens"),
        ({"attention": 5}, "attention"),
        ({"receipt": "please"}, "receipt"),
        ({"prompt": "query"}, "this encoder has: none"),
    ],
)
async def test_wrong_parameters(encoder: BertEncoder, parameters: dict[str, Any], message: str) -> None:
    before = (await encoder.status())["documents_encoded"]
    with pytest.raises(InvalidInput, match=message):
        await encode(encoder, ["hello"], **parameters)
    assert (await encoder.status())["documents_encoded"] == before


@pytest.mark.parametrize("endpoint", ["index", "search"])
async def test_an_index_takes_vectors_only(encoder: BertEncoder, endpoint: str) -> None:
    for parameters, message in [
        ({"pooling": "none"}, "one vector for each passage"),
        ({"dtype": "int8"}, "int8 is for /encode only"),
        ({"dtype": "binary"}, "binary is for /encode only"),
    ]:
        with pytest.raises(InvalidInput, match=message):
            await getattr(encoder, endpoint)(docs=columns(["hello"]), parameters=parameters)


async def test_parameters_of_others_are_ignored(encoder: BertEncoder) -> None:
    batch = await encode(encoder, ["hello"], limit=3.0, filter={"a": 1}, max_length=8.0, layers=-1.0)
    assert batch.embeddings.shape == (1, SIZE)


async def test_defaults_of_the_flow_file_give_way_to_the_request(folder: Path, reference: Reference) -> None:
    options = {"pooling": ["cls", "max"], "layers": [1, 2], "layer_mode": "mean", "normalize": True, "dimensions": 40}
    encoder = BertEncoder(str(folder), threads=1, truncation="tail", **options)
    long = "a b c d " * 40
    default = (await encode(encoder, [long])).embeddings[0]
    np.testing.assert_allclose(default, reference.vector(long, {**options, "truncation": "tail"}), rtol=1e-3, atol=1e-4)
    other = (await encode(encoder, [long], pooling="mean", dimensions=8, truncation="head")).embeddings[0]
    changed = {**options, "pooling": "mean", "dimensions": 8}
    np.testing.assert_allclose(other, reference.vector(long, changed), rtol=1e-3, atol=1e-4)
    described = BertEncoder.describe({"model": str(folder), **options})
    assert described["dimensions"] == encoder.dimensions == (await encoder.status())["dimensions"] == 40
    encoder.close()


# ---- prompts ----


async def test_prompts(folder: Path) -> None:
    encoder = BertEncoder(str(folder), threads=1, prompts={"query": "search: ", "passage": "flow: "})
    plain = (await encode(encoder, ["hello world", "search: hello world", "flow: hello world"])).embeddings
    query = (await encoder.search(docs=columns(["hello world"]))).batch
    passage = (await encoder.index(docs=columns(["hello world"]))).batch
    named = await encode(encoder, ["hello world"], prompt="query", tokens=True)
    without = (await encoder.search(docs=columns(["hello world"]), parameters={"prompt": ""})).batch
    np.testing.assert_allclose(query.embeddings[0], plain[1], atol=1e-5)
    np.testing.assert_allclose(passage.embeddings[0], plain[2], atol=1e-5)
    np.testing.assert_allclose(named.embeddings[0], plain[1], atol=1e-5)
    np.testing.assert_allclose(without.embeddings[0], plain[0], atol=1e-5)
    assert named.column("token_texts")[0][-3:] == ["hello", "world", "[SEP]"]
    assert named.column("token_spans")[0].tolist()[-3:] == [[0, 5], [6, 11], [0, 0]]
    assert query.column("fingerprint") == passage.column("fingerprint")
    with pytest.raises(InvalidInput, match="'title' is unknown; this encoder has: query, passage"):
        await encode(encoder, ["hello"], prompt="title")
    with pytest.raises(InvalidInput, match="would cut off the prompt"):
        await encode(encoder, ["a " * 99], prompt="query", truncation="tail")
    encoder.close()


async def test_prompts_of_the_model(make_model: Any) -> None:
    folder = make_model("bert")
    content = {"prompts": {"query": "search: ", "document": ""}, "default_prompt_name": "query"}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(content))
    encoder = BertEncoder(str(folder), threads=1)
    encoded = (await encode(encoder, ["hello"])).embeddings
    plain = (await encode(encoder, ["search: hello", "hello"], prompt="")).embeddings
    np.testing.assert_allclose(encoded[0], plain[0], atol=1e-5)
    assert (await encoder.status())["prompts"] == {"query": "search: "}
    encoder.close()


# ---- receipts and fingerprints ----


async def test_receipts(encoder: BertEncoder) -> None:
    batch = await encode(encoder, ["hello world", "a"], receipt=True)
    status = await encoder.status()
    for receipt, tokens in zip(batch.column("receipt"), (4, 3), strict=True):
        assert (receipt["tokens"], receipt["dropped"]) == (tokens, 0)
        assert receipt["queue_ms"] >= 0 and receipt["compute_ms"] > 0
        assert receipt["fingerprint"] == json.loads(status["fingerprint"])["id"]
    assert "receipt" not in (await encode(encoder, ["hello"])).fields()


async def test_a_fingerprint_says_what_made_the_vectors(folder: Path, make_model: Any) -> None:
    async def of(model: Path, parameters: dict[str, Any] | None = None, **options: Any) -> dict[str, Any]:
        encoder = BertEncoder(str(model), threads=1, **options)
        docs = columns(["hello", "world"])
        docs.batch.set_nested("chunks", [DocumentBatch.from_columns(texts=["a", "b"]), DocumentBatch()])
        reply = (await encoder.index(docs=docs, parameters=parameters)).batch
        found = reply.column("fingerprint")
        if parameters is None:
            assert (await encoder.status())["fingerprint"] == found[0]
        encoder.close()
        assert len(found) == 2 and len(set(found)) == 1
        return dict(json.loads(found[0]))

    base = await of(folder)
    same = [
        await of(folder, backend="transformers", max_length=9, batch_tokens=64, truncation="tail"),
        await of(folder, {"layers": [3], "pooling": "mean", "receipt": True, "max_length": 5, "limit": 3}),
    ]
    assert all(each == base for each in same)
    other = make_model("bert", seed=1)
    different = [
        await of(folder, {"pooling": "cls"}),
        await of(folder, pooling="max"),
        await of(folder, {"layers": [2]}),
        await of(folder, {"layers": [2, 3], "dimensions": 32}),
        await of(folder, {"layers": [2, 3], "layer_mode": "mean"}),
        await of(folder, normalize=True),
        await of(folder, dimensions=16),
        await of(folder, {"dtype": "float16"}),
        await of(folder, compute_dtype="bfloat16"),
        await of(folder, prompts={"query": "q: "}),
        await of(other),
    ]
    assert len({each["id"] for each in [base, *different]}) == len(different) + 1
    assert different[-1]["weights"] != base["weights"] and different[-1]["tokenizer"] == base["tokenizer"]
    assert (base["pooling"], base["layers"], base["dimensions"]) == (["mean"], [-1], SIZE)


async def test_own_vectors_have_no_fingerprint(encoder: BertEncoder) -> None:
    docs = columns(["mine", "theirs"])
    docs.batch.select([0]).embeddings = np.ones((1, SIZE), dtype=np.float32)
    own, made = (await encoder.index(docs=docs)).batch.column("fingerprint")
    assert own is None and made is not None
    assert "fingerprint" not in (await encode(encoder, ["hello"])).fields()


# ---- devices ----


@pytest.mark.parametrize("backend", ["packed", "transformers"])
async def test_half_precision(folder: Path, backend: str) -> None:
    encoder = BertEncoder(str(folder), backend=backend, threads=1, compute_dtype="bfloat16")
    vectors = (await encode(encoder, TEXTS, attention=True, layers=[0, -1])).embeddings
    exact = BertEncoder(str(folder), threads=1)
    expected = (await encode(exact, TEXTS, layers=[0, -1])).embeddings
    status = await encoder.status()
    encoder.close()
    exact.close()
    assert status["compute_dtype"] == "bfloat16"
    assert vectors.dtype == np.float32
    cosine = (vectors * expected).sum(1) / np.linalg.norm(vectors, axis=1) / np.linalg.norm(expected, axis=1)
    assert cosine.min() > 0.99
    assert np.abs(vectors - expected).max() > 1e-4, "or it was computed in single precision"


async def test_too_little_memory_makes_batches_smaller(folder: Path) -> None:
    encoder = BertEncoder(str(folder), threads=1, batch_tokens=512)
    forward, sizes = encoder.backend.forward, []

    def small_device(sequences: Any, *args: Any, **kwargs: Any) -> Any:
        sizes.append(sum(map(len, sequences)))
        if sizes[-1] > 60:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(sequences, *args, **kwargs)

    expected = (await encode(encoder, TEXTS[:5] * 20)).embeddings
    encoder.backend.forward = small_device  # type: ignore[method-assign]
    vectors = (await encode(encoder, TEXTS[:5] * 20)).embeddings
    np.testing.assert_allclose(vectors, expected, rtol=1e-4, atol=1e-5)
    assert (await encoder.status())["batch_tokens"] <= 128
    sizes.clear()
    await encode(encoder, TEXTS[:5] * 20)
    assert sum(size > 60 for size in sizes) <= 1, "what failed once is not tried for ever"
    with pytest.raises(ExecutorError, match=r"document 0 .* no memory for a text of this length; lower max_length"):
        await encode(encoder, ["neural " * 80])
    encoder.close()


def test_wrong_prompts(folder: Path) -> None:
    with pytest.raises(ConfigurationError, match="must be texts by their names"):
        BertEncoder(str(folder), prompts={"query": 3})  # type: ignore[dict-item]


async def test_special_tokens_are_left_out_of_the_pooling(encoder: BertEncoder) -> None:
    pairs = [("hello world", "search"), ("a", "the flow")]
    texts = [*TEXTS, *(first for first, _ in pairs)]
    fields = {"text_pair": [None] * len(TEXTS) + [second for _, second in pairs]}
    modes = ["mean", "cls", "max", "sep", "weighted_mean", "mean_sqrt_len"]
    found = await encode(
        encoder, texts, fields, pooling=modes, layers=[2], normalize=False, tokens=True, mask_special=True
    )
    plain = await encode(encoder, texts, fields, pooling=modes, layers=[2], normalize=False)
    rows = await encode(encoder, texts, fields, pooling="none", layers=[2], mask_special=True)
    for index in range(len(texts)):
        vectors, spans = (found.column(name)[index] for name in ("token_vectors", "token_spans"))
        special = np.array([start == end for start, end in spans])
        words = vectors[~special]
        weights = np.arange(1, len(words) + 1, dtype=np.float32)[:, None]
        expected = [
            words.mean(0),
            vectors[0],
            words.max(0),
            vectors[np.flatnonzero(special)[-1]],
            (words * weights).sum(0) / weights.sum(),
            words.sum(0) / np.sqrt(len(words)),
        ]
        np.testing.assert_allclose(found.embeddings[index], np.concatenate(expected), atol=2e-5)
        masked = rows.column("embedding")[index]
        np.testing.assert_allclose(masked, vectors * ~special[:, None], atol=2e-5)
    assert not np.allclose(found.embeddings, plain.embeddings, atol=1e-3)
    with_mask = EncodeParameters(mask_special=True)
    assert encoder.fingerprint(with_mask) != encoder.fingerprint(EncodeParameters())
