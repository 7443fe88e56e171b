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
        tenants: Whether it keeps the documents of tenants apart, or keeps none.
        exchange: Whether its calls may share one stream (`wire.EXCHANGE`), which is its worker's doing.
        local_socket: Where that stream is to be had on the worker's own machine (`local_socket`); empty for nowhere.
    """

    splittable: frozenset[str] = frozenset()
    embedded: bool = False
    exchange: bool = False
    tenants: bool = False
    local_socket: str = ""

    @classmethod
    def of(cls, executor: Any) -> Traits:
        """The traits of an executor that our worker has loaded: its attributes of these names, where it has them."""
        return cls(
            frozenset(getattr(executor, "splittable", ())),
            bool(getattr(executor, "embedded", False)),
            exchange=True,
            tenants=getattr(executor, "tenants", False) is True,
        )

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """As metadata of a reply."""
        if self == NO_TRAITS:
            return ()
        traits = {
            "splittable": sorted(self.splittable),
            "embedded": self.embedded,
            "exchange": self.exchange,
            "tenants": self.tenants,
            "local_socket": self.local_socket,
        }
        return ((_KEY, json.dumps(traits)),)

    @classmethod
    def from_metadata(cls, metadata: Iterable[tuple[str, str | bytes]] | None) -> Traits:
        """Read them; what cannot be read counts as none."""
        for key, value in metadata or ():
            if key == _KEY:
                try:
                    found = json.loads(value)
                    splittable = frozenset(map(str, found["splittable"]))
                    return cls(
                        splittable,
                        found["embedded"] is True,
                        exchange=found.get("exchange") is True,
                        tenants=found.get("tenants") is True,
                        local_socket=str(found.get("local_socket", "")),
                    )
                except (ValueError, TypeError, KeyError, AttributeError):
                    return NO_TRAITS
        return NO_TRAITS


NO_TRAITS = Traits()
