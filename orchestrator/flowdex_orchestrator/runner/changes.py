"""What differs between the flow that runs and its file as it is now, and what each difference takes.

    compare(running, wanted) --> [Change("encoder.uses_with.batch_tokens", RESTART), Change("gateway.port", DOWN), ...]

Only keys are named, never values: they may be secrets.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from flowdex_orchestrator.flow.model import Flow
from flowdex_orchestrator.flow.section import Section
from flowdex_orchestrator.gateway.settings import LIVE

__all__ = ["Action", "Change", "compare"]


class Action(str, Enum):
    """What a change takes."""

    NOTHING = "nothing"  # it has no effect on a flow that runs on this machine
    LATER = "the next start"  # of a process
    LIVE = "at once"
    SCALE = "scale"
    RESTART = "restart"  # replica by replica
    DOWN = "flowdex down, flowdex up"


@dataclass(frozen=True)
class Change:
    """One key that differs.

    Attributes:
        key: Its path, such as `encoder.uses_with.model`.
        action: What it takes.
        executor: Whose it is; None for the gateway and the flow.
        note: More on it, for people.
    """

    key: str
    action: Action
    executor: str | None = None
    note: str = ""


_EXECUTOR = {
    "replicas": Action.SCALE,
    "timeout_send": Action.LIVE,
    "retries": Action.LIVE,
    "autoscale": Action.LIVE,
    "timeout_ready": Action.LATER,
    "kubernetes": Action.NOTHING,
    "needs": Action.DOWN,
    "floating": Action.DOWN,
    "external": Action.DOWN,
    "hosts": Action.DOWN,
    "ports": Action.DOWN,
    "tls": Action.DOWN,  # both ends of a connection would have to change at once; renewed files need no reload
}
"""What a key of an executor takes; any other one is read when a replica starts."""
_GATEWAY = {
    "timeout_send": Action.LIVE,
    "retries": Action.LIVE,
    "timeout_ready": Action.LATER,
    "kubernetes": Action.NOTHING,
    "uvicorn_kwargs": Action.NOTHING,
}
"""What a key of the gateway takes; any other one is read when it starts, and it is the one door to the flow."""


def compare(running: Flow, wanted: Flow) -> list[Change]:
    """All differences, in the order of the flow."""
    return [*_whole(running, wanted), *_gateway(running, wanted), *_executors(running, wanted)]


def _whole(running: Flow, wanted: Flow) -> Iterator[Change]:
    before, after = ([executor.name for executor in flow.executors] for flow in (running, wanted))
    for name in after:
        if name not in before:
            yield Change(name, Action.DOWN, note="it is new")
    for name in before:
        if name not in after:
            yield Change(name, Action.DOWN, note="it is gone")
    if before != after and sorted(before) == sorted(after):
        yield Change("executors", Action.DOWN, note="their order has changed")
    if running.name != wanted.name:
        yield Change("with.name", Action.DOWN)


def _gateway(running: Flow, wanted: Flow) -> Iterator[Change]:
    for key in _differing(running.gateway, wanted.gateway):
        if key != "uses_with":
            yield Change(f"gateway.{key}", _GATEWAY.get(key, Action.DOWN))
            continue
        for option in _keys(running.gateway.uses_with, wanted.gateway.uses_with):
            action = Action.LIVE if option in LIVE else Action.DOWN
            yield Change(f"gateway.uses_with.{option}", action)


def _executors(running: Flow, wanted: Flow) -> Iterator[Change]:
    former = {executor.name: executor for executor in running.executors}
    for executor in wanted.executors:
        before = former.get(executor.name)
        if before is None:
            continue
        for key in _differing(before, executor):
            action = _EXECUTOR.get(key, Action.RESTART)
            note = ""
            if executor.external and action in (Action.RESTART, Action.SCALE):
                action, note = Action.NOTHING, "it runs elsewhere"
            nested = key in ("uses_with", "env")
            inner = _keys(getattr(before, key), getattr(executor, key)) if nested else [""]
            for name in inner:
                yield Change(f"{executor.name}.{key}{'.' if name else ''}{name}", action, executor.name, note)


def _differing(before: Section, after: Section) -> list[str]:
    return [key for key in type(after).model_fields if getattr(before, key) != getattr(after, key)]


def _keys(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    missing = object()
    return [key for key in {**before, **after} if before.get(key, missing) != after.get(key, missing)]
