"""/attention against transformers' own: weights, pairs, layers, limits, and models that do not tell theirs."""

from __future__ import annotations

import asyncio
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from flowdex.documents import DocumentBatch
from flowdex.errors import ConfigurationError, InvalidInput, TooLarge
from flowdex_executors import BertEncoder, DocumentColumns, OnnxEncoder, WordVectorEncoder
from flowdex_executors.encoder.attention import AttentionSource
from flowdex_executors.encoder.model_files import read_model
from flowdex_executors.encoder.packed_bert import PackedBert
from flowdex_executors.encoder.tokenising import TextTokenizer, TokeniseOptions

TEXTS = ["hello world", "the flow of search is a neural thing", "東京 日本", "a"]
PAIR = ("hello neural world", "the search")


async def attend(encoder: Any, texts: list[str], pairs: list[str] | None = None, **parameters: Any) -> DocumentBatch:
    batch = DocumentBatch.from_columns(ids=[""] * len(texts), texts=texts)
    if pairs is not None:
        batch.set_column("text_pair", pairs)
    return (await encoder.attention(docs=DocumentColumns(batch), parameters=parameters)).batch


def reference(folder: Path, ids: list[int], types: list[int] | None = None) -> npt.NDArray[np.float32]:
    from transformers import AutoModel

    model = AutoModel.from_pretrained(folder, attn_implementation="eager").eval()
    kinds = {} if types is None else {"token_type_ids": torch.tensor([types])}
    with torch.no_grad():
        output = model(torch.tensor([ids]), output_attentions=True, **kinds)
    return np.stack([layer[0].numpy() for layer in output.attentions])


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "mpnet"])
async def test_it_is_what_transformers_says(make_model: Any, family: str) -> None:
    folder = make_model(family)
    tokenizer = TextTokenizer(read_model(folder))
    encoder = BertEncoder(str(folder), threads=1)
    try:
        found = await attend(encoder, TEXTS)
        for text, attention, tokens, spans in zip(
            TEXTS, *(found.column(name) for name in ("attention", "token_texts", "token_spans")), strict=True
        ):
            (sequence,) = tokenizer.tokenise([text], TokeniseOptions())
            expected = reference(folder, sequence.ids)
            assert (attention.dtype, attention.shape) == (np.float32, expected.shape)  # no padding, of whatever length
            np.testing.assert_allclose(attention, expected, rtol=1e-3, atol=1e-5)
            np.testing.assert_allclose(attention.sum(-1), 1, rtol=1e-5)
            assert (tokens[0], tokens[-1], len(tokens)) == ("[CLS]", "[SEP]", attention.shape[-1])
            for token, (start, end) in zip(tokens[1:-1], spans.tolist()[1:-1], strict=True):
                assert token.removeprefix("##") in (text[start:end], "[UNK]")
        about = {"model": encoder.model, "layers": [*range(len(expected))], "pair_start": None}
        assert found.column("attention_about") == [about] * len(TEXTS)
        assert found.column("embedding") == [None] * len(TEXTS)
        shape = {"layers": expected.shape[0], "heads": expected.shape[1]}
        assert encoder.about()["attention"] == shape
    finally:
        encoder.close()


@pytest.mark.parametrize("backend", ["packed", "transformers"])
async def test_a_pair_is_one_sequence_of_two_types(make_model: Any, backend: str) -> None:
    folder = make_model("bert")
    (sequence,) = TextTokenizer(read_model(folder)).tokenise([PAIR], TokeniseOptions())
    assert sequence.type_ids is not None
    encoder = BertEncoder(str(folder), threads=1, backend=backend)
    try:
        found = await attend(encoder, [PAIR[0]], [PAIR[1]])
    finally:
        encoder.close()
    (attention,), (tokens,), (about,) = (found.column(name) for name in ("attention", "token_texts", "attention_about"))
    start = int(about["pair_start"])
    np.testing.assert_allclose(attention, reference(folder, sequence.ids, sequence.type_ids), rtol=1e-3, atol=1e-5)
    assert tokens[start - 1 : start + 1] == ["[SEP]", "the"]
    assert sequence.type_ids.index(1) == start
    assert found.column("token_spans")[0].tolist()[start] == [0, 3]  # in its own text


async def test_layers_and_number_type(make_model: Any) -> None:
    encoder = BertEncoder(str(make_model("bert")), threads=1)
    try:
        (whole,) = (await attend(encoder, TEXTS[:1])).column("attention")
        chosen = await attend(encoder, TEXTS[:1], layers=[-1, 0])
        (some,) = chosen.column("attention")
        assert chosen.column("attention_about")[0]["layers"] == [2, 0]
        (half,) = (await attend(encoder, TEXTS[:1], layers=1, dtype="float16")).column("attention")
        np.testing.assert_array_equal(some, whole[[2, 0]])
        assert (half.dtype, half.shape) == (np.float16, (1, *whole.shape[1:]))
        np.testing.assert_allclose(half[0], whole[1], atol=1e-3)
        with pytest.raises(InvalidInput, match="there is no layer 3 of attention; this model has 3: 0 to 2"):
            await attend(encoder, TEXTS[:1], layers=3)
        with pytest.raises(InvalidInput, match="layers"):
            await attend(encoder, TEXTS[:1], layers=[])
        with pytest.raises(InvalidInput, match="document 0 has a blank text"):
            await attend(encoder, [" "])
    finally:
        encoder.close()


async def test_limits_name_themselves(make_model: Any) -> None:
    folder = str(make_model("bert"))
    encoder = BertEncoder(folder, threads=1, attention_tokens=8)
    try:
        with pytest.raises(TooLarge, match=r"document 1 has more than the 8 tokens .* raise attention_tokens"):
            await attend(encoder, ["hello", "the flow of neural search and"])
        with pytest.raises(TooLarge, match="the text has more than the 8 tokens"):
            await attend(encoder, ["hello world"], ["the flow of search"])
        fits = await attend(encoder, ["the flow of neural search hello"])
        assert fits.column("attention")[0].shape == (3, 4, 8, 8)
        with pytest.raises(TooLarge, match="32 MiB"):
            await attend(encoder, ["the flow of neural search hello"] * 12_000)
    finally:
        encoder.close()
    with pytest.raises(ConfigurationError, match="attention_tokens must be a whole number"):
        BertEncoder(folder, attention_tokens=0)
    assert BertEncoder.check({"model": folder, "attention_tokens": "many"}) == [
        "attention_tokens: must be a whole number of at least 1, got 'many'"
    ]


async def test_it_shares_batches_with_encode(make_model: Any) -> None:
    encoder = BertEncoder(str(make_model("bert")), threads=1)
    try:

        async def encode() -> Any:
            docs = DocumentColumns(DocumentBatch.from_columns(texts=TEXTS))
            return (await encoder.encode(docs=docs, parameters={"attention": True, "tokens": True})).batch

        alone = await attend(encoder, TEXTS)
        encoded, *together = await asyncio.gather(encode(), *(attend(encoder, TEXTS) for _ in range(4)))
        for found in (encoded, *together):
            for one, other in zip(found.column("attention"), alone.column("attention"), strict=True):
                np.testing.assert_allclose(one, other, atol=1e-6)
        assert encoded.embeddings.shape == (4, 32)
    finally:
        encoder.close()


@pytest.mark.parametrize(("backend", "package"), [("onnx", "onnxruntime"), ("ctranslate2", "ctranslate2")])
async def test_fused_backends_answer_with_the_folders_own_weights(make_model: Any, backend: str, package: str) -> None:
    pytest.importorskip(package, reason=f"{package} is not installed")
    folder = str(make_model("bert"))
    exact = BertEncoder(folder, threads=1)
    encoder = BertEncoder(folder, threads=1, backend=backend, quantization="int8")
    try:
        assert encoder.about()["attention"] == {"layers": 3, "heads": 4}
        (wanted,) = (await attend(exact, [PAIR[0]], [PAIR[1]])).column("attention")
        for _ in range(2):
            (found,) = (await attend(encoder, [PAIR[0]], [PAIR[1]])).column("attention")
            np.testing.assert_allclose(found, wanted, atol=1e-6)
        assert encoder.backend.name == f"{backend} int8"  # what encodes is as it was
        with pytest.raises(InvalidInput, match="none to give"):
            docs = DocumentColumns(DocumentBatch.from_columns(texts=TEXTS))
            await encoder.encode(docs=docs, parameters={"attention": True})
    finally:
        encoder.close()
        exact.close()


async def test_a_folder_with_an_onnx_file_only_says_what_it_lacks(make_model: Any, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    from onnx import TensorProto, helper, numpy_helper

    folder = make_model("mpnet")
    copy = tmp_path / "model"
    shutil.copytree(folder, copy)
    weights = (copy / "model.safetensors").rename(tmp_path / "model.safetensors")
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "input_ids"], ["last_hidden_state"])],
        "look-up",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["n", "l"])],
        [helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, ["n", "l", 32])],
        [numpy_helper.from_array(np.random.default_rng(0).random((200, 32), dtype=np.float32), "table")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save_model(model, copy / "model.onnx")
    encoder = BertEncoder(str(copy), threads=1, backend="onnx")
    try:
        with pytest.raises(InvalidInput, match=r"holds an \.onnx file only: put model\.safetensors"):
            await attend(encoder, TEXTS)
        weights.rename(copy / "model.safetensors")
        (found, *_) = (await attend(encoder, TEXTS)).column("attention")
        (sequence,) = TextTokenizer(read_model(folder)).tokenise(TEXTS[:1], TokeniseOptions())
        np.testing.assert_allclose(found, reference(folder, sequence.ids), atol=1e-5)
    finally:
        encoder.close()
    own = OnnxEncoder(str(copy / "model.onnx"), tokenizer=str(copy), threads=1)
    try:
        assert own.about()["attention"] is None
        with pytest.raises(InvalidInput, match=r"model\.onnx.* has no attention to show: only transformers have"):
            await attend(own, TEXTS)
    finally:
        own.close()


async def test_word_vectors_have_none(tmp_path: Path) -> None:
    (tmp_path / "table.txt").write_text("the 1 2\ncat 3 4\n")
    encoder = WordVectorEncoder(str(tmp_path / "table.txt"))
    try:
        with pytest.raises(InvalidInput, match=r"no attention to show.*BertEncoder.*name the one"):
            await attend(encoder, ["the cat"])
    finally:
        encoder.close()


def test_a_model_for_attention_is_loaded_once(make_model: Any) -> None:
    files = read_model(make_model("bert"))
    loads: list[int] = []

    class Mute:
        name, padded, dimensions = "mute", False, (32,)
        forward = PackedBert.forward

    def load() -> PackedBert:
        loads.append(1)
        return PackedBert(files)

    from flowdex_executors.encoder.attention import AttentionModel

    source = AttentionSource(Mute(), AttentionModel((3, 4), load))  # type: ignore[arg-type]
    assert (source.shape, source.backend) == ((3, 4), None)
    threads = [threading.Thread(target=source.load) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(loads), isinstance(source.backend, PackedBert)) == (1, True)
    assert AttentionSource(Mute()).shape is None  # type: ignore[arg-type]
