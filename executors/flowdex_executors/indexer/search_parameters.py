"""Parameters of /search, as far as the indexer heeds them.

The ranker reads `rerank`, `aggregate` and `diversity` by itself; here they only say how many documents it needs to work
on (`units`), and whether it wants their vectors. `threshold` is the ranker's alone: it is about the final score, and
what that is may be said in the flow file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from flowdex_executors.indexer.fusion import Fusion

__all__ = ["MAX_CANDIDATES", "FusionParameters", "Mode", "SearchParameters"]

Mode: TypeAlias = Literal["hybrid", "dense", "sparse"]

MAX_CANDIDATES = 2000
_STAGE_CANDIDATES = 50
"""What a stage that changes the order gets to see at least; the first 50 hits are then stable under paging."""
_PASSAGES = 5


def _named(key: str) -> Callable[[Any], Any]:
    """Lets the value of `key` alone stand for an object that has only that: "rrf" for {"method": "rrf"}."""
    return lambda value: value if value is None or isinstance(value, (Mapping, BaseModel)) else {key: value}


class FusionParameters(BaseModel):
    """How the rankings of a hybrid search are fused, see `fusion.py`.

    Attributes:
        method: rrf or dbsf.
        k: The constant of rrf; None is the indexer's `rrf_k`.
        weights: Of the two rankings; one that weighs 0 is left out.
    """

    model_config = ConfigDict(extra="forbid")

    method: Literal["rrf", "dbsf"] = "rrf"
    k: float | None = Field(default=None, ge=1, le=1e6)
    weights: dict[Literal["dense", "sparse"], Annotated[float, Field(ge=0, le=1e6)]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _is_possible(self) -> FusionParameters:
        if self.method == "dbsf" and self.k is not None:
            raise ValueError('k is the constant of "rrf"; leave it out with "dbsf"')
        if not any(self.weights.get(name, 1.0) for name in ("dense", "sparse")):
            raise ValueError("one of the weights must be more than 0")
        return self

    def fusion(self, default_k: float) -> Fusion:
        """As `fusion.py` takes it."""
        weights = {str(name): weight for name, weight in self.weights.items()}
        return Fusion(self.method, default_k if self.k is None else self.k, weights)


class _Stage(BaseModel):
    """A stage of the ranker."""

    method: str | None = None
    top: int | None = Field(default=None, ge=1, le=MAX_CANDIDATES)


class _Diversity(BaseModel):
    """The ranker's choice of hits that differ from each other."""

    weight: float | None = None
    candidates: int = Field(default=_STAGE_CANDIDATES, ge=1, le=MAX_CANDIDATES)


class SearchParameters(BaseModel):
    """Parameters of /search.

    Attributes:
        limit: Most documents to return (passages, where hits are passages).
        offset: Documents to skip.
        filter: See `filters.py`.
        mode: See `search.py`.
        passages: Most passages of one document to return; None is 5, and no limit where hits are passages.
        fusion: Of a hybrid search.
        candidates: How many documents the ranker gets to choose from; at least `offset + limit`.
        explain: Whether hits say where their score comes from.
        group: Whether hits are documents or passages.
        diversity, aggregate, rerank: For the ranker.
    """

    limit: int = Field(default=10, ge=1)
    offset: int = Field(default=0, ge=0)
    filter: dict[str, Any] | None = None
    mode: Mode = "hybrid"
    passages: int | None = Field(default=None, ge=1, le=100)
    fusion: Annotated[FusionParameters, BeforeValidator(_named("method"))] = Field(default_factory=FusionParameters)
    candidates: int | None = Field(default=None, ge=1, le=MAX_CANDIDATES)
    explain: bool = False
    group: Literal["document", "passage"] = "document"
    diversity: Annotated[_Diversity | None, BeforeValidator(_named("weight"))] = None
    aggregate: Annotated[_Stage | None, BeforeValidator(_named("method"))] = None
    rerank: Annotated[_Stage | None, BeforeValidator(_named("method"))] = None

    @property
    def units(self) -> int:
        """How many documents (or passages, where hits are passages) to hand on."""
        wanted = [self.offset + self.limit]
        if self.candidates is not None:
            return max(*wanted, self.candidates)
        if self.rerank:
            wanted.append(self.rerank.top or _STAGE_CANDIDATES)
        if self.diversity:
            wanted.append(self.diversity.candidates)
        if self._sums:
            wanted.append(_STAGE_CANDIDATES)
        return max(wanted)

    @property
    def passages_each(self) -> int | None:
        """How many passages of one document to hand on; None is all that are found."""
        if self.group == "passage":
            return self.passages
        least = ((self.aggregate.top if self.aggregate else None) or _PASSAGES) if self._sums else 1
        return max(self.passages or _PASSAGES, least)

    @property
    def _sums(self) -> bool:
        """Whether more than the best passage makes the score of a document."""
        return self.group == "document" and self.aggregate is not None and self.aggregate.method not in (None, "max")
