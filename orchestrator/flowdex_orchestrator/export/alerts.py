"""What to wake somebody for: alert rules for Prometheus, the same in a cluster, in Docker Compose and by hand.

    ALERTS --rule_groups()--> PrometheusRule of the Kubernetes export;  alerts.yml of the Compose export

Each has a section in the runbook, docs/runbook.md. Their queries are over the metrics of docs/observability.md; the
label `namespace` is the flow.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from flowdex.certificates import EXPIRES_SOON

__all__ = ["ALERTS", "Alert", "rule_groups"]


@dataclass(frozen=True)
class Alert:
    """One alert.

    Attributes:
        name: Which is also the runbook's section.
        query: PromQL; there is an alert for each series it gives.
        lasting: How long it must give it.
        severity: Whether somebody is to be woken.
        summary: In one line, with Prometheus' templates.
    """

    name: str
    query: str
    lasting: str
    severity: Literal["critical", "warning"]
    summary: str


_EXECUTOR = "{{ $labels.executor }} of {{ $labels.namespace }}"

ALERTS = (
    Alert(
        "FlowdexReplicaDown",
        "flowdex_executor_replicas_ready < flowdex_executor_replicas or flowdex_executor_replicas_ready == 0 "
        "or flowdex_process_ready == 0",
        "2m",
        "critical",
        "a replica of {{ $labels.executor }}{{ $labels.process }} of {{ $labels.namespace }} takes no requests",
    ),
    Alert(
        "FlowdexErrorRatioHigh",
        'sum by (namespace) (rate(flowdex_requests_total{status=~"5.."}[5m])) '
        "/ sum by (namespace) (rate(flowdex_requests_total[5m])) > 0.05",
        "5m",
        "critical",
        "{{ $value | humanizePercentage }} of the requests to {{ $labels.namespace }} fail",
    ),
    Alert(
        "FlowdexRefusing",
        'sum by (namespace) (rate(flowdex_requests_total{status="429"}[5m])) '
        "/ sum by (namespace) (rate(flowdex_requests_total[5m])) > 0.05",
        "5m",
        "warning",
        "{{ $value | humanizePercentage }} of the requests to {{ $labels.namespace }} are refused for overload",
    ),
    Alert(
        "FlowdexQueueAgeHigh",
        "flowdex_worker_queue_oldest_seconds > 5",
        "2m",
        "warning",
        f"a request has waited {{{{ $value | humanizeDuration }}}} in {_EXECUTOR}",
    ),
    Alert(
        "FlowdexRestarting",
        "increase(flowdex_process_restarts_total[15m]) > 2 "
        "or (changes(process_start_time_seconds[15m]) > 2 and on (instance) flowdex_build_info)",
        "0m",
        "critical",
        "a process of {{ $labels.namespace }} ({{ $labels.process }}{{ $labels.pod }}) has started again several times",
    ),
    Alert(
        "FlowdexCanaryFailing",
        "flowdex_canary_ok == 0",
        "1m",
        "critical",
        f"a replica of {_EXECUTOR} hangs, or gives other vectors than at its start",
    ),
    Alert(
        "FlowdexIndexDiskNearlyFull",
        "flowdex_index_disk_free_bytes / flowdex_index_disk_size_bytes < 0.1",
        "10m",
        "critical",
        f"the disk of {_EXECUTOR} has {{{{ $value | humanizePercentage }}}} left",
    ),
    Alert(
        "FlowdexCertificateExpiring",
        f"flowdex_certificate_expires_in_seconds < {EXPIRES_SOON:.0f}",
        "1h",
        "warning",
        "the certificate of {{ $labels.process }} of {{ $labels.namespace }} ends in {{ $value | humanizeDuration }}",
    ),
)
"""All of them."""


def rule_groups() -> list[dict[str, Any]]:
    """As Prometheus reads them: the `groups` of a rule file."""
    rules = [
        {
            "alert": alert.name,
            "expr": alert.query,
            "for": alert.lasting,
            "labels": {"severity": alert.severity},
            "annotations": {"summary": alert.summary, "runbook_url": f"docs/runbook.md#{alert.name.lower()}"},
        }
        for alert in ALERTS
    ]
    return [{"name": "flowdex", "rules": rules}]
