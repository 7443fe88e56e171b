"""One search, seen as one trace over all processes, and in their logs under one name."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest
from flow_support import ROOT, RunningFlow, start_flow, stop_flow

messages = pytest.importorskip("opentelemetry.proto.collector.trace.v1.trace_service_pb2")

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
EXECUTORS = ("encoder", "indexer", "ranker")
SECRET = "who ate the purple aardvark"


class Receiver:
    """An OTLP receiver (https://opentelemetry.io/docs/specs/otlp/#otlphttp) on loopback."""

    def __init__(self) -> None:
        self.spans: list[tuple[str, Any]] = []  # the process's name, the span
        self.bodies: list[bytes] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                assert self.path == "/v1/traces"
                assert self.headers["Content-Type"] == "application/x-protobuf"
                receiver.take(body)
                self.send_response(200)
                self.send_header("Content-Type", "application/x-protobuf")
                self.end_headers()

            def log_message(self, *message: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def take(self, body: bytes) -> None:
        self.bodies.append(body)
        for resource in messages.ExportTraceServiceRequest.FromString(body).resource_spans:
            named = {each.key: each.value.string_value for each in resource.resource.attributes}
            assert named["service.namespace"] == "flowdex"
            self.spans += [(named["service.name"], span) for scope in resource.scope_spans for span in scope.spans]

    def of(self, trace: str) -> list[tuple[str, Any]]:
        return [(process, span) for process, span in self.spans if span.trace_id.hex() == trace]


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.server.shutdown()
    receiver.server.server_close()


@pytest.fixture(scope="module")
def flow(receiver: Receiver, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningFlow]:
    settings = (
        "with:\n  tracing: true\n  log_format: json\n"
        f"  env: {{OTEL_EXPORTER_OTLP_ENDPOINT: '{receiver.url}', OTEL_BSP_SCHEDULE_DELAY: '100'}}\n"
    )
    text = (ROOT / "flow.yml").read_text().replace("with:\n", settings, 1)
    text = text.replace("FlowdexGateway\n", "FlowdexGateway\n  uses_with: {slow_request_ms: 0.001}\n", 1)
    text = text.replace("flowdex_executors.BertEncoder\n", "flowdex_executors.BertEncoder\n    log_level: debug\n", 1)
    flow = start_flow(tmp_path_factory.mktemp("traced"), text)
    indexed = post(flow, "/index", {"documents": [{"id": "a", "text": "The aardvark ate the ants."}]})
    assert indexed.status_code == 200
    yield flow
    stop_flow(flow)


def post(flow: RunningFlow, path: str, body: dict[str, Any], **headers: str) -> httpx.Response:
    return httpx.post(f"{flow.http_url}{path}", json=body, headers=headers, trust_env=False, timeout=30)


def eventually(condition: Callable[[], object], seconds: float = 15.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.05)


def attributes(span: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in span.attributes}


def logged(flow: RunningFlow, process: str) -> list[dict[str, Any]]:
    lines = flow.flowdex("logs", process, "-n", "1000").stdout.splitlines()
    return [json.loads(line) for line in lines if line.startswith("{")]


def test_a_search_is_one_trace_under_its_callers(flow: RunningFlow, receiver: Receiver) -> None:
    reply = post(flow, "/search", {"query": SECRET}, traceparent=f"00-{TRACE}-{PARENT}-01")
    assert reply.status_code == 200
    eventually(lambda: len(receiver.of(TRACE)) >= 1 + 2 * len(EXECUTORS))
    found = receiver.of(TRACE)
    assert len(found) == 1 + 2 * len(EXECUTORS)
    ((_, request),) = (each for each in found if each[1].parent_span_id.hex() == PARENT)
    assert request.name == "/search"
    assert attributes(request)["flowdex.request_id"] == reply.headers["x-request-id"]
    for executor in EXECUTORS:
        ((caller, call),) = (each for each in found if each[1].name == f"call {executor}")
        ((worker, work),) = (each for each in found if each[1].name == executor)
        assert (caller, worker) == ("gateway", executor)
        assert call.parent_span_id == request.span_id
        assert work.parent_span_id == call.span_id
        assert request.start_time_unix_nano <= call.start_time_unix_nano <= work.start_time_unix_nano
        assert work.end_time_unix_nano <= call.end_time_unix_nano <= request.end_time_unix_nano
        assert attributes(work)["flowdex.request_id"] == reply.headers["x-request-id"]
    ((_, encoder),) = (each for each in found if each[1].name == "encoder")
    facts = attributes(encoder)
    assert facts["flowdex.texts"] == 1
    assert facts["flowdex.tokens"] > 5
    assert facts["flowdex.queue_ms"] >= 0
    assert facts["flowdex.compute_ms"] > 0
    assert not any(SECRET.encode() in body for body in receiver.bodies), "spans have no texts"


def test_what_an_executor_asks_its_own_flow_is_in_the_same_trace(flow: RunningFlow, receiver: Receiver) -> None:
    trace = TRACE.replace("0a", "0e", 1)
    body = {"query": SECRET, "rerank": "late_interaction"}
    assert post(flow, "/search", body, traceparent=f"00-{trace}-{PARENT}-01").status_code == 200

    def spans(name: str) -> list[Any]:
        return [span for _, span in receiver.of(trace) if span.name == name]

    eventually(lambda: spans("ranker") and spans("/encode") and len(spans("encoder")) >= 2)
    (ranker,), (asked, *_) = spans("ranker"), spans("/encode")
    assert asked.parent_span_id == ranker.span_id
    (call,) = (each for each in spans("call encoder") if each.parent_span_id == asked.span_id)
    assert [each for each in spans("encoder") if each.parent_span_id == call.span_id]


def test_errors_and_unsampled_requests(flow: RunningFlow, receiver: Receiver) -> None:
    trace = TRACE.replace("0a", "0b", 1)
    wrong = {"texts": ["a"], "parameters": {"truncation": "in the middle"}}
    assert post(flow, "/encode", wrong, traceparent=f"00-{trace}-{PARENT}-01").status_code == 422
    eventually(lambda: len(receiver.of(trace)) == 3)
    for _, span in receiver.of(trace):
        assert span.status.code == 2
        assert attributes(span)["error.type"] == "InvalidInput"
    unsampled = TRACE.replace("0a", "0c", 1)
    assert post(flow, "/encode", {"texts": ["a"]}, traceparent=f"00-{unsampled}-{PARENT}-00").status_code == 200
    own = len(receiver.spans)
    assert post(flow, "/encode", {"texts": ["a"]}).status_code == 200  # a trace of the gateway's own
    eventually(lambda: len(receiver.spans) == own + 3)
    assert receiver.of(unsampled) == [], "the caller has decided"


def test_logs_are_json_with_request_and_trace_and_without_texts(flow: RunningFlow) -> None:
    time.sleep(1.1)  # slow requests are logged once a second
    trace = TRACE.replace("0a", "0d", 1)
    headers = {"traceparent": f"00-{trace}-{PARENT}-01", "x-request-id": "my-search"}
    assert post(flow, "/search", {"query": SECRET}, **headers).status_code == 200
    for _ in range(3):
        post(flow, "/search", {"query": SECRET})
    (line,) = (each for each in logged(flow, "gateway") if each.get("request_id") == "my-search")
    assert line["level"] == "WARNING"
    assert line["process"] == "gateway"
    assert line["trace_id"] == trace
    slow = line["slow_request"]
    assert slow["endpoint"] == "/search"
    assert [call["executor"] for call in slow["calls"]] == list(EXECUTORS)
    encoder = slow["calls"][0]
    assert encoder["tokens"] > 5
    assert encoder["texts"] == 1
    assert 0 < encoder["compute_ms"] + encoder["queue_ms"] + encoder["hop_ms"] <= encoder["ms"]
    assert sum(call["ms"] for call in slow["calls"]) <= slow["took_ms"]
    for process in ("gateway", *EXECUTORS):
        text = flow.flowdex("logs", process, "-n", "1000").stdout
        assert "aardvark" not in text
        assert all(each["time"].endswith("Z") and each["message"] for each in logged(flow, process))


def test_the_requests_name_is_in_the_executors_log(flow: RunningFlow) -> None:
    bad = {"texts": ["a"], "parameters": {"truncation": "in the middle"}}
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-01", "x-request-id": "my-encode"}
    assert post(flow, "/encode", bad, **headers).status_code == 422

    def lines() -> list[dict[str, Any]]:
        return [each for each in logged(flow, "encoder") if each.get("request_id") == "my-encode"]

    eventually(lines)
    (line,) = (each for each in lines() if "InvalidInput" in each["message"])
    assert line["process"] == "encoder-0"
    assert line["trace_id"] == TRACE
