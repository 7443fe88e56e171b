"""What a gateway counts: for Prometheus `GET /metrics`, in its text format, and in brief for `/status`.

Router --end of each request--> Metrics.observe -------> counts, histogram by endpoint
Router --end of each call-----> Metrics.observe_call --> the same by executor
GET /metrics --> Metrics.expose ----------------------> those, and what pools and executors are like at this moment
/status      --> Metrics.endpoints, Metrics.executors

flowdex_requests_total{endpoint, status}              by HTTP status, also of gRPC; 429: refused for overload or a
                                                      key's limits, 401 and 403: by its key
flowdex_request_errors_total{endpoint, type}          those that ended with an error, by its class in flowdex.errors
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
flowdex_certificate_expires_in_seconds{process, use}  of what it serves and calls with, where there is TLS
flowdex_build_info, process_*                         as of every process: observability/families.py
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from flowdex.errors import Cancelled, FlowdexError, InternalError
from flowdex_orchestrator.observability.durations import Durations

if TYPE_CHECKING:
    from prometheus_client.core import Metric

    from flowdex_orchestrator.gateway.server import Gateway

__all__ = ["Metrics"]

OTHER = "other"
"""The label of endpoints beyond the first hundred: callers can name as many as they like."""

_MOST_ENDPOINTS = 100
_OK = 200
_FAILED = 400  # the least status that is an error
_CANCELLED = (asyncio.CancelledError, GeneratorExit)


class Metrics:
    """Counts requests and calls; one instance belongs to one gateway and its event loop.

    Attributes:
        endpoints: Requests by endpoint.
        executors: Calls by executor, from its first one on.
    """

    def __init__(self) -> None:
        self._requests: dict[tuple[str, int], int] = {}
        self._errors: dict[tuple[str, str], int] = {}
        self.endpoints: dict[str, Durations] = {}
        self.executors: dict[str, Durations] = {}

    def observe(self, endpoint: str, seconds: float, error: BaseException | None = None) -> None:
        """Count a request that has ended.

        Args:
            endpoint: What it asked for.
            seconds: From its arrival to its answer.
            error: What it ended with.
        """
        status = status_of(error)
        endpoint = self._count(endpoint, status, error)
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

    def refuse(self, endpoint: str, error: FlowdexError) -> None:
        """Count a request that was turned away unread; it took no time worth a place among those that did."""
        self._count(endpoint, error.status.http, error)

    def deny(self, endpoint: str, error: FlowdexError) -> None:
        """Count a request that was turned away before it was known to be anybody's: 401, 403, 429 of a key's limit.

        Args:
            endpoint: What it named; `other` where nobody who was let in has asked for it, since anybody can name much.
            error: Why.
        """
        self._count(endpoint if endpoint in self.endpoints else OTHER, error.status.http, error)

    def _count(self, endpoint: str, status: int, error: BaseException | None) -> str:
        """Count a request; returns the label of its endpoint."""
        if endpoint not in self.endpoints:
            if len(self.endpoints) >= _MOST_ENDPOINTS:
                endpoint = OTHER
            self.endpoints.setdefault(endpoint, Durations())
        key = endpoint, status
        self._requests[key] = self._requests.get(key, 0) + 1
        if error is not None:
            kind = endpoint, _name_of(error)
            self._errors[kind] = self._errors.get(kind, 0) + 1
        return endpoint

    def expose(self, gateway: Gateway, queues: Mapping[str, float]) -> bytes:
        """All metrics as text.

        Args:
            gateway: Whose pools are read.
            queues: Milliseconds that requests wait, by executor.
        """
        from flowdex_orchestrator.observability.families import about_certificates, about_process, expose

        calling = [target.certificates for target in gateway.targets]
        certificates = about_certificates("gateway", serving=gateway.certificates, calling=calling)
        return expose([*self.collect(gateway, queues), *certificates, *about_process("gateway")])

    def collect(self, gateway: Gateway, queues: Mapping[str, float]) -> Iterator[Metric]:
        """The gateway's own metrics; as `expose`."""
        from flowdex_orchestrator.observability.families import counter, gauge, histogram

        pools = gateway.pools
        yield counter(
            "flowdex_requests_total",
            "Requests that have ended.",
            {(endpoint, str(status)): count for (endpoint, status), count in self._requests.items()},
            "endpoint",
            "status",
        )
        yield counter(
            "flowdex_request_errors_total", "Requests that ended with an error.", self._errors, "endpoint", "type"
        )
        yield histogram(
            "flowdex_request_duration_seconds",
            "Time from a request's arrival at the gateway to its answer.",
            self.endpoints,
            "endpoint",
        )
        yield gauge("flowdex_requests_in_flight", "Requests being worked on.", gateway.router.in_flight)
        yield gauge(
            "flowdex_executor_replicas",
            "Replicas that the gateway knows.",
            {name: len(pool.replicas) for name, pool in pools.items()},
            "executor",
        )
        yield gauge(
            "flowdex_executor_replicas_ready",
            "Replicas that take calls.",
            {name: sum(each.ready for each in pool.replicas) for name, pool in pools.items()},
            "executor",
        )
        yield gauge(
            "flowdex_executor_in_flight",
            "Calls of this gateway being worked on.",
            {name: sum(each.in_flight for each in pool.replicas) for name, pool in pools.items()},
            "executor",
        )
        yield gauge(
            "flowdex_executor_queue_milliseconds",
            "Time that requests wait in the executor, the mean over its ready replicas.",
            queues,
            "executor",
        )
        admission = gateway.router.admission
        yield gauge(
            "flowdex_expected_wait_seconds",
            "Time that a request would wait in the executor if it came now.",
            {(name, lane): wait for name, lanes in admission.waits().items() for lane, wait in lanes.items()},
            "executor",
            "priority",
        )
        yield counter(
            "flowdex_requests_refused_total",
            "Requests turned away for overload, by the limit that it was.",
            dict(admission.refused),
            "reason",
        )
        yield histogram(
            "flowdex_executor_call_duration_seconds",
            "Time from the gateway's call of an executor to its reply.",
            self.executors,
            "executor",
        )
        yield counter(
            "flowdex_executor_calls_failed_total",
            "Calls that ended with an error.",
            {executor: calls.failed for executor, calls in self.executors.items()},
            "executor",
        )


def status_of(error: BaseException | None) -> int:
    """The HTTP status of what a request ended with."""
    if error is None:
        return _OK
    if isinstance(error, FlowdexError):
        return error.status.http
    return Cancelled.status.http if isinstance(error, _CANCELLED) else InternalError.status.http


def _name_of(error: BaseException) -> str:
    if isinstance(error, FlowdexError):
        return error.name
    return (Cancelled if isinstance(error, _CANCELLED) else InternalError).__name__
