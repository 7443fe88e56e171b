"""What pods may and must not do: network policies, disruption budgets, the service account without a token.

anyone --> gateway --> executors --> nothing       and everybody --> DNS
              ^------- ranker, own executors        (they may ask the flow that they are part of)
                       indexer --> Qdrant           encoder --> model hub, where a model has to be downloaded
"""

from __future__ import annotations

from flowdex_orchestrator.export.kubernetes.objects import Object, manifest, metadata, selector
from flowdex_orchestrator.export.model import Deployment, Workload

__all__ = [
    "disruption_budget",
    "network_policies",
    "qdrant_egress",
    "service_account",
]

_POLICY = "networking.k8s.io/v1"
_ANYWHERE: Object = {"ipBlock": {"cidr": "0.0.0.0/0"}}


def service_account(deployment: Deployment) -> Object:
    """The account of all pods: no pod talks to the cluster's API."""
    return manifest("v1", "ServiceAccount", metadata(deployment, deployment.name), automountServiceAccountToken=False)


def disruption_budget(deployment: Deployment, workload: Workload) -> Object | None:
    """One pod stays while nodes are drained; None where there is only one, which would never let a node go."""
    if workload.least < 2:
        return None
    spec: Object = {
        "minAvailable": 1 if workload.least == 2 else workload.least - 1,
        "selector": {"matchLabels": selector(deployment, workload.label)},
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
    }
    head = metadata(deployment, workload.label, workload.label)
    return manifest("policy/v1", "PodDisruptionBudget", head, spec=spec)


def network_policies(deployment: Deployment) -> list[Object]:
    """Deny everything, then allow what the flow needs."""
    return [
        _everybody(deployment),
        _gateway(deployment),
        *(_executor(deployment, each) for each in deployment.executors),
    ]


def _everybody(deployment: Deployment) -> Object:
    """Nothing in, and out to DNS alone; the policies below add to it."""
    dns_pods: Object = {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}},
        "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
    }
    node_local: Object = {"ipBlock": {"cidr": "169.254.20.10/32"}}
    spec: Object = {
        "podSelector": {"matchLabels": selector(deployment)},
        "policyTypes": ["Ingress", "Egress"],
        "egress": [{"to": [dns_pods, node_local], "ports": [_port(53, "UDP"), _port(53)]}],
    }
    return manifest(_POLICY, "NetworkPolicy", metadata(deployment, "everybody"), spec=spec)


def _gateway(deployment: Deployment) -> Object:
    gateway = deployment.gateway
    to_executors = [
        {"to": [_pods(deployment, each)], "ports": [_port(port) for port in each.ports.values()]}
        for each in deployment.executors
    ]
    elsewhere = sorted(
        {
            int(address.rpartition(":")[2])
            for executor in deployment.flow.executors
            if executor.external
            for address in executor.addresses()
        }
    )
    if elsewhere:  # external executors: by their ports, because policies know no host names
        to_executors.append({"to": [_ANYWHERE], "ports": [_port(port) for port in elsewhere]})
    spec: Object = {
        "podSelector": {"matchLabels": selector(deployment, gateway.label)},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"ports": [_port(port) for port in gateway.ports.values()]}],  # from anywhere
        "egress": to_executors,
    }
    if not to_executors:
        del spec["egress"]
    return manifest(_POLICY, "NetworkPolicy", metadata(deployment, gateway.label, gateway.label), spec=spec)


def _executor(deployment: Deployment, workload: Workload) -> Object:
    egress: list[Object] = []
    if workload.calls_gateway:
        ports = [_port(port) for port in deployment.gateway.ports.values()]
        egress.append({"to": [_pods(deployment, deployment.gateway)], "ports": ports})
    if workload.downloads:
        egress.append({"to": [_ANYWHERE], "ports": [_port(443)]})
    if workload.qdrant is not None and workload.qdrant[0] != "qdrant":
        egress.append({"to": [_ANYWHERE], "ports": [_port(workload.qdrant[1])]})
    spec: Object = {
        "podSelector": {"matchLabels": selector(deployment, workload.label)},
        "policyTypes": ["Ingress", *(["Egress"] if egress else [])],
        "ingress": [
            {
                "from": [_pods(deployment, deployment.gateway)],
                "ports": [_port(port) for port in workload.ports.values()],
            }
        ],
    }
    if egress:
        spec["egress"] = egress
    return manifest(_POLICY, "NetworkPolicy", metadata(deployment, workload.label, workload.label), spec=spec)


def qdrant_egress(deployment: Deployment, workload: Workload, ports: list[int]) -> Object:
    """Lets one executor reach the Qdrant server of this namespace."""
    to = {"podSelector": {"matchLabels": selector(deployment, "qdrant")}}
    spec: Object = {
        "podSelector": {"matchLabels": selector(deployment, workload.label)},
        "policyTypes": ["Egress"],
        "egress": [{"to": [to], "ports": [_port(port) for port in ports]}],
    }
    head = metadata(deployment, f"{workload.label}-to-qdrant", workload.label)
    return manifest(_POLICY, "NetworkPolicy", head, spec=spec)


def _pods(deployment: Deployment, workload: Workload) -> Object:
    return {"podSelector": {"matchLabels": selector(deployment, workload.label)}}


def _port(port: int, protocol: str = "TCP") -> Object:
    return {"protocol": protocol, "port": port}
