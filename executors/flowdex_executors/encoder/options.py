"""What a request may choose of an encoder that has token vectors: the parameters, and their part that is computed.

parameters --EncodeParameters--> checked  --View--> what is made of a sequence's token vectors, in a batch
                                          `-------> the rest: how texts are cut, and what becomes of vectors
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from pydantic import Field, field_validator

from flowdex_executors.encoder.output import OutputParameters
from flowdex_executors.encoder.pooling import NO_POOLING, check_pooling
from flowdex_executors.encoder.tokenising import Truncation

__all__ = ["EncodeParameters", "View"]


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
        tokens: Whether each document gets its tokens: `token_texts`, `token_spans`, `token_vectors`.
        attention: Whether each document gets `attention`.
    """

    pooling: tuple[str, ...] = ("mean",)
    layers: tuple[int, ...] = Field(default=(-1,), min_length=1, max_length=64)
    layer_mode: Literal["concat", "mean"] = "concat"
    truncation: Truncation = "head"
    max_length: int | None = Field(default=None, ge=1)
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

    @property
    def pooled(self) -> bool:
        """Whether a text gets one vector, rather than one for each token."""
        return self.pooling != (NO_POOLING,)


class View(NamedTuple):
    """What is made of the token vectors of a sequence. Sequences of equal views are computed together.

    Attributes:
        layers: Layers, as numbers from 0.
        average: Whether several layers are averaged, and not concatenated.
        pooling: Pooling modes; empty for no pooling.
        tokens: Whether the token vectors are wanted.
        attention: Whether the attention is wanted.
    """

    layers: tuple[int, ...]
    average: bool
    pooling: tuple[str, ...]
    tokens: bool
    attention: bool
