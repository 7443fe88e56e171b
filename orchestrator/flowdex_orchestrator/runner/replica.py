"""What the runner asks a replica directly: its traits, and how long requests wait in it.

replica_traits("127.0.0.1:23117") --endpoint_discovery--> Traits
replica_queue_ms("127.0.0.1:23117") --load--> milliseconds
"""

from __future__ import annotations

from typing import Any

import grpc.aio

from flowdex import wire
from flowdex_orchestrator.load import load_method, queue_ms
from flowdex_orchestrator.tls import Hop
from flowdex_orchestrator.traits import NO_TRAITS, Traits

__all__ = ["replica_queue_ms", "replica_traits"]

_OPTIONS = (("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1))
_TIMEOUT = 5.0


async def replica_traits(address: str, hop: Hop) -> Traits:
    """What the replica at `address` says of itself; none where it does not answer."""
    async with hop.channel(address, _OPTIONS) as channel:
        discover: Any = channel.unary_unary(wire.ENDPOINT_DISCOVERY)
        call = discover(b"", timeout=_TIMEOUT)
        try:
            await call
            return Traits.from_metadata(await call.trailing_metadata())
        except grpc.aio.AioRpcError:
            return NO_TRAITS


async def replica_queue_ms(address: str, hop: Hop) -> float | None:
    """Mean milliseconds that requests wait in the replica at `address`; None where it does not say."""
    async with hop.channel(address, _OPTIONS) as channel:
        return await queue_ms(load_method(channel), _TIMEOUT)
