"""What the runner asks a replica directly: its traits.

replica_traits("127.0.0.1:23117") --endpoint_discovery--> Traits
"""

from __future__ import annotations

from typing import Any

import grpc.aio

from flowdex import wire
from flowdex_orchestrator.traits import NO_TRAITS, Traits

__all__ = ["replica_traits"]

_OPTIONS = (("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1))
_TIMEOUT = 5.0


async def replica_traits(address: str) -> Traits:
    """What the replica at `address` says of itself; none where it does not answer."""
    async with grpc.aio.insecure_channel(address, options=_OPTIONS) as channel:
        discover: Any = channel.unary_unary(wire.ENDPOINT_DISCOVERY)
        call = discover(b"", timeout=_TIMEOUT)
        try:
            await call
            return Traits.from_metadata(await call.trailing_metadata())
        except grpc.aio.AioRpcError:
            return NO_TRAITS
