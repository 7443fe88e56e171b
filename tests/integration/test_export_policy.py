"""What every overlay must hold to: pods that may do nothing, are probed and sized; names, ports and keys that fit.

overlay --kubectl kustomize--> objects --findings--> nothing
                               objects, one thing spoilt --findings--> that one
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from kustomize_support import EXPORTS, KUBECTL, OVERLAYS, build, make_exports

pytestmark = pytest.mark.skipif(KUBECTL is None, reason="kubectl, which has Kustomize in it, is not installed")

Object = dict[str, Any]
PRE_STOP_AND_DRAIN = 35
"""Seconds: what a pod is given at least between the order to stop and its end."""
PROBES = ("startupProbe", "readinessProbe", "livenessProbe")
# Secrets that the operator makes, as docs/kubernetes.md says; all others must be optional.
NEEDED = {"flow-secrets": {"QDRANT_API_KEY", "X_TOKEN"}}


# ---- the rules ----


def findings(objects: list[Object]) -> list[str]:
    """What is wrong with the objects of one overlay."""
    found: list[str] = []
    for each in objects:
        name = f"{each['kind']}/{each['metadata']['name']}"
        found += [f"{name}: {text}" for rule in RULES.get(each["kind"], ()) for text in rule(each, objects)]
    return found


def of_kind(objects: list[Object], *kinds: str) -> list[Object]:
    return [each for each in objects if each["kind"] in kinds]


def named(objects: list[Object], kind: str, name: str) -> Object | None:
    return next((each for each in of_kind(objects, kind) if each["metadata"]["name"] == name), None)


def pods(objects: list[Object]) -> list[Object]:
    """The workloads, whose templates are pods."""
    return of_kind(objects, "Deployment", "StatefulSet")


def chosen(objects: list[Object], labels: Mapping[str, str]) -> list[Object]:
    """Workloads whose pods have these labels."""
    return [each for each in pods(objects) if labels.items() <= each["spec"]["template"]["metadata"]["labels"].items()]


def ports_of(workload: Object) -> dict[str, int]:
    (container,) = workload["spec"]["template"]["spec"]["containers"]
    return {each["name"]: each["containerPort"] for each in container["ports"]}


def confined(workload: Object, objects: list[Object]) -> Iterator[str]:
    spec = workload["spec"]["template"]["spec"]
    security = spec.get("securityContext", {})
    if not security.get("runAsNonRoot") or not security.get("runAsUser"):
        yield "may run as root"
    if security.get("seccompProfile", {}).get("type") != "RuntimeDefault":
        yield "has no seccomp profile"
    if spec.get("automountServiceAccountToken") is not False:
        yield "has a token of the cluster"
    if named(objects, "ServiceAccount", spec.get("serviceAccountName", "")) is None:
        yield "has no account"
    if spec.keys() & {"hostNetwork", "hostPID", "hostIPC"} or any("hostPath" in each for each in spec["volumes"]):
        yield "has a part of its node"
    for container in (*spec["containers"], *spec.get("initContainers", ())):
        own = container.get("securityContext", {})
        if own.get("privileged") or own.get("allowPrivilegeEscalation") is not False:
            yield "may gain privileges"
        if not own.get("readOnlyRootFilesystem") or own.get("capabilities") != {"drop": ["ALL"]}:
            yield "may change its image, or has capabilities"
        if own.get("runAsUser") == 0 or own.get("runAsNonRoot") is False:
            yield "has a container of root"


def sized_and_probed(workload: Object, objects: list[Object]) -> Iterator[str]:
    spec = workload["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    resources = container.get("resources", {})
    if not {"cpu", "memory"} <= resources.get("requests", {}).keys() or "memory" not in resources.get("limits", {}):
        yield "does not say how much it needs"
    if not re.search(r":v?\d+\.\d+\.\d+|:\d+$", container["image"]):
        yield f"runs {container['image']}, which is not one version"
    ports = ports_of(workload)
    for name in PROBES:
        probe = container.get(name, {})
        port = next((probe[kind]["port"] for kind in ("grpc", "httpGet", "tcpSocket") if kind in probe), None)
        if port not in ports and port not in ports.values():
            yield f"{name} asks {port}, where nothing listens"
    if "preStop" not in container.get("lifecycle", {}) or spec["terminationGracePeriodSeconds"] < PRE_STOP_AND_DRAIN:
        yield "has no time to end what it has begun"


_PORT_OPTIONS = ("--port", "--port-grpc", "--port-http", "--metrics-port")


def commanded(workload: Object, objects: list[Object]) -> Iterator[str]:
    """Ports and addresses of flowdex's own commands are those of the manifests."""
    spec = workload["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    arguments = container.get("args", [])
    if container.get("command") != ["flowdex"]:
        return
    pairs = list(pairwise(arguments))
    listening = {int(value) for option, value in pairs if option in _PORT_OPTIONS}
    if listening != set(ports_of(workload).values()):
        yield f"listens on {listening}, and says {ports_of(workload)}"
    for option, value in pairs:
        if option == "--address":
            host, _, port = value.partition("=dns:///")[2].partition(":")
            yield from reached(objects, host, int(port), headless=True)
    for each in container.get("env", ()):
        if each["name"] == "FLOWDEX_URL":
            host, _, port = each["value"].partition("://")[2].partition(":")
            yield from reached(objects, host, int(port), headless=False)
    (flow,) = (value for option, value in pairs if option == "--flow")
    folder = next(each for each in container["volumeMounts"] if flow.startswith(f"{each['mountPath']}/"))
    volume = next((each for each in spec["volumes"] if each["name"] == folder["name"]), {})
    keys = files_of(volume.get("configMap", {}), objects)
    if flow.removeprefix(f"{folder['mountPath']}/") not in keys:
        yield f"reads {flow}, which is not mounted"


def reached(objects: list[Object], host: str, port: int, *, headless: bool) -> Iterator[str]:
    service = named(objects, "Service", host)
    if service is None or port not in {each["port"] for each in service["spec"]["ports"]}:
        yield f"calls {host}:{port}, which is no service"
    elif headless and service["spec"].get("clusterIP") != "None":
        yield f"calls {host}, whose name has one address for all its pods"
    elif headless and not all(port in ports_of(each).values() for each in chosen(objects, service["spec"]["selector"])):
        yield f"calls {host}:{port}, where no pod listens"


def supplied(workload: Object, objects: list[Object]) -> Iterator[str]:
    """ConfigMaps, their keys, claims and Secrets that it uses are there."""
    spec = workload["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    claims = {each["metadata"]["name"] for each in workload["spec"].get("volumeClaimTemplates", ())}
    volumes = {each["name"]: each for each in spec["volumes"]}
    for mount in container["volumeMounts"]:
        if mount["name"] not in claims | volumes.keys():
            yield f"mounts {mount['name']}, which it does not have"
    for volume in volumes.values():
        if "configMap" in volume and not files_of(volume["configMap"], objects):
            yield f"{volume['configMap']['name']} has not what it mounts of it"
        claim = volume.get("persistentVolumeClaim", {}).get("claimName")
        if claim and named(objects, "PersistentVolumeClaim", claim) is None:
            yield f"there is no claim {claim}"
    for source in container.get("envFrom", ()):
        if named(objects, "ConfigMap", source["configMapRef"]["name"]) is None:
            yield f"there is no ConfigMap {source['configMapRef']['name']}"
    for each in container.get("env", ()):
        values = each.get("valueFrom", {})
        key = values.get("configMapKeyRef")
        if key and key["key"] not in (named(objects, "ConfigMap", key["name"]) or {}).get("data", {}):
            yield f"{each['name']}: there is no {key['key']} in {key['name']}"
        secret = values.get("secretKeyRef")
        if secret and not secret.get("optional") and secret["key"] not in NEEDED.get(secret["name"], ()):
            yield f"{each['name']}: nobody is told to make {secret['key']} of {secret['name']}"


def files_of(volume: Mapping[str, Any], objects: list[Object]) -> set[str]:
    """Paths below the mount of a ConfigMap; nothing where one of them is not in it."""
    data = (named(objects, "ConfigMap", volume.get("name", "")) or {}).get("data", {})
    items = {each["path"]: each["key"] for each in volume.get("items", ())} or {key: key for key in data}
    return set(items) if set(items.values()) <= data.keys() else set()


def selecting_itself(workload: Object, objects: list[Object]) -> Iterator[str]:
    labels = workload["spec"]["selector"]["matchLabels"]
    if chosen(objects, labels) != [workload]:
        yield "selects others' pods, or not its own"
    governing = workload["spec"].get("serviceName")
    if governing and named(objects, "Service", governing) is None:
        yield f"there is no Service {governing}"


def leading_somewhere(service: Object, objects: list[Object]) -> Iterator[str]:
    behind = chosen(objects, service["spec"]["selector"])
    if len(behind) != 1:
        yield f"has the pods of {len(behind)} workloads behind it"
    for each in behind:
        for port in service["spec"]["ports"]:
            if port["targetPort"] not in ports_of(each):
                yield f"leads to the port {port['targetPort']}, where nothing listens"


def leaving_some(budget: Object, objects: list[Object]) -> Iterator[str]:
    behind = chosen(objects, budget["spec"]["selector"]["matchLabels"])
    if len(behind) != 1:
        yield f"is of {len(behind)} workloads"
    for each in behind:
        scalers = of_kind(objects, "HorizontalPodAutoscaler", "ScaledObject")
        scaler = next((one for one in scalers if target_of(one) == each["metadata"]["name"]), None)
        spec = scaler["spec"] if scaler else each["spec"]
        least = spec.get("minReplicas", spec.get("minReplicaCount", spec.get("replicas", 1)))
        if budget["spec"]["minAvailable"] >= least:
            yield f"keeps {budget['spec']['minAvailable']} of {least}: no node could ever be drained"


def target_of(scaler: Object) -> str:
    name: str = scaler["spec"]["scaleTargetRef"]["name"]
    return name


def scaling_something(scaler: Object, objects: list[Object]) -> Iterator[str]:
    target = named(objects, "Deployment", target_of(scaler))
    if target is None:
        yield f"there is no Deployment {target_of(scaler)}"
    elif "replicas" in target["spec"]:
        yield f"{target_of(scaler)} says how many replicas it has: every apply would undo the autoscaler"
    others = of_kind(objects, "HorizontalPodAutoscaler", "ScaledObject")
    if sum(target_of(each) == target_of(scaler) for each in others) > 1:
        yield f"{target_of(scaler)} has two autoscalers"


def allowing_somebody(policy: Object, objects: list[Object]) -> Iterator[str]:
    own = chosen(objects, policy["spec"]["podSelector"].get("matchLabels", {}))
    if not own:
        yield "is about nobody"
    inside = [(rule.get("from", ()), own, rule) for rule in policy["spec"].get("ingress", ())]
    outside = [(rule.get("to", ()), None, rule) for rule in policy["spec"].get("egress", ())]
    for peers, listeners, rule in inside + outside:
        for peer in peers:
            labels = peer.get("podSelector", {}).get("matchLabels")
            if labels is None or "namespaceSelector" in peer:
                continue
            found = chosen(objects, labels)
            if not found:
                yield f"allows {labels}, which nobody is"
            for each in own if listeners else found:
                missing = {port["port"] for port in rule.get("ports", ())} - set(ports_of(each).values())
                if missing:
                    yield f"allows {each['metadata']['name']} at {missing}, where it does not listen"


def watching_something(monitor: Object, objects: list[Object]) -> Iterator[str]:
    found = [ports_of(each) for each in chosen(objects, monitor["spec"]["selector"]["matchLabels"])]
    for endpoint in monitor["spec"]["podMetricsEndpoints"]:
        if not any(endpoint["port"] in ports for ports in found):
            yield f"no pod has the port {endpoint['port']}"


def leading_in(ingress: Object, objects: list[Object]) -> Iterator[str]:
    for rule in ingress["spec"]["rules"]:
        for path in rule["http"]["paths"]:
            wanted = path["backend"]["service"]
            service = named(objects, "Service", wanted["name"]) or {"spec": {"ports": []}}
            if wanted["port"]["name"] not in {each["name"] for each in service["spec"]["ports"]}:
                yield f"there is no {wanted}"


WORKLOAD = (confined, sized_and_probed, commanded, supplied, selecting_itself)
RULES: dict[str, tuple[Callable[[Object, list[Object]], Iterator[str]], ...]] = {
    "Deployment": WORKLOAD,
    "StatefulSet": WORKLOAD,
    "Service": (leading_somewhere,),
    "PodDisruptionBudget": (leaving_some,),
    "HorizontalPodAutoscaler": (scaling_something,),
    "ScaledObject": (scaling_something,),
    "NetworkPolicy": (allowing_somebody,),
    "PodMonitor": (watching_something,),
    "Ingress": (leading_in,),
}


# ---- tests ----


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return make_exports(tmp_path_factory.mktemp("policy"))


@pytest.mark.parametrize("overlay", OVERLAYS)
@pytest.mark.parametrize("name", EXPORTS)
def test_every_overlay_holds_to_the_rules(name: str, overlay: str, exports: dict[str, Path]) -> None:
    objects = build(exports[name] / overlay)
    assert len(pods(objects)) >= 5
    assert findings(objects) == []


def test_the_default_flow_starts_without_any_secret(exports: dict[str, Path]) -> None:
    for overlay in ("base", "overlays/local", "overlays/gpu"):
        for each in pods(build(exports["default"] / overlay)):
            for variable in each["spec"]["template"]["spec"]["containers"][0]["env"]:
                secret = variable.get("valueFrom", {}).get("secretKeyRef")
                assert secret is None or secret["optional"] is True


def spoil(path: str, value: Any) -> Callable[[Object], None]:
    """Sets what is at a path, as `spec/replicas`; None takes it away."""

    def change(item: Object) -> None:
        *parents, last = (int(part) if part.isdigit() else part for part in path.split("/"))
        place: Any = item
        for part in parents:
            place = place[part]
        if value is None:
            del place[last]
        else:
            place[last] = value

    return change


POD = "spec/template/spec"
CONTAINER = f"{POD}/containers/0"


@pytest.mark.parametrize(
    ("target", "path", "value", "words"),
    [
        ("Deployment/encoder", f"{POD}/securityContext/runAsNonRoot", None, "may run as root"),
        ("Deployment/encoder", f"{POD}/securityContext/seccompProfile", None, "seccomp"),
        ("Deployment/encoder", f"{POD}/automountServiceAccountToken", None, "token"),
        ("Deployment/encoder", f"{POD}/serviceAccountName", "x", "no account"),
        ("Deployment/encoder", f"{POD}/hostNetwork", True, "part of its node"),
        ("StatefulSet/qdrant", f"{CONTAINER}/securityContext/privileged", True, "gain privileges"),
        ("StatefulSet/qdrant", f"{CONTAINER}/securityContext/readOnlyRootFilesystem", False, "change its image"),
        ("StatefulSet/qdrant", f"{CONTAINER}/securityContext/runAsUser", 0, "container of root"),
        ("Deployment/ranker", f"{CONTAINER}/resources/limits", None, "how much it needs"),
        ("Deployment/ranker", f"{CONTAINER}/image", "flowdex-ranker:latest", "not one version"),
        ("Deployment/ranker", f"{CONTAINER}/readinessProbe", None, "readinessProbe asks None"),
        ("Deployment/ranker", f"{CONTAINER}/livenessProbe/grpc/port", 1, "livenessProbe asks 1"),
        ("Deployment/ranker", f"{POD}/terminationGracePeriodSeconds", 30, "no time to end"),
        ("Deployment/ranker", f"{CONTAINER}/args/7", "52001", "52001"),
        ("Deployment/ranker", f"{CONTAINER}/args/3", "/etc/flowdex/other.yml", "which is not mounted"),
        ("Service/encoder", "spec/clusterIP", None, "one address for all"),
        ("Service/encoder", "metadata/name", "encoders", "calls encoder:52000"),
        ("Service/gateway", "spec/ports/0/port", 51001, "calls gateway:51000"),
        ("Service/gateway", "spec/ports/1/targetPort", "web", "where nothing listens"),
        ("Service/gateway", "spec/selector", {"x": "y"}, "pods of 0 workloads"),
        ("Deployment/indexer", f"{POD}/volumes/0/configMap/name", "x", "has not what it mounts"),
        ("Deployment/indexer", f"{CONTAINER}/volumeMounts/0/name", "x", "does not have"),
        ("Deployment/encoder", "spec/replicas", 3, "undo the autoscaler"),
        ("HorizontalPodAutoscaler/encoder", "spec/scaleTargetRef/name", "x", "no Deployment x"),
        ("PodDisruptionBudget/gateway", "spec/minAvailable", 2, "no node could ever be drained"),
        ("NetworkPolicy/encoder", "spec/podSelector/matchLabels", {"x": "y"}, "about nobody"),
        ("NetworkPolicy/encoder", "spec/ingress/0/ports/0/port", 1, "where it does not listen"),
        ("NetworkPolicy/gateway", "spec/egress/0/to/0/podSelector/matchLabels", {"x": "y"}, "which nobody is"),
        ("PodMonitor/flowdex", "spec/podMetricsEndpoints/0/port", "web", "no pod has the port web"),
        ("Deployment/encoder", "spec/selector/matchLabels", {"x": "y"}, "not its own"),
    ],
)
def test_each_rule_finds_what_is_spoilt(
    target: str, path: str, value: Any, words: str, exports: dict[str, Path]
) -> None:
    objects = copy.deepcopy(build(exports["default"] / "overlays/production"))
    kind, _, name = target.partition("/")
    (item,) = (each for each in of_kind(objects, kind) if each["metadata"]["name"] == name)
    spoil(path, value)(item)
    assert any(words in finding for finding in findings(objects)), findings(objects)


def test_secrets_that_nobody_is_told_of_are_found(exports: dict[str, Path]) -> None:
    objects = copy.deepcopy(build(exports["default"] / "base"))
    (ranker,) = (each for each in pods(objects) if each["metadata"]["name"] == "ranker")
    for each in ranker["spec"]["template"]["spec"]["containers"][0]["env"]:
        each.get("valueFrom", {}).get("secretKeyRef", {}).pop("optional", None)
    assert any("nobody is told to make FLOWDEX_API_KEY" in finding for finding in findings(objects))
