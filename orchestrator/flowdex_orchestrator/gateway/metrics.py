"""What a gateway counts: for Prometheus `GET /metrics`, in its text format, and in brief for `/status`.

Router --end of each request--> Metrics.observe -------> counts, histogram by endpoint
Router --end of each call-----> Metrics.observe_call --> the same by executor
GET /metrics --> Metrics.expose ----------------------> those, and what pools and executors are like at this moment
/status      --> Metrics.endpoints, Metrics.executors

flowdex_requests_total{endpoint, status}              by HTTP status, also of gRPC; 429: refused for overload
flowdex_request_duration_seconds{endpoint}            histogram
flowdex_requests_in_flight
flowdex_executor_replicas{executor}                   those that the gateway knows
flowdex_executor_replicas_ready{executor}             those that take calls
flowdex_executor_in_flight{executor}                  calls of this gateway
flowdex_executor_call_duration_seconds{executor}      histogram; the parts of a divided request count one by one
flowdex_executor_calls_failed_total{executor}         those that ended with an error
flowdex_executor_queue_milliseconds{executor}         mean over its ready replicas: what scaling goes by
flowdex_expected_wait_seconds{executor, priority}     of a request that would come now: what refusals go by
flowdex_requests_refused_total{reason}                in_flight, wait, deadline: which limit it was
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flowdex_orchestrator.gateway.server import Gateway

__all__ = ["BOUNDS", "CONTENT_TYPE", "Durations", "Metrics"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Upper bounds of the histogram in seconds."""
OTHER = "other"
"""The label of endpoints beyond the first hundred: callers can name as many as they like."""

_MOST_ENDPOINTS = 100
_FAILED = 400  # the least status that is an error
_Sample = tuple[Mapping[str, str], float]


class Durations:
    """A histogram of what has ended.

    Attributes:
        buckets: How many took at most `BOUNDS[i]` seconds and more than the bound before; the last: more than all.
        seconds: Of all together.
        failed: How many of them ended with an error.
    """

    __slots__ = ("buckets", "failed", "seconds")

    def __init__(self) -> None:
        self.buckets = [0] * (len(BOUNDS) + 1)
        self.seconds = 0.0
        self.failed = 0

    def observe(self, seconds: float, failed: bool) -> None:
        """Count one."""
        self.buckets[bisect_left(BOUNDS, seconds)] += 1
        self.seconds += seconds
        self.failed += failed

    def quantile(self, share: float) -> float | None:
        """Seconds in which this share of them had ended, interpolated as Prometheus does; None where there are none.

        Of those beyond the largest bound no more is known than that: it is the answer.
        """
        count = sum(self.buckets)
        if not count:
            return None
        wanted, below = share * count, 0
        for bound, here, start in zip(BOUNDS, self.buckets, (0.0, *BOUNDS), strict=False):
            if here and below + here >= wanted:
                return start + (bound - start) * (wanted - below) / here
            below += here
        return BOUNDS[-1]

    def summary(self) -> dict[str, Any]:
        """JSON values: count, failed, mean and quantiles in milliseconds, and the buckets."""
        count = sum(self.buckets)

        def rounded(seconds: float | None) -> float | None:
            return None if seconds is None else round(1000 * seconds, 3)

        return {
            "count": count,
            "failed": self.failed,
            "mean_ms": rounded(self.seconds / count if count else None),
            "p50_ms": rounded(self.quantile(0.5)),
            "p95_ms": rounded(self.quantile(0.95)),
            "p99_ms": rounded(self.quantile(0.99)),
            "buckets": list(self.buckets),
        }


class Metrics:
    """Counts requests and calls; one instance belongs to one gateway and its event loop.

    Attributes:
        endpoints: Requests by endpoint.
        executors: Calls by executor, from its first one on.
    """

    def __init__(self) -> None:
        self._requests: dict[tuple[str, int], int] = {}
        self.endpoints: dict[str, Durations] = {}
        self.executors: dict[str, Durations] = {}

    def observe(self, endpoint: str, seconds: float, status: int) -> None:
        """Count a request that has ended.

        Args:
            endpoint: What it asked for.
            seconds: From its arrival to its answer.
            status: The HTTP status of the answer, or what it would be over HTTP.
        """
        endpoint = self._count(endpoint, status)
        self.endpoints[endpoint].observe(seconds, status >= _FAILED)

    def observe_call(self, executor: str, seconds: float, failed: bool) -> None:
        """Count a call of an executor that has ended.

        Args:
            executor: Which one.
            seconds: Until its reply was here.
            failed: Whether it ended with an error.
        """
        if executor not in self.executors:
            self.executors[executor] = Durations()
        self.executors[executor].observe(seconds, failed)

    def refuse(self, endpoint: str, status: int) -> None:
        """Count a request that was turned away unread; it took no time worth a place among those that did."""
        self._count(endpoint, status)

    def _count(self, endpoint: str, status: int) -> str:
        """Count a request; returns the label of its endpoint."""
        if endpoint not in self.endpoints:
            if len(self.endpoints) >= _MOST_ENDPOINTS:
                endpoint = OTHER
            self.endpoints.setdefault(endpoint, Durations())
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
            *_histogram(
                "flowdex_request_duration_seconds",
                "Time from a request's arrival at the gateway to its answer.",
                "endpoint",
                self.endpoints,
            ),
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
            *_family(
                "flowdex_expected_wait_seconds",
                "gauge",
                "Time that a request would wait in the executor if it came now.",
                [
                    ({"executor": executor, "priority": priority}, seconds)
                    for executor, lanes in gateway.router.admission.waits().items()
                    for priority, seconds in lanes.items()
                ],
            ),
            *_family(
                "flowdex_requests_refused_total",
                "counter",
                "Requests turned away for overload, by the limit that it was.",
                [({"reason": reason}, count) for reason, count in gateway.router.admission.refused.items()],
            ),
            *_histogram(
                "flowdex_executor_call_duration_seconds",
                "Time from the gateway's call of an executor to its reply.",
                "executor",
                self.executors,
            ),
            *_family(
                "flowdex_executor_calls_failed_total",
                "counter",
                "Calls that ended with an error.",
                [({"executor": executor}, calls.failed) for executor, calls in self.executors.items()],
            ),
        ]
        return "\n".join(lines) + "\n"


def _histogram(name: str, text: str, label: str, durations: Mapping[str, Durations]) -> Iterator[str]:
    if durations:
        yield from _head(name, "histogram", text)
    for value, each in durations.items():
        total = 0
        for bound, count in zip((*BOUNDS, "+Inf"), each.buckets, strict=True):
            total += count
            yield _line(f"{name}_bucket", {label: value, "le": str(bound)}, total)
        yield _line(f"{name}_sum", {label: value}, each.seconds)
        yield _line(f"{name}_count", {label: value}, total)


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
