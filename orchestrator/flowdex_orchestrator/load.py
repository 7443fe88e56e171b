"""How long requests wait in an executor: the one quantity that scaling goes by, on one machine and in a cluster.

replica --load--> queue_ms --+
replica --load--> queue_ms --+--> mean_queue_ms --+--> the runner's Autoscaler
replica --load--> queue_ms --+                    +--> the gateway's /metrics --> HorizontalPodAutoscaler, KEDA
"""

from __future__ import annotations

import json
from collections.abc import Iterable

import grpc.aio

from flowdex import wire

__all__ = ["LoadMethod", "load_method", "mean_queue_ms", "queue_ms"]

LoadMethod = grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]


def load_method(channel: grpc.aio.Channel) -> LoadMethod:
    """The method of a replica that says its load."""
    method: LoadMethod = channel.unary_unary(wire.LOAD)
    return method


async def queue_ms(load: LoadMethod, timeout: float) -> float | None:
    """Mean milliseconds that requests wait in one replica.

    Args:
        load: See `load_method`.
        timeout: Seconds it has to answer.

    Returns:
        None where it does not say: it is no executor of flowdex, or does not answer.
    """
    try:
        return float(json.loads(await load(b"", timeout=timeout))["queue_ms"])
    except (grpc.aio.AioRpcError, ValueError, KeyError, TypeError):
        return None


def mean_queue_ms(answers: Iterable[float | None]) -> float | None:
    """What an executor's ready replicas said, as one number: the mean over those that did; None where none did."""
    said = [answer for answer in answers if answer is not None]
    return sum(said) / len(said) if said else None
