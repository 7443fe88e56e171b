"""Which models a flow serves, and which executors a request for one of them is for.

    endpoints of the executors + what they say at /status --> Served(executor, model, target)
    "encoder" | "all-MiniLM-L6-v2" | None --choose--> the one of that name; for None the first

A model goes by two names: that of its executor, and that of what the executor runs.
"""

from __future__ import annotations

import asyncio
import math
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from flowdex.errors import NotFound
from flowdex_orchestrator.gateway.status import STATUS_ENDPOINT, executor_statuses

if TYPE_CHECKING:
    from flowdex_orchestrator.gateway.server import Gateway

__all__ = ["Directory", "Served", "choose", "target_of"]

_KEPT_SECONDS = 10.0  # an executor may be restarted with another model
_KEPT_SECONDS_LEAST = 1.0  # where a name or an executor is not known: neither must cost every request a question


@dataclass(frozen=True)
class Served:
    """A model behind an endpoint.

    Attributes:
        names: By which a request may call it: its executor's first.
        target: Which executors its requests are for, as a regular expression; None for all.
        about: What the executor says of itself; empty where that is not known.
    """

    names: tuple[str, ...] = ()
    target: str | None = None
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What it is called in an answer where the request names none."""
        return self.names[-1] if self.names else ""


class Directory:
    """The models of a flow.

    Args:
        gateway: In front of it.
    """

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._about: dict[str, Mapping[str, Any]] = {}
        self._asked: dict[str, float] = {}
        self._asking = asyncio.Lock()

    async def encoders(self, wanted: str | None = None) -> list[Served]:
        """What serves /encode: all encoders, in the order of the flow. None where no executor is known yet to do so.

        An executor that serves it without being an encoder (it has no vectors to tell of) takes part in the requests
        of all of them, as it does in /encode itself.

        Args:
            wanted: The name that is looked for: what is kept about executors is looked up again if it is not there.
        """
        serving, about = await self._serving("/encode", wanted)
        encoders = [name for name in serving if "dimensions" in about.get(name, {})] or serving[-1:]
        others = [name for name in about if name not in encoders]
        alone = len(encoders) == 1 and len(others) + 1 == len(serving)
        return [
            Served(
                names=_names(name, model_of(about.get(name, {}))),
                target=None if alone else target_of([*others, name]),
                about=about.get(name, {}),
            )
            for name in encoders
        ]

    async def rankers(self, wanted: str | None = None) -> list[Served]:
        """What serves /rank; see `encoders`."""
        serving, about = await self._serving("/rank", wanted)
        return [
            Served(_names(name, model_of(said)), None if len(serving) == 1 else target_of([name]), said)
            for name in serving
            for said in [about.get(name, {})]
        ]

    async def _serving(self, endpoint: str, wanted: str | None) -> tuple[list[str], Mapping[str, Mapping[str, Any]]]:
        """The executors that serve an endpoint, and what is known about each; nothing of one that did not answer."""
        endpoints = self._gateway.router.endpoints()
        serving = endpoints.get(endpoint, [])
        telling = [name for name in serving if name in endpoints.get(STATUS_ENDPOINT, ())]
        async with self._asking:
            if self._is_stale(telling, wanted):
                answers = await executor_statuses(self._gateway, telling)
                now = time.monotonic()
                self._asked.update(dict.fromkeys(telling, now))
                # What one that has an error now said before still holds.
                self._about.update({name: about for name, about in answers.items() if "error" not in about})
        return serving, {
            name: self._about.get(name, {}) for name in serving if name in self._about or name not in telling
        }

    def _is_stale(self, telling: Sequence[str], wanted: str | None) -> bool:
        now = time.monotonic()
        age = max((now - self._asked.get(name, -math.inf) for name in telling), default=0.0)
        known = {known for name in telling for known in _names(name, model_of(self._about.get(name, {})))}
        complete = (wanted is None or wanted in known) and all(name in self._about for name in telling)
        return age > (_KEPT_SECONDS if complete else _KEPT_SECONDS_LEAST)


def choose(served: Sequence[Served], name: str | None) -> Served:
    """The model of that name; the first for None. Where nothing is known, the router is to say why.

    Raises:
        NotFound: There is none of that name.
    """
    if not served:
        return Served()
    if name is None:
        return served[0]
    for each in served:  # an executor's own name goes before another one's model
        if each.names[0] == name:
            return each
    for each in served:
        if name in each.names:
            return each
    known = dict.fromkeys(name for each in served for name in each.names)
    raise NotFound(f"the model {name!r} does not exist; this flow serves {', '.join(map(repr, known))}")


def model_of(about: Mapping[str, Any]) -> Any:
    """What an executor says that it runs: an encoder's model, or a ranker's cross-encoder."""
    return about.get("model") or (about.get("cross_encoder") or {}).get("model")


def _names(executor: str, model: Any) -> tuple[str, ...]:
    return (executor, model) if isinstance(model, str) and model and model != executor else (executor,)


def target_of(executors: Sequence[str]) -> str:
    """The target that means these executors, and no other."""
    return f"(?:{'|'.join(map(re.escape, executors))})\\Z"
