"""Short batches on ONNX Runtime, long ones by packed torch: the same vectors either way, from the same weights."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest

from flowdex_executors import BertEncoder
from flowdex_executors.encoder import mixed_bert
from flowdex_executors.encoder.mixed_bert import MixedBert
from flowdex_executors.encoder.model_files import read_model
from flowdex_executors.encoder.packed_bert import PackedBert
from flowdex_executors.encoder.tokenising import TokenSequence

pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
pytest.importorskip("onnx", reason="onnx is not installed")

SEQUENCES = [TokenSequence([2, 9, 12, 3]), TokenSequence([2, *range(10, 50), 3]), TokenSequence([2, 8, 3])]


class Counting:
    """Counts the forward passes of a backend."""

    def __init__(self, backend: Any) -> None:
        self.forward_passes = 0
        self.backend = backend

    def forward(self, *arguments: Any, **options: Any) -> Any:
        self.forward_passes += 1
        return self.backend.forward(*arguments, **options)


@pytest.fixture
def counted(make_model: Any) -> tuple[MixedBert, Counting, Counting]:
    backend = MixedBert(read_model(make_model("bert")))
    few, many = Counting(backend._onnx), Counting(backend._packed)
    backend._onnx, backend._packed = few, many  # type: ignore[assignment]
    return backend, few, many


def test_the_number_of_tokens_chooses(counted: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    backend, few, many = counted
    tokens = sum(len(sequence) for sequence in SEQUENCES)
    outputs = []
    for limit, passes in ((tokens, (1, 0)), (tokens - 1, (1, 1))):
        monkeypatch.setattr(mixed_bert, "_FEW", limit)
        outputs.append(backend.forward(SEQUENCES, [0, 1, -1]))
        assert (few.forward_passes, many.forward_passes) == passes
    for short, long in zip(outputs[0].layers, outputs[1].layers, strict=True):
        np.testing.assert_allclose(short, long, rtol=1e-4, atol=2e-5)
    assert outputs[0].lengths.tolist() == outputs[1].lengths.tolist() == [len(each) for each in SEQUENCES]


def test_attention_comes_with_the_vectors(counted: Any) -> None:
    backend, few, many = counted
    output = backend.forward(SEQUENCES[:1], attention=True)
    assert (few.forward_passes, many.forward_passes) == (0, 1)
    assert output.attentions is not None
    assert output.attentions[0].shape[0] == backend.attention_shape[0]


def test_weights_are_in_memory_once(make_model: Any) -> None:
    backend = MixedBert(read_model(make_model("bert")))
    inner = backend._packed.weights.layers[0].inner.weight.numpy()
    assert any(np.shares_memory(inner, array) for array in backend._onnx._weights.values())


def test_it_is_the_default_where_its_packages_are(make_model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = str(make_model("bert"))

    def backend() -> Any:
        encoder = BertEncoder(folder, threads=1, device="cpu")
        encoder.close()
        return encoder.backend

    assert isinstance(backend(), MixedBert)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert isinstance(backend(), PackedBert)
