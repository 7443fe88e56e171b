"""`dns:///NAME:PORT`: one name for all replicas of an executor, such as that of a headless Service.

    name --resolve, every few seconds and after a failure--> addresses --> pool.add, pool.remove

A name server that does not answer changes nothing: what was known is kept, and the pool's health watch tells which of
it takes calls. Where the answer is that there are no addresses, those that serve are kept and the others go, because
what had such an address may be something else's tomorrow. Of a name with IPv4 and IPv6 addresses the former count,
because a server has one of each.
"""

from __future__ import annotations

import asyncio
import logging
import random
import socket
import time
from collections.abc import Awaitable, Callable, Sequence

from flowdex.errors import ConfigurationError
from flowdex.timeouts import within
from flowdex_orchestrator.gateway.replicas import ReplicaPool

__all__ = ["SCHEME", "NameWatch", "Resolve", "resolve"]

SCHEME = "dns:///"

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""Name and port to addresses (`host:port`); raises OSError where the name is unknown."""

_EVERY = 5.0  # seconds
_SOONEST = 0.5  # seconds between two looks, whatever fails
_DRAIN = 30.0
_NO_ADDRESSES = (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME))

logger = logging.getLogger(__name__)


async def resolve(name: str, port: int) -> list[str]:
    """Ask the system: its hosts file, its name servers.

    Raises:
        OSError: The name is unknown, or no name server answers.
    """
    found = await asyncio.get_running_loop().getaddrinfo(name, port, type=socket.SOCK_STREAM)
    by_family: dict[int, list[str]] = {socket.AF_INET: [], socket.AF_INET6: []}
    for family, _, _, _, address in found:
        if family in by_family:
            by_family[family].append(f"[{address[0]}]:{port}" if family == socket.AF_INET6 else f"{address[0]}:{port}")
    return sorted(set(by_family[socket.AF_INET] or by_family[socket.AF_INET6]))


class NameWatch:
    """Keeps a pool at the addresses of a name; must be made inside a running event loop.

    Args:
        pool: Addresses are added to it and removed; those that the name never had are left alone.
        target: `dns:///NAME:PORT`.
        resolve: How to find the addresses.
        every: Seconds between two looks.

    Raises:
        ConfigurationError: `target` is not of that form.
    """

    def __init__(self, pool: ReplicaPool, target: str, *, resolve: Resolve = resolve, every: float = _EVERY) -> None:
        self._pool = pool
        self._name, self._port = parse(target)
        self._resolve = resolve
        self._every = every
        self._known: frozenset[str] = frozenset()
        self._again = asyncio.Event()
        self._failed = False
        self._removing: set[asyncio.Task[None]] = set()
        self._task = asyncio.get_running_loop().create_task(self._run())

    def look_again(self) -> None:
        """Resolve soon: a replica has failed, and others may have taken its place."""
        self._again.set()

    async def close(self) -> None:
        """Look no more; the pool stays as it is."""
        self._task.cancel()
        await asyncio.gather(self._task, *self._removing, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            began = time.monotonic()
            await self._look()
            try:
                await within(self._again.wait(), self._every * random.uniform(0.9, 1.1))  # nosec B311 # spreads load, hides nothing
            except asyncio.TimeoutError:
                continue
            self._again.clear()
            await asyncio.sleep(max(0.0, began + min(_SOONEST, self._every) - time.monotonic()))

    async def _look(self) -> None:
        try:
            found = frozenset(await self._resolve(self._name, self._port))
            self._failed = False
        except OSError as error:
            if not self._failed:
                logger.warning("executor %s: %s cannot be resolved: %s", self._pool.name, self._name, error)
            self._failed = True
            if error.errno not in _NO_ADDRESSES:
                return
            found = frozenset()
        if not found:
            found = self._known & {replica.address for replica in self._pool.replicas if replica.ready}
        if found == self._known:
            return
        added, gone = found - self._known, self._known - found
        self._known = found
        logger.info("executor %s: %s is at %s", self._pool.name, self._name, ", ".join(sorted(found)) or "no address")
        for address in sorted(added):
            self._pool.add(address, name=self._name)
        for address in gone:
            task = asyncio.ensure_future(self._pool.remove(address, drain=_DRAIN))
            self._removing.add(task)
            task.add_done_callback(self._removing.discard)


def parse(target: str) -> tuple[str, int]:
    """The name and the port of `dns:///NAME:PORT`.

    Raises:
        ConfigurationError: It is not of that form.
    """
    name, _, port = target.removeprefix(SCHEME).rpartition(":")
    if not target.startswith(SCHEME) or not name or "/" in name or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ConfigurationError(f"expected {SCHEME}NAME:PORT, such as {SCHEME}encoder:52000, got {target!r}")
    return name.strip("[]"), int(port)
