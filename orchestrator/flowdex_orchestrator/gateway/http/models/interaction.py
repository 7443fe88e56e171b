"""A query's tokens met with those of a text."""

from __future__ import annotations

from pydantic import BaseModel, Field

from flowdex_orchestrator.gateway.http.models.base import Request, Span, Text

__all__ = ["InteractionRequest", "InteractionResponse"]


class InteractionRequest(Request):
    """Two texts whose tokens are to meet."""

    query: Text = Field(description="What was searched for.", examples=["first people on the Moon"])
    text: Text = Field(description="What was found.", examples=["Apollo 11 landed on the Moon."])
    model: str | None = Field(default=None, description="Name of an encoder or of its model; the flow's first if none.")


class InteractionTokens(BaseModel):
    """The tokens of one side, without special ones and prompts."""

    texts: list[str] = Field(description="As the encoder's vocabulary has them.", examples=[["moon", "##light"]])
    spans: list[Span] = Field(
        description="[start, end] of each in characters, end exclusive.", examples=[[[0, 4], [4, 9]]]
    )
    weights: list[float] = Field(
        description="The share of each in a mean of all: the length of its vector over the sum of lengths.",
        examples=[[0.52, 0.48]],
    )
    dropped: int | None = Field(
        description="Tokens beyond the encoder's limit, which are left out; null where it does not say.", examples=[0]
    )


class InteractionResponse(BaseModel):
    """How near each token of the query is to each token of the text."""

    model: str = Field(description="What made the vectors.", examples=["all-MiniLM-L6-v2"])
    query: InteractionTokens
    text: InteractionTokens
    cosines: list[list[float]] = Field(
        description="A row for each token of the query, in it a cosine for each token of the text.",
        examples=[[[0.81, 0.12], [0.07, 0.64]]],
    )
    took_ms: float = Field(examples=[14.2])
