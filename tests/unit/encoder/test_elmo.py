"""ELMo's forward pass: against the authors' reference vectors, and against an independent computation."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from elmo_model import TINY, Oracle, changed, write_elmo
from hypothesis import given, settings
from hypothesis import strategies as st

from flowdex.errors import ConfigurationError, InvalidInput
from flowdex_executors.encoder.elmo.backend import ElmoBackend
from flowdex_executors.encoder.elmo.characters import character_ids
from flowdex_executors.encoder.elmo.scalar_mix import ScalarMix
from flowdex_executors.encoder.elmo.weights import read_options, read_weights
from flowdex_executors.encoder.tokenising import TokenSequence

REFERENCE = Path(__file__).parents[4] / "shared" / "data" / "elmo"
SENTENCES = [
    ["The", "cat", "sat"],
    ["a"],
    ["Ünïcödé", "東京", "日本語", "words", "🙂"],
    ["x" * 80, "é" * 40, "short", "."],
    ["the"] * 17,
    ["<S>", "in", "a", "text", "</S>"],
]

needs_reference = pytest.mark.skipif(
    not (REFERENCE / "lm_weights.hdf5").is_file(), reason="the reference files are not in ../shared/data/elmo"
)


def run(backend: ElmoBackend, sentences: Sequence[list[str]], layers: Sequence[int]) -> list[list[np.ndarray]]:
    """For each sentence, its vectors of each layer."""
    computed = backend.forward([TokenSequence(words) for words in sentences], layers)
    assert computed.lengths.tolist() == [len(words) for words in sentences]
    by_layer = [values.split(computed.lengths.tolist()) for values in computed.layers]
    return [[values[index].numpy() for values in by_layer] for index in range(len(sentences))]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_elmo(tmp_path_factory.mktemp("elmo"))


@pytest.fixture(scope="module")
def backend(files: tuple[Path, Path]) -> ElmoBackend:
    return ElmoBackend(*files)


# ---- the reference ----


@pytest.fixture(scope="module")
def batches() -> list[list[list[str]]]:
    """The batches that the reference was computed in: sentence i of each of the three lists."""
    lists = json.loads((REFERENCE / "sentences.json").read_text())
    return [[sentence.split() for sentence in batch] for batch in zip(*lists, strict=True)]


def reference_backend(**options: Any) -> ElmoBackend:
    return ElmoBackend(REFERENCE / "options.json", REFERENCE / "lm_weights.hdf5", **options)


@needs_reference
def test_stateful_reproduces_the_reference(batches: list[list[list[str]]]) -> None:
    """The top layer of every sentence whose vectors the reference holds: those of the first two lists."""
    backend = reference_backend(stateful=True)
    compared = 0
    expected = [h5py.File(REFERENCE / f"lm_embeddings_{row}.hdf5") for row in (0, 1)]
    for number, batch in enumerate(batches):
        computed = run(backend, batch, [2])
        for row, file in enumerate(expected):
            forwards, backwards = file[str(number)][...]
            np.testing.assert_allclose(computed[row][0], np.hstack([forwards, backwards]), rtol=0, atol=1e-5)
            compared += 1
    assert compared == 20


@needs_reference
def test_stateful_agrees_with_the_oracle_in_every_layer(batches: list[list[list[str]]]) -> None:
    """The reference holds the top layer and the word vectors; the oracle has those between, and the third list."""
    backend = reference_backend(stateful=True)
    oracle = Oracle(REFERENCE / "options.json", REFERENCE / "lm_weights.hdf5")
    states: list[dict[Any, Any]] = [{}, {}, {}]
    for batch in batches[:4]:
        for words, state, layers in zip(batch, states, run(backend, batch, [0, 1, 2]), strict=True):
            for values, expected in zip(layers, oracle.layers(words, state), strict=True):
                np.testing.assert_allclose(values, expected, rtol=0, atol=1e-5)


@needs_reference
def test_word_vectors_of_the_reference() -> None:
    words = (REFERENCE / "vocab_test.txt").read_text().strip().split("\n")
    with h5py.File(REFERENCE / "elmo_token_embeddings.hdf5") as file:
        expected = file["embedding"][...]
    assert len(words) == len(expected)
    [[values]] = run(reference_backend(), [words], [0])
    np.testing.assert_allclose(values, np.hstack([expected, expected]), rtol=0, atol=1e-5)


@needs_reference
def test_stateless_is_the_first_batch_of_stateful(batches: list[list[list[str]]]) -> None:
    stateless, stateful = reference_backend(), reference_backend(stateful=True)
    first = run(stateful, batches[0], [0, 1, 2, 3])
    run(stateless, batches[1], [2])  # leaves no trace
    for mine, theirs in zip(run(stateless, batches[0], [0, 1, 2, 3]), first, strict=True):
        for values, expected in zip(mine, theirs, strict=True):
            np.testing.assert_allclose(values, expected, rtol=0, atol=1e-5)
    second = run(stateful, batches[1], [2])[0][0]
    assert np.abs(second - run(stateless, batches[1], [2])[0][0]).max() > 1e-3  # state matters
    stateful.reset()
    np.testing.assert_allclose(run(stateful, batches[1], [2])[0][0], run(stateless, batches[1], [2])[0][0], atol=1e-5)


# ---- an independent computation ----


@pytest.mark.parametrize(
    "options",
    [
        TINY,
        changed({"cell_clip": None, "proj_clip": None}),
        changed({"use_skip_connections": False}, activation="tanh"),
        changed({"n_layers": 3}, n_highway=0),
        changed({"n_layers": 1}, n_highway=1, n_characters=261, filters=[[3, 4]]),
        changed({"projection_dim": 10}, max_characters_per_token=12),  # as many filters: no projection of words
    ],
    ids=["tiny", "no clips", "no residual", "three layers", "one layer", "no projection"],
)
def test_against_the_oracle(tmp_path: Path, options: dict[str, Any]) -> None:
    files = write_elmo(tmp_path, options, seed=1)
    oracle = Oracle(*files)
    count = options["lstm"]["n_layers"] + 1
    for words, layers in zip(SENTENCES, run(ElmoBackend(*files), SENTENCES, range(count + 1)), strict=True):
        expected = oracle.layers(words)
        for values, wanted in zip(layers, expected, strict=False):
            np.testing.assert_allclose(values, wanted, rtol=0, atol=1e-5)
        np.testing.assert_allclose(layers[-1], np.mean(expected, axis=0), rtol=0, atol=1e-5)


@pytest.mark.parametrize("clip", ["cell_clip", "proj_clip"])
def test_the_clips_are_met(tmp_path: Path, clip: str) -> None:
    """The oracle's other tests would prove nothing about clips that are never reached."""
    with_clip = ElmoBackend(*write_elmo(tmp_path / "a", TINY))
    without = ElmoBackend(*write_elmo(tmp_path / "b", changed({clip: None})))
    assert np.abs(run(with_clip, SENTENCES, [2])[0][0] - run(without, SENTENCES, [2])[0][0]).max() > 1e-2


def test_stateful_rows_come_and_go(files: tuple[Path, Path]) -> None:
    """Row i goes on from row i; a row that a batch does not have keeps its state, and a new one starts from zero."""
    backend, oracle = ElmoBackend(*files, stateful=True), Oracle(*files)
    states: list[dict[Any, Any]] = [{}, {}, {}, {}]
    batches = [SENTENCES[:2], SENTENCES[2:3], SENTENCES[1:5], SENTENCES[:3]]
    for batch in batches:
        for words, state, layers in zip(batch, states, run(backend, batch, [0, 1, 2]), strict=False):
            for values, expected in zip(layers, oracle.layers(words, state), strict=True):
                np.testing.assert_allclose(values, expected, rtol=0, atol=1e-5)


def test_stateful_goes_on_where_only_word_vectors_are_asked_for(files: tuple[Path, Path]) -> None:
    one, other = ElmoBackend(*files, stateful=True), ElmoBackend(*files, stateful=True)
    run(one, SENTENCES[:1], [0])
    run(other, SENTENCES[:1], [2])
    np.testing.assert_array_equal(run(one, SENTENCES[:1], [2])[0][0], run(other, SENTENCES[:1], [2])[0][0])


WORDS = st.text(st.characters(exclude_categories=("Cs", "Zs")), min_size=1, max_size=60)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(WORDS, min_size=1, max_size=12), min_size=1, max_size=8), st.randoms())
def test_a_batch_gives_what_singles_give(backend: ElmoBackend, sentences: list[list[str]], random: Any) -> None:
    order = list(range(len(sentences)))
    random.shuffle(order)
    batch = run(backend, [sentences[index] for index in order], [0, 1, 2, 3])
    for index, layers in zip(order, batch, strict=True):
        for values, alone in zip(layers, run(backend, [sentences[index]], [0, 1, 2, 3])[0], strict=True):
            np.testing.assert_allclose(values, alone, rtol=0, atol=1e-5)


def test_long_sequences_are_read_in_parts(files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run(ElmoBackend(*files), SENTENCES, [2])
    monkeypatch.setattr("flowdex_executors.encoder.elmo.lstm._ROWS_AT_ONCE", 4)
    for values, expected in zip(run(ElmoBackend(*files), SENTENCES, [2]), whole, strict=True):
        np.testing.assert_allclose(values[0], expected[0], rtol=0, atol=1e-6)


def test_threads_do_not_disturb_each_other(backend: ElmoBackend) -> None:
    expected = [run(backend, [words], [2])[0][0] for words in SENTENCES]
    wrong: list[int] = []

    def work(shift: int) -> None:
        for round_number in range(10):
            index = (shift + round_number) % len(SENTENCES)
            others = [["other", str(shift), str(round_number)]]
            if not np.allclose(run(backend, [SENTENCES[index], *others], [2])[0][0], expected[index], atol=1e-5):
                wrong.append(index)

    threads = [threading.Thread(target=work, args=(shift,)) for shift in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not wrong


# ---- the parts ----


def test_words_are_remembered_up_to_a_limit(files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    backend = ElmoBackend(*files, cached_words=3)  # two of them are the boundaries
    computed: list[list[str]] = []
    compute = backend._tokens._compute

    def spy(words: Sequence[str]) -> torch.Tensor:
        computed.append(list(words))
        return compute(words)

    monkeypatch.setattr(backend._tokens, "_compute", spy)
    first = run(backend, [["b", "b", "b"]], [0])[0][0]
    assert sorted(computed.pop()) == ["</S>", "<S>", "b"]
    np.testing.assert_array_equal(run(backend, [["b"]], [0])[0][0][0], first[1])
    assert computed == []
    run(backend, [["c"]], [0])
    run(backend, [["b"]], [0])
    assert computed == [["c"], ["b"]]


def test_a_memory_of_no_words(files: tuple[Path, Path], backend: ElmoBackend) -> None:
    forgetful = ElmoBackend(*files, cached_words=0)
    for _ in range(2):
        np.testing.assert_array_equal(run(forgetful, SENTENCES, [0])[2][0], run(forgetful, SENTENCES, [0])[2][0])
    np.testing.assert_allclose(run(forgetful, SENTENCES, [2])[2][0], run(backend, SENTENCES, [2])[2][0], atol=1e-5)


def test_character_ids() -> None:
    ids = character_ids(["ab", "é", "<S>", "</S>", "x" * 60, "", "\ud800y"], 50).tolist()
    padding = [260] * 46
    assert ids[0] == [258, 97, 98, 259, *padding]
    assert ids[1] == [258, 0xC3, 0xA9, 259, *padding]
    assert ids[2] == [258, 256, 259, 260, *padding]
    assert ids[3] == [258, 257, 259, 260, *padding]
    assert ids[4] == [258, *[ord("x")] * 48, 259]
    assert ids[5] == [258, 259, 260, 260, *padding]
    assert ids[6] == [258, ord("y"), 259, 260, *padding]


def test_scalar_mix() -> None:
    layers = [torch.full((2, 3), value) for value in (1.0, 10.0, 100.0)]
    assert torch.allclose(ScalarMix(3)(layers), torch.tensor(37.0))
    weights, gamma = [0.5, -1.0, 2.0], 1.5
    shares = np.exp(weights) / np.exp(weights).sum()
    mixed = ScalarMix(3, weights, gamma)(layers)
    assert torch.allclose(mixed, torch.tensor(float(gamma * shares @ [1, 10, 100])))
    assert torch.equal(layers[0], torch.ones(2, 3))  # left as it was
    assert np.isfinite(ScalarMix(2, [1000, 0]).shares).all()


@pytest.mark.parametrize(
    ("weights", "gamma"), [([1, 2], 1), ("abc", 1), ([1, 2, float("nan")], 1), ([1, 2, "3"], 1), (None, float("inf"))]
)
def test_scalar_mix_refuses(weights: Any, gamma: float) -> None:
    with pytest.raises(ConfigurationError, match=r"mix_weights|gamma"):
        ScalarMix(3, weights, gamma)


def test_learnt_mix(files: tuple[Path, Path]) -> None:
    backend = ElmoBackend(*files, mix_weights=[0.1, 0.2, 0.3], gamma=2.0)
    zero, one, two, mixed = run(backend, SENTENCES, [0, 1, 2, -1])[0]
    shares = np.exp([0.1, 0.2, 0.3]) / np.exp([0.1, 0.2, 0.3]).sum()
    np.testing.assert_allclose(mixed, 2 * (shares[0] * zero + shares[1] * one + shares[2] * two), atol=1e-6)


def test_refusals_of_the_forward_pass(backend: ElmoBackend) -> None:
    with pytest.raises(InvalidInput, match="no layer 4"):
        run(backend, SENTENCES, [4])
    with pytest.raises(InvalidInput, match="no attention"):
        backend.forward([TokenSequence(["a"])], attention=True)


# ---- broken files ----


def array_names(path: Path) -> list[str]:
    names: list[str] = []
    with h5py.File(path) as file:
        file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
    return names


def test_every_missing_array_is_named(tmp_path: Path) -> None:
    options, weights = write_elmo(tmp_path)
    for name in array_names(weights):
        with h5py.File(weights, "a") as file:
            kept = file[name][...]
            del file[name]
        with pytest.raises(ConfigurationError, match=f"'{name}'"):
            read_weights(weights, read_options(options))
        with h5py.File(weights, "a") as file:
            file[name] = kept


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.zeros((7, 6), np.float32), r"shape \(7, 5\) by the options, but holds float32 of shape \(7, 6\)"),
        (np.zeros((7, 5), np.int64), "holds int64"),
        (np.full((7, 5), np.nan, np.float32), "not finite"),
    ],
)
def test_arrays_of_another_kind(tmp_path: Path, value: np.ndarray, message: str) -> None:
    options, weights = write_elmo(tmp_path)
    name = "RNN_1/RNN/MultiRNNCell/Cell1/LSTMCell/W_P_0"
    with h5py.File(weights, "a") as file:
        del file[name]
        file[name] = value
    with pytest.raises(ConfigurationError, match=message) as caught:
        read_weights(weights, read_options(options))
    assert name in caught.value.message


def test_a_group_in_an_arrays_place(tmp_path: Path) -> None:
    options, weights = write_elmo(tmp_path)
    with h5py.File(weights, "a") as file:
        del file["char_embed"]
        file.create_group("char_embed")
    with pytest.raises(ConfigurationError, match="no array 'char_embed'"):
        read_weights(weights, read_options(options))


def test_files_that_are_no_hdf5(tmp_path: Path) -> None:
    options, weights = write_elmo(tmp_path)
    found = read_options(options)
    with pytest.raises(ConfigurationError, match="no file"):
        read_weights(tmp_path / "absent.hdf5", found)
    content = weights.read_bytes()
    for broken in (b"", b"\x80\x04N.", content[: len(content) // 2]):
        weights.write_bytes(broken)
        with pytest.raises(ConfigurationError, match=r"cannot be read as HDF5"):
            read_weights(weights, found)


@pytest.mark.parametrize(
    ("content", "key"),
    [
        ("{", "JSON"),
        ("[]", "lstm"),
        ('{"lstm": {}}', "char_cnn"),
        (json.dumps(changed({"n_layers": 0})), "lstm.n_layers"),
        (json.dumps(changed({"dim": "64"})), "lstm.dim"),
        (json.dumps(changed({"cell_clip": -3})), "lstm.cell_clip"),
        (json.dumps({"lstm": {"n_layers": 2}, "char_cnn": TINY["char_cnn"]}), "lstm.projection_dim is missing"),
        (json.dumps(changed(filters=[])), "char_cnn.filters"),
        (json.dumps(changed(filters=[[1, 2], [3]])), r"char_cnn.filters\[1\]"),
        (json.dumps(changed(filters=[[51, 2]])), r"char_cnn.filters\[0\] is wider"),
        (json.dumps(changed(embedding=3)), "char_cnn.embedding.dim"),
        (json.dumps(changed(activation="gelu")), "char_cnn.activation"),
        (json.dumps(changed(n_characters=300)), "char_cnn.n_characters"),
        (json.dumps(changed(max_characters_per_token=2)), "char_cnn.max_characters_per_token"),
        (json.dumps(changed(n_highway=-1)), "char_cnn.n_highway"),
    ],
)
def test_wrong_options(tmp_path: Path, content: str, key: str) -> None:
    path = tmp_path / "options.json"
    path.write_text(content)
    with pytest.raises(ConfigurationError, match=key) as caught:
        read_options(path)
    assert str(path) in caught.value.message
    with pytest.raises(ConfigurationError, match="no file"):
        read_options(tmp_path / "absent.json")
