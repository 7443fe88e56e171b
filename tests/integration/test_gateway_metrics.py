"""`GET /metrics` of a running gateway: the queues of all replicas, requests by status, what dashboards ask for."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from gateway_fakes import FakeExecutor, Flow, eventually, failing, serving, sleeping, waiting

from flowdex.errors import Conflict
from flowdex_orchestrator.gateway.settings import GatewaySettings
from flowdex_orchestrator.load import mean_queue_ms
from flowdex_orchestrator.observability.endpoint import CONTENT_TYPE
from flowdex_orchestrator.runner.replica import replica_queue_ms
from flowdex_orchestrator.tls import PLAIN

parser = pytest.importorskip("prometheus_client.parser")

ROOT = Path(__file__).resolve().parents[2]
ADDED_BY_PROMETHEUS = {"namespace", "le"}  # of the target, of every histogram
QUEUE = "flowdex_executor_queue_milliseconds"


async def metrics(flow: Flow) -> dict[str, dict[tuple[str, ...], float]]:
    """Name -> label values in the order of their names -> value, as Prometheus reads it."""
    reply = await flow.http.get("/metrics")
    assert reply.status_code == 200
    assert reply.headers["content-type"] == CONTENT_TYPE
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in parser.text_string_to_metric_families(reply.text):
        for sample in family.samples:
            labels = tuple(value for _, value in sorted(sample.labels.items()))
            found.setdefault(sample.name, {})[labels] = sample.value
    return found


async def test_the_queue_is_the_mean_over_all_ready_replicas_as_the_runner_measures_it() -> None:
    replicas = [FakeExecutor("e", {"/encode": None}) for _ in range(4)]
    other = FakeExecutor("other", {"/encode": None})
    for replica, queue in zip(replicas, (10.0, 30.0, 80.0, 5000.0), strict=True):
        replica.queue_ms = lambda queue=queue: queue
    await replicas[3].start(serving=False)
    async with serving(replicas, other) as flow:
        await eventually(lambda: flow.gateway.pools["e"].ready_count == 3)
        assert (await metrics(flow))[QUEUE] == {("e",): 40.0, ("other",): 0.0}
        by_runner = mean_queue_ms([await replica_queue_ms(each.address, PLAIN) for each in replicas[:3]])
        assert by_runner == (await metrics(flow))[QUEUE]["e",]
        await replicas[2].stop()
        await eventually(lambda: flow.gateway.pools["e"].ready_count == 2)
        assert (await metrics(flow))[QUEUE]["e",] == 20.0


async def test_an_executor_that_is_away_or_does_not_say_has_no_queue() -> None:
    first, second = FakeExecutor("a", {"/encode": None}), FakeExecutor("b", {"/encode": None})
    second.queue_ms = lambda: float("no number")
    async with serving(first, second) as flow:
        await first.stop()
        await eventually(lambda: not flow.gateway.pools["a"].ready)
        found = await metrics(flow)
        assert QUEUE not in found
        assert found["flowdex_executor_replicas_ready"] == {("a",): 0, ("b",): 1}


async def test_requests_are_counted_by_status_and_so_are_those_refused() -> None:
    go_on = asyncio.Event()
    executor = FakeExecutor("e", {"/encode": waiting(go_on), "/index": failing(Conflict("another model"))})
    async with serving(executor, settings=GatewaySettings(max_in_flight=1, max_message_bytes=1000)) as flow:
        busy = asyncio.ensure_future(flow.call("/encode", "a"))
        await eventually(lambda: executor.in_flight == 1)
        for _ in range(3):
            with pytest.raises(grpc.aio.AioRpcError, match="in flight"):
                await flow.call("/encode", "a")
        assert (await flow.http.post("/encode", json={"texts": "a"})).status_code == 429
        assert (await metrics(flow))["flowdex_requests_total"] == {("/encode", "429"): 4}
        go_on.set()
        await busy
        go_on.clear()
        await flow.call("/index", "a")
        with pytest.raises(grpc.aio.AioRpcError, match="no executor"):
            await flow.call("/nowhere", "a")
        with pytest.raises(grpc.aio.AioRpcError, match="bytes"):
            await flow.call("/encode", "a" * 1200)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await flow.call("/encode", "a", timeout=0.1)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await eventually(lambda: flow.gateway.router.in_flight == 0)
        found = await metrics(flow)
        counts = found["flowdex_requests_total"]
        # Whether the gateway or the caller notices first that the time is over is chance.
        late = counts.pop(("/encode", "504"), 0) + counts.pop(("/encode", "499"), 0)
        assert late == 1
        assert counts == {
            ("/encode", "429"): 4,
            ("/encode", "200"): 1,
            ("/encode", "413"): 1,
            ("/index", "409"): 1,
            ("/nowhere", "404"): 1,
        }
        assert found["flowdex_request_duration_seconds_count"]["/encode",] == 2, "those refused took no time"


# ---- what is asked of Prometheus ----


def asked() -> Iterator[tuple[str, str, set[str]]]:
    """(file, metric, labels) of everything in the manifests and pages that asks for one of these metrics."""
    folders = ROOT / "k8s", ROOT / "docker-compose"
    files = [path for folder in folders for path in folder.rglob("*") if path.suffix in (".yaml", ".yml", ".json")]
    for path in (*files, ROOT / "docs/kubernetes.md"):
        text = path.read_text(encoding="utf-8").replace('\\"', '"')
        for name, matchers in re.findall(r"(flowdex_(?:requests?|executor)_\w+)(?:\{([^}]*)\})?", text):
            yield path.name, name, set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers))
        for labels, name in re.findall(r"by \(([^)]*)\) \((?:rate\()?(flowdex_(?:requests?|executor)_\w+)", text):
            yield path.name, name, set(labels.split(", "))


async def test_everything_that_is_asked_for_is_there() -> None:
    async with serving(FakeExecutor("encoder", {"/encode": sleeping(0)})) as flow:
        await flow.call("/encode", "a")
        with pytest.raises(grpc.aio.AioRpcError, match="no executor"):
            await flow.call("/nowhere", "a")
        text = (await flow.http.get("/metrics")).text
    known: dict[str, set[str]] = {}
    for family in parser.text_string_to_metric_families(text):
        for sample in family.samples:
            known.setdefault(sample.name, set()).update(sample.labels)
        known.setdefault(family.name, set())  # a histogram as a whole, as pages call it
    questions = list(asked())
    assert {"dashboard.json", "scaled-objects.yaml", "kubernetes.md"} <= {file for file, _, _ in questions}
    for file, name, labels in questions:
        assert name in known, f"{file} asks for {name}, which no gateway has"
        assert labels <= known[name] | ADDED_BY_PROMETHEUS, f"{file}: {name} has no label {labels - known[name]}"
