"""Texts to vectors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from flowdex_orchestrator.gateway.http.models.base import (
    PARAMETERS,
    JsonObject,
    Request,
    Span,
    checked_text,
    kind,
    strings,
)

__all__ = ["ENCODE_CHOICES", "EncodeRequest", "EncodeResponse"]


def _input(value: Any) -> Any:
    """A text, or an object with a pair of texts or with words."""
    if not isinstance(value, Mapping):
        return checked_text(value)
    names = set(value)
    if names == {"words"} and isinstance(value["words"], list) and value["words"]:
        return {"words": [_word(word) for word in value["words"]]}
    if names <= {"text", "text_pair"} and "text" in names:
        return {name: checked_text(part) for name, part in value.items()}
    raise PydanticCustomError(
        "text_object", 'must be a string, {{"text": ..., "text_pair": ...}} or {{"words": ["...", ...]}}'
    )


def _word(value: Any) -> str:
    if not isinstance(value, str):
        raise PydanticCustomError("string_type", "words must be strings, not {kind}", {"kind": kind(value)})
    return value


_TEXT_OBJECT: Any = {
    "anyOf": [
        {"type": "string", "minLength": 1},
        {
            "type": "object",
            "title": "Pair",
            "properties": {"text": {"type": "string"}, "text_pair": {"type": "string"}},
            "required": ["text"],
            "additionalProperties": False,
        },
        {
            "type": "object",
            "title": "Words",
            "properties": {"words": {"type": "array", "items": {"type": "string"}, "minItems": 1}},
            "required": ["words"],
            "additionalProperties": False,
        },
    ]
}
Input = Annotated[str | JsonObject, BeforeValidator(_input), WithJsonSchema(_TEXT_OBJECT)]
Inputs = Annotated[
    list[Input],
    BeforeValidator(strings),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": _TEXT_OBJECT, "minItems": 1}]}),
]
Pooling = Literal[
    "mean", "max", "mean_max", "cls", "sep", "last", "weighted_mean", "mean_sqrt_len", "idf", "none"
]  # fmt: skip
# Fields of EncodeRequest that are parameters of the encoder.
ENCODE_CHOICES = {
    "pooling",
    "layers",
    "layer_mode",
    "normalize",
    "truncation",
    "max_length",
    "dimensions",
    "dtype",
    "prompt",
    "tokens",
    "attention",
    "receipt",
}


class EncodeRequest(Request):
    """Texts to turn into vectors, and how. What is left out is as the encoder is set up."""

    texts: Inputs = Field(
        description="One text or a list of texts. In a list, a text may also be a pair of texts, which are read as "
        "one sequence, or a text that is cut into words already.",
        examples=[["The quick brown fox", {"text": "Who?", "text_pair": "Me."}, {"words": ["cut", "already"]}]],
    )
    encoding: Literal["float", "base64"] = Field(
        default="float",
        description="Vectors as lists of numbers, or as base64 of their little-endian bytes, of the type `dtype`.",
    )
    pooling: Pooling | list[Pooling] | None = Field(
        default=None, description="How token vectors become one; several are concatenated; none keeps them."
    )
    layers: int | list[int] | None = Field(
        default=None, description="Layers of the model: 0 is the input embeddings, -1 the top."
    )
    layer_mode: Literal["concat", "mean"] | None = Field(default=None, description="What is made of several layers.")
    normalize: bool | None = Field(default=None, description="Whether vectors have length 1.")
    truncation: Literal["error", "head", "tail", "window_mean"] | None = Field(
        default=None, description="What becomes of a text that is too long."
    )
    max_length: int | None = Field(default=None, ge=1, description="Longest sequence in tokens.")
    dimensions: int | None = Field(default=None, ge=1, description="So many leading dimensions, normalised again.")
    dtype: Literal["float32", "float16", "int8", "binary"] | None = Field(
        default=None, description="Number type; int8 comes with `scales`, binary is signs, eight to a byte."
    )
    prompt: str | None = Field(default=None, description="Name of the prompt before each text; empty for none.")
    tokens: bool | None = Field(default=None, description="Whether to answer the tokens.")
    attention: bool | None = Field(default=None, description="Whether to answer the attention.")
    receipt: bool | None = Field(default=None, description="Whether to answer what was done for each text.")
    parameters: JsonObject = PARAMETERS


class Array(BaseModel):
    """An array in a reply with `encoding` base64."""

    dtype: Literal["float32", "float16", "int8", "uint8"]
    shape: list[int]
    data: str = Field(description="Base64 of its little-endian bytes, the last axis fastest.")


class Tokens(BaseModel):
    """The tokens of a text, special ones included."""

    texts: list[str] = Field(examples=[["[CLS]", "apollo", "[SEP]"]])
    spans: list[Span] = Field(
        description="[start, end] of each in characters of the text, end exclusive; [0, 0] for special tokens.",
        examples=[[[0, 0], [0, 6], [0, 0]]],
    )
    vectors: list[list[float]] | Array = Field(description="Neither pooled nor normalised.")


class Receipt(BaseModel):
    """What was done for a text."""

    tokens: int | None = Field(default=None, description="Tokens computed, special ones included.")
    dropped: int | None = Field(default=None, description="Tokens that truncation cut off.")
    queue_ms: float = Field(description="Milliseconds that the request waited in the encoder.")
    compute_ms: float = Field(description="Milliseconds from its first text's turn to its last text's end.")
    fingerprint: str = Field(description="Short hash of what made the vector.")


class EncodeResponse(BaseModel):
    """One vector a text, in order, and what else was asked for."""

    embeddings: list[list[float]] | list[str] | list[list[list[float]]] | list[Array] = Field(
        description="As `encoding` says; with pooling none, a matrix a text.", examples=[[[0.1, -0.2]]]
    )
    dimensions: int = Field(description="Length of a vector; of a binary one, in bytes.", examples=[384])
    dtype: str = Field(description="Number type of the vectors.", examples=["float32"])
    count: int = Field(description="Number of vectors.", examples=[1])
    scales: list[float] | list[list[float]] | None = Field(
        default=None, description="With int8: what each vector is to be multiplied with."
    )
    tokens: list[Tokens] | None = Field(default=None, description="Of each text, where asked for.")
    attentions: list[Any] | None = Field(
        default=None, description="Of each text, where asked for: of shape (layers, heads, tokens, tokens)."
    )
    receipts: list[Receipt] | None = Field(default=None, description="Of each text, where asked for.")
    took_ms: float = Field(description="Time in the gateway and behind it, in milliseconds.", examples=[7.4])
