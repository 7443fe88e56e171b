"""Models to measure encoders with: real ones where a package has them, else random weights in the published formats.

What is computed does not depend on the numbers, so random weights cost the same time as trained ones.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import elmo

__all__ = ["CASES", "Case"]

ELMO_OPTIONS = {
    "lstm": {**elmo.PUBLISHED["lstm"], "projection_dim": 128, "dim": 512},
    "char_cnn": {**elmo.PUBLISHED["char_cnn"], "filters": [[1, 32], [2, 32], [3, 64], [4, 128]]},
}
AWD_LSTM = (400, 1152, 1152, 400)  # embeddings, and the outputs of the three LSTMs, as published


class Case(NamedTuple):
    """One encoder to measure.

    Attributes:
        family: What `--families` takes.
        variant: Backend or size.
        uses: The class.
        options: Its `uses_with`, given a folder for files and some of the texts.
    """

    family: str
    variant: str
    uses: str
    options: Callable[[Path, Sequence[str]], dict[str, Any]]


def _bert(backend: str, quantization: str | None = None) -> Case:
    options = {"backend": backend} | ({"quantization": quantization} if quantization else {})
    name = f"{backend}{' int8, lossy' if quantization else ''}"
    return Case("minilm", name, "BertEncoder", lambda *_: options)


def _elmo(folder: Path, texts: Sequence[str]) -> dict[str, Any]:
    options, weights = elmo.write_model(folder, ELMO_OPTIONS)
    return {"options": str(options), "weights": str(weights)}


def _ulmfit(folder: Path, texts: Sequence[str]) -> dict[str, Any]:
    import torch

    words = Counter(word for text in texts for word in re.findall(r"\w+|[^\w\s]", text.lower()))
    special = ["xxunk", "xxpad", "xxbos", "xxfld", "xxmaj", "xxup", "xxrep", "xxwrep"]
    tokens = [*special, *(word for word, _ in words.most_common(20_000))]
    (folder / "vocabulary.json").write_text(json.dumps(tokens))
    weights = {"0.encoder.weight": torch.randn(len(tokens), AWD_LSTM[0])}
    for number, (size, output) in enumerate(pairwise(AWD_LSTM)):
        prefix = f"0.rnns.{number}."
        scale = output**-0.5
        weights[f"{prefix}weight_hh_l0_raw"] = torch.randn(4 * output, output) * scale
        weights[f"{prefix}module.weight_ih_l0"] = torch.randn(4 * output, size) * scale
        weights[f"{prefix}module.bias_ih_l0"] = torch.zeros(4 * output)
        weights[f"{prefix}module.bias_hh_l0"] = torch.zeros(4 * output)
    torch.save(weights, folder / "lstm_fwd.pth")
    return {"weights": str(folder / "lstm_fwd.pth"), "vocabulary": str(folder / "vocabulary.json")}


def _gpt(folder: Path, texts: Sequence[str]) -> dict[str, Any]:
    import torch
    from tokenizers import ByteLevelBPETokenizer
    from transformers import GPT2Config, GPT2Model

    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(texts, vocab_size=8000, show_progress=False)
    tokenizer.save(str(folder / "tokenizer.json"))
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=tokenizer.get_vocab_size(), n_positions=512, n_embd=256, n_layer=4, n_head=4)
    GPT2Model(config).save_pretrained(folder)
    return {"model": str(folder)}


CASES = [
    _bert("packed"),
    _bert("transformers"),
    _bert("onnx"),
    _bert("ctranslate2"),
    _bert("onnx", "int8"),
    _bert("ctranslate2", "int8"),
    Case("glove", "50 dimensions", "WordVectorEncoder", lambda *_: {"empty": "zero"}),
    Case("elmo", "512 cells, random", "ElmoEncoder", _elmo),
    Case("ulmfit", "published size, random", "UlmfitEncoder", _ulmfit),
    Case("gpt", "4 layers of 256, random", "GptEncoder", _gpt),
]
