"""UlmfitEncoder: an AWD-LSTM language model, from fastai's weights and vocabulary.

text -> fastai's rules and words -> three LSTMs -> last, maximum and mean over the tokens, concatenated
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flowdex.errors import ConfigurationError
from flowdex_executors.encoder.backend import choose_device
from flowdex_executors.encoder.base import check_options
from flowdex_executors.encoder.fingerprint import digest_files
from flowdex_executors.encoder.token_encoder import TokenEncoder
from flowdex_executors.encoder.ulmfit.awd_lstm import AwdLstm
from flowdex_executors.encoder.ulmfit.tokenizer import FastaiTokenizer
from flowdex_executors.encoder.ulmfit.vocabulary import Vocabulary, read_vocabulary
from flowdex_executors.encoder.ulmfit.weights import read_sizes, read_weights

# No `from __future__ import annotations` here: see flowdex_executors.schema.

__all__ = ["UlmfitEncoder"]

CONCAT_POOLING = ("last", "max", "mean")
_MAX_TOKENS = 1440  # as many as fastai's classifiers read
_LEAST_TOKENS = 2  # xxbos and a word


class UlmfitEncoder(TokenEncoder):
    """Encodes texts with ULMFiT's language model (Howard and Ruder, 2018).

    Args:
        weights: A language model, its encoder or a classifier that fastai (0.7, 1 or 2) has saved: .pth, which is read
            as arrays only, or .safetensors with the same names.
        vocabulary: The model's tokens in the order of their ids: fastai's itos_*.pkl, which is read and not run, a JSON
            list, or a file of text with a token a line.
        backward: Whether the model reads texts from their end. Tokens then come in that order.
        max_length: Longest sequence in tokens, xxbos included; None for no limit.
        pooling: See `EncodeParameters`, as for all that a request may choose.
        device: "auto" (a GPU if there is one), "cpu" or "cuda:N".
        threads: Compute threads; None for as many as there are cores, or one on a GPU.
        **options: What `TokenEncoder` takes: `layers`, `normalize`, `truncation`, `dimensions`, `batch_tokens`, ...

    Raises:
        ConfigurationError: A file is not named, cannot be read or does not fit the other, or an option is wrong.
    """

    def __init__(
        self,
        weights: str | None = None,
        vocabulary: str | None = None,
        *,
        backward: bool = False,
        max_length: int | None = _MAX_TOKENS,
        pooling: str | Sequence[str] = CONCAT_POOLING,
        device: str = "auto",
        threads: int | None = None,
        **options: Any,
    ) -> None:
        for problem in _problems({"max_length": max_length}):
            raise ConfigurationError(problem)
        weights_file, vocabulary_file = _file("weights", weights), _file("vocabulary", vocabulary)
        tokens = read_vocabulary(vocabulary_file)
        arrays = read_weights(weights_file)
        _check_rows(len(arrays.embeddings), tokens, weights_file, vocabulary_file)
        device = choose_device(device)
        super().__init__(
            tokenizer=FastaiTokenizer(tokens, backward=bool(backward)),
            backend=AwdLstm(arrays, device),
            model=weights_file.stem,
            max_tokens=max_length,
            pooling=pooling,
            device=device,
            fingerprint_parts={
                "weights": digest_files(weights_file),
                "vocabulary": tokens.digest,
                **({"backward": True} if backward else {}),
            },
            threads=1 if threads is None and device != "cpu" else threads,
            **options,
        )
        self.backward = bool(backward)

    def about(self) -> dict[str, Any]:
        """What `/status` says about the model."""
        return {**super().about(), "backward": self.backward}

    @classmethod
    def describe(cls, uses_with: Mapping[str, Any]) -> dict[str, Any]:
        """Model, dimensions and max_tokens for these options, from the shapes of the weights.

        Raises:
            ConfigurationError: A file is not named or cannot be read, or an option does not fit the model.
        """
        weights = _file("weights", uses_with.get("weights"))
        sizes = read_sizes(weights)
        facts = {"model": weights.stem, **cls.describe_vectors(uses_with, sizes, pooling=CONCAT_POOLING)}
        max_length = uses_with.get("max_length", _MAX_TOKENS)
        return facts if max_length is None else {**facts, "max_tokens": max_length}

    @classmethod
    def check(cls, uses_with: Mapping[str, Any], context: Any = None) -> list[str]:
        """Problems of these options that can be known before start, as sentences; beyond what `describe` raises."""
        problems = [f"{name}: {problem}" for name, problem in check_options(uses_with).items()]
        try:
            read_vocabulary(_file("vocabulary", uses_with.get("vocabulary")))
        except ConfigurationError as error:
            problems.append(error.message)
        return problems + _problems(uses_with)


def _file(option: str, value: Any) -> Path:
    if not isinstance(value, str) or not value:
        raise ConfigurationError(
            f"{option}: ULMFiT has no default model; name its files in uses_with: weights: FOLDER/lstm_fwd.pth, "
            f"vocabulary: FOLDER/itos_wt103.pkl (got {value!r})"
        )
    return Path(value).expanduser()


def _check_rows(rows: int, tokens: Vocabulary, weights: Path, vocabulary: Path) -> None:
    if rows != len(tokens):
        raise ConfigurationError(
            f"vocabulary: {vocabulary} has {len(tokens)} tokens, and {weights} has embeddings of {rows}: the two are "
            "not of the same model"
        )


def _problems(uses_with: Mapping[str, Any]) -> list[str]:
    value = uses_with.get("max_length")
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= _LEAST_TOKENS):
        return []
    return [f"max_length: must be a whole number of at least {_LEAST_TOKENS} tokens, got {value!r}"]
