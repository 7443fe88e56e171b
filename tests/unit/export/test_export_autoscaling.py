"""One rule, three autoscalers: the runner's own, HorizontalPodAutoscaler and KEDA's ScaledObject of one flow."""

from __future__ import annotations

import math
import re
from functools import cache
from typing import Any

import pytest
import yaml
from hypothesis import assume, given
from hypothesis import strategies as st

from flowdex_orchestrator.export import make_deployment
from flowdex_orchestrator.export.kubernetes import render
from flowdex_orchestrator.export.kubernetes.autoscaling import QUEUE_METRIC
from flowdex_orchestrator.flow import parse_flow
from flowdex_orchestrator.load import mean_queue_ms
from flowdex_orchestrator.runner.autoscale import Pace, Rule, desired_replicas
from flowdex_orchestrator.runner.commands import rules_of

TOLERANCE = 0.1
"""Of Kubernetes: --horizontal-pod-autoscaler-tolerance."""


@cache
def autoscalers(autoscale: str) -> tuple[Rule, dict[str, Any], dict[str, Any]]:
    """The runner's rule, and the specifications of HorizontalPodAutoscaler and ScaledObject, of one flow."""
    text = f"jtype: Flow\nexecutors: [{{name: a, uses: X, autoscale: {autoscale}}}]\n"
    flow = parse_flow(text)
    files = render(make_deployment(flow, text, {}))
    found = {each["kind"]: each["spec"] for each in yaml.safe_load_all(files["base/a.yaml"]) if each}
    (scaled,) = (each["spec"] for each in yaml.safe_load_all(files["components/keda/scaled-objects.yaml"]) if each)
    return rules_of(flow)["a"], found["HorizontalPodAutoscaler"], scaled


def by_kubernetes(least: int, most: int, target: dict[str, Any], current: int, value: float) -> int:
    """What Kubernetes makes of an external metric.

    https://kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale/#algorithm-details
    """
    assert target["type"] == "Value", "an AverageValue would be divided by the number of pods"
    ratio = value / float(target["value"])
    wanted = current if abs(ratio - 1) <= TOLERANCE else math.ceil(current * ratio)
    return min(max(wanted, least), most)


@pytest.mark.parametrize("autoscale", ["{}", "{min: 2, max: 9, target_queue_ms: 30}", "{max: 40, target_queue_ms: 7}"])
@given(current=st.integers(1, 40), value=st.floats(0, 3000))
def test_all_three_want_the_same(autoscale: str, current: int, value: float) -> None:
    rule, hpa, keda = autoscalers(autoscale)
    ratio = value / rule.target_ms
    assume(abs(abs(ratio - 1) - TOLERANCE) > 1e-6)
    assume(abs(current * ratio - round(current * ratio)) > 1e-6)
    wanted = desired_replicas(current, value, rule)
    (metric,) = hpa["metrics"]
    bounds = hpa["minReplicas"], hpa["maxReplicas"]
    assert by_kubernetes(*bounds, metric["external"]["target"], current, value) == wanted
    (trigger,) = keda["triggers"]
    target = {"type": trigger["metricType"], "value": trigger["metadata"]["threshold"]}
    assert by_kubernetes(keda["minReplicaCount"], keda["maxReplicaCount"], target, current, value) == wanted


def test_all_three_grow_at_once_and_shrink_after_the_same_time() -> None:
    _, hpa, keda = autoscalers("{}")
    for behavior in (hpa["behavior"], keda["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]):
        assert behavior["scaleUp"]["stabilizationWindowSeconds"] == 0
        assert behavior["scaleDown"]["stabilizationWindowSeconds"] == Pace().down_window


@given(queues=st.lists(st.floats(0, 1000), min_size=1, max_size=8), gateways=st.integers(1, 4))
def test_all_three_go_by_the_mean_over_the_replicas(queues: list[float], gateways: int) -> None:
    _, hpa, keda = autoscalers("{}")
    assert hpa["metrics"][0]["external"]["metric"]["name"] == QUEUE_METRIC
    (trigger,) = keda["triggers"]
    query = re.fullmatch(r"(\w+)\((\w+)\{(.*)\}\)", trigger["metadata"]["query"])
    assert query is not None
    assert query.group(1, 2) == ("avg", QUEUE_METRIC)
    mean = mean_queue_ms(queues)
    assert mean is not None
    served = [mean] * gateways  # each gateway says it of all replicas
    assert sum(served) / len(served) == pytest.approx(sum(queues) / len(queues))


def test_who_does_not_say_has_no_part_in_the_mean() -> None:
    assert mean_queue_ms([None, 10.0, 30.0]) == 20.0
    assert mean_queue_ms([None]) is None
    assert mean_queue_ms([]) is None
