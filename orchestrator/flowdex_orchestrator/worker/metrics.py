"""What an executor's process counts, for Prometheus.

ExecutorService --end of each request--> WorkerMetrics.observe
GET /metrics ----------thread----------> WorkerMetrics.expose --> those, the queue, what the executor says itself

flowdex_worker_request_duration_seconds{executor, endpoint}      histogram; from arrival in the worker to its answer
flowdex_worker_request_errors_total{executor, endpoint, type}    by class of the error
flowdex_worker_requests_in_flight{executor}
flowdex_worker_ready{executor}                                   1 while it takes requests
flowdex_worker_queue_requests{executor}                          those that wait for their turn now
flowdex_worker_queue_oldest_seconds{executor}                    how long the first of them has waited
flowdex_worker_queue_wait_seconds{executor}                      mean over those of the last seconds
flowdex_canary_*                                                 see canary.py
flowdex_certificate_expires_in_seconds{process, use}             where there is TLS
flowdex_build_info, process_*                                    as of every process: observability/families.py

An executor says more in a method `metrics` that gives families of prometheus_client (or that is async and returns
them): encoders their batches, tokens and compute time, the indexer its size. The label `executor` is added to them.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from flowdex_orchestrator.observability.durations import Durations

if TYPE_CHECKING:
    from jina import Executor
    from prometheus_client.core import Metric

    from flowdex.certificates import CertificateFiles
    from flowdex_orchestrator.worker.canary import Canary
    from flowdex_orchestrator.worker.endpoints import EndpointTable

__all__ = ["WorkerMetrics"]

log = logging.getLogger(__name__)

_ANSWER_SECONDS = 3.0
"""For the executor to say how it is: less than Prometheus waits."""
_OTHER = "other"


class WorkerMetrics:
    """Counts what one executor does; belongs to its event loop, and is read in other threads.

    Args:
        executor: The executor's name in the flow.
        replica: Its number.
        in_flight: Tells how many requests are being answered.
        ready: Tells whether it takes requests.
        certificates: What it serves with; None without TLS.
    """

    def __init__(
        self,
        executor: str,
        replica: int,
        *,
        in_flight: Callable[[], int],
        ready: Callable[[], bool],
        certificates: CertificateFiles | None = None,
    ) -> None:
        self._executor = executor
        self._process = f"{executor}-{replica}"
        self._in_flight = in_flight
        self._ready = ready
        self._certificates = certificates
        self._durations: dict[str, Durations] = {}
        self._errors: dict[tuple[str, str], int] = {}
        self._loaded: Executor | None = None
        self._endpoints: EndpointTable | None = None
        self._canary: Canary | None = None
        self._loop = asyncio.get_running_loop()
        self._succeeded = 0

    def open(self, executor: Executor, endpoints: EndpointTable, canary: Canary | None) -> None:
        """Say from now on what the loaded executor and its canary say."""
        self._loaded, self._endpoints, self._canary = executor, endpoints, canary
        self._durations = {path: Durations() for path in (*endpoints.paths, _OTHER)}

    def observe(self, endpoint: str, seconds: float, error: str) -> None:
        """Count a request that has ended.

        Args:
            endpoint: What it asked for.
            seconds: From its arrival to its answer.
            error: Name of the error that it ended with, empty for none.
        """
        path = endpoint if endpoint in self._durations else _OTHER
        self._durations[path].observe(seconds, bool(error))
        if error:
            key = path, error
            self._errors[key] = self._errors.get(key, 0) + 1
        else:
            self._succeeded += 1

    def work_done(self) -> int:
        """What grows while the executor works: its own attribute `work_done`, or the requests that succeeded."""
        own = getattr(self._loaded, "work_done", None)
        return own if isinstance(own, int) else self._succeeded

    def expose(self) -> bytes:
        """All of it as text."""
        from flowdex_orchestrator.observability.families import about_certificates, about_process, expose

        about = [*about_certificates(self._process, serving=self._certificates), *about_process(self._process)]
        return expose([*self._labelled(self._own()), *self._labelled(self._said()), *about])

    def _own(self) -> Iterator[Metric]:
        from flowdex_orchestrator.observability.families import counter, gauge, histogram

        yield gauge("flowdex_worker_ready", "Whether it takes requests.", self._ready())
        yield gauge("flowdex_worker_requests_in_flight", "Requests being answered.", self._in_flight())
        yield histogram(
            "flowdex_worker_request_duration_seconds",
            "Time from a request's arrival in the worker to its answer.",
            self._durations,
            "endpoint",
        )
        yield counter(
            "flowdex_worker_request_errors_total",
            "Requests that ended with an error.",
            self._errors.copy(),
            "endpoint",
            "type",
        )
        if self._canary is not None:
            yield from self._canary.metrics()
        if self._endpoints is None:
            return
        clock = self._endpoints.queue_clock
        yield gauge("flowdex_worker_queue_requests", "Requests that wait for their turn.", clock.waiting)
        yield gauge("flowdex_worker_queue_oldest_seconds", "How long the first has waited.", clock.oldest_seconds)
        yield gauge(
            "flowdex_worker_queue_wait_seconds",
            "Mean time that the requests of the last seconds waited.",
            self._endpoints.queue_ms / 1000,
        )

    def _said(self) -> list[Metric]:
        """What the executor says itself; nothing where it cannot just now."""
        say: Callable[[], Any] | None = getattr(self._loaded, "metrics", None)
        if say is None:
            return []
        try:
            said = say()
            if inspect.isawaitable(said):
                said = asyncio.run_coroutine_threadsafe(_result(said), self._loop).result(_ANSWER_SECONDS)
            return list(said)
        except Exception as error:  # an index that is away, anybody's code: the others are told all the same
            log.debug("the executor does not give its metrics: %r", error)
            return []

    def _labelled(self, families: Any) -> Iterator[Metric]:
        for family in families:
            family.samples = [
                sample._replace(labels={"executor": self._executor, **sample.labels}) for sample in family.samples
            ]
            yield family


async def _result(awaitable: Any) -> Any:
    return await awaitable
