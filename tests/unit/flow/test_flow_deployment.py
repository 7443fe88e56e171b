"""The sections `autoscale` and `kubernetes`: what they take, and where they say that something is wrong."""

from __future__ import annotations

import pytest

from flowdex_orchestrator.flow import FlowFileError, parse_flow
from flowdex_orchestrator.flow.sections import Executor, Gateway

HEAD = "jtype: Flow\n"


def executor(text: str) -> Executor:
    return parse_flow(f"{HEAD}executors: [{{name: a, {text}}}]").executors[0]


def gateway(text: str) -> Gateway:
    return parse_flow(f"{HEAD}gateway: {{kubernetes: {text}}}").gateway


def test_nothing_is_a_setting_too() -> None:
    plain = executor("replicas: 1")
    assert plain.autoscale is None
    assert plain.kubernetes.image is None
    assert plain.kubernetes.storage.size == "10Gi"
    assert gateway("{}").kubernetes.service.type == "ClusterIP"


@pytest.mark.parametrize(
    ("text", "queue_ms", "cpu"),
    [("{}", 50, None), ("{target_queue_ms: 20}", 20, None), ("{target_cpu: 0.7}", None, 0.7)],
)
def test_a_scaled_executor_has_one_target(text: str, queue_ms: int | None, cpu: float | None) -> None:
    scale = executor(f"autoscale: {text}").autoscale
    assert scale is not None
    assert (scale.min, scale.max, scale.queue_ms, scale.target_cpu) == (1, 4, queue_ms, cpu)


def test_values_become_what_kubernetes_takes() -> None:
    pods = executor(
        "kubernetes: {resources: {requests: {cpu: 2, memory: 1.5Gi}}, node_selector: {gpu: true}, env: {A: 1}, "
        "tolerations: {key: gpu, operator: Exists}, secret_env: {K: keys/k}, storage: {size: 5Gi, class: fast}}"
    ).kubernetes
    assert pods.resources.requests == {"cpu": "2", "memory": "1.5Gi"}
    assert (pods.node_selector, pods.env) == ({"gpu": "true"}, {"A": "1"})
    assert pods.tolerations == ({"key": "gpu", "operator": "Exists"},)
    assert pods.secret_env == {"K": "keys/k"}
    assert (pods.storage.size, pods.storage.storage_class) == ("5Gi", "fast")
    front = gateway("{ingress: {host: a.example.org, class: nginx}, service: {type: loadbalancer}}").kubernetes
    assert front.ingress is not None
    assert (front.ingress.host, front.ingress.ingress_class, front.service.type) == (
        "a.example.org",
        "nginx",
        "LoadBalancer",
    )


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("    autoscale: {min: 3, max: 2}", 4, "executors[0].autoscale: expected min <= max, got min 3 and max 2"),
        ("    autoscale: {target_cpu: 0.5, target_queue_ms: 5}", 4, "expected one target"),
        ("    autoscale: {target_cpu: 70}", 4, "expected a share"),
        ("    autoscale: {maximum: 3}", 4, "executors[0].autoscale.maximum: unknown key (did you mean 'max'?)"),
        ("    kubernetes:\n      resorces: {}", 5, "unknown key (did you mean 'resources'?)"),
        ("    kubernetes:\n      resources:\n        request: {}", 6, "did you mean 'requests'?"),
        ("    kubernetes:\n      resources:\n        limits: {cpu: two}", 6, "expected a quantity of Kubernetes"),
        ("    kubernetes:\n      storage:\n        size: big", 6, "storage.size: expected a quantity"),
        ("    kubernetes:\n      secret_env: {A: b}", 5, "expected secret/key for the variable A"),
        ("    kubernetes:\n      node_selector: {a: [b]}", 5, "expected a text for a"),
        ("    kubernetes: []", 4, "expected a mapping"),
    ],
)
def test_mistakes_have_a_line(text: str, line: int, words: str) -> None:
    with pytest.raises(FlowFileError) as caught:
        parse_flow(f"{HEAD}executors:\n  - name: a\n{text}\n")
    (finding,) = caught.value.findings
    assert words in str(finding)
    assert finding.line == line
