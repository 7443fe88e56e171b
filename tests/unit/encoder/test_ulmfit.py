"""ULMFiT: fastai's files read safely, its rules, and vectors against an LSTM written out step by step."""

from __future__ import annotations

import json
import os
import pickle
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

from flowdex.documents import DocumentBatch
from flowdex.errors import ConfigurationError, InvalidInput
from flowdex_executors import DocumentColumns, UlmfitEncoder
from flowdex_executors.encoder.tokenising import TokeniseOptions, TokenSequence
from flowdex_executors.encoder.ulmfit.awd_lstm import AwdLstm
from flowdex_executors.encoder.ulmfit.rules import apply_rules
from flowdex_executors.encoder.ulmfit.tokenizer import FastaiTokenizer
from flowdex_executors.encoder.ulmfit.vocabulary import Vocabulary, read_vocabulary
from flowdex_executors.encoder.ulmfit.weights import read_sizes, read_weights

SPECIAL = ["xxunk", "xxpad", "xxbos", "xxeos", "xxfld", "xxrep", "xxwrep", "xxup", "xxmaj"]
WORDS = [
    "the",
    "of",
    "neural",
    "search",
    "flow",
    "hello",
    "world",
    "!",
    ",",
    ".",
    "-",
    "'s",
    "n't",
    "do",
    "it",
    "3",
    "4",
    "5",
    "\n",
    "\n\n",
]
TOKENS = [*SPECIAL, *WORDS]
SIZES = (6, 9, 9, 6)
TEXTS = ["Hello world!", "the flow of neural search", "SEARCH, don't!!!! it", "a", "it's\nthe world", "world " * 40]

Arrays = dict[str, Tensor]
pytestmark = pytest.mark.usefixtures("one_thread")


def some_arrays(sizes: tuple[int, ...] = SIZES, seed: int = 0) -> Arrays:
    """A language model as `torch.nn.LSTM` names it, a layer a number."""
    generator = torch.Generator().manual_seed(seed)

    def array(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator) * 0.6

    arrays = {"embeddings": array(len(TOKENS), sizes[0])}
    for layer, (size, hidden) in enumerate(pairwise(sizes)):
        arrays[f"{layer}.weight_ih_l0"] = array(4 * hidden, size)
        arrays[f"{layer}.weight_hh_l0"] = array(4 * hidden, hidden)
        arrays[f"{layer}.bias_ih_l0"] = array(4 * hidden)
        arrays[f"{layer}.bias_hh_l0"] = array(4 * hidden)
    return arrays


def fastai_names(arrays: Arrays, spelling: str) -> dict[str, Any]:
    """The same as a version of fastai saves it, with all that it saves beside."""
    prefix = {"encoder": "", "classifier": "0.module."}.get(spelling, "0.")
    table = arrays["embeddings"]
    saved: dict[str, Any] = {f"{prefix}encoder.weight": table}
    dropout = "encoder_with_dropout.embed.weight" if spelling == "0.7" else "encoder_dp.emb.weight"
    saved[prefix + dropout] = table
    for name, array in arrays.items():
        if name == "embeddings":
            continue
        layer, parameter = name.split(".")
        lstm = f"{prefix}rnns.{layer}."
        if parameter != "weight_hh_l0":
            saved[f"{lstm}module.{parameter}"] = array
        elif spelling == "0.7":
            saved[f"{lstm}module.{parameter}_raw"] = array
        else:
            saved[f"{lstm}{parameter}_raw"] = array
            saved[f"{lstm}module.{parameter}"] = array * (torch.arange(array.shape[1]) % 2)  # dropped out, as left
    if spelling not in ("encoder", "classifier"):
        saved["1.decoder.weight"] = table
        saved["1.decoder.bias"] = torch.zeros(len(table))
    if spelling == "classifier":
        saved["1.layers.0.weight"] = torch.zeros(3 * SIZES[-1])
    return saved


def run(arrays: Arrays, ids: list[int]) -> list[Tensor]:
    """Vectors of each layer, by the equations of the LSTM."""
    values = [arrays["embeddings"][ids].double()]
    for layer in range(len(SIZES) - 1):
        w_ih, w_hh, b_ih, b_hh = (
            arrays[f"{layer}.{name}"].double() for name in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
        )
        hidden = memory = torch.zeros(w_hh.shape[1], dtype=torch.float64)
        outputs = []
        for value in values[-1]:
            i, f, g, o = (w_ih @ value + b_ih + w_hh @ hidden + b_hh).chunk(4)
            memory = f.sigmoid() * memory + i.sigmoid() * g.tanh()
            hidden = o.sigmoid() * memory.tanh()
            outputs.append(hidden)
        values.append(torch.stack(outputs))
    return [value.float() for value in values]


@pytest.fixture(scope="module")
def arrays() -> Arrays:
    return some_arrays()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, arrays: Arrays) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("ulmfit")
    torch.save(fastai_names(arrays, "2"), folder / "lstm_fwd.pth")
    (folder / "itos.pkl").write_bytes(pickle.dumps(TOKENS))
    return {"weights": str(folder / "lstm_fwd.pth"), "vocabulary": str(folder / "itos.pkl")}


@pytest.fixture(scope="module")
def encoder(files: dict[str, str]) -> Iterator[UlmfitEncoder]:
    encoder = UlmfitEncoder(**files, threads=2, batch_tokens=64)
    yield encoder
    encoder.close()


def columns(texts: list[str], **fields: Any) -> DocumentColumns:
    return DocumentColumns(DocumentBatch.from_columns(texts=texts, **fields))


async def vectors_of(encoder: UlmfitEncoder, texts: list[str], **parameters: Any) -> np.ndarray[Any, Any]:
    reply = await encoder.encode(docs=columns(texts), parameters=parameters)
    vectors = reply.batch.embeddings
    assert vectors is not None
    return vectors


# ---- the forward pass ----


@pytest.mark.parametrize("spelling", ["0.7", "1", "2", "encoder", "classifier"])
@pytest.mark.parametrize("kind", ["pth", "legacy", "model", "safetensors"])
def test_every_spelling_gives_the_lstms_own_vectors(tmp_path: Path, arrays: Arrays, spelling: str, kind: str) -> None:
    saved = fastai_names(arrays, spelling)
    path = tmp_path / ("model.safetensors" if kind == "safetensors" else "model.pth")
    if kind == "safetensors":
        save_file({name: array.clone().contiguous() for name, array in saved.items()}, path)
    elif kind == "model":
        torch.save({"model": saved, "opt": {"hypers": [{"lr": 0.1}], "state": [{}]}}, path)
    else:
        torch.save(saved, path, _use_new_zipfile_serialization=kind == "pth")
    assert read_sizes(path) == SIZES
    backend = AwdLstm(read_weights(path))
    assert backend.dimensions == SIZES
    sequences = [TokenSequence(ids) for ids in ([2, 9, 10], [2], [2, 11, 9, 14, 15, 16, 9], [5, 6, 7])]
    computed = backend.forward(sequences, (-1, 0, 1, 2))
    assert computed.lengths.tolist() == [3, 1, 7, 3]
    expected = [run(arrays, sequence.ids) for sequence in sequences]
    for layer, values in zip((3, 0, 1, 2), computed.layers, strict=True):
        torch.testing.assert_close(values, torch.cat([each[layer] for each in expected]), rtol=1e-5, atol=1e-6)


def test_equals_torchs_lstm_on_published_sizes() -> None:
    """The published 400, 1152, 1152, 400, with embeddings of few tokens."""
    arrays = {name: array * 0.1 for name, array in some_arrays((400, 1152, 1152, 400)).items()}
    from flowdex_executors.encoder.ulmfit.weights import AwdLstmWeights

    layers = [
        {key.split(".")[1]: array for key, array in arrays.items() if key.startswith(f"{layer}.")} for layer in range(3)
    ]
    backend = AwdLstm(AwdLstmWeights(arrays["embeddings"], layers))
    assert backend.dimensions == (400, 1152, 1152, 400)
    ids = [[2, 9, 10, 11], [2, 12]]
    values = backend.forward([TokenSequence(each) for each in ids]).layers[0]
    expected = []
    with torch.no_grad():
        for each in ids:
            value = arrays["embeddings"][each]
            for layer in layers:
                lstm = torch.nn.LSTM(value.shape[1], layer["weight_hh_l0"].shape[1])
                lstm.load_state_dict(layer)
                value = lstm(value)[0]
            expected.append(value)
    torch.testing.assert_close(values, torch.cat(expected), rtol=1e-4, atol=1e-6)


@settings(deadline=None, max_examples=25)
@given(st.lists(st.lists(st.integers(0, len(TOKENS) - 1), min_size=1, max_size=30), min_size=1, max_size=12))
def test_a_batch_of_ids_equals_its_singles(batch: list[list[int]]) -> None:
    backend = _backend()
    together = backend.forward([TokenSequence(ids) for ids in batch], (0, 2, -1))
    alone = [backend.forward([TokenSequence(ids)], (0, 2, -1)).layers for ids in batch]
    for position, values in enumerate(together.layers):
        torch.testing.assert_close(values, torch.cat([each[position] for each in alone]), rtol=1e-5, atol=1e-6)


_BACKENDS: list[AwdLstm] = []


def _backend() -> AwdLstm:
    """One for all examples, which hypothesis gives no fixtures of a function's scope."""
    if not _BACKENDS:
        from flowdex_executors.encoder.ulmfit.weights import AwdLstmWeights

        arrays = some_arrays()
        layers = [{key[2:]: array for key, array in arrays.items() if key.startswith(f"{n}.")} for n in range(3)]
        _BACKENDS.append(AwdLstm(AwdLstmWeights(arrays["embeddings"], layers)))
    return _BACKENDS[0]


# ---- the encoder ----


async def test_concat_pooling_of_the_last_layer(encoder: UlmfitEncoder, arrays: Arrays) -> None:
    vectors = await vectors_of(encoder, TEXTS)
    assert vectors.shape == (len(TEXTS), 18)
    for text, vector in zip(TEXTS, vectors, strict=True):
        [sequence] = encoder.tokenise([text])
        top = run(arrays, sequence.ids)[3]
        expected = torch.cat([top[-1], top.max(0).values, top.mean(0)]).numpy()
        np.testing.assert_allclose(vector, expected, rtol=1e-5, atol=1e-6)
    status = await encoder.status()
    assert status["model"] == "lstm_fwd"
    assert status["pooling"] == ["last", "max", "mean"]
    assert status["dimensions"] == 18
    assert status["backward"] is False


async def test_the_fingerprint_is_that_of_weights_vocabulary_and_direction(
    encoder: UlmfitEncoder, files: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "itos.json").write_text(json.dumps(TOKENS))
    (tmp_path / "other.json").write_text(json.dumps(TOKENS[::-1]))
    (tmp_path / "other").mkdir()
    torch.save(fastai_names(some_arrays(seed=1), "2"), tmp_path / "other" / "lstm_fwd.pth")
    own = (await encoder.status())["fingerprint"]
    for options, same in (
        ({"vocabulary": str(tmp_path / "itos.json")}, True),  # the same tokens in another file
        ({"vocabulary": str(tmp_path / "other.json")}, False),
        ({"weights": str(tmp_path / "other" / "lstm_fwd.pth")}, False),
        ({"backward": True}, False),
        ({"max_length": 100, "threads": 2}, True),
    ):
        other = UlmfitEncoder(**{**files, **options})
        assert ((await other.status())["fingerprint"] == own) is same, options
        other.close()


@pytest.mark.parametrize("layers", [[0], [1], [-2], [0, 3], [3, 1, 2]])
async def test_layers(encoder: UlmfitEncoder, arrays: Arrays, layers: list[int]) -> None:
    vectors = await vectors_of(encoder, TEXTS, layers=layers, pooling="mean")
    for text, vector in zip(TEXTS, vectors, strict=True):
        [sequence] = encoder.tokenise([text])
        computed = run(arrays, sequence.ids)
        expected = torch.cat([computed[layer].mean(0) for layer in layers]).numpy()
        np.testing.assert_allclose(vector, expected, rtol=1e-5, atol=1e-6)


@settings(deadline=None, max_examples=15)
@given(st.lists(st.sampled_from(TEXTS), min_size=1, max_size=12), st.randoms(use_true_random=False))
def test_a_text_has_one_vector_in_any_company(encoder: UlmfitEncoder, texts: list[str], random: Any) -> None:
    import asyncio

    order = list(range(len(texts)))
    random.shuffle(order)
    together = asyncio.run(vectors_of(encoder, [texts[index] for index in order]))
    for position, index in enumerate(order):
        alone = asyncio.run(vectors_of(encoder, [texts[index]]))[0]
        np.testing.assert_allclose(together[position], alone, rtol=1e-5, atol=1e-6)


async def test_a_backward_model_reads_from_the_end(files: dict[str, str], arrays: Arrays) -> None:
    encoder = UlmfitEncoder(**files, backward=True, threads=1)
    try:
        reply = await encoder.encode(docs=columns(["Hello world"]), parameters={"tokens": True})
        assert reply.batch.column("token_texts") == [["world", "hello", "xxmaj", "xxbos"]]
        assert np.array_equal(reply.batch.column("token_spans")[0], [[6, 11], [0, 5], [0, 5], [0, 0]])
        ids = [TOKENS.index(token) for token in ("world", "hello", "xxmaj", "xxbos")]
        top = run(arrays, ids)[3]
        assert reply.batch.embeddings is not None
        np.testing.assert_allclose(reply.batch.embeddings[0][:6], top[-1].numpy(), rtol=1e-5, atol=1e-6)
    finally:
        encoder.close()


async def test_pairs_and_attention_are_refused(encoder: UlmfitEncoder) -> None:
    with pytest.raises(InvalidInput, match="pairs"):
        await encoder.encode(docs=columns(["a"], text_pair=["b"]))
    with pytest.raises(InvalidInput, match="attention"):
        await encoder.encode(docs=columns(["a"]), parameters={"attention": True})
    with pytest.raises(InvalidInput, match="attention"):
        encoder.backend.forward([TokenSequence([2])], attention=True)


async def test_long_texts_are_cut_or_read_in_windows(encoder: UlmfitEncoder, arrays: Arrays) -> None:
    bos, world, flow = (TOKENS.index(token) for token in ("xxbos", "world", "flow"))
    text = "world , " * 5 + "flow"
    comma = TOKENS.index(",")

    async def mean(**parameters: Any) -> np.ndarray[Any, Any]:
        return (await vectors_of(encoder, [text], pooling="mean", max_length=5, **parameters))[0]

    def expected(ids: list[int]) -> np.ndarray[Any, Any]:
        mean: np.ndarray[Any, Any] = run(arrays, [bos, *ids])[3].mean(0).numpy()
        return mean

    head, tail = expected([world, comma, world, comma]), expected([comma, world, comma, flow])
    np.testing.assert_allclose(await mean(), head, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(await mean(truncation="tail"), tail, rtol=1e-5, atol=1e-6)
    windows = (5 * 2 * head + 4 * expected([world, comma, flow])) / 14
    np.testing.assert_allclose(await mean(truncation="window_mean"), windows, rtol=1e-5, atol=1e-6)
    with pytest.raises(InvalidInput, match="more than 5 tokens"):
        await mean(truncation="error")


def test_describe_and_check(files: dict[str, str], tmp_path: Path) -> None:
    assert UlmfitEncoder.describe(files) == {
        "model": "lstm_fwd",
        "dimensions": 18,
        "pooling": ["last", "max", "mean"],
        "normalize": False,
        "max_tokens": 1440,
    }
    some = {**files, "layers": [0, 1], "pooling": "mean"}
    assert UlmfitEncoder.describe(some)["dimensions"] == 15
    assert UlmfitEncoder.check(files) == []
    assert UlmfitEncoder.check({**files, "max_length": 1})[0].startswith("max_length: ")
    assert UlmfitEncoder.check({**files, "vocabulary": str(tmp_path / "no.pkl")})[0].startswith("vocabulary: ")
    for wrong in ({}, {"weights": str(tmp_path / "no.pth")}, {**files, "layers": 4}):
        with pytest.raises(ConfigurationError):
            UlmfitEncoder.describe(wrong)


def test_options_that_are_wrong(files: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "short.json").write_text(json.dumps(TOKENS[:-1]))
    for options, said in (
        ({}, "weights: ULMFiT has no default model"),
        ({"weights": files["weights"]}, "vocabulary: ULMFiT has no default model"),
        ({**files, "max_length": 1}, "max_length: "),
        ({**files, "vocabulary": str(tmp_path / "short.json")}, "not of the same model"),
        ({**files, "device": "cuda:99"}, "device"),
    ):
        with pytest.raises(ConfigurationError, match=said):
            UlmfitEncoder(**options)


# ---- weights: what is wrong in a file is named, and nothing in it is run ----


class Hostile:
    """Pickles as a call that leaves a file behind."""

    def __init__(self, witness: Path) -> None:
        self._witness = witness

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self._witness),)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("place", ["whole", "value", "opt"])
def test_a_hostile_pth_is_refused_and_not_run(tmp_path: Path, arrays: Arrays, zipped: bool, place: str) -> None:
    witness, path = tmp_path / "witness", tmp_path / "lstm.pth"
    hostile = Hostile(witness)
    saved = fastai_names(arrays, "2")
    content: Any = {"whole": hostile, "value": {**saved, "x": hostile}, "opt": {"model": saved, "opt": hostile}}[place]
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    for read in (read_weights, read_sizes):
        with pytest.raises(ConfigurationError, match=r"lstm\.pth holds more than arrays.*state_dict"):
            read(path)
    assert not witness.exists()
    torch.load(path, weights_only=False)  # proves that the file would have done it
    assert witness.exists()


def test_a_plain_pickle_for_weights_is_refused_and_not_run(tmp_path: Path) -> None:
    witness, path = tmp_path / "witness", tmp_path / "lstm.pth"
    path.write_bytes(pickle.dumps(Hostile(witness)))
    with pytest.raises(ConfigurationError, match=r"lstm\.pth"):
        read_weights(path)
    assert not witness.exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"nonsense" * 100, b"\x80\x02.", pickle.dumps([1, 2])])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_broken_weights_are_named(tmp_path: Path, content: bytes, suffix: str) -> None:
    path = tmp_path / f"lstm{suffix}"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=f"weights: .*lstm{suffix}"):
        read_weights(path)


def test_a_cut_pth_is_named(tmp_path: Path, arrays: Arrays) -> None:
    whole = tmp_path / "whole.pth"
    for zipped in (True, False):
        torch.save(fastai_names(arrays, "2"), whole, _use_new_zipfile_serialization=zipped)
        path = tmp_path / "cut.pth"
        path.write_bytes(whole.read_bytes()[:-700])
        with pytest.raises(ConfigurationError, match=r"weights: .*cut\.pth"):
            read_weights(path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"0.encoder.weight": None}, "has no 0.encoder.weight"),
        ({"0.rnns.1.module.bias_hh_l0": None}, r"has no 0.rnns.1.module.bias_hh_l0"),
        ({"0.rnns.2.module.weight_ih_l0": torch.zeros(24, 8)}, r"0.rnns.2.module.weight_ih_l0 .*\(24, 8\).*\(24, 9\)"),
        ({"0.rnns.0.weight_hh_l0_raw": torch.zeros(36, 8)}, r"0.rnns.0.module.weight_ih_l0 .*\(32, 6\)"),
        ({"0.rnns.0.module.bias_ih_l0": torch.zeros(36, dtype=torch.int64)}, "floating-point"),
        ({"0.rnns.0.module.bias_ih_l0": "text"}, "0.rnns.0.module.bias_ih_l0 is not an array"),
        ({"0.encoder.weight": torch.zeros(0, 6)}, r"0.encoder.weight .*\(0, 6\)"),
        ({"0.rnns.0.module.weight_hh_l0_reverse": torch.zeros(1)}, "bidirectional"),
        ({"0.rnns.0.layers.0.linear.weight": torch.zeros(1)}, "QRNN"),
    ],
)
def test_what_is_wrong_is_named_by_file_and_key(
    tmp_path: Path, arrays: Arrays, change: dict[str, Any], said: str
) -> None:
    saved = {key: value for key, value in {**fastai_names(arrays, "1"), **change}.items() if value is not None}
    path = tmp_path / "lstm.pth"
    torch.save(saved, path)
    with pytest.raises(ConfigurationError, match=r"lstm\.pth.*" + said):
        read_weights(path)


def test_half_precision_becomes_single(tmp_path: Path, arrays: Arrays) -> None:
    path = tmp_path / "lstm.pth"
    torch.save({name: array.half() for name, array in fastai_names(arrays, "2").items()}, path)
    weights = read_weights(path)
    assert weights.embeddings.dtype == torch.float32
    torch.testing.assert_close(weights.embeddings, arrays["embeddings"].half().float())


# ---- vocabulary ----


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickled_lists_of_strings(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "itos.pkl"
    tokens = [*TOKENS, "é", "東京", "x" * 300, "the", *(str(number) for number in range(3000))]
    path.write_bytes(pickle.dumps(tokens, protocol))
    vocabulary = read_vocabulary(path)
    assert list(vocabulary.tokens) == tokens
    assert vocabulary.ids(["the", "neural", "no such word", "2999"]) == [9, 11, 0, len(tokens) - 1]
    assert vocabulary.beginning == 2


@given(st.lists(st.text(), min_size=1), st.integers(0, pickle.HIGHEST_PROTOCOL))
def test_any_pickled_list_of_strings_is_read_as_pickle_does(tokens: list[str], protocol: int) -> None:
    from flowdex_executors.encoder.ulmfit.vocabulary import _read_pickle

    assert _read_pickle(pickle.dumps(tokens * 2, protocol)) == tokens * 2


@given(st.binary(max_size=200))
def test_any_bytes_are_a_vocabulary_or_an_error(data: bytes) -> None:
    from flowdex_executors.encoder.ulmfit.vocabulary import _read_pickle

    with suppress(ConfigurationError, ValueError):
        _read_pickle(data)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_hostile_vocabulary_is_refused_and_not_run(tmp_path: Path, protocol: int) -> None:
    witness, path = tmp_path / "witness", tmp_path / "itos.pkl"
    path.write_bytes(pickle.dumps([*TOKENS, Hostile(witness)], protocol))
    with pytest.raises(ConfigurationError, match=r"itos\.pkl.*opcode.*JSON"):
        read_vocabulary(path)
    assert not witness.exists()


@pytest.mark.parametrize(
    "data",
    [
        b"cos\nmkdir\n(S'/tmp/flowdex-witness'\ntR.",  # GLOBAL, REDUCE
        b"(S'/tmp/flowdex-witness'\nios\nmkdir\n.",  # INST
        b"\x80\x04\x8c\x02os\x8c\x05mkdir\x93.",  # STACK_GLOBAL
        b"\x80\x02\x82\x01.",  # EXT1
        b"Ppersistent\n.",
        b"(dp0\n.",  # a dictionary
        b"]K\x01a.",  # a number in it
        b"](lp0\na.",  # a list in it
        b"]p0\ng0\na.",  # itself in it
        b"]a.",
        b"a.",
        b"e.",
        b"(.",
        b".",
        b"g5\n.",
        b"]",
        b"",
        b"\x80\x04X\xff\xff\xff\x7fabc",  # a string of 2 GiB, of which there are three bytes
        pickle.dumps([]),
        pickle.dumps({"the": 1}),
        pickle.dumps(("the",)),
        pickle.dumps("the"),
    ],
)
def test_other_pickles_are_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "itos.pkl"
    path.write_bytes(data)
    with pytest.raises(ConfigurationError, match=r"vocabulary: .*itos\.pkl"):
        read_vocabulary(path)
    assert not Path("/tmp/flowdex-witness").exists()


def test_json_and_text_vocabularies(tmp_path: Path) -> None:
    (tmp_path / "itos.json").write_text(json.dumps(TOKENS))
    (tmp_path / "itos.txt").write_text("\n".join(TOKENS).replace("\n\n\n\n\n", "\n\\n\n\\n\\n\n"))
    assert list(read_vocabulary(tmp_path / "itos.json").tokens) == TOKENS
    assert list(read_vocabulary(tmp_path / "itos.txt").tokens) == TOKENS


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("itos.json", b'{"the": 1}'),
        ("itos.json", b'["the", 1]'),
        ("itos.json", b"[]"),
        ("itos.json", b"[" * 100_000),
        ("itos.json", b"\xff"),
        ("itos.txt", b"the\n\nof\n"),
        ("itos.txt", b""),
        ("itos.txt", b"\xff\n"),
    ],
)
def test_broken_vocabularies_are_named(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigurationError, match=f"vocabulary: .*{name}"):
        read_vocabulary(tmp_path / name)


def test_old_vocabularies() -> None:
    vocabulary = Vocabulary(["_pad_", "_unk_", "the"])
    assert vocabulary.unknown == 1
    assert vocabulary.beginning is None
    tokenizer = FastaiTokenizer(vocabulary)
    assert tokenizer.tokenise(["the The"], TokeniseOptions())[0].ids == [2, 1, 2]


# ---- rules and tokens ----


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("Hello World", "xxmaj hello xxmaj world"),
        ("HELLO I A am", "xxup hello i a am"),
        ("a NASA-built B2B iPhone", "a nasa - built xxup b2b iphone"),  # the first is neither all nor first in capitals
        ("good!!!! 1000000", "good xxrep 4 ! 1 xxrep 6 0"),
        ("no no no no way", "xxwrep 4 no way"),
        ("no no way", "no no way"),
        ("a/b #tag c\\d", "a / b # tag c \\ d"),
        ("it's   don't", "it 's do n't"),
        ("I#39;m AT&T &lt;b&gt; x@@y", "xxmaj i 'm xxup at & t < b > x @ @ y"),
        ("a &amp; b", "a & & b"),  # what fastai's replacement of "amp;" leaves
        ("one<br />two", "one \n two"),
        ("one\\ntwo", "one \n two"),
        ("one\n\ntwo", "one \n\n two"),
        (" @-@ 3 @.@ 5 <unk>", "- 3.5 xxunk"),
        ("well-known …", "well - known …"),
        ("wait...", "wait …"),
        ("  \n padded \n ", "padded"),
        ("ÉTÉ İstanbul", "été i̇stanbul"),
    ],
)
def test_rules_are_fastais(text: str, tokens: str) -> None:
    vocabulary = Vocabulary(["xxunk", "xxbos", *dict.fromkeys(tokens.split(" "))])
    [sequence] = FastaiTokenizer(vocabulary).tokenise([text], TokeniseOptions(spans=True))
    found = FastaiTokenizer(vocabulary).tokens(sequence)
    marked = apply_rules(text)
    assert found == ["xxbos", *tokens.split(" ")], marked.text


def test_spans_are_those_of_the_callers_text() -> None:
    text = "It&amp;s SO   good!!!! No no no Ü"
    tokenizer = FastaiTokenizer(Vocabulary(["xxunk", "xxbos"]))
    [sequence] = tokenizer.tokenise([text], TokeniseOptions(spans=True))
    assert sequence.special == (0,)
    assert sequence.spans is not None
    assert sequence.spans[0] == (0, 0)
    covered = [text[start:end] for start, end in sequence.spans[1:]]
    # xxmaj it & & s xxup so good xxrep 4 ! xxmaj no no no ü
    assert covered == [
        "It&amp;s",
        "It",
        "&",
        "amp;",
        "s",
        "SO",
        "SO",
        "good",
        "!!!!",
        "!!!!",
        "!!!!",
        "No",
        "No",
        "no",
        "no",
        "Ü",
    ]


@given(st.text(max_size=60))
def test_any_text_gives_spans_within_it(text: str) -> None:
    tokenizer = FastaiTokenizer(Vocabulary(["xxunk", "xxbos", *"abc"]))
    with_spans, without = (tokenizer.tokenise([text], TokeniseOptions(spans=spans))[0] for spans in (True, False))
    assert with_spans.ids == without.ids
    assert with_spans.spans is not None
    assert len(with_spans.spans) == len(with_spans)
    for position, (start, end) in enumerate(with_spans.spans):
        assert 0 <= start < end <= len(text) or (position in with_spans.special and (start, end) == (0, 0))
    assert len(with_spans) == 0 or with_spans.ids[0] == 1


def test_words_of_the_callers_own() -> None:
    tokenizer = FastaiTokenizer(Vocabulary(TOKENS))
    [sequence] = tokenizer.tokenise([["Hello", "no-such", "world"]], TokeniseOptions(spans=True))
    assert tokenizer.tokens(sequence) == ["xxbos", "xxmaj", "hello", "xxunk", "world"]
    assert sequence.spans == [(0, 0), (0, 5), (0, 5), (6, 13), (14, 19)]


def test_far_too_long_texts_are_not_read_to_their_end() -> None:
    tokenizer = FastaiTokenizer(Vocabulary(TOKENS))
    text = "hello world, " * 20_000
    [quick] = tokenizer.tokenise([text], TokeniseOptions(max_tokens=40))
    [exact] = tokenizer.tokenise([text], TokeniseOptions(max_tokens=40, exact=True))
    assert quick.ids == exact.ids
    assert len(quick) == 40
    assert exact.dropped == 60_000 - 39
    assert quick.dropped > 0


@pytest.mark.parametrize("unit", ["A", "AB", "Ab", "a ", "a  ", "&", "&a", "!", "/", "no ", "a\n", "...", "-", "xX"])
def test_no_text_takes_more_than_linear_time(unit: str) -> None:
    text = unit * (60_000 // len(unit)) + "b"
    start = time.process_time()
    FastaiTokenizer(Vocabulary(TOKENS)).tokenise([text], TokeniseOptions(spans=True, max_tokens=1000, exact=True))
    assert time.process_time() - start < 5  # quadratic would be minutes
