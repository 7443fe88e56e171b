"""What a flow says of itself: the gateway's own facts, and what each executor answers to `/status`.

    GET /status (HTTP), endpoint /status (gRPC) --> flow_status --/status--> every executor that has one, at once

The gateway answers this endpoint itself and asks the executors one by one, because an executor that is down is a fact
to report and no reason to fail.
"""

from __future__ import annotations

import asyncio
import os
import platform
import time
from collections.abc import Collection, Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from flowdex import wire
from flowdex.errors import FlowdexError, Unavailable
from flowdex.proto import flowdex_pb2 as pb
from flowdex_orchestrator.access.tenants import current_tenant
from flowdex_orchestrator.gateway.topology import GATEWAY
from flowdex_orchestrator.load import RESTARTS_VARIABLE, mean_queue_ms, queue_of
from flowdex_orchestrator.observability.durations import BOUNDS, Durations

if TYPE_CHECKING:
    from flowdex_orchestrator.gateway.replica import Replica
    from flowdex_orchestrator.gateway.replicas import ReplicaPool
    from flowdex_orchestrator.gateway.server import Gateway

__all__ = [
    "STATUS_ENDPOINT",
    "executor_statuses",
    "flow_readiness",
    "flow_status",
    "metrics_text",
    "queue_times",
    "status_results",
]

STATUS_ENDPOINT = "/status"
_TOLD_TO_TENANTS = frozenset({"model", "dimensions", "fingerprint", "prompts", "max_length", "pooling", "distance"})

_REPLICA_FACTS = ("versions", "uptime_s", "restarts", "canary")
_SECONDS = 2.0  # for each executor to say how it is


async def flow_status(gateway: Gateway) -> dict[str, Any]:
    """The flow's name, version, endpoints, executors with their replicas, and what each took; JSON values only."""
    if current_tenant() is not None:
        return await _status_for_tenants(gateway)
    endpoints = gateway.router.endpoints()
    metrics = gateway.router.metrics
    answers, facts = await asyncio.gather(executor_statuses(gateway), _replica_facts(gateway))
    # Of those that were asked: replicas come and go while it is waited for their answers.
    replicas = {name: [each for each in pool.replicas if each in facts] for name, pool in gateway.pools.items()}
    return {
        "name": gateway.name,
        "version": version("flowdex"),
        "python": platform.python_version(),
        "restarts": int(restarts) if (restarts := os.environ.get(RESTARTS_VARIABLE, "")).isdecimal() else None,
        "uptime_s": round(time.monotonic() - gateway.started, 3),
        "ready": gateway.ready,
        "in_flight": gateway.router.in_flight,
        "endpoints": endpoints,
        "bounds_ms": [1000 * bound for bound in BOUNDS],
        "requests": {endpoint: durations.summary() for endpoint, durations in metrics.endpoints.items()},
        "executors": [
            {
                "name": target.name,
                "uses": target.uses,
                "needs": list(target.needs),
                "replicas": [
                    {
                        "address": replica.address,
                        "ready": replica.ready,
                        "in_flight": replica.in_flight,
                        "failure": replica.failure or None,
                        **{key: facts[replica].get(key) for key in _REPLICA_FACTS},
                    }
                    for replica in replicas[target.name]
                ],
                "queue_ms": mean_queue_ms(queue_of(facts[each]) for each in replicas[target.name] if each.ready),
                "calls": metrics.executors.get(target.name, Durations()).summary(),
                "status": answers.get(target.name),
            }
            for target in gateway.targets
        ],
    }


async def _status_for_tenants(gateway: Gateway) -> dict[str, Any]:
    """The same without what would tell of others: no counts, loads, addresses."""
    answers = await executor_statuses(gateway)
    executors = []
    for target in gateway.targets:
        said = answers.get(target.name)
        about = None if said is None else {key: value for key, value in said.items() if key in _TOLD_TO_TENANTS}
        executors.append(
            {"name": target.name, "uses": target.uses, "needs": list(target.needs), "replicas": [], "status": about}
        )
    return {
        "name": gateway.name,
        "version": version("flowdex"),
        "uptime_s": round(time.monotonic() - gateway.started, 3),
        "ready": gateway.ready,
        "endpoints": gateway.router.endpoints(),
        "executors": executors,
    }


async def _replica_facts(gateway: Gateway) -> dict[Replica, dict[str, Any]]:
    """What each replica says of itself, also those that take no requests."""
    replicas = [replica for pool in gateway.pools.values() for replica in pool.replicas]
    return dict(zip(replicas, await asyncio.gather(*(each.facts() for each in replicas)), strict=True))


async def queue_times(gateway: Gateway) -> dict[str, float]:
    """Milliseconds that requests wait in each executor, the mean over its ready replicas; of those that say."""
    names = list(gateway.pools)
    waits = await asyncio.gather(*(gateway.pools[name].queue_ms() for name in names))
    return {name: wait for name, wait in zip(names, waits, strict=True) if wait is not None}


async def metrics_text(gateway: Gateway) -> bytes:
    """What Prometheus reads."""
    return gateway.router.metrics.expose(gateway, await queue_times(gateway))


async def executor_statuses(gateway: Gateway, among: Collection[str] | None = None) -> dict[str, Any]:
    """What each executor that has `/status` and is ready says of itself; of those among the given ones."""
    asked = [
        name
        for name in gateway.router.endpoints().get(STATUS_ENDPOINT, ())
        if gateway.pools[name].ready and (among is None or name in among)
    ]
    return dict(zip(asked, await asyncio.gather(*(_executor_status(gateway, name) for name in asked)), strict=True))


async def status_results(gateway: Gateway) -> dict[str, Any]:
    """The same as results of an endpoint: what an executor says under its name, the rest under the gateway's."""
    found = await flow_status(gateway)
    said = {each["name"]: each.pop("status") for each in found["executors"]}
    return {**{name: status for name, status in said.items() if status}, GATEWAY: found}


async def _executor_status(gateway: Gateway, name: str) -> dict[str, Any]:
    """What one executor says of itself; its error, if it cannot say."""
    try:
        reply = await gateway.pools[name].call(
            wire.build_request(STATUS_ENDPOINT), deadline=time.monotonic() + _SECONDS, idempotent=True
        )
        # Under the executor's name; stock Jina's workers add the number of the replica to it.
        return next(iter(wire.results_of(wire.read_reply(reply.data)).values()), {})
    except FlowdexError as error:
        return {"error": error.message}


def flow_readiness(pools: Mapping[str, ReplicaPool]) -> pb.StatusProto:
    """What a dry run answers: success, or which executors have no replica that takes requests."""
    header = pb.HeaderProto()
    missing = [name for name, pool in pools.items() if not pool.ready]
    if missing:
        wire.set_error(header, Unavailable(f"no replica is ready of executor {', '.join(missing)}"))
    return header.status
