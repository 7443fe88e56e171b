"""Who serves an endpoint, in which order: from the flow's graph and what each executor binds to a plan of steps.

    needs:    segmenter -> encoder -> indexer -> ranker
    binds:    /index       /encode    /index     /search
                           /index     /search
                           /search
    plan("/search") = encoder(request) -> indexer(encoder) -> ranker(indexer)

An executor that does not bind the endpoint is skipped; one that binds `/default` takes every endpoint. What comes out
of the last executor is the answer; one that nobody needs and that is not the last only listens (Jina's rules). A branch
in which every executor is skipped takes no part in the join behind it. Pure: no sockets, no clock.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import re2

from flowdex.errors import InvalidInput, NotFound
from flowdex.wire import DEFAULT_ENDPOINT

__all__ = ["GATEWAY", "Plan", "Step", "Topology"]

GATEWAY = "gateway"

_TARGET_CHARACTERS = 256
_TARGET_BYTES = 1 << 20  # of a compiled expression
_ESCAPED = re.compile(r"\\.", re.DOTALL)


@dataclass(frozen=True)
class Step:
    """One call of a plan.

    Attributes:
        executor: Whom to call.
        sources: Indexes of the earlier steps whose replies, merged, are its input; none: the request itself.
        awaited: Whether the answer depends on it (False for floating executors).
    """

    executor: str
    sources: tuple[int, ...] = ()
    awaited: bool = True


@dataclass(frozen=True)
class Plan:
    """The calls that answer a request, each after its sources.

    Attributes:
        steps: At least one.
        outputs: Indexes of the steps whose replies, merged, are the answer.
    """

    steps: tuple[Step, ...]
    outputs: tuple[int, ...]

    @cached_property
    def chain(self) -> tuple[str, ...] | None:
        """The executors' names when each step takes the reply of the one before it, otherwise None."""
        for index, step in enumerate(self.steps):
            if step.sources != ((index - 1,) if index else ()) or not step.awaited:
                return None
        return tuple(step.executor for step in self.steps)


class Topology:
    """The graph of a flow's executors.

    Args:
        needs: For each executor, in the order of the flow file, the names of those it follows; `gateway` or nothing
            where the request enters. Must be free of cycles (the flow's own check sees to that).
        floating: Executors that only listen, wherever they are in the order.
    """

    def __init__(self, needs: Mapping[str, Sequence[str]], floating: Collection[str] = ()) -> None:
        self._needs = {name: tuple(item for item in items if item != GATEWAY) for name, items in needs.items()}
        self._last = [name for name in self._needs if name not in floating][-1:]
        self._order = self._sort()

    @property
    def executors(self) -> tuple[str, ...]:
        """All executors, each after those it needs."""
        return self._order

    def plan(self, endpoint: str, binds: Mapping[str, Collection[str]], target: str | None = None) -> Plan:
        """Make the plan for a request.

        Args:
            endpoint: The endpoint it names.
            binds: For each executor, the endpoints it binds.
            target: A regular expression as in RE2; only executors whose name it matches (from the start) are called.

        Raises:
            NotFound: No executor binds the endpoint, or none of those that do matches `target`.
            InvalidInput: `target` is not a regular expression, or longer than 256 characters.
        """
        serving = [name for name in self._order if endpoint in binds[name] or DEFAULT_ENDPOINT in binds[name]]
        if not serving:
            raise NotFound(self._unknown(endpoint, binds))
        if target:
            pattern = _compile(target)
            matching = [name for name in serving if pattern.match(name)]
            if not matching:
                raise NotFound(
                    f"no executor that serves {endpoint!r} matches target_executor {target!r}; "
                    f"it is served by {', '.join(serving)}"
                )
            serving = matching
        return self._connect(serving)

    def endpoints(self, binds: Mapping[str, Collection[str]]) -> dict[str, list[str]]:
        """All endpoints that people may call, each with the executors that serve it, in order."""
        names = sorted({endpoint for bound in binds.values() for endpoint in bound if _is_public(endpoint)})
        return {
            endpoint: [
                name
                for name in self._order
                if endpoint in binds.get(name, ()) or DEFAULT_ENDPOINT in binds.get(name, ())
            ]
            for endpoint in names
        }

    def _connect(self, serving: Sequence[str]) -> Plan:
        """Link the executors that take part, across those that do not."""
        index = {name: number for number, name in enumerate(serving)}
        reach: dict[str, tuple[int, ...]] = {}  # per executor of the flow: the steps whose replies come out of it
        above: list[frozenset[int]] = []  # per step: all steps it depends on
        sources: list[tuple[int, ...]] = []
        for name in self._order:
            inputs = dict.fromkeys(step for need in self._needs[name] for step in reach[need])
            kept = tuple(step for step in inputs if not any(step in above[other] for other in inputs))
            if name in index:
                sources.append(kept)
                above.append(frozenset(kept).union(*(above[step] for step in kept)))
                reach[name] = (index[name],)
            else:
                reach[name] = kept
        outputs = tuple(step for name in self._last for step in reach[name])
        if not outputs:  # the endpoint is served by listeners alone: then theirs is the answer
            used = {step for kept in sources for step in kept}
            outputs = tuple(step for step in range(len(serving)) if step not in used)
        awaited = frozenset(outputs).union(*(above[step] for step in outputs))
        steps = tuple(Step(name, sources[step], step in awaited) for name, step in index.items())
        return Plan(steps, outputs)

    def _sort(self) -> tuple[str, ...]:
        """Names, each after those it needs, otherwise in the order of the flow file."""
        order: list[str] = []
        waiting = list(self._needs)
        while waiting:
            name = next((name for name in waiting if all(need in order for need in self._needs[name])), None)
            if name is None:
                raise ValueError(f"the executors {', '.join(waiting)} wait for each other or for an unknown one")
            waiting.remove(name)
            order.append(name)
        return tuple(order)

    def _unknown(self, endpoint: str, binds: Mapping[str, Collection[str]]) -> str:
        known = list(self.endpoints(binds))
        near = difflib.get_close_matches(endpoint, known, n=1, cutoff=0.5)
        what = f"no executor serves the endpoint {endpoint!r}" if endpoint else "the request names no endpoint"
        hint = f"; did you mean {near[0]!r}?" if near else "."
        return f"{what}{hint} Known endpoints: {', '.join(known) or 'none'}"


def _is_public(endpoint: str) -> bool:
    """Jina's executors also bind internal endpoints, named without a slash (`_jina_dry_run_`), and `/default`."""
    return endpoint.startswith("/") and endpoint != DEFAULT_ENDPOINT


def _compile(target: str) -> Any:
    """Compile a client's expression with RE2, whose time is linear: `re` takes for ever over `(((.*)*)*)*x`."""
    if len(target) > _TARGET_CHARACTERS:
        raise InvalidInput(f"target_executor has {len(target):,} characters; {_TARGET_CHARACTERS} are allowed")
    options = re2.Options()
    options.max_mem = _TARGET_BYTES
    options.log_errors = False
    try:
        return re2.compile(_ESCAPED.sub(_as_in_re2, target), options)
    except re2.error as error:
        reason = str(error.args[0], "utf-8", "replace") if error.args else "unknown"
        raise InvalidInput(f"target_executor {target!r} is not a regular expression of RE2: {reason}") from None


def _as_in_re2(escaped: re.Match[str]) -> str:
    r"""Python's `\Z`, the end of the name, which Jina's users write, is `\z` to RE2."""
    return r"\z" if escaped[0] == r"\Z" else escaped[0]
