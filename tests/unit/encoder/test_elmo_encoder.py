"""ElmoEncoder as an executor: words, layers, windows, the stateful mode, options and what can be known before start."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from elmo_model import Oracle, changed, write_elmo

from flowdex.documents import DocumentBatch
from flowdex.errors import ConfigurationError, InvalidInput
from flowdex_executors import DocumentColumns, ElmoEncoder
from flowdex_executors.encoder.elmo.tokenizer import WordTokenizer
from flowdex_executors.encoder.tokenising import TokeniseOptions
from flowdex_executors.encoder.word_vectors.tokenizer import make_splitter

TEXTS = ["Don't panic.", "Elk calling -- a skill", "東京 and Zürich", "a"]
WORDS = [
    ["Do", "n't", "panic", "."],
    ["Elk", "calling", "--", "a", "skill"],
    ["東京", "and", "Zürich"],
    ["a"],
]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_elmo(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def arguments(files: tuple[Path, Path]) -> dict[str, Any]:
    return {"options": str(files[0]), "weights": str(files[1]), "device": "cpu"}


@pytest.fixture(scope="module")
def oracle(files: tuple[Path, Path]) -> Oracle:
    return Oracle(*files)


@pytest.fixture(scope="module")
def encoder(arguments: dict[str, Any]) -> Iterator[ElmoEncoder]:
    encoder = ElmoEncoder(**arguments, threads=2, batch_tokens=16)
    encoder.warm_up()
    yield encoder
    encoder.close()


def columns(texts: list[str] | None = None, **fields: Any) -> DocumentColumns:
    count = len(texts) if texts is not None else len(next(iter(fields.values())))
    batch = DocumentBatch.from_columns(ids=[f"d{index}" for index in range(count)], texts=texts or [None] * count)
    for name, values in fields.items():
        batch.set_column(name, values)
    return DocumentColumns(batch)


async def encode(encoder: ElmoEncoder, docs: DocumentColumns, **parameters: Any) -> np.ndarray:
    vectors = (await encoder.encode(docs=docs, parameters=parameters)).batch.embeddings
    assert vectors is not None
    return vectors


async def test_the_default_is_the_mean_of_words_and_layers(encoder: ElmoEncoder, oracle: Oracle) -> None:
    expected = [np.mean(oracle.layers(words), axis=(0, 1)) for words in WORDS]
    np.testing.assert_allclose(await encode(encoder, columns(TEXTS)), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("layer", [0, 1, 2])
async def test_each_layer(encoder: ElmoEncoder, oracle: Oracle, layer: int) -> None:
    expected = [oracle.layers(words)[layer].mean(0) for words in WORDS]
    np.testing.assert_allclose(await encode(encoder, columns(TEXTS), layers=layer), expected, rtol=0, atol=1e-5)


async def test_layers_concatenated_and_averaged(encoder: ElmoEncoder) -> None:
    both = await encode(encoder, columns(TEXTS), layers=[1, 2])
    apart = [await encode(encoder, columns(TEXTS), layers=layer) for layer in (1, 2)]
    np.testing.assert_allclose(both, np.hstack(apart), atol=1e-6)
    averaged = await encode(encoder, columns(TEXTS), layers=[0, 1, 2], layer_mode="mean")
    np.testing.assert_allclose(averaged, await encode(encoder, columns(TEXTS)), atol=1e-6)


async def test_tokens_are_words_with_their_spans(encoder: ElmoEncoder, oracle: Oracle) -> None:
    docs = columns(TEXTS)
    await encode(encoder, docs, tokens=True, layers=2)
    assert docs.batch.column("token_texts") == WORDS
    for text, words, spans in zip(TEXTS, WORDS, docs.batch.column("token_spans"), strict=True):
        assert [text[int(start) : int(end)] for start, end in spans] == words
    for words, vectors in zip(WORDS, docs.batch.column("token_vectors"), strict=True):
        np.testing.assert_allclose(vectors, oracle.layers(words)[2], rtol=0, atol=1e-5)


async def test_words_of_the_caller(encoder: ElmoEncoder) -> None:
    np.testing.assert_allclose(
        await encode(encoder, columns(words=WORDS)), await encode(encoder, columns(TEXTS)), rtol=0, atol=1e-5
    )


async def test_pairs_and_attention_are_refused(encoder: ElmoEncoder) -> None:
    with pytest.raises(InvalidInput, match="not pairs"):
        await encode(encoder, columns(TEXTS[:1], text_pair=["other"]))
    with pytest.raises(InvalidInput, match="attention"):
        await encode(encoder, columns(TEXTS), attention=True)


async def test_many_callers_at_once(encoder: ElmoEncoder, oracle: Oracle) -> None:
    replies = await asyncio.gather(*(encode(encoder, columns([TEXTS[i % 4]])) for i in range(24)))
    expected = [np.mean(oracle.layers(words), axis=(0, 1)) for words in WORDS]
    for index, vectors in enumerate(replies):
        np.testing.assert_allclose(vectors[0], expected[index % 4], rtol=0, atol=1e-5)


async def test_windows(arguments: dict[str, Any], oracle: Oracle) -> None:
    encoder = ElmoEncoder(**arguments, max_length=2, threads=1)
    try:
        words = WORDS[1]
        parts = [np.mean(oracle.layers(words[start : start + 2]), axis=(0, 1)) for start in (0, 2, 4)]
        expected = np.average(parts, axis=0, weights=[2, 2, 1])
        found = await encode(encoder, columns(TEXTS[1:2]), truncation="window_mean")
        np.testing.assert_allclose(found[0], expected, rtol=0, atol=1e-5)
        with pytest.raises(InvalidInput, match="more than 2 tokens"):
            await encode(encoder, columns(TEXTS[1:2]), truncation="error")
    finally:
        encoder.close()


async def test_stateful_requests_are_batches_in_their_order(arguments: dict[str, Any], oracle: Oracle) -> None:
    encoder = ElmoEncoder(**arguments, stateful=True, layers=2)
    try:
        encoder.warm_up()  # of which nothing may be left
        states: list[dict[Any, Any]] = [{}, {}]
        for batch in ([0, 1], [3, 2], [2, 0]):  # a short text first, then a long one first
            found = await encode(encoder, columns([TEXTS[index] for index in batch]))
            expected = [oracle.layers(WORDS[i], state)[2].mean(0) for i, state in zip(batch, states, strict=True)]
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
        status = await encoder.status()
        assert status["stateful"] is True
    finally:
        encoder.close()


async def test_fingerprints(arguments: dict[str, Any], encoder: ElmoEncoder, tmp_path: Path) -> None:
    """Another file, another mix, other words and the stateful mode are other makers of vectors; threads are not."""

    async def fingerprint(**given: Any) -> str:
        other = ElmoEncoder(**{**arguments, **given})
        status = await other.status()
        other.close()
        return str(status["fingerprint"])

    same = (await encoder.status())["fingerprint"]
    assert await fingerprint(threads=1, mix_weights=[1.0, 1.0, 1.0]) == same
    _, weights = write_elmo(tmp_path / "tiny", seed=5)
    changes: list[dict[str, Any]] = [
        {"weights": str(weights)},
        {"mix_weights": [1, 2, 3]},
        {"gamma": 2.0},
        {"words": "whitespace"},
        {"stateful": True},
        {"layers": 2},
    ]
    found = [await fingerprint(**change) for change in changes]
    assert len({same, *found}) == 1 + len(changes)


async def test_receipts_in_both_modes(arguments: dict[str, Any], encoder: ElmoEncoder) -> None:
    stateful = ElmoEncoder(**arguments, stateful=True)
    for each in (encoder, stateful):
        docs = columns(TEXTS)
        await encode(each, docs, receipt=True)
        receipts = docs.batch.column("receipt")
        assert [receipt["tokens"] for receipt in receipts] == [len(words) for words in WORDS]
        assert all(receipt["queue_ms"] >= 0 and receipt["compute_ms"] > 0 for receipt in receipts)
    stateful.close()


async def test_status_says_what_it_is(encoder: ElmoEncoder, files: tuple[Path, Path]) -> None:
    status = await encoder.status()
    assert status["model"] == files[1].parent.name
    assert status["dimensions"] == 10
    assert status["mix"] == pytest.approx([1 / 3] * 3)
    json.dumps(status)


# ---- options ----


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"options": None}, "options: ELMo has no default model"),
        ({"weights": ""}, "weights: ELMo has no default model"),
        ({"options": "/nowhere/options.json"}, "options: there is no file"),
        ({"weights": "/nowhere/weights.hdf5"}, "weights: there is no file"),
        ({"mix_weights": [1, 2]}, "mix_weights must be a list of 3 numbers"),
        ({"max_length": 0}, "max_length"),
        ({"cached_words": -1}, "cached_words"),
        ({"words": "syllables"}, "words: 'syllables' is unknown"),
        ({"layers": 9}, "no layer 9"),
    ],
)
def test_wrong_options_are_refused(arguments: dict[str, Any], given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        ElmoEncoder(**{**arguments, **given})


def test_description(arguments: dict[str, Any], files: tuple[Path, Path], encoder: ElmoEncoder) -> None:
    described = ElmoEncoder.describe(arguments)
    assert described["dimensions"] == encoder.dimensions == 10
    assert described["max_tokens"] == encoder.max_tokens == 512
    assert described["model"] == encoder.model
    asked = {**arguments, "layers": [0, 2], "pooling": ["mean", "max"], "max_length": None}
    described = ElmoEncoder.describe(asked)
    other = ElmoEncoder(**asked, threads=1)
    other.close()
    assert described["dimensions"] == other.dimensions == 40
    assert "max_tokens" not in described
    assert ElmoEncoder.describe({**asked, "layer_mode": "mean", "dimensions": 7})["dimensions"] == 7


def test_problems_before_start(arguments: dict[str, Any], tmp_path: Path) -> None:
    assert ElmoEncoder.check(arguments, SimpleNamespace(replicas=2)) == []
    options, _ = write_elmo(tmp_path, changed({"n_layers": 1}))
    wrong = {
        "options": str(options),
        "weights": str(tmp_path / "absent.hdf5"),
        "mix_weights": [1, 2, 3],
        "max_length": 0,
        "batch_tokens": 0,
        "words": "x",
        "stateful": True,
    }
    problems = ElmoEncoder.check(wrong, SimpleNamespace(replicas=2))
    expected = {"weights", "mix_weights", "max_length", "batch_tokens", "words", "stateful"}
    assert {problem.split(":")[0] for problem in problems} == expected
    with pytest.raises(ConfigurationError, match="options"):
        ElmoEncoder.describe({})


# ---- the tokenizer ----


@pytest.mark.parametrize("size", [10, 50_000])
@pytest.mark.parametrize("exact", [False, True])
def test_truncation(size: int, exact: bool) -> None:
    tokenizer = WordTokenizer(make_splitter("treebank"))
    text = " ".join(f"w{number}" for number in range(size))

    def tokenise(truncation: Any) -> Any:
        [sequence] = tokenizer.tokenise([text], TokeniseOptions(4, truncation, spans=True, exact=exact))
        return sequence

    for truncation in ("head", "error"):
        sequence = tokenise(truncation)
        assert sequence.ids == ["w0", "w1", "w2", "w3"]
        assert sequence.spans[3] == (9, 11)
        assert sequence.dropped == size - 4 if exact else sequence.dropped > 0
    tail = tokenise("tail")
    assert tail.ids == [f"w{number}" for number in range(size - 4, size)]
    assert tail.dropped == size - 4
    assert text[slice(*tail.spans[0])] == tail.ids[0]
    whole = tokenise("window_mean")
    assert whole.dropped == 0
    assert [word for window in (whole, *whole.windows) for word in window.ids] == text.split()
    assert max(map(len, whole.windows)) == 4


def test_a_prefix_of_few_words_is_not_taken_for_all() -> None:
    tokenizer = WordTokenizer(make_splitter("treebank"))
    text = "x" * 5000 + " a b c d e"
    [sequence] = tokenizer.tokenise([text], TokeniseOptions(4))
    assert sequence.ids == ["x" * 5000, "a", "b", "c"]
    assert sequence.dropped == 2


def test_words_and_texts_without_words() -> None:
    tokenizer = WordTokenizer(make_splitter("whitespace"))
    [given, empty, split] = tokenizer.tokenise([["Don 't", " ", "!"], " ", "Don't !"], TokeniseOptions(spans=True))
    assert given.ids == ["Don 't", "!"]
    assert given.spans == [(0, 6), (9, 10)]
    assert len(empty) == 0
    assert split.ids == ["Don't", "!"]
    assert tokenizer.tokens(split) == ["Don't", "!"]
    with pytest.raises(InvalidInput, match="at least 1"):
        tokenizer.tokenise(["a"], TokeniseOptions(0))
