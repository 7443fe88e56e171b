"""The cross-encoder: scores are those of transformers' own forward pass, and what is wrong is found before start."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flowdex.errors import ConfigurationError
from flowdex_executors import Ranker
from flowdex_executors.ranker.cross_encoder import CrossEncoder, settings_from

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz", *(f"##{c}" for c in "abcdefgh")]
QUERY = "a b c"
TEXTS = ["d e f", "g", "a b c d e f g h i j k l m n", "b a d", "h a b c"]


def model_folder(folder: Path, labels: int) -> Path:
    """A tiny random BertForSequenceClassification, as published ones are laid out."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

    torch.manual_seed(labels)
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
        num_labels=labels,
        initializer_range=0.7,
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    return folder


def reference(folder: Path) -> np.ndarray[Any, Any]:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.inference_mode():
        inputs = tokenizer([QUERY] * len(TEXTS), TEXTS, padding=True, return_tensors="pt")
        logits = model(**inputs).logits
    if logits.shape[1] == 1:
        return logits[:, 0].sigmoid().numpy()
    return logits.softmax(-1)[:, 1].numpy()


@pytest.mark.parametrize("labels", [1, 2])
@pytest.mark.parametrize("batch_tokens", [1, 2048])
async def test_scores_are_those_of_transformers(tmp_path: Path, labels: int, batch_tokens: int) -> None:
    folder = model_folder(tmp_path / "model", labels)
    encoder = CrossEncoder(settings_from({"path": str(folder), "batch_tokens": batch_tokens, "threads": 2}))
    encoder.warm_up()
    try:
        scores = await encoder.score(QUERY, TEXTS, 30)
        expected = reference(folder)
        np.testing.assert_allclose(scores, expected, atol=1e-5)
        assert np.ptp(expected) > 0.01  # they do differ
    finally:
        encoder.close()


def test_what_is_wrong_is_found_before_start(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "model", 1)
    described = Ranker.describe({"cross_encoder": str(folder), "rerank": "cross_encoder"})
    assert described["cross_encoder"] == "model"
    assert Ranker.check({"rerank": "cross_encoder"})
    assert not Ranker.check({"rerank": "cross_encoder", "cross_encoder": str(folder)})
    with pytest.raises(ConfigurationError, match="cross_encoder: there is no model folder"):
        Ranker.describe({"cross_encoder": str(tmp_path / "nowhere")})
    with pytest.raises(ConfigurationError, match=r"cross_encoder\.pfad"):
        Ranker.describe({"cross_encoder": {"path": str(folder), "pfad": 1}})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "architectures": ["BertForMaskedLM"]}))
    with pytest.raises(ConfigurationError, match="BertForMaskedLM"):
        Ranker.describe({"cross_encoder": str(folder)})
    (folder / "config.json").write_text(json.dumps({**config, "id2label": {"0": "x", "1": "y", "2": "z"}}))
    with pytest.raises(ConfigurationError, match="3 labels"):
        Ranker.describe({"cross_encoder": str(folder)})


def test_a_model_that_was_not_trained_for_it_is_refused(tmp_path: Path) -> None:
    from transformers import BertConfig, BertModel

    folder = model_folder(tmp_path / "model", 1)
    config = BertConfig.from_pretrained(folder)
    BertModel(config).save_pretrained(folder)  # no classifier among the weights
    written = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**written, "architectures": ["BertForSequenceClassification"]}))
    with pytest.raises(ConfigurationError, match="lack classifier"):
        CrossEncoder(settings_from(str(folder)))
