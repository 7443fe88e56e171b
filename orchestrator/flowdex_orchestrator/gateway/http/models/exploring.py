"""The collection to look at: a map of it, and what several encoders find in it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from flowdex_orchestrator.gateway.http.models.base import PARAMETERS, Id, JsonObject, Request, Span, Text, Texts

__all__ = [
    "MODES",
    "CompareChoices",
    "CompareRequest",
    "CompareResponse",
    "ComparedEncoder",
    "MapRequest",
    "MapResponse",
]

Mode = Literal["dense", "sparse", "hybrid"]
MODES: tuple[Mode, ...] = ("dense", "sparse", "hybrid")


class MapRequest(Request):
    """What to draw."""

    limit: int = Field(
        default=2000, ge=1, le=10_000, strict=True, description="Most passages: of more, an even sample is drawn."
    )
    query: Text | None = Field(default=None, description="A query to find a place for.", examples=["Moon landing"])
    ids: list[Id] = Field(
        default_factory=list,
        max_length=1000,
        description="Passages to find a place for whether they are in the sample or not, such as hits of a search.",
        examples=[["apollo#0"]],
    )
    points: bool = Field(default=True, strict=True, description="Whether to answer with the passages of the sample.")
    parameters: JsonObject = PARAMETERS


class Place(BaseModel):
    """A place on the map."""

    x: float = Field(examples=[0.21])
    y: float = Field(examples=[-0.08])


class MapPoint(Place):
    """A passage on the map."""

    id: str = Field(examples=["apollo#0"])
    document_id: str = Field(examples=["apollo"])
    text: str = Field(description="The beginning of its text.", examples=["Apollo 11 landed on the Moon."])
    location: Span = Field(description="Where it is in the document's text: characters, end exclusive.")
    tags: JsonObject = Field(examples=[{"year": 1969}])


class MapResponse(BaseModel):
    """The passages in a plane: the one that keeps most of what their vectors vary (principal components)."""

    total: int = Field(description="How many passages there are.", examples=[51234])
    shown: int = Field(description="How many of them the map is made of, evenly drawn.", examples=[2000])
    variance: list[float] = Field(
        description="Share of all variance along x and along y: what the map keeps.", examples=[[0.09, 0.06]]
    )
    points: list[MapPoint]
    placed: list[MapPoint] = Field(description="Those of `ids` that exist and are not in the sample.")
    query: Place | None = Field(description="Where the query is; null without one, or where it has no vector.")
    notes: list[str] = Field(description="What to know of this answer.")
    took_ms: float = Field(examples=[31.0])


class CompareRequest(Request):
    """A query, and what is to find its neighbours: two to six encoders and modes of search."""

    query: Text = Field(examples=["first people on the Moon"])
    encoders: list[Id] | None = Field(
        default=None,
        max_length=6,
        description="Encoders of the flow, by their executor's or model's name. By default the first two there are.",
        examples=[["encoder", "glove"]],
    )
    modes: list[Mode] | None = Field(
        default=None,
        max_length=3,
        description="Modes of the flow's own search. By default none, or, in a flow of one encoder, dense and sparse.",
    )
    limit: int = Field(default=10, ge=1, le=100, strict=True, description="Most hits of each.")
    texts: Texts | None = Field(
        default=None, description="What encoders rank, in the place of passages of the index.", examples=[None]
    )
    candidates: int = Field(
        default=1000,
        ge=1,
        le=5000,
        strict=True,
        description="How many passages of the index encoders rank: of more, an even sample and the best hits of a "
        "search.",
    )


class ComparedHit(BaseModel):
    """A passage, and where each column has it."""

    id: str = Field(examples=["apollo#0"])
    document_id: str | None = Field(description="Its document; null where texts were given.", examples=["apollo"])
    text: str = Field(examples=["Apollo 11 landed on the Moon."])
    location: Span | None = Field(description="Where it is in the document's text: characters, end exclusive.")
    tags: JsonObject
    rank: int = Field(description="From 1.", examples=[1])
    score: float = Field(description="The cosine of an encoder, or the score of a search.", examples=[0.71])
    ranks: list[int | None] = Field(
        description="Its rank in each column, in their order; null where it is not among what that one found.",
        examples=[[1, 37]],
    )


class ComparedColumn(BaseModel):
    """What one encoder, or one mode of search, finds."""

    name: str = Field(examples=["encoder"])
    kind: Literal["encoder", "mode"]
    model: str | None = Field(description="What the encoder runs.", examples=["all-MiniLM-L6-v2"])
    dimensions: int | None = Field(description="Size of its vectors.", examples=[384])
    ranked: int = Field(description="How many passages it ranked.", examples=[1000])
    encoded: int = Field(description="How many texts had to be encoded for this; the others were known.", examples=[1])
    took_ms: float = Field(examples=[12.0])
    hits: list[ComparedHit]


class Agreement(BaseModel):
    """How much two columns agree."""

    columns: Annotated[list[int], Field(min_length=2, max_length=2)] = Field(examples=[[0, 1]])
    shared: int = Field(description="How many hits both have.", examples=[4])
    overlap: float = Field(description="What share of the hits that is.", examples=[0.4])
    correlation: float | None = Field(
        description="Spearman's rank correlation over all that both ranked, -1 to 1; null of fewer than two.",
        examples=[0.31],
    )
    common: int = Field(description="How many both ranked.", examples=[1000])


class CompareResponse(BaseModel):
    """What each finds, side by side."""

    query: str
    total: int = Field(description="How many passages there are, or texts.", examples=[51234])
    compared: int = Field(description="How many of them the encoders ranked; 0 without encoders.", examples=[1032])
    columns: list[ComparedColumn]
    agreement: list[Agreement] = Field(description="One for each pair of columns.")
    notes: list[str] = Field(description="What to know of this answer.")
    took_ms: float = Field(examples=[140.0])


class ComparedEncoder(BaseModel):
    """An encoder of the flow."""

    name: str = Field(examples=["encoder"])
    model: str | None = Field(examples=["all-MiniLM-L6-v2"])
    dimensions: int | None = Field(examples=[384])


class CompareChoices(BaseModel):
    """What can be put side by side in this flow."""

    encoders: list[ComparedEncoder]
    modes: list[Mode] = Field(description="Of the flow's search; none in a flow without an index.")
