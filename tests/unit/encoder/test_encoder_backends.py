"""ONNX Runtime and CTranslate2 in BERT's place: the same vectors as transformers, and int8 marked as what it is."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flowdex.errors import ConfigurationError, InvalidInput
from flowdex_executors import BertEncoder
from flowdex_executors.encoder.fingerprint import differences
from flowdex_executors.encoder.model_files import read_model
from flowdex_executors.encoder.tokenising import TokenSequence
from flowdex_executors.encoder.transformers_backend import TransformersBackend

FAMILIES = ["bert", "roberta", "xlm-roberta", "distilbert"]
# Of all lengths in an order that needs padding, and of both types where a model has them.
SEQUENCES = [
    TokenSequence([2, 9, 12, 3]),
    TokenSequence([2, 8, 3]),
    TokenSequence([2, *range(10, 50), 3]),
    TokenSequence([2, 20, 3, 21, 22, 3], type_ids=[0, 0, 0, 1, 1, 1]),
    TokenSequence([2, 30, 31, 32, 33, 34, 35, 3]),
]


def cosines(ours: Any, theirs: Any) -> np.ndarray[Any, Any]:
    a, b = np.asarray(ours, dtype=np.float64), np.asarray(theirs, dtype=np.float64)
    return (a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))


def without_types(sequences: list[TokenSequence]) -> list[TokenSequence]:
    return [TokenSequence(each.ids) for each in sequences]


@pytest.mark.parametrize("family", FAMILIES)
def test_onnx_equals_transformers_at_every_layer(make_model: Any, family: str) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    pytest.importorskip("onnx", reason="onnx is not installed")
    from flowdex_executors.encoder.onnx_backend import OnnxBert

    files = read_model(make_model(family, **({"hidden_act": "gelu_new"} if family == "roberta" else {})))
    sequences = SEQUENCES if family == "bert" else without_types(SEQUENCES)
    backend, reference = OnnxBert(files), TransformersBackend(files)
    assert backend.dimensions == reference.dimensions
    layers = list(range(len(backend.dimensions)))
    ours, theirs = backend.forward(sequences, layers), reference.forward(sequences, layers)
    assert ours.lengths.tolist() == [len(each) for each in sequences]
    for layer in layers:
        np.testing.assert_allclose(ours.layers[layer], theirs.layers[layer], rtol=1e-4, atol=2e-5)
        assert cosines(ours.layers[layer], theirs.layers[layer]).min() >= 0.9999
    (top,) = backend.forward(sequences).layers
    np.testing.assert_array_equal(top, ours.layers[-1])


def test_onnx_vectors_do_not_depend_on_the_company(make_model: Any) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    pytest.importorskip("onnx", reason="onnx is not installed")
    from flowdex_executors.encoder.onnx_backend import OnnxBert

    backend = OnnxBert(read_model(make_model("bert")))
    together = np.split(backend.forward(SEQUENCES).layers[0].numpy(), np.cumsum([len(each) for each in SEQUENCES])[:-1])
    for sequence, vectors in zip(SEQUENCES, together, strict=True):
        np.testing.assert_allclose(vectors, backend.forward([sequence]).layers[0], rtol=1e-4, atol=1e-5)


def test_onnx_int8_is_near_and_says_that_it_is_lossy(make_model: Any) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    pytest.importorskip("onnx", reason="onnx is not installed")
    folder = make_model("bert")
    exact = BertEncoder(str(folder), backend="onnx", threads=1)
    lossy = BertEncoder(str(folder), backend="onnx", quantization="int8", threads=1)
    assert (exact.about()["backend"], exact.about()["lossy"]) == ("onnx", False)
    assert (lossy.about()["backend"], lossy.about()["lossy"]) == ("onnx int8", True)
    vectors = [each.encode_batch(without_types(SEQUENCES)) for each in (exact, lossy)]
    similar = cosines(*vectors)
    assert similar.min() > 0.97
    assert not np.allclose(*vectors, atol=1e-6)
    exact.close(), lossy.close()


def test_onnx_takes_the_file_of_a_folder_whose_architecture_it_does_not_know(make_model: Any, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    folder = make_model("mpnet")
    with pytest.raises(ConfigurationError, match=r"put an export of it into its folder as model\.onnx"):
        BertEncoder(str(folder), backend="onnx")
    assert "onnx cannot compute" in BertEncoder.check({"model": str(folder), "backend": "onnx"})[0]
    copy = tmp_path / "with-file"
    shutil.copytree(folder, copy)
    (copy / "onnx").mkdir()
    onnx.save_model(embedding_model(96, 32), copy / "onnx" / "model.onnx")
    assert BertEncoder.check({"model": str(copy), "backend": "onnx"}) == []
    encoder = BertEncoder(str(copy), backend="onnx", threads=1)
    assert '"onnx":' in encoder.fingerprint(encoder.defaults)
    assert encoder.dimensions == 32
    assert encoder.encode_batch([TokenSequence([2, 9, 3])]).shape == (1, 32)
    encoder.close()


def embedding_model(vocabulary: int, size: int) -> Any:
    """An ONNX model that looks up its ids: token vectors, of padding too."""
    from onnx import TensorProto, helper, numpy_helper

    table = np.random.default_rng(0).standard_normal((vocabulary, size), dtype=np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["table", "input_ids"], ["rows"]),
            helper.make_node("Identity", ["attention_mask"], ["mask_out"]),
            helper.make_node("Identity", ["rows"], ["last_hidden_state"]),
        ],
        "lookup",
        [
            helper.make_tensor_value_info(name, TensorProto.INT64, ["n", "L"])
            for name in ("input_ids", "attention_mask")
        ],
        [
            helper.make_tensor_value_info("mask_out", TensorProto.INT64, ["n", "L"]),
            helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, ["n", "L", size]),
        ],
        [numpy_helper.from_array(table, "table")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("family", FAMILIES)
def test_ctranslate2_equals_transformers(make_model: Any, family: str) -> None:
    pytest.importorskip("ctranslate2", reason="ctranslate2 is not installed")
    from flowdex_executors.encoder.ctranslate2_backend import CTranslate2Backend

    files = read_model(make_model(family))
    sequences = SEQUENCES if family == "bert" else without_types(SEQUENCES)
    ours, theirs = CTranslate2Backend(files).forward(sequences), TransformersBackend(files).forward(sequences)
    assert ours.lengths.tolist() == theirs.lengths.tolist()
    np.testing.assert_allclose(ours.layers[0], theirs.layers[0], rtol=1e-4, atol=2e-5)
    assert cosines(ours.layers[0], theirs.layers[0]).min() >= 0.9999


def test_ctranslate2_has_one_layer_and_int8_is_lossy(make_model: Any) -> None:
    pytest.importorskip("ctranslate2", reason="ctranslate2 is not installed")
    folder = str(make_model("bert"))
    exact = BertEncoder(folder, backend="ctranslate2", threads=1)
    lossy = BertEncoder(folder, backend="ctranslate2", quantization="int8", threads=1)
    assert (exact.about()["lossy"], lossy.about()["lossy"]) == (False, True)
    similar = cosines(*(each.encode_batch(without_types(SEQUENCES)) for each in (exact, lossy)))
    assert 0.97 < similar.min() < 0.999999
    with pytest.raises(InvalidInput, match="only one"):
        exact.backend.forward(SEQUENCES, [-2])
    exact.close(), lossy.close()


def test_ctranslate2_needs_temporary_files(make_model: Any, tmp_path: Path, monkeypatch: Any) -> None:
    pytest.importorskip("ctranslate2", reason="ctranslate2 is not installed")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "absent"))
    with pytest.raises(ConfigurationError, match="room for temporary files"):
        BertEncoder(str(make_model("bert")), backend="ctranslate2")


def test_exact_backends_share_a_fingerprint_and_int8_does_not(make_model: Any) -> None:
    for module in ("onnxruntime", "onnx", "ctranslate2"):
        pytest.importorskip(module, reason=f"{module} is not installed")
    folder = str(make_model("bert"))

    def fingerprint(**options: Any) -> str:
        encoder = BertEncoder(folder, threads=1, **options)
        encoder.close()
        return encoder.fingerprint(encoder.defaults)

    exact = {fingerprint(backend=backend) for backend in ("auto", "packed", "transformers", "onnx", "ctranslate2")}
    lossy = {fingerprint(backend=backend, quantization="int8") for backend in ("onnx", "ctranslate2")}
    assert (len(exact), len(lossy), exact & lossy) == (1, 2, set())
    (one,) = exact
    assert {phrase for other in lossy for phrase in differences(one, other)} == {
        f'quantization is "int8 by {backend}" instead of nothing' for backend in ("ctranslate2", "onnx")
    }


@pytest.mark.parametrize(("backend", "module"), [("onnx", "onnxruntime"), ("onnx", "onnx"), ("ctranslate2",) * 2])
def test_a_missing_package_is_named(make_model: Any, monkeypatch: Any, backend: str, module: str) -> None:
    if module == "onnx":
        pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigurationError, match=rf"pip install 'flowdex\[{backend}\]'"):
        BertEncoder(str(make_model("bert")), backend=backend)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"quantization": "int8"}, "computes exactly; choose onnx or ctranslate2"),
        ({"backend": "onnx", "quantization": "int4"}, "'int4' is unknown"),
    ],
)
def test_wrong_quantization(make_model: Any, options: dict[str, Any], message: str) -> None:
    folder = str(make_model("bert"))
    with pytest.raises(ConfigurationError, match=message):
        BertEncoder(folder, **options)
    assert any(message in problem for problem in BertEncoder.check({"model": folder, **options}))
