"""A Qdrant server in the flow's namespace: one pod, or a cluster of three.

    indexer --gRPC, with the key of the Secret--> qdrant (Service) --> qdrant-0, qdrant-1, qdrant-2 --> a volume each

With a server the indexer holds no state: it becomes a Deployment. Its part of the flow file is changed to match.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import yaml

from flowdex_orchestrator.export.kubernetes.objects import Object, manifest, metadata, selector, write_yaml
from flowdex_orchestrator.export.kubernetes.pods import container_security, pod_security
from flowdex_orchestrator.export.model import Deployment, Workload

__all__ = ["IMAGE", "KEY", "NAME", "PORTS", "cluster_patch", "flow_on_server", "on_server", "server"]

NAME = "qdrant"
HEADLESS = "qdrant-headless"
KEY = "QDRANT_API_KEY"
PORTS = {"http": 6333, "grpc": 6334, "p2p": 6335}
IMAGE = "qdrant/qdrant:v1.15.5-unprivileged"
USER = 1000
"""Of that image."""

_EMBEDDED_ONLY = frozenset({"shards", "durability"})


# ---- the flow ----


def on_server(workload: Workload, replicas: int = 1) -> Workload:
    """An indexer with an embedded index as one that uses the server."""
    return replace(
        workload,
        index=None,
        embedded=False,
        replicas=replicas,
        qdrant=(NAME, PORTS["grpc"]),
        secret_env={**workload.secret_env, KEY: ("flow-secrets", KEY, False)},
        limits={
            name: "1Gi" if name == "memory" and amount == "4Gi" else amount for name, amount in workload.limits.items()
        },
    )


def flow_on_server(
    deployment: Deployment, names: set[str], server: dict[str, Any] | None = None, *, of: str = "../../base/flow.yml"
) -> str:
    """The flow file with the executors `names` on the server, as YAML without the original's comments.

    Args:
        deployment: The flow.
        names: Executors with an embedded index.
        server: Settings of collections on the server.
        of: Where the original lies, for people to read.
    """
    data = yaml.safe_load(deployment.text)
    for index, entry in enumerate(data.get("executors", data.get("deployments")) or []):
        if entry.get("name", f"executor{index}") in names:
            kept = {key: value for key, value in (entry.get("uses_with") or {}).items() if key not in _EMBEDDED_ONLY}
            entry["uses_with"] = {**kept, "uri": f"grpc://{NAME}:{PORTS['grpc']}", "api_key": f"${{{{ ENV.{KEY} }}}}"}
            if server:
                entry["uses_with"]["server"] = server
    return write_yaml(f"The flow of {of}, with its index on the Qdrant server {NAME}.", [data])


# ---- the server ----


def server(deployment: Deployment) -> list[Object]:
    """StatefulSet, Services, network policy of one pod."""
    return [_stateful_set(deployment), *_services(deployment), _policy(deployment)]


def cluster_patch(deployment: Deployment, replicas: int = 3) -> tuple[Object, list[Object]]:
    """What makes a cluster of the one pod: a patch of the StatefulSet, and a disruption budget."""
    first = f"http://{NAME}-0.{HEADLESS}:{PORTS['p2p']}"
    script = (
        f'if [ "$HOSTNAME" = {NAME}-0 ]; then\n'
        f"  exec ./entrypoint.sh --uri {first}\n"
        "fi\n"
        f'exec ./entrypoint.sh --bootstrap {first} --uri "http://$HOSTNAME.{HEADLESS}:{PORTS["p2p"]}"\n'
    )
    apart: Object = {
        "podAntiAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": [
                {
                    "labelSelector": {"matchLabels": selector(deployment, NAME)},
                    "topologyKey": "kubernetes.io/hostname",
                }
            ]
        }
    }
    container: Object = {
        "name": NAME,
        "command": ["/bin/sh", "-c", script],
        "env": [{"name": "QDRANT__CLUSTER__ENABLED", "value": "true"}],
    }
    patch: Object = {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": NAME},
        "spec": {"replicas": replicas, "template": {"spec": {"affinity": apart, "containers": [container]}}},
    }
    budget = manifest(
        "policy/v1",
        "PodDisruptionBudget",
        metadata(deployment, NAME, NAME),
        spec={"minAvailable": replicas - 1, "selector": {"matchLabels": selector(deployment, NAME)}},
    )
    return patch, [budget]


def _stateful_set(deployment: Deployment) -> Object:
    ready: Object = {"httpGet": {"path": "/readyz", "port": "http"}, "timeoutSeconds": 3}
    alive: Object = {"httpGet": {"path": "/livez", "port": "http"}, "timeoutSeconds": 10}
    container: Object = {
        "name": NAME,
        "image": IMAGE,
        "ports": [{"name": name, "containerPort": port} for name, port in PORTS.items()],
        "env": [
            {
                "name": "QDRANT__SERVICE__API_KEY",
                "valueFrom": {"secretKeyRef": {"name": deployment.secret, "key": KEY}},
            },
            {"name": "QDRANT__TELEMETRY_DISABLED", "value": "true"},
            {"name": "QDRANT_INIT_FILE_PATH", "value": "/qdrant/init/.qdrant-initialized"},
        ],
        "resources": {"requests": {"cpu": "1", "memory": "2Gi"}, "limits": {"memory": "4Gi"}},
        # Large collections take their time to load.
        "startupProbe": {**ready, "periodSeconds": 5, "failureThreshold": 240},
        "readinessProbe": {**ready, "periodSeconds": 5, "failureThreshold": 3},
        "livenessProbe": {**alive, "periodSeconds": 10, "failureThreshold": 6},
        "lifecycle": {"preStop": {"exec": {"command": ["sleep", "5"]}}},
        "securityContext": container_security(),
        "volumeMounts": [
            {"name": "storage", "mountPath": "/qdrant/storage"},
            {"name": "snapshots", "mountPath": "/qdrant/snapshots"},
            {"name": "init", "mountPath": "/qdrant/init"},
            {"name": "tmp", "mountPath": "/tmp"},  # nosec B108 # a folder within the container
        ],
    }
    pod: Object = {
        "serviceAccountName": deployment.name,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 60,
        "securityContext": {**pod_security(), "runAsUser": USER, "runAsGroup": 2000, "fsGroup": 3000},
        "containers": [container],
        "volumes": [{"name": name, "emptyDir": {}} for name in ("snapshots", "init", "tmp")],
    }
    claim: Object = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "20Gi"}}}
    spec: Object = {
        "serviceName": HEADLESS,
        "replicas": 1,
        "podManagementPolicy": "Parallel",
        "selector": {"matchLabels": selector(deployment, NAME)},
        "updateStrategy": {"type": "RollingUpdate"},
        "template": {"metadata": {"labels": selector(deployment, NAME)}, "spec": pod},
        "volumeClaimTemplates": [{"metadata": {"name": "storage"}, "spec": claim}],
    }
    return manifest("apps/v1", "StatefulSet", metadata(deployment, NAME, NAME), spec=spec)


def _services(deployment: Deployment) -> list[Object]:
    ports = [{"name": name, "port": port, "targetPort": name} for name, port in PORTS.items()]
    chosen = selector(deployment, NAME)
    front: Object = {"selector": chosen, "ports": ports[:2]}
    peers: Object = {"clusterIP": "None", "publishNotReadyAddresses": True, "selector": chosen, "ports": ports}
    return [
        manifest("v1", "Service", metadata(deployment, NAME, NAME), spec=front),
        manifest("v1", "Service", metadata(deployment, HEADLESS, NAME), spec=peers),
    ]


def _policy(deployment: Deployment) -> Object:
    """Qdrant answers the indexers, and its own peers."""
    peers = {"podSelector": {"matchLabels": selector(deployment, NAME)}}
    indexers = [
        {"podSelector": {"matchLabels": selector(deployment, each.label)}}
        for each in deployment.executors
        if each.stateful or (each.qdrant or ("",))[0] == NAME
    ]
    every = [{"protocol": "TCP", "port": port} for port in PORTS.values()]
    spec: Object = {
        "podSelector": {"matchLabels": selector(deployment, NAME)},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"from": indexers, "ports": every[:2]}, {"from": [peers], "ports": every}],
        "egress": [{"to": [peers], "ports": every}],
    }
    return manifest("networking.k8s.io/v1", "NetworkPolicy", metadata(deployment, NAME, NAME), spec=spec)
