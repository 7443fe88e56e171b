"""GptEncoder: OpenAI GPT, GPT-2 and every other transformer decoder, from a folder or the hub.

    text -> the model's own byte-pair encoding -> causal transformer -> weighted mean over the tokens

Each token has seen those before it only. So the last one stands for the whole text (`last`, what GPT is fine-tuned
with), and in a mean the later ones deserve more weight (`weighted_mean`, which SGPT found best without fine-tuning).
"""

from collections.abc import Mapping, Sequence
from typing import Any

from flowdex.errors import ConfigurationError
from flowdex_executors.encoder.backend import COMPUTE_DTYPES, choose_device
from flowdex_executors.encoder.base import check_options
from flowdex_executors.encoder.model_files import ModelFiles, NotDownloaded, read_model
from flowdex_executors.encoder.token_encoder import TokenEncoder
from flowdex_executors.encoder.tokenising import TextTokenizer
from flowdex_executors.encoder.transformers_backend import TransformersBackend

# No `from __future__ import annotations` here: see flowdex_executors.schema.

__all__ = ["GptEncoder"]

_POOLING = ("weighted_mean",)
_LEAST_TOKENS = 1


class GptEncoder(TokenEncoder):
    """Encodes texts with a transformer decoder (Radford et al., 2018 and 2019).

    Args:
        model: A folder or a hub id, such as "openai-community/openai-gpt" or "openai-community/gpt2".
        max_length: Longest sequence in tokens; None for the model's own limit.
        pooling: None for what the model's sentence-transformers files say, "weighted_mean" where it has none; else see
            `EncodeParameters`, as for all that a request may choose.
        normalize: Whether to scale vectors to length 1; None for the model's own.
        prompts: Texts that go before the text, by name, beside the model's own; see `TokenEncoder`.
        prompt: Name of the one that /encode uses where a request names none; None for the model's own default.
        device: "auto" (a GPU if there is one), "cpu" or "cuda:N".
        compute_dtype: "float32", or for a GPU "float16" or "bfloat16".
        threads: Compute threads; None for as many as there are cores, or one on a GPU.
        **options: What `TokenEncoder` takes: `layers`, `truncation`, `dimensions`, `dtype`, `batch_tokens`, ...

    Raises:
        ConfigurationError: The model is not named, cannot be found or loaded, or an option does not fit it.
    """

    def __init__(
        self,
        model: str | None = None,
        *,
        max_length: int | None = None,
        pooling: str | Sequence[str] | None = None,
        normalize: bool | None = None,
        prompts: Mapping[str, str] | None = None,
        prompt: str | None = None,
        device: str = "auto",
        compute_dtype: str = "float32",
        threads: int | None = None,
        **options: Any,
    ) -> None:
        files = _read(model)
        max_tokens = _max_tokens(files, max_length)
        for problem in _problems(files):
            raise ConfigurationError(problem)
        device = choose_device(device)
        super().__init__(
            tokenizer=TextTokenizer(files),
            backend=TransformersBackend(files, device, compute_dtype),
            model=files.name,
            max_tokens=max_tokens,
            pooling=_pooling(files) if pooling is None else pooling,
            normalize=files.normalize if normalize is None else bool(normalize),
            prompts={**files.prompts, **(prompts or {})},
            prompt=files.prompt if prompt is None else prompt,
            device=device,
            compute_dtype=compute_dtype,
            fingerprint_parts=files.digests,
            threads=1 if threads is None and device != "cpu" else threads,
            **options,
        )

    @classmethod
    def describe(cls, uses_with: Mapping[str, Any]) -> dict[str, Any]:
        """Model, dimensions, max_tokens, pooling and normalize for these options, from configuration files alone.

        Of a hub id that is yet to be downloaded, only the name is known.

        Raises:
            ConfigurationError: The model is not named or cannot be found, or an option does not fit it.
        """
        try:
            files = _read(uses_with.get("model"), download=False)
        except NotDownloaded:
            return {"model": uses_with["model"]}
        sizes = (files.hidden_size,) * (_layers(files) + 1)
        return {
            "model": files.name,
            "max_tokens": _max_tokens(files, uses_with.get("max_length")),
            **cls.describe_vectors(uses_with, sizes, pooling=_pooling(files), normalize=files.normalize),
        }

    @classmethod
    def check(cls, uses_with: Mapping[str, Any], context: Any = None) -> list[str]:
        """Problems of these options that can be known before start, as sentences; beyond what `describe` raises."""
        problems = [f"{name}: {problem}" for name, problem in check_options(uses_with).items()]
        if uses_with.get("compute_dtype", "float32") not in COMPUTE_DTYPES:
            problems.append(
                f"compute_dtype: {uses_with['compute_dtype']!r} is unknown; choose from {', '.join(COMPUTE_DTYPES)}"
            )
        try:
            return problems + _problems(_read(uses_with.get("model"), download=False))
        except NotDownloaded as error:
            from huggingface_hub.constants import HF_HUB_OFFLINE

            return [*problems, f"model: {error.message}"] if HF_HUB_OFFLINE else problems


def _read(model: Any, *, download: bool = True) -> ModelFiles:
    if model in (None, ""):
        raise ConfigurationError(
            "model: GPT has no default model; name a folder or a hub id in uses_with, such as "
            "model: openai-community/openai-gpt, or openai-community/gpt2"
        )
    return read_model(model, download=download)


def _layers(files: ModelFiles) -> int:
    return int(files.config.get("num_hidden_layers") or files.config.get("n_layer") or 0)


def _pooling(files: ModelFiles) -> tuple[str, ...]:
    """The model's own where its files name one; a plain transformers folder has none."""
    return files.pooling if (files.path / "modules.json").is_file() else _POOLING


def _problems(files: ModelFiles) -> list[str]:
    if files.reads == "encoder":
        return [
            f"model: {files.name} ({files.model_type}) is an encoder, in which all tokens see each other; name a "
            "decoder, or use uses: flowdex_executors.BertEncoder, which pools for that"
        ]
    if not files.has_weights:
        return [f"model: {files.path} holds no weights (model.safetensors or pytorch_model.bin)"]
    return []


def _max_tokens(files: ModelFiles, asked: Any) -> int:
    if asked is None:
        return files.max_tokens
    if isinstance(asked, bool) or not isinstance(asked, int) or asked < _LEAST_TOKENS:
        raise ConfigurationError(f"max_length: must be a whole number of at least 1 token, got {asked!r}")
    if files.max_positions is not None and asked > files.max_positions:
        raise ConfigurationError(
            f"max_length: {asked} is more than the {files.max_positions} positions of {files.name}"
        )
    return asked
