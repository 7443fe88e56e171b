"""Services: a headless one for each executor, whose name lists its ready pods, and the gateway's own."""

from __future__ import annotations

from flowdex_orchestrator.export.kubernetes.objects import Object, manifest, metadata, selector
from flowdex_orchestrator.export.model import Deployment, Workload

__all__ = ["gateway_service", "headless_service"]


def headless_service(deployment: Deployment, workload: Workload) -> Object:
    """The gateway finds every pod by this name and chooses itself, so nothing stands between."""
    spec: Object = {
        "clusterIP": "None",
        "selector": selector(deployment, workload.label),
        "ports": [
            {"name": name, "port": port, "targetPort": name, "appProtocol": "kubernetes.io/h2c"}
            for name, port in workload.ports.items()
        ],
    }
    return manifest("v1", "Service", metadata(deployment, workload.label, workload.label), spec=spec)


def gateway_service(deployment: Deployment) -> Object:
    """The address of the flow, in the cluster and, by its type, beyond."""
    gateway = deployment.gateway
    ports: list[Object] = []
    for name, port in gateway.ports.items():
        ports.append({"name": name, "port": port, "targetPort": name})
        if name == "grpc":
            ports[-1]["appProtocol"] = "kubernetes.io/h2c"
    spec: Object = {
        "type": deployment.settings.service.type,
        "selector": selector(deployment, gateway.label),
        "ports": ports,
    }
    return manifest("v1", "Service", metadata(deployment, gateway.label, gateway.label), spec=spec)
