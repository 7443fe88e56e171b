"""The packed forward pass against transformers' own, on tiny random models of each family."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from flowdex.errors import ConfigurationError
from flowdex_executors.encoder.backend import choose_device
from flowdex_executors.encoder.model_files import read_model
from flowdex_executors.encoder.packed_bert import PackedBert
from flowdex_executors.encoder.tokenising import TokenSequence
from flowdex_executors.encoder.transformers_backend import TransformersBackend


def some_sequences(seed: int = 0) -> list[TokenSequence]:
    generator = random.Random(seed)
    lengths = [1, 2, 3, 3, 3, 9, 20, 20, 62]
    return [TokenSequence([generator.randrange(5, 60) for _ in range(length)]) for length in lengths]


def one_by_one(folder: Path, sequences: list[TokenSequence]) -> torch.Tensor:
    from transformers import AutoModel

    model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        return torch.cat([model(torch.tensor([sequence.ids])).last_hidden_state[0] for sequence in sequences])


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("bert", {}),
        ("bert", {"hidden_act": "relu", "layer_norm_eps": 1e-5}),
        ("bert", {"hidden_act": "gelu_new"}),
        ("roberta", {}),
        ("xlm-roberta", {}),
        ("distilbert", {}),
        ("distilbert", {"activation": "relu"}),
    ],
)
def test_equals_transformers(make_model: Any, family: str, changes: dict[str, Any]) -> None:
    folder = make_model(family, **changes)
    files = read_model(folder)
    assert PackedBert.supports(files)
    sequences = some_sequences()
    expected = one_by_one(folder, sequences)
    for backend in (PackedBert(files), TransformersBackend(files)):
        (values,), lengths, _ = backend.forward(sequences)
        assert lengths.tolist() == [len(sequence) for sequence in sequences]
        assert values.dtype == torch.float32
        torch.testing.assert_close(values, expected, rtol=1e-4, atol=1e-5)


def test_a_family_it_does_not_know_goes_through_transformers(make_model: Any) -> None:
    folder = make_model("mpnet")
    files = read_model(folder)
    assert not PackedBert.supports(files)
    sequences = some_sequences()
    (values,), _, _ = TransformersBackend(files).forward(sequences)
    torch.testing.assert_close(values, one_by_one(folder, sequences), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "changes", [{"hidden_act": "silu"}, {"position_embedding_type": "relative_key"}, {"is_decoder": True}]
)
def test_what_it_would_compute_wrongly_is_not_supported(make_model: Any, changes: dict[str, Any]) -> None:
    files = read_model(make_model("bert"))
    assert not PackedBert.supports(type(files)(**{**files.__dict__, "config": {**files.config, **changes}}))


def test_names_of_other_times_and_classes(make_model: Any) -> None:
    """`BertForMaskedLM` writes a prefix, and the first files named the norms' weights gamma and beta."""
    folder = make_model("bert")
    (expected,), _, _ = PackedBert(read_model(folder)).forward(some_sequences())
    renamed = {
        f"bert.{name.replace('LayerNorm.weight', 'LayerNorm.gamma').replace('LayerNorm.bias', 'LayerNorm.beta')}": value
        for name, value in load_file(folder / "model.safetensors").items()
    }
    save_file(renamed, folder / "model.safetensors")
    (values,), _, _ = PackedBert(read_model(folder)).forward(some_sequences())
    assert torch.equal(values, expected)


def test_half_precision_files_are_computed_in_single(make_model: Any) -> None:
    folder = make_model("bert")
    halves = {name: value.half() for name, value in load_file(folder / "model.safetensors").items()}
    save_file(halves, folder / "model.safetensors")
    (values,), _, _ = PackedBert(read_model(folder)).forward(some_sequences())
    assert values.dtype == torch.float32
    torch.testing.assert_close(values, one_by_one(folder, some_sequences()), rtol=1e-4, atol=1e-5)


def test_broken_files(make_model: Any) -> None:
    folder = make_model("bert")
    weights = load_file(folder / "model.safetensors")
    weights.pop("encoder.layer.2.output.dense.weight")
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(ConfigurationError, match=r"no weight 'encoder\.layer\.2\.output\.dense\.weight'"):
        PackedBert(read_model(folder))
    (folder / "model.safetensors").write_bytes(b"not safetensors")
    with pytest.raises(ConfigurationError, match="download the model again"):
        PackedBert(read_model(folder))


def test_devices() -> None:
    assert choose_device("cpu") == "cpu"
    assert choose_device("auto") == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(ConfigurationError, match="is not on this machine"):
        choose_device("cuda:63")
    with pytest.raises(ConfigurationError, match="is unknown"):
        choose_device("gpu")
