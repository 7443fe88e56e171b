"""What Prometheus asks, and what Grafana shows of it: the gateway's own metrics, `gateway/metrics.py`."""

from __future__ import annotations

import json
from typing import Any

from flowdex_orchestrator.export.kubernetes.objects import Object, manifest, metadata, selector
from flowdex_orchestrator.export.model import Deployment

__all__ = ["dashboard", "service_monitor"]

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
    ("Requests in flight", "sum(flowdex_requests_in_flight{F})", "in flight", "short"),
    ("Ready replicas", "max by (executor) (flowdex_executor_replicas_ready{F})", "{{executor}}", "short"),
    ("Milliseconds in the executors' queues", "avg by (executor) ({M}{F})", "{{executor}}", "ms"),
    ("Calls in flight", "sum by (executor) (flowdex_executor_in_flight{F})", "{{executor}}", "short"),
)


def service_monitor(deployment: Deployment) -> Object:
    """Tells Prometheus' operator to ask every gateway."""
    spec: Object = {
        "selector": {"matchLabels": selector(deployment, deployment.gateway.label)},
        "endpoints": [{"port": "http", "path": "/metrics", "interval": "15s", **_key(deployment)}],
    }
    head = metadata(deployment, deployment.name, deployment.gateway.label)
    return manifest("monitoring.coreos.com/v1", "ServiceMonitor", head, spec=spec)


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


def _key(deployment: Deployment) -> Object:
    """What Prometheus shows a gateway with keys: one with the role `metrics`."""
    if deployment.gateway.keys is None:
        return {}
    return {"authorization": {"credentials": {"name": deployment.secret, "key": "FLOWDEX_METRICS_KEY"}}}
