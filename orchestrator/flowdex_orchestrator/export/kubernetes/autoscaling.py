"""Autoscalers: HorizontalPodAutoscaler by CPU or by the queue's milliseconds, and KEDA's ScaledObject for the latter.

    replicas wanted = ceil(replicas now * value / target)       the rule of both, and of flowdex on one machine

The value is the same too: the queue's milliseconds, the mean over the ready replicas (`flowdex_orchestrator.load`).
Here it is the gateway's metric, which every gateway serves for all replicas; an adapter must make an external metric
of it (docs/kubernetes.md), or KEDA asks Prometheus itself.
"""

from __future__ import annotations

from flowdex_orchestrator.export.kubernetes.objects import Object, manifest, metadata
from flowdex_orchestrator.export.model import Deployment, Workload
from flowdex_orchestrator.flow.deployment import Autoscale

__all__ = ["QUEUE_METRIC", "horizontal_autoscaler", "scaled_object"]

QUEUE_METRIC = "flowdex_executor_queue_milliseconds"
PROMETHEUS = "http://prometheus-operated.monitoring.svc:9090"

_BEHAVIOR: Object = {
    # Up at once, at most to the double every 15 seconds; down by one pod a minute, after five quiet minutes.
    "scaleUp": {
        "stabilizationWindowSeconds": 0,
        "selectPolicy": "Max",
        "policies": [
            {"type": "Percent", "value": 100, "periodSeconds": 15},
            {"type": "Pods", "value": 2, "periodSeconds": 15},
        ],
    },
    "scaleDown": {
        "stabilizationWindowSeconds": 300,
        "policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}],
    },
}


def horizontal_autoscaler(deployment: Deployment, workload: Workload) -> Object:
    """The autoscaler of a workload that has `autoscale`."""
    scale = workload.autoscale
    assert scale is not None
    spec: Object = {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": workload.label},
        "minReplicas": scale.min,
        "maxReplicas": scale.max,
        "metrics": [_metric(workload, scale)],
        "behavior": _BEHAVIOR,
    }
    head = metadata(deployment, workload.label, workload.label)
    return manifest("autoscaling/v2", "HorizontalPodAutoscaler", head, spec=spec)


def _metric(workload: Workload, scale: Autoscale) -> Object:
    if scale.queue_ms is None:
        percent = round(100 * (scale.target_cpu or 0))
        target: Object = {"type": "Utilization", "averageUtilization": percent}
        return {"type": "Resource", "resource": {"name": "cpu", "target": target}}
    external: Object = {
        "metric": {
            "name": workload.metric or QUEUE_METRIC,
            "selector": {"matchLabels": {"executor": workload.name}},
        },
        "target": {"type": "Value", "value": str(scale.queue_ms)},
    }
    return {"type": "External", "external": external}


def scaled_object(deployment: Deployment, workload: Workload, scale: Autoscale) -> Object:
    """KEDA's autoscaler by the queue, which asks Prometheus and needs no adapter."""
    query = f'avg({workload.metric or QUEUE_METRIC}{{executor="{workload.name}",namespace="{deployment.name}"}})'
    spec: Object = {
        "scaleTargetRef": {"name": workload.label},
        "minReplicaCount": scale.min,
        "maxReplicaCount": scale.max,
        "pollingInterval": 15,
        "fallback": {"failureThreshold": 4, "replicas": scale.min},
        "advanced": {"horizontalPodAutoscalerConfig": {"behavior": _BEHAVIOR}},
        "triggers": [
            {
                "type": "prometheus",
                "metricType": "Value",
                "metadata": {
                    "serverAddress": PROMETHEUS,
                    "query": query,
                    "threshold": str(scale.queue_ms or 50),
                },
            }
        ],
    }
    head = metadata(deployment, workload.label, workload.label)
    return manifest("keda.sh/v1alpha1", "ScaledObject", head, spec=spec)
