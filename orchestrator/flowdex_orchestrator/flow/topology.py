"""The graph that `needs` draws between the executors of a flow, by Jina's rules.

    executors in the order of the file, each with its `needs`
        --predecessors()--> {name: [names it waits for]}     'gateway' is where requests start
        --problems()------> what is wrong with it: unknown names, circles

Without `needs` an executor follows the one before it in the list (that is not `floating`), the first follows
the gateway; a list of names joins branches.
"""

from __future__ import annotations

import graphlib
from collections.abc import Sequence
from dataclasses import dataclass

from flowdex_orchestrator.flow.findings import KeyPath, nearest

__all__ = ["GATEWAY", "Link", "predecessors", "problems"]

GATEWAY = "gateway"


@dataclass(frozen=True)
class Link:
    """One executor's place in the graph: its name, what it names in `needs`, and whether others may follow it."""

    name: str
    needs: tuple[str, ...] = ()
    floating: bool = False


def predecessors(links: Sequence[Link]) -> dict[str, list[str]]:
    """For each executor, in the order of the file, the names it waits for; `gateway` where requests enter."""
    found: dict[str, list[str]] = {}
    last = GATEWAY
    for link in links:
        found[link.name] = list(dict.fromkeys(link.needs)) or [last]
        if not link.floating:
            last = link.name
    return found


def problems(links: Sequence[Link]) -> list[tuple[KeyPath, str]]:
    """What is wrong with the graph: pairs of (path below the list of executors, message)."""
    found: list[tuple[KeyPath, str]] = []
    first: dict[str, int] = {}
    for index, link in enumerate(links):
        if link.name in first:
            found.append(((index, "name"), f"{link.name!r} is the name of executors[{first[link.name]}] already"))
        first.setdefault(link.name, index)
        if link.name == GATEWAY:
            found.append(((index, "name"), "'gateway' is the name of the gateway; choose another"))
        elif not link.name.isidentifier():
            found.append(((index, "name"), f"expected letters, digits and _ (not a digit first), got {link.name!r}"))
    known = [*first, GATEWAY]
    for index, link in enumerate(links):
        for name in link.needs:
            if name == link.name:
                found.append(((index, "needs"), f"{name!r} cannot wait for itself"))
            elif name not in known:
                near = nearest(name, known)
                names = "" if near else f"; the executors are {', '.join(first)}"
                found.append(((index, "needs"), f"no executor is named {name!r}{near}{names}"))
    if not found:
        try:
            graphlib.TopologicalSorter(predecessors(links)).prepare()
        except graphlib.CycleError as error:
            circle: list[str] = error.args[1][:0:-1]  # each waits for the next, the last for the first
            start = circle.index(min(circle, key=lambda name: first[name]))
            circle = [*circle[start:], *circle[:start], circle[start]]
            found.append(((first[circle[0]], "needs"), f"the executors wait for each other: {' -> '.join(circle)}"))
    return found
