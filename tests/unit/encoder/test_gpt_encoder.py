"""GptEncoder against transformers itself, one text at a time, on tiny random decoders in the published formats."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flowdex.documents import DocumentBatch
from flowdex.errors import ConfigurationError, InvalidInput
from flowdex_executors import DocumentColumns, GptEncoder

TEXTS = ["Hello world", "the flow of search", "a", "neural " * 6, "vectors, hello!", "the the", "東京 ü"]
TINY: dict[str, dict[str, Any]] = {
    "openai-gpt": {"n_embd": 24, "n_layer": 3, "n_head": 2, "n_positions": 64},
    "gpt2": {"n_embd": 24, "n_layer": 3, "n_head": 2, "n_positions": 64, "bos_token_id": 0, "eos_token_id": 0},
    "gpt_neox": {
        "hidden_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "max_position_embeddings": 64,
        "bos_token_id": 0,
        "eos_token_id": 0,
    },
    "llama": {
        "hidden_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "max_position_embeddings": 64,
        "pad_token_id": None,
        "bos_token_id": 0,
        "eos_token_id": 0,
    },
}
MakeDecoder = Callable[..., Path]
pytestmark = pytest.mark.usefixtures("one_thread")


def train_tokenizer(family: str) -> Any:
    """The family's own kind of byte-pair encoding, learnt from the texts."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    if family == "openai-gpt":  # lowered words, the last letter of which carries </w>
        tokenizer = Tokenizer(models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"))
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        trainer = trainers.BpeTrainer(
            vocab_size=120, special_tokens=["<unk>"], end_of_word_suffix="</w>", show_progress=False
        )
    else:  # bytes, without a token for padding
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=320,
            special_tokens=["<|endoftext|>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
    tokenizer.train_from_iterator(TEXTS * 3, trainer)
    return tokenizer


@pytest.fixture(scope="module")
def make_decoder(tmp_path_factory: pytest.TempPathFactory) -> MakeDecoder:
    def make(family: str, *, seed: int = 0, save: str = "tokenizer.json", **changes: Any) -> Path:
        from transformers import AutoConfig, AutoModel

        folder = tmp_path_factory.mktemp(family)
        tokenizer = train_tokenizer(family)
        if save == "tokenizer.json":
            tokenizer.save(str(folder / "tokenizer.json"))
        else:  # vocab.json and merges.txt, as the models were first published
            tokenizer.model.save(str(folder))
        size = tokenizer.get_vocab_size()
        torch.manual_seed(seed)
        model = AutoModel.from_config(AutoConfig.for_model(family, vocab_size=size, **{**TINY[family], **changes}))
        with torch.no_grad():  # the usual start of ones and zeros would hide a norm or a bias that is left out
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.2)
        model.eval().save_pretrained(folder)
        return folder

    return make


@pytest.fixture(scope="module")
def folder(make_decoder: MakeDecoder) -> Path:
    return make_decoder("gpt2")


@pytest.fixture(scope="module")
def encoder(folder: Path) -> Iterator[GptEncoder]:
    encoder = GptEncoder(str(folder), threads=2, batch_tokens=64)
    yield encoder
    encoder.close()


def reference(folder: Path, text: str) -> Any:
    """All that transformers says of one text."""
    from transformers import AutoModel, PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    model = AutoModel.from_pretrained(folder, attn_implementation="eager").eval()
    ids = tokenizer(text)["input_ids"]
    with torch.no_grad():
        return model(torch.tensor([ids]), output_hidden_states=True, output_attentions=True)


def pooled(values: torch.Tensor, pooling: str) -> np.ndarray[Any, Any]:
    weights = torch.arange(1, len(values) + 1, dtype=torch.float32).unsqueeze(1)
    result: np.ndarray[Any, Any] = {
        "last": values[-1],
        "cls": values[0],
        "mean": values.mean(0),
        "max": values.max(0).values,
        "weighted_mean": (values * weights).sum(0) / weights.sum(),
    }[pooling].numpy()
    return result


def columns(texts: list[str]) -> DocumentColumns:
    return DocumentColumns(DocumentBatch.from_columns(texts=texts))


async def vectors_of(encoder: GptEncoder, texts: list[str], **parameters: Any) -> np.ndarray[Any, Any]:
    reply = await encoder.encode(docs=columns(texts), parameters=parameters)
    vectors = reply.batch.embeddings
    assert vectors is not None
    return vectors


@pytest.mark.parametrize("family", TINY)
async def test_every_layer_and_pooling_equals_transformers(make_decoder: MakeDecoder, family: str) -> None:
    folder = make_decoder(family)
    encoder = GptEncoder(str(folder), threads=1)
    try:
        expected = [reference(folder, text) for text in TEXTS]
        layers = len(expected[0].hidden_states)
        assert encoder.backend.dimensions == (24,) * layers
        for layer in range(-1, layers):
            for pooling in ("last", "mean", "weighted_mean", "max", "cls"):
                vectors = await vectors_of(encoder, TEXTS, layers=[layer], pooling=pooling)
                for vector, output in zip(vectors, expected, strict=True):
                    values = output.last_hidden_state if layer in (-1, layers - 1) else output.hidden_states[layer]
                    np.testing.assert_allclose(vector, pooled(values[0], pooling), rtol=1e-4, atol=1e-5)
        default = await vectors_of(encoder, TEXTS)
        weighted = [pooled(output.last_hidden_state[0], "weighted_mean") for output in expected]
        np.testing.assert_allclose(default, weighted, rtol=1e-4, atol=1e-5)
    finally:
        encoder.close()


@pytest.mark.parametrize("family", ["openai-gpt", "gpt2"])
async def test_attention_and_tokens(make_decoder: MakeDecoder, family: str) -> None:
    folder = make_decoder(family)
    encoder = GptEncoder(str(folder), threads=1)
    try:
        reply = await encoder.encode(docs=columns(TEXTS), parameters={"attention": True, "tokens": True})
        for text, attention, tokens, spans in zip(
            TEXTS, *(reply.batch.column(name) for name in ("attention", "token_texts", "token_spans")), strict=True
        ):
            output = reference(folder, text)
            wanted = torch.stack([layer[0] for layer in output.attentions]).numpy()
            np.testing.assert_allclose(attention, wanted, rtol=1e-4, atol=1e-5)
            assert not np.triu(attention, 1).any()  # no token sees a later one
            assert len(tokens) == len(spans) == wanted.shape[-1]
            if text.isascii():
                covered = [text[start:end].strip().lower() for start, end in spans]
                assert "".join(covered) == text.replace(" ", "").lower()
        pair = columns(TEXTS[:1])
        pair.batch.set_column("text_pair", TEXTS[1:2])
        seen = (await encoder.attention(docs=pair)).batch
        (attention,), (about,) = seen.column("attention"), seen.column("attention_about")
        start = int(about["pair_start"])
        assert start == len(reply.batch.column("token_texts")[0])
        assert attention.shape[-1] == len(seen.column("token_texts")[0]) > start
        np.testing.assert_allclose(attention.sum(-1), 1, rtol=1e-5)
        assert attention[..., start:, :start].any() and not np.triu(attention, 1).any()
    finally:
        encoder.close()


@settings(deadline=None, max_examples=15)
@given(st.lists(st.sampled_from(TEXTS), min_size=1, max_size=12), st.randoms(use_true_random=False))
def test_a_text_has_one_vector_in_any_company(encoder: GptEncoder, texts: list[str], random: Any) -> None:
    order = list(range(len(texts)))
    random.shuffle(order)
    together = asyncio.run(vectors_of(encoder, [texts[index] for index in order]))
    for position, index in enumerate(order):
        alone = asyncio.run(vectors_of(encoder, [texts[index]]))[0]
        np.testing.assert_allclose(together[position], alone, rtol=1e-4, atol=1e-5)


async def test_older_folders_without_tokenizer_json(make_decoder: MakeDecoder) -> None:
    new, old = make_decoder("gpt2"), make_decoder("gpt2", save="vocab.json")
    assert not (old / "tokenizer.json").exists()
    encoders = [GptEncoder(str(folder), threads=1) for folder in (new, old)]
    first, second = [await vectors_of(encoder, TEXTS) for encoder in encoders]
    np.testing.assert_allclose(first, second, rtol=1e-5, atol=1e-6)
    for encoder in encoders:
        encoder.close()


async def test_what_the_models_own_files_say_of_pooling(make_decoder: MakeDecoder) -> None:
    folder = make_decoder("gpt2")
    assert GptEncoder.describe({"model": str(folder)})["pooling"] == ["weighted_mean"]
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_lasttoken": True}))
    kinds = {"Transformer": "", "Pooling": "1_Pooling", "Normalize": "2_Normalize"}
    (folder / "modules.json").write_text(
        json.dumps([{"path": path, "type": f"sentence_transformers.models.{kind}"} for kind, path in kinds.items()])
    )
    described = GptEncoder.describe({"model": str(folder)})
    assert described["pooling"] == ["last"]
    assert described["normalize"] is True
    encoder = GptEncoder(str(folder), threads=1)
    vectors = await vectors_of(encoder, TEXTS)
    status = await encoder.status()
    encoder.close()
    assert status["pooling"] == ["last"]
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)


async def test_limits(encoder: GptEncoder, folder: Path) -> None:
    status = await encoder.status()
    assert status["max_tokens"] == 64
    assert status["model"] == folder.name
    text = "hello, " * 100
    cut = (await vectors_of(encoder, [text]))[0]
    assert np.isfinite(cut).all()
    with pytest.raises(InvalidInput, match="more than 64 tokens"):
        await vectors_of(encoder, [text], truncation="error")


def test_describe_and_check(folder: Path, tmp_path: Path) -> None:
    model = {"model": str(folder)}
    assert GptEncoder.describe(model) == {
        "model": folder.name,
        "max_tokens": 64,
        "dimensions": 24,
        "pooling": ["weighted_mean"],
        "normalize": False,
    }
    assert GptEncoder.describe({**model, "layers": [0, 1, -1], "pooling": "mean_max"})["dimensions"] == 144
    assert GptEncoder.check(model) == []
    assert GptEncoder.check({**model, "compute_dtype": "int4"})[0].startswith("compute_dtype: ")
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    assert "no weights" in GptEncoder.check({"model": str(tmp_path)})[0]
    with pytest.raises(ConfigurationError, match="no weights"):
        GptEncoder(str(tmp_path))
    for wrong, said in (
        ({}, "model: GPT has no default model"),
        ({"model": ""}, "model: GPT has no default model"),
        ({"model": "./nowhere"}, "no model folder"),
        ({**model, "max_length": 65}, "max_length: 65 is more than the 64 positions"),
        ({**model, "max_length": 0}, "max_length: "),
        ({**model, "layers": 4}, "no layer 4"),
        ({**model, "pooling": "best"}, "pooling"),
    ):
        with pytest.raises(ConfigurationError, match=said):
            GptEncoder.describe(wrong)
        with pytest.raises(ConfigurationError, match=said):
            GptEncoder(**wrong)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_broken_weights_are_named(make_decoder: MakeDecoder, name: str) -> None:
    folder = make_decoder("gpt2")
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(b"nonsense")
    with pytest.raises(ConfigurationError, match=str(folder)):
        GptEncoder(str(folder))


def test_missing_and_misshapen_weights_are_named(make_decoder: MakeDecoder) -> None:
    from safetensors.torch import load_file, save_file

    folder = make_decoder("gpt2")
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in weights if name.endswith("h.1.mlp.c_fc.weight"))
    array = weights.pop(name)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ConfigurationError, match=r"lack h\.1\.mlp\.c_fc\.weight"):
        GptEncoder(str(folder))
    save_file({**weights, name: array[:, 1:].contiguous()}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ConfigurationError, match=str(folder)):
        GptEncoder(str(folder))


def test_hostile_weights_are_not_run(make_decoder: MakeDecoder, tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self) -> Any:
            return Path.mkdir, (tmp_path / "witness",)

    folder = make_decoder("gpt2")
    (folder / "model.safetensors").unlink()
    torch.save({"wte.weight": Hostile()}, folder / "pytorch_model.bin")
    with pytest.raises(ConfigurationError, match=str(folder)):
        GptEncoder(str(folder))
    assert not (tmp_path / "witness").exists()


def test_broken_tokenizers_are_named(make_decoder: MakeDecoder) -> None:
    folder = make_decoder("gpt2")
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(ConfigurationError, match=str(folder)):
        GptEncoder(str(folder))
