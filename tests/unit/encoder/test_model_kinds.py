"""Which encoder a model belongs to, what is fetched from the hub for which backend, and errors that mean no memory."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub.utils import filter_repo_objects

from flowdex.errors import ConfigurationError
from flowdex_executors import BertEncoder, GptEncoder
from flowdex_executors.encoder.base import _is_exhaustion
from flowdex_executors.encoder.model_files import read_model

HUB_FILES = [
    "config.json",
    "tokenizer.json",
    "model.safetensors",
    "pytorch_model.bin",
    "onnx/model.onnx",
    "onnx/model.onnx_data",
    "onnx/model_quantized.onnx",
    "openvino/openvino_model.xml",
    "README.md",
]


def write_config(folder: Path, model_type: str, **more: Any) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": model_type, "hidden_size": 8, **more}))
    (folder / "model.safetensors").touch()
    return folder


def test_a_decoder_is_not_for_bert(tmp_path: Path) -> None:
    folder = write_config(tmp_path / "gpt", "gpt2", n_positions=8)
    with pytest.raises(ConfigurationError, match=r"gpt \(gpt2\) is a decoder, .*GptEncoder"):
        BertEncoder(model=str(folder))
    assert "GptEncoder" in BertEncoder.check({"model": str(folder)})[0]
    reading_left = write_config(tmp_path / "left", "bert", is_decoder=True)
    with pytest.raises(ConfigurationError, match="is a decoder"):
        BertEncoder(model=str(reading_left))


def test_an_encoder_is_not_for_gpt(tmp_path: Path) -> None:
    folder = write_config(tmp_path / "bert", "bert", max_position_embeddings=8)
    with pytest.raises(ConfigurationError, match=r"bert \(bert\) is an encoder, .*BertEncoder"):
        GptEncoder(model=str(folder))
    assert "BertEncoder" in GptEncoder.check({"model": str(folder)})[0]


@pytest.mark.parametrize(
    ("model_type", "reads"),
    [("roberta", "encoder"), ("modernbert", "encoder"), ("llama", "decoder"), ("openai-gpt", "decoder"), ("new", None)],
)
def test_what_is_known_of_a_model(tmp_path: Path, model_type: str, reads: str | None) -> None:
    assert read_model(write_config(tmp_path / "model", model_type)).reads == reads


def test_what_changes_tokens_changes_the_fingerprint(tmp_path: Path) -> None:
    folder = write_config(tmp_path / "model", "bert")
    (folder / "vocab.txt").write_text("a\nb\n")
    seen = [read_model(folder).digests["tokenizer"]]
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    seen.append(read_model(folder).digests["tokenizer"])
    (folder / "sentence_bert_config.json").write_text('{"do_lower_case": true}')
    seen.append(read_model(folder).digests["tokenizer"])
    assert len(set(seen)) == 3
    (folder / "tokenizer.json").write_text("{}")
    whole = read_model(folder).digests["tokenizer"]
    (folder / "tokenizer_config.json").write_text('{"model_max_length": 9}')
    assert read_model(folder).digests["tokenizer"] == whole, "where a text is cut is no part of it"


# ---- the hub ----


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, list[str]], Path]:
    """A hub of one repository: a function that sets its architecture and files, and gives the local copy's folder."""
    local = tmp_path / "snapshot"
    local.mkdir()
    files: list[str] = []
    config: dict[str, Any] = {}

    def download(
        name: str, *, allow_patterns: list[str], ignore_patterns: list[str] | None, local_files_only: bool
    ) -> str:
        for file in filter_repo_objects(files, allow_patterns=allow_patterns, ignore_patterns=ignore_patterns):
            path = local / file
            path.parent.mkdir(exist_ok=True)
            path.write_text(json.dumps(config) if file == "config.json" else "")
        return str(local)

    def fill(model_type: str, names: list[str]) -> Path:
        config.update({"model_type": model_type, "hidden_size": 8, "hidden_act": "gelu"})
        files[:] = names
        return local

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    return fill


def fetched(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_usually_one_copy_of_the_weights_is_fetched(hub: Callable[[str, list[str]], Path]) -> None:
    folder = hub("bert", HUB_FILES)
    read_model("someone/bert")
    assert fetched(folder) == {"config.json", "tokenizer.json", "model.safetensors"}


def test_pickled_weights_are_fetched_where_there_are_no_others(hub: Callable[[str, list[str]], Path]) -> None:
    folder = hub("bert", [name for name in HUB_FILES if "safetensors" not in name])
    read_model("someone/bert")
    assert fetched(folder) == {"config.json", "tokenizer.json", "pytorch_model.bin"}


@pytest.mark.parametrize(("model_type", "with_file"), [("bert", False), ("mpnet", True)])
def test_the_onnx_backend_gets_the_file_it_needs(
    hub: Callable[[str, list[str]], Path], monkeypatch: pytest.MonkeyPatch, model_type: str, with_file: bool
) -> None:
    folder = hub(model_type, HUB_FILES)

    def stop(*_: Any, **__: Any) -> None:
        raise ConfigurationError("far enough")

    monkeypatch.setattr("flowdex_executors.encoder.bert.TextTokenizer", stop)
    with pytest.raises(ConfigurationError, match="far enough"):
        BertEncoder(model=f"someone/{model_type}", backend="onnx")
    assert ("onnx/model.onnx" in fetched(folder)) is with_file
    assert ("onnx/model.onnx_data" in fetched(folder)) is with_file
    assert "onnx/model_quantized.onnx" not in fetched(folder)
    shutil.rmtree(folder)


# ---- no memory ----


@pytest.mark.parametrize(
    ("error", "exhausted"),
    [
        (MemoryError(), True),
        (RuntimeError("CUDA failed with error out of memory"), True),  # CTranslate2
        (RuntimeError("Failed to allocate memory for requested buffer of size 1073741824"), True),  # ONNX Runtime
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("a text"), False),
    ],
)
def test_errors_that_mean_no_memory(error: Exception, exhausted: bool) -> None:
    assert _is_exhaustion(error) is exhausted
