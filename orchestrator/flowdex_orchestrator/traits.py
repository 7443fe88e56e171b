"""What an executor's replica says of itself beside its endpoints: how a gateway and a runner may treat it.

    class attributes --traits_of_executor--> Traits --metadata of endpoint_discovery--> gateway, runner

It travels as trailing metadata, so that the message stays Jina's; a stock executor sends none and has no traits.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

__all__ = ["NO_TRAITS", "Traits"]

_KEY = "flowdex-traits"


@dataclass(frozen=True)
class Traits:
    """How an executor may be treated.

    Attributes:
        splittable: Endpoints at which a request may be cut into parts, for several replicas, whose replies in order are
            the reply: what they do to a document depends on nothing but that document and the parameters.
        embedded: Whether its data live in its own process, so that there cannot be two of it.
    """

    splittable: frozenset[str] = frozenset()
    embedded: bool = False

    @classmethod
    def of(cls, executor: Any) -> Traits:
        """The traits of a loaded executor: its attributes `splittable` and `embedded`, where it has them."""
        return cls(frozenset(getattr(executor, "splittable", ())), bool(getattr(executor, "embedded", False)))

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """As metadata of a reply."""
        if self == NO_TRAITS:
            return ()
        return ((_KEY, json.dumps({"splittable": sorted(self.splittable), "embedded": self.embedded})),)

    @classmethod
    def from_metadata(cls, metadata: Iterable[tuple[str, str | bytes]] | None) -> Traits:
        """Read them; what cannot be read counts as none."""
        for key, value in metadata or ():
            if key == _KEY:
                try:
                    found = json.loads(value)
                    return cls(frozenset(map(str, found["splittable"])), found["embedded"] is True)
                except (ValueError, TypeError, KeyError):
                    return NO_TRAITS
        return NO_TRAITS


NO_TRAITS = Traits()
