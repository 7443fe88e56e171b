"""What a request may choose of an encoder that has token vectors.

parameters --EncodeParameters--> checked by themselves --vector_size--> and against the model
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from flowdex.errors import InvalidInput
from flowdex_executors.encoder.backend import resolve_layers
from flowdex_executors.encoder.output import OutputParameters
from flowdex_executors.encoder.pooling import NO_POOLING, check_pooling
from flowdex_executors.encoder.tokenising import Truncation

__all__ = ["DecodeParameters", "EncodeParameters", "TokenizeParameters", "vector_size"]

_MOST_LAYERS = 64


class EncodeParameters(OutputParameters):
    """What a request may choose, beside what `OutputParameters` has; the constructor takes the defaults.

    Attributes:
        pooling: Mode, or modes whose results are concatenated; see `flowdex_executors.encoder.pooling`.
        layers: Layers to take token vectors from: 0 is the input embeddings, negative numbers count from the top.
        layer_mode: What is made of several layers: "concat" or "mean".
        truncation: What becomes of a text that is too long: "head" keeps its beginning, "tail" its end, "window_mean"
            encodes all of it in windows whose vectors are averaged by their numbers of tokens, "error" refuses it.
        max_length: Longest sequence in tokens, special tokens included; None for the encoder's own, which is also the
            most.
        prompt: Name of the prompt that goes before each text; None for the endpoint's.
        mask_special: Whether the vectors of special tokens ([CLS], [SEP]) are left out of the pooling, but for modes
            that take one of them (cls, sep), and are zeros without pooling. The model itself sees them.
        tokens: Whether each document gets its tokens: `token_texts`, `token_spans`, `token_vectors`.
        attention: Whether each document gets `attention`.
    """

    pooling: tuple[str, ...] = ("mean",)
    layers: tuple[int, ...] = Field(default=(-1,), min_length=1, max_length=_MOST_LAYERS)
    layer_mode: Literal["concat", "mean"] = "concat"
    truncation: Truncation = "head"
    max_length: int | None = Field(default=None, ge=1)
    prompt: str | None = None
    mask_special: bool = False
    tokens: bool = False
    attention: bool = False

    @field_validator("pooling", mode="before")
    @classmethod
    def _check_pooling(cls, value: Any) -> tuple[str, ...]:
        if not isinstance(value, (str, list, tuple)):
            raise ValueError("must be the name of a mode, or a list of names")
        return check_pooling(value)

    @field_validator("layers", mode="before")
    @classmethod
    def _one_layer(cls, value: Any) -> Any:
        return [value] if isinstance(value, (int, float)) and not isinstance(value, bool) else value

    @model_validator(mode="after")
    def _windows_are_one_vector(self) -> EncodeParameters:
        if self.truncation == "window_mean" and (not self.pooled or self.tokens or self.attention):
            raise ValueError(
                "truncation window_mean gives one vector for all of a text, so it goes with neither pooling none nor "
                "tokens nor attention; use head or tail, or send the windows as documents of their own"
            )
        return self

    @property
    def pooled(self) -> bool:
        """Whether a text gets one vector, rather than one for each token."""
        return self.pooling != (NO_POOLING,)


class TokenizeParameters(BaseModel):
    """What a request to /tokenize may choose.

    Attributes:
        prompt: Name of the prompt that goes before each text; None for that of /encode.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompt: str | None = None


class DecodeParameters(BaseModel):
    """What a request to /decode may choose.

    Attributes:
        skip_special: Whether special tokens are left out of the texts.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    skip_special: bool = True


def vector_size(options: EncodeParameters, layer_sizes: Sequence[int]) -> int:
    """Size of the vectors that these options give.

    Args:
        options: The options.
        layer_sizes: Size of a token's vector at each layer of the model.

    Raises:
        InvalidInput: The model does not have the layers, or not so many dimensions.
    """
    sizes = [layer_sizes[layer] for layer in resolve_layers(options.layers, len(layer_sizes))]
    if options.layer_mode == "mean" and len(set(sizes)) > 1:
        raise InvalidInput(f"layer_mode: layers of the sizes {sizes} have no mean; use concat")
    size = (sizes[0] if options.layer_mode == "mean" else sum(sizes)) * len(options.pooling)
    if options.dimensions is not None and options.dimensions > size:
        raise InvalidInput(f"dimensions: {options.dimensions} are asked for, but the vectors have {size}")
    return options.dimensions or size
