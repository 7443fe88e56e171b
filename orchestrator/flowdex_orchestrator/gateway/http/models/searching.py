"""Queries to hits, and texts ranked without an index."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from flowdex_orchestrator.gateway.http.models.base import PARAMETERS, JsonObject, Request, Span, Text, Texts

__all__ = ["SEARCH_CHOICES", "RankRequest", "RankResponse", "SearchRequest", "SearchResponse"]


def _named(model: type[BaseModel], key: str, *names: str) -> Any:
    """Lets the value of `key` alone stand for a `model` that has only that: "rrf" for {"method": "rrf"}."""

    def wrap(value: Any) -> Any:
        return value if value is None or isinstance(value, (Mapping, list, BaseModel)) else {key: value}

    short: Any = Literal[names] if names else float
    return BeforeValidator(wrap, json_schema_input_type=short | model | None)


class FusionOptions(Request):
    """How the rankings of a hybrid search become one."""

    method: Literal["rrf", "dbsf"] = Field(default="rrf", description="By ranks (rrf), or by scores (dbsf).")
    k: float | None = Field(default=None, ge=1, description="The constant of rrf: 1 / (k + rank).")
    weights: dict[Literal["dense", "sparse"], Annotated[float, Field(ge=0)]] = Field(
        default_factory=dict, description="How much each ranking counts; 1 where not given.", examples=[{"dense": 2}]
    )


class DiversityOptions(Request):
    """How hits are chosen that differ from each other (maximal marginal relevance)."""

    weight: float = Field(default=0.5, ge=0, le=1, description="0: by score alone, 1: by difference alone.")
    candidates: int = Field(default=50, ge=1, strict=True, description="How many hits to choose from.")


class AggregateOptions(Request):
    """How the scores of a document's passages become the document's."""

    method: Literal["max", "mean", "sum", "softmax"] = Field(default="max")
    top: int | None = Field(default=None, ge=1, strict=True, description="How many of its best passages count.")
    temperature: float | None = Field(
        default=None, gt=0, description="Of softmax: the lower, the more the best counts."
    )


class RerankOptions(Request):
    """A second look at the best hits; what is left out is as the flow is set up."""

    method: Literal["late_interaction", "cross_encoder", "none"] | None = None
    top: int | None = Field(default=None, ge=1, strict=True, description="How many hits to look at.")
    timeout: float | None = Field(default=None, gt=0, description="Seconds; then the order stays as it was.")


Fusion = Annotated[FusionOptions | None, _named(FusionOptions, "method", "rrf", "dbsf")]
Diversity = Annotated[DiversityOptions | None, _named(DiversityOptions, "weight")]
Aggregate = Annotated[AggregateOptions | None, _named(AggregateOptions, "method", "max", "mean", "sum", "softmax")]
Rerank = Annotated[RerankOptions | None, _named(RerankOptions, "method", "late_interaction", "cross_encoder", "none")]


class SearchRequest(Request):
    """One query or several."""

    query: Texts = Field(description="One query or a list of queries.", examples=["first people on the Moon"])
    limit: int = Field(default=10, ge=1, strict=True, description="Most hits a query.")
    offset: int = Field(default=0, ge=0, strict=True, description="Hits to leave out from the top.")
    filter: JsonObject | None = Field(
        default=None, description="Conditions on the tags.", examples=[{"year": {"$gte": 1960}}]
    )
    mode: Literal["hybrid", "dense", "sparse"] | None = Field(
        default=None, description="Match by meaning (dense), by words (sparse) or both (hybrid, the default)."
    )
    passages: int | None = Field(default=None, ge=1, strict=True, description="Most passages of one document.")
    threshold: float | None = Field(default=None, description="Least score of a hit.")
    fusion: Fusion = Field(
        default=None, description='How hybrid is ranked: "rrf" (the default), "dbsf", or an object with the details.'
    )
    candidates: int | None = Field(
        default=None, ge=1, strict=True, description="How many documents the ranker gets to choose from."
    )
    explain: bool | None = Field(
        default=None, strict=True, description="Whether hits say where their scores come from."
    )
    diversity: Diversity = Field(
        default=None, description="Prefer hits that differ: a weight from 0 to 1, or an object with the details."
    )
    group: Literal["document", "passage"] | None = Field(
        default=None, description="Whether hits are documents (the default) or passages."
    )
    highlight: bool | None = Field(default=None, strict=True, description="Whether to mark the query's words.")
    aggregate: Aggregate = Field(
        default=None, description="How passages make a document's score: a method, or an object with the details."
    )
    rerank: Rerank = Field(
        default=None, description='A second look at the best hits: a method, "none", or an object with the details.'
    )
    parameters: JsonObject = PARAMETERS


SEARCH_CHOICES = frozenset(SearchRequest.model_fields) - {"query", "parameters"}
"""What of a search request is a parameter of /search, under the same name."""


class Ranked(BaseModel):
    """Where one stage of a search has a hit."""

    model_config = ConfigDict(extra="allow")

    rank: int = Field(description="From 1.")
    score: float


class Passage(BaseModel):
    """A part of a document that matches."""

    id: str
    text: str
    location: Span | None = Field(description="Where it is in the document's text: characters, end exclusive.")
    score: float
    scores: dict[str, float] = Field(description="All scores, by name.")
    explain: dict[str, Ranked] | None = Field(default=None, description="As with hits.")


class Hit(BaseModel):
    """A document that matches: its best passage, and why."""

    id: str = Field(examples=["apollo"])
    score: float = Field(description="Higher is better.", examples=[0.71])
    text: str = Field(description="Its best passage.", examples=["Apollo 11 landed on the Moon."])
    tags: JsonObject = Field(examples=[{"year": 1969}])
    location: Span | None = Field(description="Where the passage is in the document: characters, end exclusive.")
    highlights: list[Span] = Field(description="What to mark in `text`: characters, end exclusive.")
    scores: dict[str, float] = Field(
        description="All scores, by name: score, dense, sparse, rerank, those that are known.",
        examples=[{"score": 0.033, "dense": 0.71, "sparse": 9.3}],
    )
    passages: list[Passage] = Field(description="All its matching passages, best first.")
    explain: dict[str, Ranked] | None = Field(
        default=None,
        description="With `explain`: each stage that ranked it.",
        examples=[{"dense": {"rank": 1, "score": 0.71}, "fusion": {"rank": 1, "score": 0.033, "method": "rrf"}}],
    )
    parent_id: str | None = Field(default=None, description="Where hits are passages: the id of its document.")


class SearchResult(BaseModel):
    """The hits of one query, best first."""

    query: str
    hits: list[Hit]
    notes: list[str] = Field(description="What to know of this answer, such as that there was no time to rerank.")


class SearchResponse(BaseModel):
    """One result a query, in order."""

    results: list[SearchResult]
    took_ms: float = Field(examples=[12.5])


class RankRequest(Request):
    """A query, and the texts to rank for it."""

    query: Text = Field(description="What the texts are to answer.", examples=["first people on the Moon"])
    texts: Texts = Field(
        description="One text or a list of texts.", examples=[["Cats purr.", "Apollo 11 landed on the Moon."]]
    )
    method: Literal["late_interaction", "cross_encoder", "dense"] | None = Field(
        default=None, description="How; by default cross_encoder where the flow has one, else late_interaction."
    )
    top: int | None = Field(default=None, ge=1, strict=True, description="Most texts to answer with; all by default.")
    parameters: JsonObject = PARAMETERS


class RankedText(BaseModel):
    """A text, and how well it answers the query."""

    index: int = Field(description="Its position in the request, from 0.", examples=[1])
    score: float = Field(description="Higher is better.", examples=[0.62])
    text: str = Field(examples=["Apollo 11 landed on the Moon."])


class RankResponse(BaseModel):
    """The texts, best first."""

    results: list[RankedText]
    took_ms: float = Field(examples=[14.2])
