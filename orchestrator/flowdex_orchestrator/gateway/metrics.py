"""What Prometheus reads of a gateway: `GET /metrics`, in its text format.

Router --end of each request--> Metrics.observe --> counts, histogram by endpoint
GET /metrics --> Metrics.expose --> those, and what pools and executors are like at this moment

flowdex_requests_total{endpoint, status}              by HTTP status, also of gRPC; 429: refused for overload
flowdex_request_duration_seconds{endpoint}            histogram
flowdex_requests_in_flight
flowdex_executor_replicas{executor}                   those that the gateway knows
flowdex_executor_replicas_ready{executor}             those that take calls
flowdex_executor_in_flight{executor}                  calls of this gateway
flowdex_executor_queue_milliseconds{executor}         mean over its ready replicas: what scaling goes by
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flowdex_orchestrator.gateway.server import Gateway

__all__ = ["CONTENT_TYPE", "Metrics"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Upper bounds of the histogram in seconds."""
OTHER = "other"
"""The label of endpoints beyond the first hundred: callers can name as many as they like."""

_MOST_ENDPOINTS = 100
_Sample = tuple[Mapping[str, str], float]


class Metrics:
    """Counts requests; one instance belongs to one gateway and its event loop."""

    def __init__(self) -> None:
        self._requests: dict[tuple[str, int], int] = {}
        self._buckets: dict[str, list[int]] = {}
        self._seconds: dict[str, float] = {}

    def observe(self, endpoint: str, seconds: float, status: int) -> None:
        """Count a request that has ended.

        Args:
            endpoint: What it asked for.
            seconds: From its arrival to its answer.
            status: The HTTP status of the answer, or what it would be over HTTP.
        """
        endpoint = self._count(endpoint, status)
        self._buckets[endpoint][bisect_left(BOUNDS, seconds)] += 1
        self._seconds[endpoint] = self._seconds.get(endpoint, 0.0) + seconds

    def refuse(self, endpoint: str, status: int) -> None:
        """Count a request that was turned away unread; it took no time worth a place among those that did."""
        self._count(endpoint, status)

    def _count(self, endpoint: str, status: int) -> str:
        """Count a request; returns the label of its endpoint."""
        if endpoint not in self._buckets:
            if len(self._buckets) >= _MOST_ENDPOINTS:
                endpoint = OTHER
            self._buckets.setdefault(endpoint, [0] * (len(BOUNDS) + 1))
        key = endpoint, status
        self._requests[key] = self._requests.get(key, 0) + 1
        return endpoint

    def expose(self, gateway: Gateway, queues: Mapping[str, float]) -> str:
        """All metrics as text.

        Args:
            gateway: Whose pools are read.
            queues: Milliseconds that requests wait, by executor.
        """
        pools = gateway.pools
        ready = {name: sum(each.ready for each in pool.replicas) for name, pool in pools.items()}
        in_flight = {name: sum(each.in_flight for each in pool.replicas) for name, pool in pools.items()}
        requests: list[_Sample] = [
            ({"endpoint": endpoint, "status": str(status)}, count)
            for (endpoint, status), count in self._requests.items()
        ]
        lines = [
            *_family("flowdex_requests_total", "counter", "Requests that have ended.", requests),
            *self._histogram(),
            *_family(
                "flowdex_requests_in_flight", "gauge", "Requests being worked on.", [({}, gateway.router.in_flight)]
            ),
            *_by_executor(
                "flowdex_executor_replicas",
                "Replicas that the gateway knows.",
                {name: len(pool.replicas) for name, pool in pools.items()},
            ),
            *_by_executor("flowdex_executor_replicas_ready", "Replicas that take calls.", ready),
            *_by_executor("flowdex_executor_in_flight", "Calls of this gateway being worked on.", in_flight),
            *_by_executor(
                "flowdex_executor_queue_milliseconds",
                "Time that requests wait in the executor, the mean over its ready replicas.",
                queues,
            ),
        ]
        return "\n".join(lines) + "\n"

    def _histogram(self) -> Iterator[str]:
        name = "flowdex_request_duration_seconds"
        if self._buckets:
            yield from _head(name, "histogram", "Time from a request's arrival at the gateway to its answer.")
        for endpoint, counts in self._buckets.items():
            total = 0
            for bound, count in zip((*BOUNDS, "+Inf"), counts, strict=True):
                total += count
                yield _line(f"{name}_bucket", {"endpoint": endpoint, "le": str(bound)}, total)
            yield _line(f"{name}_sum", {"endpoint": endpoint}, self._seconds.get(endpoint, 0.0))
            yield _line(f"{name}_count", {"endpoint": endpoint}, total)


def _by_executor(name: str, text: str, values: Mapping[str, float]) -> Iterator[str]:
    return _family(name, "gauge", text, [({"executor": executor}, value) for executor, value in values.items()])


def _family(name: str, kind: str, text: str, samples: Iterable[_Sample]) -> Iterator[str]:
    lines = [_line(name, labels, value) for labels, value in samples]
    if lines:
        yield from _head(name, kind, text)
        yield from lines


def _head(name: str, kind: str, text: str) -> tuple[str, str]:
    return f"# HELP {name} {text}", f"# TYPE {name} {kind}"


def _line(name: str, labels: Mapping[str, str], value: float) -> str:
    shown = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
    return f"{name}{{{shown}}} {value:.12g}" if shown else f"{name} {value:.12g}"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
