"""The pod template of a workload: its container, probes, volumes, and what it must not do.

Workload --> serviceAccount without token, non-root, read-only root file system
         --> container: flowdex executor NAME --flow /etc/flowdex/flow.yml --host 0.0.0.0 --port 52000 ...
         --> /etc/flowdex   ConfigMap flow; Kustomize puts its hash into the name, so a change rolls the pods
                            and, with TLS, the Secrets of certificates
             /var/lib/flowdex  working directory: the index's volume, or an empty folder
             /var/cache/flowdex, /tmp
"""

from __future__ import annotations

import math
from typing import Any

from flowdex_orchestrator.export.kubernetes.objects import Object, selector, without_empty
from flowdex_orchestrator.export.model import (
    CACHE,
    FLOW_FOLDER,
    HOME,
    KEYS_FOLDER,
    KEYS_SECRET,
    METRICS_PORT,
    Deployment,
    Workload,
)
from flowdex_orchestrator.export.roles import Role

__all__ = ["CONTAINER", "ENVIRONMENT", "FLOW", "cache_claim", "container_security", "pod_security", "pod_template"]

CONTAINER = "flowdex"
FLOW = "flow"
"""Name of the ConfigMap with the flow file."""
ENVIRONMENT = "flow-environment"
"""Name of the ConfigMap with the variables that the flow file names."""

USER = 65532  # as in the Dockerfile
PRE_STOP = 8
"""Seconds between the end of new connections (the address is taken out of the Service) and SIGTERM: longer than it
takes the cluster to pass that on and gateways to look at DNS again, every 5.5 s at most."""
_FOR_GROUP = 0o440  # the pod's group reads, nobody else
_TO_END = 10  # seconds beyond the drain: what is stuck is killed then
_PROBE_PERIOD = 5
_UNLIMITED = 86_400  # seconds: a day is no limit
_THREADS = ("OMP_NUM_THREADS", "RAYON_NUM_THREADS")  # MKL and OpenBLAS follow the first
_QUIET = {
    "PYTHONUNBUFFERED": "1",
    "JINA_OPTOUT_TELEMETRY": "1",
    "JINA_HIDE_SURVEY": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
}


def pod_template(deployment: Deployment, workload: Workload) -> Object:
    """The `template` of a Deployment or StatefulSet."""
    return {
        "metadata": without_empty(
            {
                "labels": selector(deployment, workload.label),
                "annotations": {"kubectl.kubernetes.io/default-container": CONTAINER, **workload.annotations},
            }
        ),
        "spec": without_empty(
            {
                "serviceAccountName": deployment.name,
                "automountServiceAccountToken": False,
                "enableServiceLinks": False,
                "terminationGracePeriodSeconds": PRE_STOP + math.ceil(workload.drain) + _TO_END,
                "securityContext": pod_security(),
                "nodeSelector": dict(workload.node_selector),
                "tolerations": [dict(each) for each in workload.tolerations],
                "affinity": None if workload.embedded else _apart(deployment, workload),
                "topologySpreadConstraints": None if workload.embedded else _spread(deployment, workload),
                "containers": [_container(deployment, workload)],
                "volumes": _volumes(deployment, workload),
            }
        ),
    }


def pod_security() -> Object:
    """`securityContext` of a pod, as the `restricted` standard wants it."""
    return {
        "runAsNonRoot": True,
        "runAsUser": USER,
        "runAsGroup": USER,
        "fsGroup": USER,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def container_security() -> Object:
    """`securityContext` of a container."""
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


# ---- container ----


def _container(deployment: Deployment, workload: Workload) -> Object:
    plain = deployment.variables.plain
    return without_empty(
        {
            "name": CONTAINER,
            "image": workload.image,
            "command": ["flowdex"],
            "args": list(workload.arguments),
            "workingDir": HOME,
            "ports": [
                {"name": name, "containerPort": port}
                for name, port in {**workload.ports, "metrics": METRICS_PORT}.items()
            ],
            "envFrom": [{"configMapRef": {"name": ENVIRONMENT}}] if plain else None,
            "env": _environment(workload),
            "resources": {"requests": dict(workload.requests), "limits": dict(workload.limits)},
            **_probes(workload),
            "lifecycle": {"preStop": {"exec": {"command": ["sleep", str(PRE_STOP)]}}},
            "securityContext": container_security(),
            "volumeMounts": _mounts(workload),
        }
    )


def _environment(workload: Workload) -> list[Object]:
    fixed = {**_QUIET, "HOME": HOME, "FLOWDEX_CACHE": CACHE, "HF_HOME": f"{CACHE}/huggingface"}
    values: dict[str, Any] = {**fixed, **workload.env}
    found = [{"name": name, "value": value} for name, value in values.items()]
    if workload.role is not Role.GATEWAY:  # one event loop has no use for threads
        found += [
            {"name": name, "valueFrom": {"resourceFieldRef": {"resource": "requests.cpu", "divisor": "1"}}}
            for name in _THREADS
            if name not in values
        ]
    for name, (secret, key, optional) in workload.secret_env.items():
        reference: Object = {"name": secret, "key": key}
        if optional:
            reference["optional"] = True
        found.append({"name": name, "valueFrom": {"secretKeyRef": reference}})
    return found


def _probes(workload: Workload) -> Object:
    seconds = min(workload.startup, _UNLIMITED)
    startup = {"periodSeconds": _PROBE_PERIOD, "failureThreshold": math.ceil(seconds / _PROBE_PERIOD)}
    asked = workload.encryption.health  # probes of the kubelet speak no TLS over gRPC, and have no certificate
    if workload.role is not Role.GATEWAY:
        health: Object = {"grpc": {"port": workload.ports["grpc"]}, "timeoutSeconds": 3}
        if asked is not None:
            health = {"exec": {"command": list(asked)}, "timeoutSeconds": 10}
        return {
            "startupProbe": {**health, **startup},
            "readinessProbe": {**health, "periodSeconds": _PROBE_PERIOD, "failureThreshold": 2},
            # A long write or a full queue must not look like death: a minute without an answer does.
            "livenessProbe": {**health, "timeoutSeconds": 10, "periodSeconds": 10, "failureThreshold": 6},
        }
    # The gateway starts when all executors have been seen. After that it stays in service while one of them is away:
    # what does not need that one is answered, and the rest with a reason.
    grpc, http = workload.ports.get("grpc"), workload.ports.get("http")
    started: Object = {"grpc": {"port": grpc}} if grpc else {"httpGet": {"path": "/health/ready", "port": "http"}}
    alive: Object = {"httpGet": {"path": "/health/live", "port": "http"}} if http else {"tcpSocket": {"port": "grpc"}}
    if asked is not None:
        started = {"exec": {"command": list(asked)}}
        alive = {"tcpSocket": {"port": "http" if http else "grpc"}}
    return {
        "startupProbe": {**started, "timeoutSeconds": 3 if asked is None else 10, **startup},
        "readinessProbe": {**alive, "timeoutSeconds": 3, "periodSeconds": _PROBE_PERIOD, "failureThreshold": 2},
        "livenessProbe": {**alive, "timeoutSeconds": 10, "periodSeconds": 10, "failureThreshold": 6},
    }


# ---- volumes ----


def _mounts(workload: Workload) -> list[Object]:
    mounts: list[Object] = [
        {"name": FLOW, "mountPath": FLOW_FOLDER, "readOnly": True},
        {"name": "home", "mountPath": HOME},
        {"name": "cache", "mountPath": CACHE},
        {"name": "tmp", "mountPath": "/tmp"},  # nosec B108 # a folder within the container
    ]
    if workload.keys is not None:
        mounts.append({"name": "keys", "mountPath": KEYS_FOLDER, "readOnly": True})
    if workload.stateful:
        if workload.index_mount == HOME:
            mounts[1] = {"name": "index", "mountPath": HOME}
        else:
            # Below the volume's own folder, which may have files of the file system in it.
            mounts.append({"name": "index", "mountPath": workload.index_mount, "subPath": "index"})
    return mounts


def _volumes(deployment: Deployment, workload: Workload) -> list[Object]:
    configuration: Object = {"name": FLOW}
    if any("/" in name for name in deployment.files):
        configuration["items"] = [{"key": file_key(name), "path": name} for name in deployment.files]
    volumes: list[Object] = [{"name": FLOW, "configMap": configuration}]
    if workload.encryption.files:  # beside the flow file: a volume of its own could not be mounted into another
        certificates = [
            {"secret": {"name": secret, "items": [{"key": file_key(name), "path": name} for name in names]}}
            for secret, names in workload.encryption.files.items()
        ]
        sources = [{"configMap": configuration}, *certificates]
        volumes = [{"name": FLOW, "projected": {"defaultMode": _FOR_GROUP, "sources": sources}}]
    if not (workload.stateful and workload.index_mount == HOME):
        volumes.append({"name": "home", "emptyDir": {}})
    if workload.model_cache is not None:
        volumes.append({"name": "cache", "persistentVolumeClaim": {"claimName": cache_claim(workload)}})
    else:
        volumes.append({"name": "cache", "emptyDir": {}})
    if workload.keys is not None:  # a volume and no variable: a Secret that changes is seen without a restart
        volumes.append({"name": "keys", "secret": {"secretName": KEYS_SECRET, "defaultMode": 0o440}})
    return [*volumes, {"name": "tmp", "emptyDir": {}}]


def cache_claim(workload: Workload) -> str:
    """The name of the volume claim of downloaded models."""
    return f"{workload.label}-models"


def file_key(name: str) -> str:
    """The key of a file in the ConfigMap, which cannot have slashes."""
    return name.replace("/", "__")


# ---- placement ----


def _apart(deployment: Deployment, workload: Workload) -> Object:
    """Replicas on different nodes, where there are enough."""
    term = {
        "labelSelector": {"matchLabels": selector(deployment, workload.label)},
        "topologyKey": "kubernetes.io/hostname",
    }
    preferred = [{"weight": 100, "podAffinityTerm": term}]
    return {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": preferred}}


def _spread(deployment: Deployment, workload: Workload) -> list[Object]:
    """Replicas in different zones, where there are several."""
    return [
        {
            "maxSkew": 1,
            "topologyKey": "topology.kubernetes.io/zone",
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": selector(deployment, workload.label)},
        }
    ]
