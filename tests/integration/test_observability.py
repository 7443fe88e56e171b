"""A whole flow seen from outside: the metrics of each of its processes."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator

import httpx
import pytest
from flow_support import ROOT, RunningFlow, start_flow, stop_flow
from prometheus_client.parser import text_string_to_metric_families

from flowdex import Client
from flowdex.errors import InvalidInput
from flowdex_orchestrator.export.alerts import ALERTS
from flowdex_orchestrator.observability.endpoint import serve_metrics

TEXTS = ["The cat sat on the mat.", "Prometheus stole fire from the gods.", "A queue is a line of people."]
WITH_TLS = {"flowdex_certificate_expires_in_seconds", "use"}  # a metric and its label: see test_tls.py
Series = dict[str, list[tuple[dict[str, str], float]]]


@pytest.fixture(scope="module")
def flow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningFlow]:
    flow = start_flow(tmp_path_factory.mktemp("observed"), (ROOT / "flow.yml").read_text())
    with Client(flow.grpc_url) as client:
        client.index([{"id": str(number), "text": text} for number, text in enumerate(TEXTS)])
        client.search("who stole the fire?")
        client.encode(TEXTS[:1])
        with pytest.raises(InvalidInput, match="truncation"):
            client.encode(TEXTS[:1], parameters={"truncation": "in the middle"})
    yield flow
    stop_flow(flow)


def scrape(url: str) -> Series:
    reply = httpx.get(url, trust_env=False)
    assert reply.status_code == 200
    assert reply.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    found: Series = {}
    for family in text_string_to_metric_families(reply.text):
        assert family.documentation, f"{family.name} is not explained"
        for sample in family.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


def value(series: Series, name: str, **labels: str) -> float:
    (found,) = (value for own, value in series[name] if labels.items() <= own.items())
    return found


@pytest.fixture(scope="module")
def series(flow: RunningFlow) -> dict[str, Series]:
    """Of each process, found in the way in which Prometheus finds them."""
    runner = json.loads(flow.flowdex("ps", "--json").stdout)["metrics"]
    targets = httpx.get(runner.replace("/metrics", "/targets"), trust_env=False).json()
    found = {group["labels"]["process"]: scrape(f"http://{group['targets'][0]}/metrics") for group in targets}
    return {**found, "runner": scrape(runner)}


def test_every_process_has_metrics(series: dict[str, Series]) -> None:
    assert set(series) == {"segmenter-0", "encoder-0", "indexer-0", "ranker-0", "gateway", "runner"}
    for process, found in series.items():
        assert value(found, "flowdex_build_info", process=process) == 1
        assert value(found, "process_resident_memory_bytes") > 2**20
        assert value(found, "process_cpu_seconds_total") > 0
        assert value(found, "process_open_fds") > 3


def test_what_an_executor_does_is_counted(series: dict[str, Series]) -> None:
    encoder = series["encoder-0"]
    for endpoint, count in (("/index", 1), ("/search", 1), ("/encode", 2)):
        labels = {"executor": "encoder", "endpoint": endpoint}
        assert value(encoder, "flowdex_worker_request_duration_seconds_count", **labels) >= count
    errors = {"executor": "encoder", "endpoint": "/encode", "type": "InvalidInput"}
    assert value(encoder, "flowdex_worker_request_errors_total", **errors) == 1
    assert value(encoder, "flowdex_worker_ready") == 1
    assert value(encoder, "flowdex_worker_requests_in_flight") == 0
    assert value(encoder, "flowdex_worker_queue_requests") == value(encoder, "flowdex_worker_queue_oldest_seconds") == 0
    assert value(encoder, "flowdex_worker_queue_wait_seconds") >= 0


def test_batches_tokens_and_compute_time_of_the_encoder(series: dict[str, Series]) -> None:
    encoder = series["encoder-0"]
    batches = value(encoder, "flowdex_batch_sequences_count", executor="encoder")
    texts = value(encoder, "flowdex_batch_sequences_sum")
    assert value(encoder, "flowdex_batch_sequences_bucket", le="+Inf") == batches > 0
    assert texts >= value(encoder, "flowdex_encoder_texts_total") >= len(TEXTS) + 1
    assert value(encoder, "flowdex_batch_tokens_total") > 3 * texts
    assert value(encoder, "flowdex_batch_tokens_total") <= batches * value(encoder, "flowdex_batch_budget_tokens")
    assert 0 < value(encoder, "flowdex_batch_compute_seconds_total") < 60
    assert value(encoder, "flowdex_batch_sequences_failed_total") == 0
    ((model, _),) = encoder["flowdex_encoder_info"]
    assert model["backend"] and model["device"] == "cpu" and len(model["fingerprint"]) > 8


def test_the_size_of_the_index(series: dict[str, Series]) -> None:
    indexer = series["indexer-0"]
    assert value(indexer, "flowdex_index_documents", executor="indexer") == len(TEXTS)
    assert value(indexer, "flowdex_index_passages") == len(TEXTS)
    assert 10_000 < value(indexer, "flowdex_index_bytes") < 2**30
    assert 0 < value(indexer, "flowdex_index_disk_free_bytes") < value(indexer, "flowdex_index_disk_size_bytes")


def test_the_gateway_counts_errors_by_their_class(flow: RunningFlow, series: dict[str, Series]) -> None:
    gateway = series["gateway"]
    assert value(gateway, "flowdex_request_errors_total", endpoint="/encode", type="InvalidInput") == 1
    assert value(gateway, "flowdex_executor_replicas_ready", executor="encoder") == 1
    own = {name for name in scrape(f"{flow.http_url}/metrics") if name.startswith("flowdex_")}
    assert own == {name for name in gateway if name.startswith("flowdex_")}


def test_the_runner_counts_restarts(series: dict[str, Series]) -> None:
    runner = series["runner"]
    assert value(runner, "flowdex_flow_ready") == 1
    for process in set(series) - {"runner"}:
        assert value(runner, "flowdex_process_ready", process=process) == 1
        assert value(runner, "flowdex_process_restarts_total", process=process) == 0
        assert value(runner, "flowdex_process_memory_bytes", process=process) > 2**20


def test_everything_that_dashboards_and_alerts_ask_for_is_there(series: dict[str, Series]) -> None:
    known = {name for found in series.values() for name in found}
    labels = {label for found in series.values() for samples in found.values() for own, _ in samples for label in own}
    board = json.loads((ROOT / "docker-compose/grafana/dashboards/flowdex.json").read_text())
    queries = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    queries += [alert.query for alert in ALERTS]
    queries += re.findall(r"query: (.+)", (ROOT / "k8s/components/keda/scaled-objects.yaml").read_text())
    asked = [name for query in queries for name in re.findall(r"\b(?:flowdex|process)_\w+", query)]
    assert len(asked) > 40
    assert set(asked) <= known | WITH_TLS, set(asked) - known
    grouped = {
        label for query in queries for names in re.findall(r"by \(([^)]*)\)", query) for label in names.split(", ")
    }
    assert grouped <= labels | WITH_TLS | {"namespace"}, "what Prometheus adds itself"
    for alert in ALERTS:
        shown = set(re.findall(r"\$labels\.(\w+)", alert.summary))
        assert shown <= labels | {"namespace", "pod"}


def test_a_port_that_is_taken_does_not_keep_a_process_from_serving() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        assert serve_metrics({}, "127.0.0.1", taken.getsockname()[1]) is None
