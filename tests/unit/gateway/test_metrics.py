"""`GET /metrics`: what is counted, and that Prometheus' own parser reads it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from flowdex.errors import NotFound, Overloaded, Unavailable
from flowdex_orchestrator.gateway.metrics import OTHER, Metrics
from flowdex_orchestrator.gateway.settings import GatewaySettings
from flowdex_orchestrator.gateway.waiting import Admission, Backlog
from flowdex_orchestrator.observability.durations import BOUNDS

parser = pytest.importorskip("prometheus_client.parser")


def gateway(in_flight: int = 0, **pools: list[tuple[bool, int]]) -> Any:
    made = {
        name: SimpleNamespace(replicas=[SimpleNamespace(ready=ready, in_flight=calls) for ready, calls in replicas])
        for name, replicas in pools.items()
    }
    backlogs = {name: Backlog(lambda: 1) for name in pools}
    admission = Admission(GatewaySettings(max_in_flight=1), backlogs)
    router = SimpleNamespace(in_flight=in_flight, admission=admission)
    return SimpleNamespace(pools=made, router=router, targets=(), certificates=None)


def samples(metrics: Metrics, of: Any, queues: dict[str, float] | None = None) -> dict[tuple[str, Any], float]:
    text = metrics.expose(of, queues or {}).decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in parser.text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_requests_are_counted_by_endpoint_and_status() -> None:
    metrics = Metrics()
    metrics.observe("/encode", 0.004)
    metrics.observe("/encode", 0.6, Unavailable("it is away"))
    metrics.observe("/search", 99.0)
    metrics.refuse("/encode", Overloaded("too many"))
    metrics.refuse("/index", Overloaded("too many"))
    found = samples(metrics, gateway(in_flight=3))
    for status in ("200", "503", "429"):
        assert found["flowdex_requests_total", (("endpoint", "/encode"), ("status", status))] == 1
    errors = {labels: count for (name, labels), count in found.items() if name == "flowdex_request_errors_total"}
    assert errors == {
        (("endpoint", endpoint), ("type", kind)): 1
        for endpoint, kind in (("/encode", "Unavailable"), ("/encode", "Overloaded"), ("/index", "Overloaded"))
    }
    assert found["flowdex_requests_in_flight", ()] == 3
    name, encode = "flowdex_request_duration_seconds", ("endpoint", "/encode")
    assert found[f"{name}_count", (encode,)] == 2, "what is refused takes no time"
    assert found[f"{name}_count", (("endpoint", "/index"),)] == 0
    assert found[f"{name}_sum", (encode,)] == pytest.approx(0.604)
    buckets = [found[f"{name}_bucket", (encode, ("le", str(bound)))] for bound in (*BOUNDS, "+Inf")]
    assert buckets == [(bound >= 0.004) + (bound >= 0.6) for bound in (*BOUNDS, float("inf"))]
    assert found[f"{name}_bucket", (("endpoint", "/search"), ("le", "30.0"))] == 0
    assert found[f"{name}_bucket", (("endpoint", "/search"), ("le", "+Inf"))] == 1


def test_replicas_and_queues_are_those_of_now() -> None:
    of = gateway(encoder=[(True, 2), (True, 1), (False, 0)], indexer=[(False, 0)])
    found = samples(Metrics(), of, {"encoder": 12.5})
    encoder, indexer = (("executor", "encoder"),), (("executor", "indexer"),)
    assert found["flowdex_executor_replicas", encoder] == 3
    assert found["flowdex_executor_replicas_ready", encoder] == 2
    assert found["flowdex_executor_replicas_ready", indexer] == 0
    assert found["flowdex_executor_in_flight", encoder] == 3
    assert found["flowdex_executor_queue_milliseconds", encoder] == 12.5
    assert ("flowdex_executor_queue_milliseconds", indexer) not in found


def test_callers_cannot_fill_the_memory_with_names_of_endpoints() -> None:
    metrics = Metrics()
    for number in range(500):
        metrics.observe(f"/{number}", 0.1, NotFound("no such endpoint"))
    found = samples(metrics, gateway())
    assert found["flowdex_requests_total", (("endpoint", OTHER), ("status", "404"))] == 400
    assert len(found) < 3000


def test_names_are_escaped() -> None:
    metrics = Metrics()
    metrics.observe('/a"b\\c\nd', 0.1)
    found = samples(metrics, gateway())
    assert found["flowdex_requests_total", (("endpoint", '/a"b\\c\nd'), ("status", "200"))] == 1
