"""What a request may ask of the ranker, and what the flow file may say in its place.

    uses_with {aggregate, rerank} --defaults--> \
                                                 RankParameters
    parameters of /search, /rank  --------------> /

A name alone stands for an object that has only that: `aggregate: mean` for `aggregate: {method: mean}`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from flowdex.errors import ConfigurationError
from flowdex_executors.parameters import parse_parameters

__all__ = ["Aggregation", "Diversity", "RankParameters", "Reranking", "SearchParameters", "settings_from"]

Method: TypeAlias = Literal["late_interaction", "cross_encoder"]

MAX_CANDIDATES = 2000


def _named(key: str) -> BeforeValidator:
    """Lets the value of `key` alone stand for an object that has only that."""
    convert: Callable[[Any], Any] = lambda value: (  # noqa: E731 - a function of one line, made by a function of one
        value if value is None or isinstance(value, (Mapping, BaseModel)) else {key: value}
    )
    return BeforeValidator(convert)


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Aggregation(_Settings):
    """How the scores of a document's passages become its own; see `aggregation`.

    Attributes:
        method: max, mean, sum or softmax.
        top: How many of its best passages "sum" adds.
        temperature: Of "softmax", in standard deviations of the scores of all passages of the query: towards 0 it is
            the max, towards infinity the mean.
    """

    method: Literal["max", "mean", "sum", "softmax"] = "max"
    top: int = Field(default=3, ge=1, le=100)
    temperature: float = Field(default=1.0, gt=0, allow_inf_nan=False)


class Reranking(_Settings):
    """The rerank stage; see `rerank`.

    Attributes:
        method: late_interaction or cross_encoder.
        top: How many of the first hits are reranked; the rest keep their order below them.
        timeout: Seconds it may take, within what the request has left.
    """

    method: Method
    top: int = Field(default=50, ge=1, le=MAX_CANDIDATES)
    timeout: float = Field(default=2.0, gt=0, allow_inf_nan=False)


class Diversity(_Settings):
    """Choice of hits that differ from each other; see `diversity`.

    Attributes:
        weight: How much it counts that a hit differs from those before it: 0 not at all, 1 alone.
        candidates: How many of the first hits are chosen from.
    """

    weight: float = Field(default=0.5, ge=0, le=1)
    candidates: int = Field(default=50, ge=1, le=MAX_CANDIDATES)


class _Fusion(BaseModel):
    """What is of interest here of the indexer's parameter `fusion`."""

    weights: dict[str, float] = Field(default_factory=dict)


class SearchParameters(BaseModel):
    """Parameters of /search that the ranker heeds.

    Attributes:
        limit: Most hits to return.
        offset: Hits to skip.
        passages: Most passages of one document to return; None for 5.
        threshold: Least final score of a hit.
        group: Whether hits are documents or passages.
        aggregate: Passages to documents.
        rerank: The rerank stage, if there is one.
        diversity: Choice of hits that differ, if wanted.
        fusion: For its weights.
        explain: Whether hits say where their score comes from.
        highlight: Whether to mark the query's words.
    """

    limit: int = Field(default=10, ge=1)
    offset: int = Field(default=0, ge=0)
    passages: int | None = Field(default=None, ge=1)
    threshold: float | None = Field(default=None, allow_inf_nan=False)
    group: Literal["document", "passage"] = "document"
    aggregate: Annotated[Aggregation, _named("method")] = Aggregation()
    rerank: Annotated[Reranking | None, _named("method")] = None
    diversity: Annotated[Diversity | None, _named("weight")] = None
    fusion: Annotated[_Fusion, _named("method")] = _Fusion()
    explain: bool = False
    highlight: bool = True

    @classmethod
    def of(
        cls, parameters: Mapping[str, Any] | None, aggregate: Aggregation, rerank: Reranking | None
    ) -> SearchParameters:
        """Those of a request, with the flow's defaults; a `rerank` that is null or "none" is no reranking.

        Raises:
            InvalidInput: One is wrong.
        """
        given = dict(parameters or {})
        if given.get("aggregate") is None:
            given["aggregate"] = aggregate
        wanted = given.get("rerank", rerank)
        if wanted == "none" or (isinstance(wanted, Mapping) and wanted.get("method") == "none"):
            wanted = None
        elif (
            isinstance(wanted, Mapping) and rerank is not None and wanted.get("method", rerank.method) == rerank.method
        ):
            wanted = {**rerank.model_dump(), **wanted}  # such as {"top": 20}: all else as the flow has it
        given["rerank"] = wanted
        return parse_parameters(cls, given)


class RankParameters(BaseModel):
    """Parameters of /rank.

    Attributes:
        method: late_interaction, cross_encoder, or dense: the cosine of the encoder's vectors. None for the first
            that there is of cross_encoder and late_interaction.
        top: Most texts to return; None for all.
    """

    method: Literal["late_interaction", "cross_encoder", "dense"] | None = None
    top: int | None = Field(default=None, ge=1)


class _Defaults(_Settings):
    aggregate: Annotated[Aggregation, _named("method")] = Aggregation()
    rerank: Annotated[Reranking | None, _named("method")] = None


def settings_from(aggregate: Any, rerank: Any) -> tuple[Aggregation, Reranking | None]:
    """The defaults of a flow file.

    Raises:
        ConfigurationError: One is wrong; the message starts with its name.
    """
    try:
        given = _Defaults.model_validate({"aggregate": aggregate, "rerank": rerank})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise ConfigurationError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    return given.aggregate, given.rerank
