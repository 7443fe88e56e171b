"""What the runner says to Prometheus: of itself and of the processes it keeps running, and where their own metrics are.

GET /metrics   flowdex_process_ready{process}           1 while it takes requests
               flowdex_process_restarts_total{process}  since the flow was started
               flowdex_process_memory_bytes{process}    resident, with what it started: an index's engines
               flowdex_flow_ready                       1 while all of them take requests
               flowdex_certificate_expires_in_seconds{process, use}  of what it calls executors with, where there is TLS
               flowdex_build_info, process_*            as of every process: observability/families.py
GET /targets   the metrics ports of all processes, as Prometheus' HTTP service discovery reads them
               (https://prometheus.io/docs/prometheus/latest/http_sd/)
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from flowdex_orchestrator.observability.endpoint import CONTENT_TYPE, Page, serve_metrics
from flowdex_orchestrator.runner.memory import memory_of_groups
from flowdex_orchestrator.runner.ports import LOOPBACK
from flowdex_orchestrator.runner.state import FlowState, State, Status

if TYPE_CHECKING:
    from prometheus_client.core import Metric

    from flowdex.certificates import CertificateFiles

__all__ = ["published"]


@contextlib.contextmanager
def published(state: FlowState, port: int, calling: Sequence[CertificateFiles | None]) -> Iterator[None]:
    """Let Prometheus read a flow's metrics, at a port of loopback (0 for any free one) that the state then names.

    Args:
        state: The flow's.
        port: The port.
        calling: What the runner shows the executors.
    """
    server = serve_metrics(_pages(state, calling), LOOPBACK, port)
    if server is not None:
        state.metrics = f"http://{LOOPBACK}:{server.port}/metrics"
    try:
        yield
    finally:
        if server is not None:
            server.close()


def _pages(state: FlowState, calling: Sequence[CertificateFiles | None]) -> dict[str, Page]:
    """What is answered at the runner's port, by path."""
    return {
        "/metrics": Page(lambda: _metrics(state, calling), CONTENT_TYPE),
        "/targets": Page(lambda: _targets(state), "application/json"),
    }


def _metrics(state: FlowState, calling: Sequence[CertificateFiles | None]) -> bytes:
    from flowdex_orchestrator.observability.families import about_certificates, about_process, expose

    return expose([*_families(state), *about_certificates("runner", calling=calling), *about_process("runner")])


def _families(state: FlowState) -> Iterator[Metric]:
    from flowdex_orchestrator.observability.families import counter, gauge

    processes = list(state.processes)
    yield gauge("flowdex_flow_ready", "Whether all processes take requests.", state.status is Status.READY)
    yield gauge(
        "flowdex_process_ready",
        "Whether it takes requests.",
        {each.label: each.state is State.READY for each in processes},
        "process",
    )
    yield counter(
        "flowdex_process_restarts_total",
        "How often it was started again because it had ended.",
        {each.label: each.restarts for each in processes},
        "process",
    )
    leaders = {each.process.pid: each.label for each in processes if each.process is not None}
    yield gauge(
        "flowdex_process_memory_bytes",
        "Resident memory, with that of the processes it started.",
        {leaders[pid]: size for pid, size in memory_of_groups(leaders).items()},
        "process",
    )


def _targets(state: FlowState) -> bytes:
    """One group for each process: http_sd has labels by group."""
    ports = {each.label: each.metrics_port for each in list(state.processes) if each.metrics_port is not None}
    groups = [
        {"targets": [f"{LOOPBACK}:{port}"], "labels": {"process": label, "namespace": state.name}}
        for label, port in ports.items()
    ]
    return json.dumps(groups).encode()
