"""What a replica says of itself, above all how long requests wait in it: what scaling goes by.

replica --load--> queue_ms --+
replica --load--> queue_ms --+--> mean_queue_ms --+--> the runner's Autoscaler
replica --load--> queue_ms --+                    +--> the gateway's /metrics --> HorizontalPodAutoscaler, KEDA
replica --load--> versions, uptime, restarts, canary --> the gateway's /status
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import grpc.aio

from flowdex import wire

__all__ = ["RESTARTS_VARIABLE", "LoadMethod", "facts", "load_method", "mean_queue_ms", "queue_ms", "queue_of"]

RESTARTS_VARIABLE = "FLOWDEX_RESTARTS"
"""Environment variable in which a runner tells a process how often it had to be started again."""

LoadMethod = grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]


def load_method(channel: grpc.aio.Channel) -> LoadMethod:
    """The method of a replica that says its load."""
    method: LoadMethod = channel.unary_unary(wire.LOAD)
    return method


async def facts(load: LoadMethod, timeout: float) -> dict[str, Any]:
    """What one replica says of itself.

    Args:
        load: See `load_method`.
        timeout: Seconds it has to answer.

    Returns:
        Nothing where it does not say: it is no executor of flowdex, or does not answer.
    """
    try:
        said = json.loads(await load(b"", timeout=timeout))
    except (grpc.aio.AioRpcError, ValueError):
        return {}
    return said if isinstance(said, dict) else {}


async def queue_ms(load: LoadMethod, timeout: float) -> float | None:
    """Mean milliseconds that requests wait in one replica; as `facts`, None where it does not say."""
    return queue_of(await facts(load, timeout))


def queue_of(said: Mapping[str, Any]) -> float | None:
    """The same, of what a replica said."""
    try:
        return float(said["queue_ms"])
    except (ValueError, KeyError, TypeError):
        return None


def mean_queue_ms(answers: Iterable[float | None]) -> float | None:
    """What an executor's ready replicas said, as one number: the mean over those that did; None where none did."""
    said = [answer for answer in answers if answer is not None]
    return sum(said) / len(said) if said else None
