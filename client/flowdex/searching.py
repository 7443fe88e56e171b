"""What a search may choose beside query, limit, offset, filter and mode: the keyword arguments of `search`.

They travel as parameters of /search under the same names; the flow's executors say what their values may be.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, Literal, TypedDict

from flowdex.errors import InvalidInput

__all__ = ["SEARCH_FIELDS", "SearchChoices", "SearchMode", "search_parameters", "whole_number"]

SearchMode = Literal["hybrid", "dense", "sparse"]
FusionMethod = Literal["rrf", "dbsf"]
Aggregation = Literal["max", "mean", "sum", "softmax"]
Reranker = Literal["late_interaction", "cross_encoder", "none"]


class FusionChoice(TypedDict, total=False):
    """How dense and sparse are fused."""

    method: FusionMethod
    k: float
    weights: Mapping[Literal["dense", "sparse"], float]


class SearchChoices(TypedDict, total=False):
    """See `Client.search`. None is the flow's default."""

    passages: int | None
    threshold: float | None
    fusion: FusionMethod | FusionChoice | None
    candidates: int | None
    explain: bool | None
    diversity: float | Mapping[str, float] | None
    group: Literal["document", "passage"] | None
    highlight: bool | None
    aggregate: Aggregation | Mapping[str, Any] | None
    rerank: Reranker | Mapping[str, Any] | None


SEARCH_FIELDS = ("limit", "offset", "filter", "mode", *SearchChoices.__annotations__)
"""All parameters of /search that have a name of their own in the client and in the HTTP API."""


def search_parameters(
    limit: int, offset: int, filter: Mapping[str, Any] | None, mode: SearchMode | None, choices: Mapping[str, Any]
) -> dict[str, Any]:
    """The parameters of a request.

    Raises:
        InvalidInput: `limit` or `offset` is no such number.
        TypeError: A name is none of `SearchChoices`, as for any keyword argument that a function does not have.
    """
    for name in choices:
        if name not in SearchChoices.__annotations__:
            near = difflib.get_close_matches(name, SEARCH_FIELDS, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(SEARCH_FIELDS)}"
            raise TypeError(
                f"search() has no argument {name!r}: {hint}; parameters of an executor of your own go into `parameters`"
            )
    sent = {
        "limit": whole_number(limit, "limit", 1),
        "offset": whole_number(offset, "offset", 0),
        "filter": None if filter is None else dict(filter),
        "mode": mode,
        **choices,
    }
    return {name: value for name, value in sent.items() if value is not None}


def whole_number(value: Any, name: str, least: int) -> int:
    """Check an argument that counts something.

    Raises:
        InvalidInput: It is no whole number of at least `least`.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InvalidInput(f"{name} must be a whole number of at least {least}, got {value!r}")
    return value
