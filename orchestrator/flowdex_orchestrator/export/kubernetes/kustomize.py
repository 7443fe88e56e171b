"""Files and folders of the export: what Kustomize builds, and from which parts.

base/                     namespace, gateway, one file an executor, policies, the flow file
components/qdrant         a Qdrant server; the embedded indexer becomes stateless    (Component: add it to any overlay)
components/qdrant-cluster three of them
components/monitoring     PodMonitor, alert rules, Grafana dashboard
components/ingress        or components/gateway-api: the ways in
components/keda           ScaledObjects in place of HorizontalPodAutoscalers
overlays/local            one of everything, small, for kind or minikube
overlays/gpu              encoders on GPUs
overlays/production       replicas, autoscalers, Qdrant cluster, monitoring, ingress
overlays/production-keda  the same with KEDA
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from flowdex_orchestrator.export.kubernetes import autoscaling, ingress, monitoring, policy, qdrant
from flowdex_orchestrator.export.kubernetes.objects import Object, manifest, metadata, write_yaml
from flowdex_orchestrator.export.kubernetes.pods import CONTAINER, ENVIRONMENT, FLOW, file_key, pod_template
from flowdex_orchestrator.export.kubernetes.services import gateway_service, headless_service
from flowdex_orchestrator.export.kubernetes.workloads import claims, controller
from flowdex_orchestrator.export.model import Deployment, Workload
from flowdex_orchestrator.export.roles import Role
from flowdex_orchestrator.flow.deployment import Autoscale

__all__ = ["render"]

_BUILD = "kustomize.config.k8s.io"
_WRITTEN = "Written by `flowdex export kubernetes`: change the flow file, or add an overlay of your own."
_NODE_PORTS = {"grpc": 30051, "http": 30080, "websocket": 30081, "bert": 30555, "bert-out": 30556}
_PRODUCTION = Autoscale(min=2, max=8, target_cpu=0.7)
"""Of encoders whose flow does not say."""
_QUEUE = Autoscale(min=2, max=8)
_CLUSTER: dict[str, Any] = {"shards": 6, "replication_factor": 2, "write_consistency": 1}
"""How collections are laid out on three nodes: two shards a node and room for three nodes more; one may be away."""


class _Tree:
    """Files by path."""

    def __init__(self) -> None:
        self.files: dict[str, str] = {}

    def add(self, path: str, comment: str, objects: Iterable[Object]) -> None:
        self.files[path] = write_yaml(f"{comment}\n{_WRITTEN}", objects)

    def kustomization(self, folder: str, comment: str, *, component: bool = False, **body: Any) -> None:
        api, kind = (f"{_BUILD}/v1alpha1", "Component") if component else (f"{_BUILD}/v1beta1", "Kustomization")
        kept = {key: value for key, value in body.items() if value}
        self.add(f"{folder}/kustomization.yaml", comment, [{"apiVersion": api, "kind": kind, **kept}])


def render(deployment: Deployment) -> dict[str, str]:
    """All files of the export: path below the output folder -> text."""
    tree = _Tree()
    indexers = [each for each in deployment.executors if each.stateful]
    has_server = bool(indexers) or any((each.qdrant or ("",))[0] == qdrant.NAME for each in deployment.executors)
    _base(tree, deployment)
    if has_server:
        _qdrant(tree, deployment, indexers)
    _monitoring(tree, deployment)
    _ways_in(tree, deployment)
    _keda(tree, deployment)
    _local(tree, deployment)
    _gpu(tree, deployment)
    _production(tree, deployment, indexers, has_server)
    return dict(sorted(tree.files.items()))


# ---- base ----


def _base(tree: _Tree, deployment: Deployment) -> None:
    levels = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn")}
    head = metadata(deployment, deployment.name)
    head["labels"].update(levels)
    tree.add(
        "base/namespace.yaml",
        "The namespace of the flow: host names such as `gateway` and `encoder` are its own. No pod may be privileged.",
        [manifest("v1", "Namespace", head)],
    )
    tree.add(
        "base/service-account.yaml", "The account of all pods: it may do nothing.", [policy.service_account(deployment)]
    )
    gateway = deployment.gateway
    tree.add(
        "base/gateway.yaml",
        "The gateway: the only part of the flow that is reached from outside.",
        [controller(deployment, gateway), gateway_service(deployment), *_budget(deployment, gateway)],
    )
    for each in deployment.executors:
        tree.add(f"base/{each.label}.yaml", _about(each), _executor(deployment, each))
    tree.add(
        "base/network-policies.yaml",
        "Who talks to whom: anyone to the gateway, the gateway to the executors, nobody else to anybody.",
        policy.network_policies(deployment),
    )
    for name, text in deployment.files.items():
        tree.files[f"base/{file_key(name)}"] = text
    files = [file_key(name) for name in deployment.files]
    generators: list[Object] = [{"name": FLOW, "files": files}]
    if deployment.variables.plain:
        literals = [f"{name}={value}" for name, value in deployment.variables.plain.items()]
        generators.append({"name": ENVIRONMENT, "literals": literals})
    names = ["namespace", "service-account", "gateway", *(each.label for each in deployment.executors)]
    resources = [f"{name}.yaml" for name in (*names, "network-policies")]
    if deployment.settings.ingress is not None:
        tree.add("base/ingress.yaml", "The way in, as the flow says.", ingress.ingresses(deployment))
        resources.append("ingress.yaml")
    tree.kustomization(
        "base",
        f"The flow {deployment.flow.name!r} as its file says: kubectl apply -k base\n"
        "Names of generated ConfigMaps end with a hash of their content, so a changed flow rolls the pods.",
        namespace=deployment.name,
        resources=resources,
        configMapGenerator=generators,
    )


def _about(workload: Workload) -> str:
    if workload.stateful:
        return f"The executor {workload.name}: an embedded index on a volume of its own, so there is one of it."
    return f"The executor {workload.name}: stateless, any number of replicas."


def _executor(deployment: Deployment, workload: Workload) -> list[Object]:
    found = [*claims(deployment, workload), controller(deployment, workload), headless_service(deployment, workload)]
    if workload.autoscale is not None:
        found.append(autoscaling.horizontal_autoscaler(deployment, workload))
    return [*found, *_budget(deployment, workload)]


def _budget(deployment: Deployment, workload: Workload) -> list[Object]:
    budget = policy.disruption_budget(deployment, workload)
    return [] if budget is None else [budget]


# ---- components ----


def _qdrant(tree: _Tree, deployment: Deployment, indexers: list[Workload]) -> None:
    folder, note = "components/qdrant", "Needs the Secret `flow-secrets` with the key QDRANT_API_KEY."
    resources = ["qdrant.yaml"]
    tree.add(f"{folder}/qdrant.yaml", f"One Qdrant server. {note}", qdrant.server(deployment))
    served = [qdrant.on_server(each) for each in indexers]
    users = served or [each for each in deployment.executors if (each.qdrant or ("",))[0] == qdrant.NAME]
    policies = [policy.qdrant_egress(deployment, each, [qdrant.PORTS["http"], qdrant.PORTS["grpc"]]) for each in users]
    tree.add(f"{folder}/network-policies.yaml", "The indexer may reach Qdrant.", policies)
    resources.append("network-policies.yaml")
    patches: list[Object] = []
    generators: list[Object] = []
    for each in served:
        tree.add(
            f"{folder}/{each.label}.yaml",
            f"The executor {each.name} with its index on the server: stateless, any number of replicas.",
            [controller(deployment, each)],
        )
        resources.append(f"{each.label}.yaml")
        patches.append(
            {"target": {"kind": "StatefulSet", "name": f"^{each.label}$"}, "patch": _delete("apps/v1", "StatefulSet")}
        )
    if served:
        patches += _secrets_withheld(deployment, served)
        tree.files[f"{folder}/flow.yml"] = qdrant.flow_on_server(deployment, {each.name for each in served})
        generators.append({"name": FLOW, "behavior": "merge", "files": ["flow.yml"]})
    tree.kustomization(
        folder,
        f"The index on a Qdrant server. {note}\n"
        "Documents do not move by themselves: `flowdex snapshot`, then `flowdex restore`.",
        component=True,
        resources=resources,
        configMapGenerator=generators,
        patches=patches,
    )
    folder = "components/qdrant-cluster"
    patch, more = qdrant.cluster_patch(deployment)
    tree.add(f"{folder}/cluster.yaml", "Three nodes of Qdrant, on three nodes of the cluster.", [patch])
    tree.add(f"{folder}/disruption-budget.yaml", "Two of three stay while nodes are drained.", more)
    generators = []
    if served:
        text = qdrant.flow_on_server(deployment, {each.name for each in served}, _CLUSTER)
        tree.files[f"{folder}/flow.yml"] = text
        generators.append({"name": FLOW, "behavior": "merge", "files": ["flow.yml"]})
    tree.kustomization(
        folder,
        f"The index on a cluster of three Qdrant servers. {note}",
        component=True,
        components=["../qdrant"],
        resources=["disruption-budget.yaml"],
        configMapGenerator=generators,
        patches=[{"path": "cluster.yaml"}],
    )


def _secrets_withheld(deployment: Deployment, served: list[Workload]) -> list[Object]:
    """Every process reads the whole flow file, which now names the server's key; only indexers get to know it."""
    names = "|".join(each.label for each in deployment.workloads if each.name not in {each.name for each in served})
    added = [
        {
            "op": "add",
            "path": "/spec/template/spec/containers/0/env/-",
            "value": {"name": qdrant.KEY, "value": "withheld"},
        }
    ]
    if qdrant.KEY in deployment.variables.secrets:
        return []
    text = write_yaml("", [added]).removeprefix("# \n")  # type: ignore[list-item]
    return [{"target": {"kind": "Deployment", "name": f"^({names})$"}, "patch": text}]


def _monitoring(tree: _Tree, deployment: Deployment) -> None:
    folder = "components/monitoring"
    tree.add(
        f"{folder}/pod-monitor.yaml",
        "Prometheus (its operator) asks every pod.",
        [monitoring.pod_monitor(deployment), monitoring.metrics_policy(deployment)],
    )
    tree.add(f"{folder}/alerts.yaml", "What Prometheus warns of.", [monitoring.alert_rules(deployment)])
    tree.files[f"{folder}/dashboard.json"] = monitoring.dashboard(deployment)
    tree.kustomization(
        folder,
        "Metrics of all pods for Prometheus, alerts, and a dashboard for Grafana, whose sidecar finds it by its label.",
        component=True,
        resources=["alerts.yaml", "pod-monitor.yaml"],
        configMapGenerator=[
            {
                "name": "flow-dashboard",
                "files": ["dashboard.json"],
                "options": {"disableNameSuffixHash": True, "labels": {"grafana_dashboard": "1"}},
            }
        ],
    )


def _ways_in(tree: _Tree, deployment: Deployment) -> None:
    note = "Set host and certificate in the flow file (gateway: kubernetes: ingress:)."
    if deployment.settings.ingress is None:
        tree.add("components/ingress/ingress.yaml", f"The way in. {note}", ingress.ingresses(deployment))
        tree.kustomization("components/ingress", f"An Ingress. {note}", component=True, resources=["ingress.yaml"])
    tree.add(
        "components/gateway-api/routes.yaml", f"The way in, by the Gateway API. {note}", ingress.routes(deployment)
    )
    tree.kustomization(
        "components/gateway-api", f"Routes of the Gateway API. {note}", component=True, resources=["routes.yaml"]
    )


def _keda(tree: _Tree, deployment: Deployment) -> None:
    scaled = _scaled(deployment)
    if not scaled:
        return
    objects = []
    for each in scaled:
        own = each.autoscale if each.autoscale is not None and each.autoscale.queue_ms is not None else None
        bounds = each.autoscale or _QUEUE
        scale = own or Autoscale(min=bounds.min, max=bounds.max)
        objects.append(autoscaling.scaled_object(deployment, each, scale))
    tree.add(
        "components/keda/scaled-objects.yaml",
        "Replicas by the milliseconds that requests wait, asked of Prometheus.",
        objects,
    )
    names = "|".join(each.label for each in scaled)
    tree.kustomization(
        "components/keda",
        "KEDA in place of the HorizontalPodAutoscalers: it makes its own.",
        component=True,
        resources=["scaled-objects.yaml"],
        patches=[
            {
                "target": {"kind": "HorizontalPodAutoscaler", "name": f"^({names})$"},
                "patch": _delete("autoscaling/v2", "HorizontalPodAutoscaler"),
            }
        ],
    )


def _scaled(deployment: Deployment) -> list[Workload]:
    """What is scaled in production: what the flow says, and encoders."""
    return [
        each
        for each in deployment.executors
        if each.autoscale is not None or (each.role in (Role.ENCODER, Role.GPU_ENCODER) and not each.embedded)
    ]


# ---- overlays ----


def _local(tree: _Tree, deployment: Deployment) -> None:
    """One of everything, small; ports of the node lead to the gateway."""
    patches: list[Object] = []
    for each in deployment.workloads:
        kind = "StatefulSet" if each.stateful else "Deployment"
        container = {"name": CONTAINER, "resources": {"requests": {"cpu": "100m"}}}
        spec: Object = {"replicas": 1, "template": {"spec": {"containers": [container]}}}
        patches.append(_named("apps/v1", kind, each.label, spec=spec))
    gateway = deployment.gateway
    ports = [{"port": port, "nodePort": _NODE_PORTS[name]} for name, port in gateway.ports.items()]
    patches.append(_named("v1", "Service", gateway.label, spec={"type": "NodePort", "ports": ports}))
    tree.add(
        "overlays/local/small.yaml",
        "One replica of everything that asks for little; the gateway on ports of the node.",
        patches,
    )
    deleted: list[Object] = [
        {"target": {"kind": kind}, "patch": _delete(api, kind)}
        for api, kind in (("autoscaling/v2", "HorizontalPodAutoscaler"), ("policy/v1", "PodDisruptionBudget"))
    ]
    if not any(each.autoscale or each.least > 1 for each in deployment.workloads):
        deleted = []
    tree.kustomization(
        "overlays/local",
        "For kind or minikube: images from this machine, no autoscalers. kubectl apply -k overlays/local",
        namespace=deployment.name,
        resources=["../../base"],
        patches=[{"path": "small.yaml"}, *deleted],
    )


def _gpu(tree: _Tree, deployment: Deployment) -> None:
    """Encoders on GPUs, those that are not already."""
    patches = []
    for each in deployment.executors:
        if each.role is Role.ENCODER and not each.gpus:
            patches.append(_gpu_patch(deployment, each))
    if patches:
        tree.add(
            "overlays/gpu/encoders.yaml", "Encoders with one GPU a pod; a rolling update needs one GPU more.", patches
        )
    tree.kustomization(
        "overlays/gpu",
        "Encoders on GPUs. Other resource names (MIG, time slices): kubernetes: gpu_resource: in the flow file.",
        namespace=deployment.name,
        resources=["../../base"],
        patches=[{"path": "encoders.yaml"}] if patches else [],
    )


def _gpu_patch(deployment: Deployment, workload: Workload) -> Object:
    moved = workload.on_gpu()
    made = pod_template(deployment, moved)["spec"]
    container = {key: made["containers"][0][key] for key in ("name", "image", "resources")}
    pod = {key: made[key] for key in ("nodeSelector", "tolerations") if key in made}
    return _named(
        "apps/v1", "Deployment", workload.label, spec={"template": {"spec": {**pod, "containers": [container]}}}
    )


def _production(tree: _Tree, deployment: Deployment, indexers: list[Workload], has_server: bool) -> None:
    """Two of everything at least, encoders scaled, the index on a cluster."""
    served = {each.name for each in indexers}
    patches, added = [], []
    for each in deployment.workloads:
        if each.embedded and each.name not in served:
            continue
        grown = _grown(each)
        if grown.autoscale is not None and each.autoscale is None:
            added.append(autoscaling.horizontal_autoscaler(deployment, grown))
            # The autoscaler sets them: a number here would set them back with every apply.
            patches.append(_named("apps/v1", "Deployment", each.label, spec={"replicas": None}))
        elif grown.autoscale is None and grown.replicas != each.replicas:
            patches.append(_named("apps/v1", "Deployment", each.label, spec={"replicas": grown.replicas}))
        if policy.disruption_budget(deployment, each) is None:
            added += _budget(deployment, grown)
    folder = "overlays/production"
    tree.add(f"{folder}/replicas.yaml", "Two of everything, so that a node may fail.", patches)
    tree.add(f"{folder}/availability.yaml", "Autoscalers and disruption budgets.", added)
    components = ["qdrant-cluster"] if has_server else []
    components.append("monitoring")
    components += ["ingress"] if deployment.settings.ingress is None else []
    tree.kustomization(
        folder,
        "Replicas, autoscalers, disruption budgets, a Qdrant cluster, metrics, an Ingress.\n"
        "Images: kustomize edit set image flowdex-gateway=REGISTRY/flowdex-gateway:TAG, and so on.",
        namespace=deployment.name,
        resources=["../../base", "availability.yaml"],
        components=[f"../../components/{name}" for name in components],
        patches=[{"path": "replicas.yaml"}] if patches else [],
    )
    if _scaled(deployment):
        tree.kustomization(
            "overlays/production-keda",
            "Production with KEDA as the autoscaler.",
            namespace=deployment.name,
            resources=["../production"],
            components=["../../components/keda"],
        )


def _grown(workload: Workload) -> Workload:
    """A workload as it is in production."""
    if workload.autoscale is not None or "bert" in workload.ports:  # bert-as-service's clients need one gateway
        return workload
    if workload.role in (Role.ENCODER, Role.GPU_ENCODER):
        return replace(workload, autoscale=_PRODUCTION)
    if workload.stateful:
        return qdrant.on_server(workload, replicas=2)
    return replace(workload, replicas=max(2, workload.replicas))


# ---- patches ----


def _named(api: str, kind: str, name: str, **body: Any) -> Object:
    return {"apiVersion": api, "kind": kind, "metadata": {"name": name}, **body}


def _delete(api: str, kind: str) -> str:
    return f"$patch: delete\napiVersion: {api}\nkind: {kind}\nmetadata:\n  name: any\n"
