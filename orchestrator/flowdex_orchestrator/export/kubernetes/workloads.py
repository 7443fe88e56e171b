"""Deployments and StatefulSets.

stateless  Deployment; a new pod is ready before an old one goes; no `replicas` where an autoscaler sets them
embedded   StatefulSet with a volume of its own; one replica, never two at a time on the same index
"""

from __future__ import annotations

from flowdex_orchestrator.export.kubernetes.objects import Object, manifest, metadata, selector
from flowdex_orchestrator.export.kubernetes.pods import cache_claim, pod_template
from flowdex_orchestrator.export.model import Deployment, Workload
from flowdex_orchestrator.flow.deployment import Storage

__all__ = ["claims", "controller"]

_REVISIONS = 3


def controller(deployment: Deployment, workload: Workload) -> Object:
    """What keeps the workload's pods running."""
    head = metadata(deployment, workload.label, workload.label)
    matched = {"matchLabels": selector(deployment, workload.label)}
    template = pod_template(deployment, workload)
    if workload.stateful:
        spec: Object = {
            "serviceName": workload.label,
            "replicas": 1,
            "revisionHistoryLimit": _REVISIONS,
            "selector": matched,
            "updateStrategy": {"type": "RollingUpdate"},
            "template": template,
            "volumeClaimTemplates": [_claim_template(workload)],
        }
        return manifest("apps/v1", "StatefulSet", head, spec=spec)
    spec = {} if workload.autoscale else {"replicas": workload.replicas}
    strategy: Object = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}
    spec.update(
        revisionHistoryLimit=_REVISIONS,
        selector=matched,
        strategy={"type": "Recreate"} if workload.embedded else strategy,
        template=template,
    )
    return manifest("apps/v1", "Deployment", head, spec=spec)


def claims(deployment: Deployment, workload: Workload) -> list[Object]:
    """The volume claims that stand by themselves: that of downloaded models, shared by all replicas."""
    if workload.model_cache is None:
        return []
    mode = "ReadWriteMany" if workload.most > 1 else "ReadWriteOnce"
    head = metadata(deployment, cache_claim(workload), workload.label)
    return [manifest("v1", "PersistentVolumeClaim", head, spec=_claim(workload.model_cache, mode))]


def _claim_template(workload: Workload) -> Object:
    assert workload.index is not None
    return {"metadata": {"name": "index"}, "spec": _claim(workload.index, "ReadWriteOnce")}


def _claim(storage: Storage, mode: str) -> Object:
    spec: Object = {"accessModes": [mode]}
    if storage.storage_class is not None:
        spec["storageClassName"] = storage.storage_class
    return {**spec, "resources": {"requests": {"storage": storage.size}}}
