"""Where each token of a text looks."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from flowdex_orchestrator.gateway.http.models.base import PARAMETERS, JsonObject, Request, Span, Text

__all__ = ["AttentionRequest", "AttentionResponse"]


class AttentionRequest(Request):
    """A text, or a pair of texts that are read as one sequence."""

    text: Text = Field(examples=["The cat sat on the mat"])
    text_pair: Text | None = Field(default=None, description="The second text.", examples=["The cat lay on the rug"])
    model: str | None = Field(
        default=None, description="An encoder's or its model's name; by default the first that has attention."
    )
    layers: int | list[int] | None = Field(
        default=None, description="Layers of attention, from 0; -1 is the top. All by default."
    )
    dtype: Literal["float16", "float32"] = Field(default="float16", description="Number type of the weights.")
    format: Literal["json", "html"] = Field(
        default="json", description="The numbers, or a self-contained page that draws them."
    )
    parameters: JsonObject = PARAMETERS


class Weights(BaseModel):
    """An array."""

    dtype: Literal["float16", "float32"]
    shape: list[int] = Field(description="(layers, heads, tokens, tokens)", examples=[[6, 12, 8, 8]])
    data: str = Field(description="Base64 of its little-endian bytes, the last axis fastest.")


class AttentionResponse(BaseModel):
    """In each row of `weights`, how much of each token went into the row's; a row sums to 1."""

    model: str = Field(examples=["all-MiniLM-L6-v2"])
    text: str
    text_pair: str | None
    tokens: list[str] = Field(
        description="Special ones included.", examples=[["[CLS]", "the", "cat", "sat", "on", "the", "mat", "[SEP]"]]
    )
    spans: list[Span] = Field(description="[start, end] of each token in its own text; [0, 0] for special tokens.")
    pair_start: int | None = Field(description="Position of the first token of the second text.")
    layers: list[int] = Field(description="Numbers of the layers in `weights`.", examples=[[0, 1, 2, 3, 4, 5]])
    weights: Weights
    took_ms: float = Field(examples=[21.4])
