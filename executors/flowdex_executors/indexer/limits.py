"""How much a request to the index may ask for; each is settable under `limits` in `uses_with` of the indexer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

from flowdex.errors import InvalidInput

if TYPE_CHECKING:
    from flowdex_executors.indexer.search_parameters import SearchParameters

__all__ = ["IndexLimits"]


class IndexLimits(BaseModel):
    """Limits of requests.

    Attributes:
        limit: Most hits of a search.
        offset: Most hits that it leaves out at the front.
        ids: Most ids of one /get.
        id_characters: Longest id of a document, in characters.
        filter_depth: Most levels of a filter. Parameters have no more than 24, so there is no use in more than 22.
        filter_conditions: Most conditions of one.
        filter_values: Most values of an `$in`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    limit: int = Field(default=1000, ge=1, le=100_000)
    offset: int = Field(default=1000, ge=0, le=100_000)
    ids: int = Field(default=1000, ge=1, le=65_536)
    id_characters: int = Field(default=2048, ge=1, le=16_384)
    filter_depth: int = Field(default=16, ge=1, le=22)
    filter_conditions: int = Field(default=1000, ge=1, le=100_000)
    filter_values: int = Field(default=10_000, ge=1, le=100_000)

    def remedy(self, name: str) -> str:
        """What the message of an error ends in."""
        return f"the most allowed is {getattr(self, name)} (limits.{name} in uses_with of the indexer)"

    def check_search(self, wanted: SearchParameters) -> None:
        """Refuse a search for too much.

        Raises:
            InvalidInput: `limit` or `offset` is too large.
        """
        for name, value, most in (("limit", wanted.limit, self.limit), ("offset", wanted.offset, self.offset)):
            if value > most:
                raise InvalidInput(f"{name}: {value} is too many; {self.remedy(name)}")
