"""What a runner may change in a gateway that runs: where the executors' replicas are, and some settings.

    runner --set_addresses {revision, addresses: {encoder: [...], ...}}--> pools: add what is new, drain what is gone
           --configure {options, calls}--> the settings that `settings.LIVE` names, and how executors are called

The table is always whole, so that sending it again does no harm, and numbered, so that an old one that arrives late is
not taken for news.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from flowdex.errors import InvalidInput, NotFound
from flowdex_orchestrator.control import ControlServer
from flowdex_orchestrator.gateway.settings import GatewaySettings

if TYPE_CHECKING:
    from flowdex_orchestrator.gateway.replica import Replica
    from flowdex_orchestrator.gateway.server import Gateway

__all__ = ["GatewayAdmin"]

_READY_WITHIN = 10.0  # seconds for a replica that says SERVING to be seen
_LOOK_SECONDS = 0.02


class GatewayAdmin:
    """The methods of a gateway's control server.

    Args:
        gateway: Whose replicas are set.
        token: Of the runner.
    """

    def __init__(self, gateway: Gateway, token: str) -> None:
        self._gateway = gateway
        self._revision = -1
        methods = {"set_addresses": self._set_addresses, "configure": self._configure, "ready": self._ready}
        self.server = ControlServer(methods, token)

    async def _ready(self, body: dict[str, Any]) -> dict[str, Any]:
        """Whether the gateway takes requests, for a runner that its other ports ask for a certificate."""
        return {"ready": self._gateway.ready, "problem": self._gateway.problem}

    async def _set_addresses(self, body: dict[str, Any]) -> dict[str, Any]:
        """Take over a table of addresses.

        Args:
            body: `revision`, `addresses` (executor -> list), `drain`: seconds for calls in flight on what is removed.

        Returns:
            The replicas' readiness by executor and address, once those removed are idle and the new ones are ready
            (or have had their time).
        """
        revision, addresses, drain = body.get("revision"), body.get("addresses"), body.get("drain", 30.0)
        if not isinstance(revision, int) or not isinstance(addresses, dict):
            raise InvalidInput("expected revision (a number) and addresses (executor -> list of HOST:PORT)")
        pools = self._gateway.pools
        if unknown := [name for name in addresses if name not in pools]:
            raise NotFound(f"the gateway has no executor {unknown[0]!r}, only {', '.join(pools)}")
        if revision >= self._revision:
            self._revision = revision
            known = {id(replica) for pool in pools.values() for replica in pool.replicas}
            removals = [self._gateway.set_addresses(name, found, drain=drain) for name, found in addresses.items()]
            added = [replica for name in addresses for replica in pools[name].replicas if id(replica) not in known]
            await asyncio.gather(*removals, _wait_ready(added))
        return {name: {replica.address: replica.ready for replica in pools[name].replicas} for name in addresses}

    async def _configure(self, body: dict[str, Any]) -> dict[str, Any]:
        """Take over settings, for requests from now on.

        Args:
            body: `options` as under `gateway: uses_with:`, of which those that cannot change are passed over, and
                `calls`: for each executor, `timeout` (seconds, null for none) and `retries`.
        """
        options, calls = body.get("options"), body.get("calls")
        if not isinstance(options, dict) or not isinstance(calls, dict):
            raise InvalidInput("expected options and calls (executor -> timeout, retries)")
        self._gateway.configure(GatewaySettings.from_options(options), calls)
        return {}


async def _wait_ready(replicas: Sequence[Replica]) -> None:
    end = time.monotonic() + _READY_WITHIN
    while not all(replica.ready for replica in replicas) and time.monotonic() < end:  # noqa: ASYNC110 - as in the pool
        await asyncio.sleep(_LOOK_SECONDS)
