"""What Prometheus asks and warns of, and what Grafana shows of it: the metrics of docs/observability.md."""

from __future__ import annotations

import json
from typing import Any

from flowdex_orchestrator.export.alerts import rule_groups
from flowdex_orchestrator.export.kubernetes.objects import Object, manifest, metadata, selector
from flowdex_orchestrator.export.model import METRICS_PORT, Deployment

__all__ = ["alert_rules", "dashboard", "metrics_policy", "pod_monitor"]

# Title, query, legend, unit. {F}: the flow's series; {Q}: once for the median and once for the 99th percentile.
_PANELS = (
    ("Requests a second", "sum by (endpoint) (rate(flowdex_requests_total{F}[1m]))", "{{endpoint}}", "reqps"),
    (
        "Failed requests a second",
        'sum by (endpoint, status) (rate(flowdex_requests_total{F,status!="200"}[1m]))',
        "{{endpoint}} {{status}}",
        "reqps",
    ),
    (
        "Latency: median and 99th percentile",
        "histogram_quantile({Q}, sum by (endpoint, le) (rate(flowdex_request_duration_seconds_bucket{F}[1m])))",
        "{{endpoint}}",
        "s",
    ),
    ("Errors by class", "sum by (type) (rate(flowdex_request_errors_total{F}[1m]))", "{{type}}", "reqps"),
    ("Requests in flight", "sum(flowdex_requests_in_flight{F})", "in flight", "short"),
    ("Ready replicas", "max by (executor) (flowdex_executor_replicas_ready{F})", "{{executor}}", "short"),
    ("Milliseconds in the executors' queues", "avg by (executor) ({M}{F})", "{{executor}}", "ms"),
    ("Calls in flight", "sum by (executor) (flowdex_executor_in_flight{F})", "{{executor}}", "short"),
    (
        "Oldest request in the queue",
        "max by (executor) (flowdex_worker_queue_oldest_seconds{F})",
        "{{executor}}",
        "s",
    ),
    (
        "Work in the executors: median and 99th percentile",
        "histogram_quantile({Q}, sum by (executor, le) (rate(flowdex_worker_request_duration_seconds_bucket{F}[1m])))",
        "{{executor}}",
        "s",
    ),
    (
        "Texts in a batch, mean",
        "sum by (executor) (rate(flowdex_batch_sequences_sum{F}[1m])) "
        "/ sum by (executor) (rate(flowdex_batch_sequences_count{F}[1m]))",
        "{{executor}}",
        "short",
    ),
    (
        "How full batches are",
        "sum by (executor) (rate(flowdex_batch_tokens_total{F}[1m])) "
        "/ (sum by (executor) (rate(flowdex_batch_sequences_count{F}[1m])) "
        "* avg by (executor) (flowdex_batch_budget_tokens{F}))",
        "{{executor}}",
        "percentunit",
    ),
    ("Tokens a second", "sum by (executor) (rate(flowdex_batch_tokens_total{F}[1m]))", "{{executor}}", "short"),
    (
        "How busy the compute threads are",
        "sum by (executor) (rate(flowdex_batch_compute_seconds_total{F}[1m])) "
        "/ sum by (executor) (flowdex_batch_threads{F})",
        "{{executor}}",
        "percentunit",
    ),
    ("Canaries: 1 is well", "min by (executor) (flowdex_canary_ok{F})", "{{executor}}", "short"),
    ("Passages in the index", "sum by (executor) (flowdex_index_passages{F})", "{{executor}}", "short"),
    ("Index on disk", "sum by (executor) (flowdex_index_bytes{F})", "{{executor}}", "bytes"),
    (
        "Memory",
        "process_resident_memory_bytes{F} * on (instance) group_left (process) flowdex_build_info{F}",
        "{{process}} {{instance}}",
        "bytes",
    ),
    (
        "Cores",
        "rate(process_cpu_seconds_total{F}[1m]) * on (instance) group_left (process) flowdex_build_info{F}",
        "{{process}} {{instance}}",
        "short",
    ),
    (
        "Certificates: time left",
        "min by (process, use) (flowdex_certificate_expires_in_seconds{F})",
        "{{process}} {{use}}",
        "s",
    ),
    (
        "Descriptors",
        "process_open_fds{F} * on (instance) group_left (process) flowdex_build_info{F}",
        "{{process}} {{instance}}",
        "short",
    ),
)


def pod_monitor(deployment: Deployment) -> Object:
    """Tells Prometheus' operator to ask every pod of the flow."""
    spec: Object = {
        "selector": {"matchLabels": selector(deployment)},
        "podMetricsEndpoints": [{"port": "metrics", "path": "/metrics", "interval": "15s"}],
    }
    return manifest("monitoring.coreos.com/v1", "PodMonitor", metadata(deployment, deployment.name), spec=spec)


def alert_rules(deployment: Deployment) -> Object:
    """The alerts, for Prometheus' operator."""
    spec: Object = {"groups": rule_groups()}
    return manifest("monitoring.coreos.com/v1", "PrometheusRule", metadata(deployment, deployment.name), spec=spec)


def metrics_policy(deployment: Deployment) -> Object:
    """Lets Prometheus in, wherever in the cluster it runs: to the metrics, and to nothing else."""
    spec: Object = {
        "podSelector": {"matchLabels": selector(deployment)},
        "policyTypes": ["Ingress"],
        "ingress": [{"from": [{"namespaceSelector": {}}], "ports": [{"protocol": "TCP", "port": METRICS_PORT}]}],
    }
    return manifest("networking.k8s.io/v1", "NetworkPolicy", metadata(deployment, "metrics"), spec=spec)


def dashboard(deployment: Deployment) -> str:
    """Grafana's dashboard as JSON."""
    from flowdex_orchestrator.export.kubernetes.autoscaling import QUEUE_METRIC

    panels = []
    for index, (title, query, legend, unit) in enumerate(_PANELS):
        expression = query.replace("{M}", QUEUE_METRIC).replace("{F", '{namespace="$namespace"')
        quantiles = ("0.5", "0.99") if "{Q}" in expression else ("",)
        panels.append(
            {
                "id": index + 1,
                "type": "timeseries",
                "title": title,
                "datasource": {"type": "prometheus", "uid": "${datasource}"},
                "gridPos": {"h": 8, "w": 12, "x": 12 * (index % 2), "y": 8 * (index // 2)},
                "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
                "targets": [
                    {
                        "refId": "AB"[number],
                        "expr": expression.replace("{Q}", quantile),
                        "legendFormat": f"{legend} {quantile}".strip(),
                    }
                    for number, quantile in enumerate(quantiles)
                ],
            }
        )
    board: dict[str, Any] = {
        "uid": f"flowdex-{deployment.name}"[:40],
        "title": f"flowdex: {deployment.flow.name}",
        "tags": ["flowdex"],
        "schemaVersion": 39,
        "refresh": "15s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {
            "list": [
                {"name": "datasource", "type": "datasource", "query": "prometheus"},
                {
                    "name": "namespace",
                    "type": "constant",
                    "query": deployment.name,
                    "current": {"text": deployment.name, "value": deployment.name},
                },
            ]
        },
        "panels": panels,
    }
    return json.dumps(board, indent=2, ensure_ascii=False) + "\n"
