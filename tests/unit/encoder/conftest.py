"""Tiny random models on disk, written by transformers itself in the published formats."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

# Enough of a vocabulary that texts differ: letters, their continuations, some words, some ideographs.
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,!?éü東京都日本"
WORDS = ["the", "of", "neural", "search", "flow", "vector", "##ing", "##ed", "hello", "world"]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]

TINY: dict[str, dict[str, Any]] = {
    "bert": {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48},
    "roberta": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64},
    "xlm-roberta": {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32},
    "distilbert": {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64},
    "mpnet": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64},
}
MakeModel = Callable[..., Path]


def write_tokenizer(folder: Path, pad_id: int) -> int:
    """Write a WordPiece tokenizer.json whose padding id is `pad_id`; the size of its vocabulary."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    tokens = [*SPECIAL, *LETTERS, *(f"##{letter}" for letter in LETTERS), *WORDS]
    tokens.remove("[PAD]")
    tokens.insert(pad_id, "[PAD]")
    vocabulary = {token: index for index, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True, strip_accents=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(name, vocabulary[name]) for name in ("[CLS]", "[SEP]")],
    )
    tokenizer.enable_padding(pad_id=pad_id)  # as published files do; a service must switch both off
    tokenizer.enable_truncation(7)
    tokenizer.save(str(folder / "tokenizer.json"))
    return len(vocabulary)


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """A team of threads for such small matrices only waits for its slowest."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def make_model(tmp_path_factory: pytest.TempPathFactory) -> MakeModel:
    """A function that writes a tiny random model of a family and returns its folder."""

    def make(family: str = "bert", *, seed: int = 0, positions: int = 64, **changes: Any) -> Path:
        import torch
        from transformers import AutoConfig, AutoModel

        folder = tmp_path_factory.mktemp(family)
        pad_id = 1 if family in ("roberta", "xlm-roberta", "mpnet") else 0
        size = write_tokenizer(folder, pad_id)
        options = {**TINY[family], "vocab_size": size, "max_position_embeddings": positions, "pad_token_id": pad_id}
        torch.manual_seed(seed)
        model = AutoModel.from_config(AutoConfig.for_model(family, **{**options, **changes}))
        with torch.no_grad():  # the usual start of ones and zeros would hide a norm or a bias that is left out
            for name, parameter in model.named_parameters():
                if parameter.ndim == 1:
                    parameter.add_(torch.randn_like(parameter) * 0.3)
                elif "embeddings" in name:
                    parameter.mul_(10)
        model.eval().save_pretrained(folder)
        return folder

    return make
