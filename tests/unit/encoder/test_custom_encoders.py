"""Models of one's own in the encoder's place: functions, ONNX files and TorchScript files."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from flowdex.documents import DocumentBatch
from flowdex.errors import ConfigurationError, ExecutorError, InvalidInput
from flowdex_executors import CallableEncoder, DocumentColumns, OnnxEncoder, TorchScriptEncoder
from flowdex_executors.encoder.model_files import read_model
from flowdex_executors.encoder.tokenising import TextTokenizer, TokeniseOptions
from flowdex_executors.encoder.transformers_backend import TransformersBackend

TEXTS = ["hello world", "the flow of search", "東京 日本", "a", "vectors!", "neural " * 20, "b c d e f g", "ü"]
FUNCTIONS = '''
import numpy as np

calls = []

def lengths(texts, scale=1):
    """Lists of lists do too."""
    calls.append(texts)
    return [[len(text) * scale, 1] for text in texts]

def one_number(texts):
    return len(texts)

def as_words(texts):
    return np.array([[text] for text in texts])

def moody(texts):
    return np.ones((len(texts), 3 if "hello" in texts else 2))

def broken(texts):
    raise RuntimeError("no such luck")

class Counter:
    def __init__(self, letters):
        self.letters = letters

    def __call__(self, texts):
        return np.array([[text.count(letter) for letter in self.letters] for text in texts])

class NotCallable:
    pass

constant = 3
'''


@pytest.fixture
def functions(tmp_path: Path) -> Path:
    path = tmp_path / "functions_of_mine.py"
    path.write_text(FUNCTIONS)
    return path


def columns(texts: list[str], **fields: Any) -> DocumentColumns:
    return DocumentColumns(DocumentBatch.from_columns(texts=texts, **fields))


async def vectors_of(encoder: Any, texts: list[str] = TEXTS, **parameters: Any) -> np.ndarray[Any, Any]:
    reply = await encoder.encode(docs=columns(texts), parameters=parameters)
    vectors = reply.batch.embeddings
    assert vectors is not None
    return vectors


# ---- functions ----


async def test_a_function_in_a_file(functions: Path) -> None:
    encoder = CallableEncoder(f"{functions}:lengths", arguments={"scale": 2})
    vectors = await vectors_of(encoder)
    unit = await vectors_of(encoder, normalize=True)
    status = await encoder.status()
    encoder.close()
    np.testing.assert_array_equal(vectors, [[2 * len(text), 1] for text in TEXTS])
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(unit, axis=1), 1, rtol=1e-6)
    assert (status["model"], status["dimensions"], status["threads"]) == (f"{functions}:lengths", 2, 1)
    json.dumps(status)


async def test_a_function_of_a_package_and_a_class(functions: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(functions.parent))
    monkeypatch.delitem(sys.modules, functions.stem, raising=False)
    encoder = CallableEncoder(f"{functions.stem}:Counter", arguments={"letters": "elo"}, vector_size=3, threads=2)
    vectors = await vectors_of(encoder, ["hello"])
    encoder.close()
    assert vectors.tolist() == [[1, 2, 1]]


async def test_what_the_function_does_wrong_later_is_its_requests_error(functions: Path) -> None:
    encoder = CallableEncoder(f"{functions}:moody")
    with pytest.raises(ExecutorError, match=r"cannot be encoded: the model failed with ValueError"):
        await vectors_of(encoder, ["hello"])
    assert (await vectors_of(encoder, ["world"])).shape == (1, 2)
    encoder.close()


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("lengths", {"vector_size": 5}, "gives vectors of 2 dimensions, not 5"),
        ("one_number", {}, r"gave int64 of shape \(\) for 2 texts"),
        ("as_words", {}, "it must give numbers"),
        ("broken", {}, "fails on a trial: RuntimeError: no such luck"),
        ("absent", {}, "has no function 'absent'"),
        ("constant", {}, "has no function 'constant'"),
        ("NotCallable", {}, "give it a method __call__"),
        ("Counter", {}, "cannot be made: TypeError"),
        ("lengths", {"threads": 0}, "threads must be a whole number"),
    ],
)
def test_functions_that_do_not_do(functions: Path, name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        CallableEncoder(f"{functions}:{name}", **options)


@pytest.mark.parametrize("function", ["lengths", "", None, "no.such.package:f", "/no/such/file.py:f"])
def test_functions_that_are_not_there(function: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"must be package|cannot be imported|there is no file"):
        CallableEncoder(function)


def test_a_file_that_cannot_be_imported(tmp_path: Path) -> None:
    path = tmp_path / "bad.py"
    path.write_text("1 / 0")
    with pytest.raises(ConfigurationError, match="cannot be imported: ZeroDivisionError"):
        CallableEncoder(f"{path}:f")


def test_describe_and_check_import_nothing(tmp_path: Path) -> None:
    path = tmp_path / "bad.py"
    path.write_text("1 / 0")
    options = {"function": f"{path}:f", "vector_size": 7}
    assert CallableEncoder.describe(options) == {"model": f"{path}:f", "dimensions": 7}
    assert CallableEncoder.check(options) == []
    assert CallableEncoder.check({"function": "absent.py:f"}) == ["function: there is no file absent.py"]
    assert "function must be" in CallableEncoder.check({})[0]


async def test_the_fingerprint_follows_the_source_or_the_version(functions: Path) -> None:
    async def fingerprint(**options: Any) -> str:
        encoder = CallableEncoder(f"{functions}:lengths", **options)
        status = await encoder.status()
        encoder.close()
        return str(status["fingerprint"])

    before, versioned = await fingerprint(), await fingerprint(version="1")
    assert len({before, versioned, await fingerprint(arguments={"scale": 3})}) == 3
    functions.write_text(FUNCTIONS + "\n# another line\n")  # noqa: ASYNC240 - a few bytes
    assert await fingerprint() != before
    assert await fingerprint(version="1") == versioned


# ---- files ----


class Mean(torch.nn.Module):
    """Token vectors of a table, or their mean over the real tokens; attends to nothing."""

    def __init__(self, sentences: bool, heeds_mask: bool = True) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.table = torch.nn.Parameter(torch.randn(128, 8, generator=generator))
        self.sentences = sentences
        self.heeds_mask = heeds_mask

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        vectors = self.table[input_ids]
        if not self.sentences:
            return vectors
        if not self.heeds_mask:
            return vectors.mean(1)
        mask = attention_mask.unsqueeze(2)
        return (vectors * mask).sum(1) / mask.sum(1)


class Other(Mean):
    """Other names for the arguments, and a dictionary as the result."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        return {"noise": x.float().unsqueeze(2), "token_embeddings": self.table[x]}


@pytest.fixture(scope="module")
def folder(make_model: Any) -> Path:
    return make_model("bert")


def saved(folder: Path, module: torch.nn.Module) -> str:
    path = folder / f"{type(module).__name__}-{id(module)}.pt"
    torch.jit.save(torch.jit.script(module.eval()), str(path))  # type: ignore[no-untyped-call]
    return str(path)


def means(folder: Path, texts: list[str] = TEXTS) -> np.ndarray[Any, Any]:
    """What `Mean` must give, one text at a time."""
    table = Mean(sentences=True).table.detach()
    sequences = TextTokenizer(read_model(folder)).tokenise(texts, TokeniseOptions())
    return torch.stack([table[torch.tensor(sequence.ids)].mean(0) for sequence in sequences]).numpy()


@pytest.mark.parametrize("sentences", [False, True])
async def test_torchscript_gives_token_or_sentence_vectors(folder: Path, sentences: bool) -> None:
    encoder = TorchScriptEncoder(saved(folder, Mean(sentences)), threads=1)
    vectors = await vectors_of(encoder)
    status = await encoder.status()
    np.testing.assert_allclose(vectors, means(folder), rtol=1e-4, atol=1e-5)
    assert status["pooling"] == (["model"] if sentences else ["mean"])
    assert (status["dimensions"], status["max_tokens"], status["backend"]) == (8, 512, "torchscript")
    if sentences:
        with pytest.raises(InvalidInput, match="neither pooling nor tokens"):
            await vectors_of(encoder, pooling="max")
        with pytest.raises(InvalidInput, match="neither pooling nor tokens"):
            await vectors_of(encoder, tokens=True)
    else:
        reply = (await encoder.encode(docs=columns(TEXTS[:2]), parameters={"tokens": True})).batch
        assert reply.column("token_texts")[0] == ["[CLS]", "hello", "world", "[SEP]"]
    encoder.close()


async def test_torchscript_of_other_names_and_without_a_mask(folder: Path) -> None:
    encoder = TorchScriptEncoder(saved(folder, Other(sentences=False)), threads=1)
    np.testing.assert_allclose(await vectors_of(encoder), means(folder), rtol=1e-4, atol=1e-5)
    encoder.close()


def test_a_model_that_does_not_heed_its_mask_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigurationError, match="does not heed its attention_mask"):
        TorchScriptEncoder(saved(folder, Mean(sentences=True, heeds_mask=False)))


def test_a_pickle_is_no_torchscript(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save(Mean(sentences=True), path)
    with pytest.raises(ConfigurationError, match="is not a TorchScript file"):
        TorchScriptEncoder(str(path), tokenizer=str(folder))


def exported(folder: Path, *, sentences: bool = False, types: bool = False, names: tuple[str, ...] = ()) -> Path:
    """An ONNX file: a table of vectors, and their masked mean for sentences."""
    from onnx import TensorProto, helper, numpy_helper, save_model

    inputs = names or ("input_ids", "attention_mask", *(["token_type_ids"] if types else []))
    nodes = [
        helper.make_node("Gather", ["table", inputs[0]], ["rows"]),
        helper.make_node("Cast", [inputs[1]], ["flat_mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["flat_mask", "last"], ["mask"]),
        helper.make_node("Mul", ["rows", "mask"], ["masked"]),
        helper.make_node("ReduceSum", ["masked", "middle"], ["sum"], keepdims=0),
        helper.make_node("ReduceSum", ["mask", "middle"], ["count"], keepdims=0),
        helper.make_node("Div", ["sum", "count"], ["sentence_embedding"]),
        helper.make_node("Identity", ["masked"], ["last_hidden_state"]),
    ]
    outputs = {"sentence_embedding": ["n", 8], **({} if sentences else {"last_hidden_state": ["n", "L", 8]})}
    if sentences:
        nodes.pop()
    graph = helper.make_graph(
        nodes,
        "table",
        [helper.make_tensor_value_info(name, TensorProto.INT32, ["n", "L"]) for name in inputs],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
        [
            numpy_helper.from_array(Mean(sentences=False).table.detach().numpy(), "table"),
            numpy_helper.from_array(np.array([2]), "last"),
            numpy_helper.from_array(np.array([1]), "middle"),
        ],
    )
    path = folder / f"{sentences}-{types}-{len(names)}.onnx"
    save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.fixture
def onnx_folder(folder: Path) -> Path:
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    pytest.importorskip("onnx", reason="onnx is not installed")
    below = folder / "onnx"
    below.mkdir(exist_ok=True)  # the tokenizer is found in the folder above
    return below


@pytest.mark.parametrize("sentences", [False, True])
@pytest.mark.parametrize("types", [False, True])
async def test_onnx_gives_token_or_sentence_vectors(onnx_folder: Path, sentences: bool, types: bool) -> None:
    encoder = OnnxEncoder(str(exported(onnx_folder, sentences=sentences, types=types)), threads=1, max_length=64)
    expected = means(onnx_folder.parent)
    np.testing.assert_allclose(await vectors_of(encoder), expected, rtol=1e-4, atol=1e-5)
    status = await encoder.status()
    encoder.close()
    assert status["pooling"] == (["model"] if sentences else ["mean"])
    assert (status["dimensions"], status["max_tokens"], status["backend"]) == (8, 64, "onnx")


async def test_onnx_output_by_name(onnx_folder: Path) -> None:
    path = str(exported(onnx_folder))
    encoder = OnnxEncoder(path, output_name="sentence_embedding", threads=1)
    np.testing.assert_allclose(await vectors_of(encoder), means(onnx_folder.parent), rtol=1e-4, atol=1e-5)
    encoder.close()
    with pytest.raises(ConfigurationError, match="has no output 'logits'; choose from sentence_embedding, last_hidden"):
        OnnxEncoder(path, output_name="logits")
    with pytest.raises(ConfigurationError, match="leave pooling out"):
        OnnxEncoder(path, output_name="sentence_embedding", pooling="max")


async def test_a_real_transformer_from_torchscript(folder: Path) -> None:
    class Traced(torch.nn.Module):
        def __init__(self, model: Any) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
            bias = (1.0 - attention_mask.float())[:, None, None, :] * -1e9
            hidden = self.model.embeddings(input_ids)
            for layer in self.model.encoder.layer:
                hidden = attend(layer, hidden, bias)
            return hidden

    def attend(layer: Any, hidden: Tensor, bias: Tensor) -> Tensor:
        own = layer.attention.self
        shape = (hidden.shape[0], hidden.shape[1], own.num_attention_heads, own.attention_head_size)
        query, key, value = (part(hidden).view(shape).transpose(1, 2) for part in (own.query, own.key, own.value))
        weights = torch.softmax(query @ key.transpose(2, 3) / own.attention_head_size**0.5 + bias, -1)
        context = (weights @ value).transpose(1, 2).flatten(2)
        middle = layer.attention.output(context, hidden)
        output: Tensor = layer.output(layer.intermediate(middle), middle)
        return output

    from transformers import AutoModel

    model = AutoModel.from_pretrained(folder).eval()
    ids = torch.ones((2, 5), dtype=torch.int64)
    with torch.no_grad():
        traced = torch.jit.trace(Traced(model), (ids, ids))  # type: ignore[no-untyped-call]
    path = folder / "traced.pt"
    torch.jit.save(traced, str(path))  # type: ignore[no-untyped-call]
    encoder = TorchScriptEncoder(str(path), threads=1, max_length=64)
    vectors = await vectors_of(encoder)
    encoder.close()
    files = read_model(folder)
    sequences = TextTokenizer(files).tokenise(TEXTS, TokeniseOptions(max_tokens=64))
    backend = TransformersBackend(files)
    expected = np.stack([backend.forward([each]).layers[0].mean(0).numpy() for each in sequences])
    np.testing.assert_allclose(vectors, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("names", "message"), [(("ids", "attention_mask"), "takes ids, attention_mask; it must take input_ids")]
)
def test_onnx_inputs_of_other_names_are_refused(onnx_folder: Path, names: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        OnnxEncoder(str(exported(onnx_folder, names=names)))


def test_files_that_are_missing_or_no_models(tmp_path: Path, onnx_folder: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"there is no file 'absent\.onnx'"):
        OnnxEncoder("absent.onnx")
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(b"nothing of the kind")
    with pytest.raises(ConfigurationError, match=r"there is no tokenizer\.json in"):
        OnnxEncoder(str(bad))
    with pytest.raises(ConfigurationError, match="ONNX Runtime cannot load"):
        OnnxEncoder(str(bad), tokenizer=str(onnx_folder.parent))
    with pytest.raises(ConfigurationError, match="is not a TorchScript file"):
        TorchScriptEncoder(str(bad), tokenizer=str(onnx_folder.parent / "tokenizer.json"))


def test_describe(onnx_folder: Path) -> None:
    path = exported(onnx_folder)
    assert OnnxEncoder.describe({"model": str(path), "max_length": 32}) == {"model": path.name, "max_tokens": 32}
    assert OnnxEncoder.check({"model": str(path), "threads": 0}) == [
        "threads: must be a whole number of at least 1, got 0"
    ]
