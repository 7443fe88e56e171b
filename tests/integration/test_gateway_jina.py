"""One flow file, run by stock Jina with `FlowdexGateway` and by flowdex itself: the same answers over gRPC and HTTP."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from flowdex import wire
from flowdex.documents import DocumentBatch

pytest.importorskip("jina")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

EXECUTORS = """
import numpy as np
from docarray import DocList
from docarray.documents import TextDoc
from jina import Executor, requests


class Upper(Executor):
    @requests(on=["/encode", "/upper"])
    def upper(self, docs: DocList[TextDoc], **kwargs) -> DocList[TextDoc]:
        for doc in docs:
            doc.text = doc.text.upper()
            doc.embedding = np.full(3, len(doc.text), dtype=np.float32)
        return docs


class Mark(Executor):
    @requests(on="/upper")
    async def mark(self, docs: DocList[TextDoc], parameters: dict, **kwargs) -> DocList[TextDoc]:
        if parameters.get("fail"):
            raise ValueError("no marks left")
        for doc in docs:
            doc.text += parameters.get("mark", "!")
        return docs

    @requests(on="/count")
    def count(self, docs: DocList[TextDoc], **kwargs):
        return {"count": len(docs)}
"""
FLOW = """
jtype: Flow
version: '1'
with:
  protocol: [grpc, http]
  port: [{grpc}, {http}]
  host: 127.0.0.1
gateway:
  uses: flowdex_orchestrator.jina_gateway.FlowdexGateway
  uses_with:
    max_texts: 5
executors:
  - name: upper
    uses: Upper
    py_modules: [tiny_executors.py]
    port: {upper}
  - name: mark
    uses: Mark
    py_modules: [tiny_executors.py]
    port: {mark}
"""
# Stock Jina asks public services for this machine's address at every start; here it gets none.
STOCK = """
import sys
from jina.orchestrate import orchestrator
orchestrator.get_public_ip = lambda *_, **__: None
from jina_cli import main
if __name__ == "__main__":
    sys.argv = ["jina", "flow", "--uses", "./flow.yml"]
    main()
"""


@dataclass(frozen=True)
class Running:
    """Where a flow listens."""

    grpc_port: int
    http_port: int

    def call(self, endpoint: str, *texts: str, **options: Any) -> Any:
        documents = DocumentBatch.from_columns(ids=[f"id-{number}" for number in range(len(texts))], texts=list(texts))
        request = wire.build_request(endpoint, documents, **options)
        with grpc.insecure_channel(f"127.0.0.1:{self.grpc_port}") as channel:
            reply: bytes = channel.unary_unary(wire.PROCESS_SINGLE_DATA)(request, timeout=20)
        return wire.read_request(reply)

    def post(self, path: str, body: Any) -> httpx.Response:
        return httpx.post(f"http://127.0.0.1:{self.http_port}{path}", json=body, timeout=20, trust_env=False)


@contextmanager
def process(folder: Path, *command: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run one process (and its children, as a group) until the end of the block."""
    log = (folder / f"{command[-1].strip('./')}-{time.monotonic_ns()}.log").open("wb")
    running = subprocess.Popen(
        [sys.executable, *command],
        cwd=folder,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        env={**os.environ, "JINA_OPTOUT_TELEMETRY": "1"},
    )
    try:
        yield running
    finally:
        running.send_signal(signal.SIGINT if "stock.py" in command else signal.SIGTERM)
        try:
            running.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(running.pid, signal.SIGKILL)
            running.wait(10)
        log.close()


def wait_ready(folder: Path, flow: Running, processes: list[subprocess.Popen[bytes]]) -> None:
    end = time.monotonic() + 90
    while True:
        try:
            if httpx.get(f"http://127.0.0.1:{flow.http_port}/health/ready", trust_env=False).status_code == 200:
                return
        except httpx.TransportError:
            pass
        logs = "\n".join(path.read_text(errors="replace")[-2000:] for path in folder.glob("*.log"))
        given_up = time.monotonic() > end or any(each.poll() is not None for each in processes)
        assert not given_up, f"the flow did not become ready:\n{logs}"
        time.sleep(0.1)


@pytest.fixture(scope="module", params=["stock Jina", "flowdex"])
def flow(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """The same flow file, run by either."""
    folder = tmp_path_factory.mktemp("flow")
    names = ("grpc", "http", "upper", "mark")
    sockets = [socket.socket() for _ in names]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = {name: each.getsockname()[1] for name, each in zip(names, sockets, strict=True)}
    for each in sockets:
        each.close()
    (folder / "flow.yml").write_text(FLOW.format(**ports))
    (folder / "tiny_executors.py").write_text(EXECUTORS)
    (folder / "stock.py").write_text(STOCK)
    running = Running(ports["grpc"], ports["http"])
    with ExitStack() as stack:
        commands = [["stock.py"]]
        if request.param == "flowdex":
            commands = [["-m", "flowdex", "executor", name, "--flow", "flow.yml"] for name in ("upper", "mark")]
            commands.append(["-m", "flowdex", "gateway", "--flow", "flow.yml"])
        wait_ready(folder, running, [stack.enter_context(process(folder, *command)) for command in commands])
        yield running


def test_a_chain_over_grpc(flow: Running) -> None:
    reply = flow.call("/upper", "one", "two", parameters={"mark": "?"}, request_id="mine")
    batch = wire.documents_of(reply)
    assert wire.error_of(reply.header) is None
    assert (batch.ids, batch.texts) == (["id-0", "id-1"], ["ONE?", "TWO?"])
    assert batch.embeddings is not None
    assert batch.embeddings.tolist() == [[3.0] * 3, [3.0] * 3]
    assert reply.header.request_id == "mine"
    assert [route.executor for route in reply.routes] == ["gateway", "upper", "mark"]
    assert wire.dict_from_struct(reply.parameters) == {"mark": "?"}


def test_parameters_for_one_executor(flow: Running) -> None:
    assert wire.documents_of(flow.call("/upper", "a", parameters={"mark": "?", "upper__mark": 1})).texts == ["A?"]
    assert wire.documents_of(flow.call("/upper", "a", parameters={"mark": {"mark": "#"}})).texts == ["A#"]


def test_an_executor_that_does_not_bind_is_skipped(flow: Running) -> None:
    reply = flow.call("/encode", "one")
    assert wire.documents_of(reply).texts == ["ONE"]
    assert [route.executor for route in reply.routes] == ["gateway", "upper"]


def test_results_come_back_in_the_parameters(flow: Running) -> None:
    results = wire.dict_from_struct(flow.call("/count", "a", "b").parameters)["__results__"]
    assert list(results.values()) == [{"count": 2.0}]
    assert [name.partition("/")[0] for name in results] == ["mark"]


def test_an_executors_error_travels_in_the_reply(flow: Running) -> None:
    reply = flow.call("/upper", "a", parameters={"fail": True})
    error = wire.error_of(reply.header)
    assert error is not None
    assert "no marks left" in str(error)
    assert [route.executor for route in reply.routes] == ["gateway", "upper", "mark"]


def test_an_unknown_endpoint_is_not_found(flow: Running) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        flow.call("/uper", "a")
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert "did you mean '/upper'?" in caught.value.details()


def test_http(flow: Running) -> None:
    reply = flow.post("/encode", {"texts": ["a", "bc"]})
    assert reply.status_code == 200
    assert reply.json()["embeddings"] == [[1.0] * 3, [2.0] * 3]
    assert flow.post("/encode", {"texts": ["a"] * 6}).status_code == 413  # max_texts of uses_with
    assert flow.post("/search", {"query": "a"}).status_code == 404
    assert flow.post("/encode", {"text": ["a"]}).headers["content-type"] == "application/problem+json"
    status = httpx.get(f"http://127.0.0.1:{flow.http_port}/status", trust_env=False).json()
    assert [executor["name"] for executor in status["executors"]] == ["upper", "mark"]
    assert status["ready"] is True


def test_the_stock_client(flow: Running) -> None:
    """In a process of its own, as it configures gRPC for itself."""
    program = f"""
from docarray import DocList
from docarray.documents import TextDoc
from jina import Client
client = Client(host="127.0.0.1", port={flow.grpc_port})
assert client.is_flow_ready()
docs = DocList[TextDoc]([TextDoc(text=f"text {{i}}") for i in range(25)])
for stream in (True, False):
    done = client.post("/upper", docs, return_type=DocList[TextDoc], request_size=4, stream=stream,
                       parameters={{"mark": "."}}, results_in_order=True)
    assert [doc.text for doc in done] == [f"TEXT {{i}}." for i in range(25)]
    assert [doc.id for doc in done] == [doc.id for doc in docs]
try:
    client.post("/unknown", docs[:3], return_type=DocList[TextDoc])
except Exception as error:
    assert "no executor serves" in str(error), error
else:
    raise AssertionError("no error for an unknown endpoint")
print("FINE")
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
        env={**os.environ, "JINA_OPTOUT_TELEMETRY": "1"},
    )
    assert "FINE" in done.stdout, done.stdout + done.stderr
