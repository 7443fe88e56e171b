"""`jina flow --uses ./flow.yml`: stock Jina runs the repository's own flow file, and answers what flowdex answers."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from flow_support import ROOT, RunningFlow, free_ports

from flowdex import Client

pytest.importorskip("jina")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

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
DOCUMENTS = [
    {"id": "stock-1", "text": "The wing of an aircraft gives lift.", "tags": {"stock": True}},
    {"id": "stock-2", "text": "Bread is baked from flour and water.", "tags": {"stock": True}},
    {"id": "stock-3", "text": "Water boils at a hundred degrees. " * 60, "tags": {"stock": True}},
]


@pytest.fixture(scope="module")
def stock_jina(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningFlow]:
    folder = tmp_path_factory.mktemp("stock")
    grpc_port, http_port = free_ports(2)
    text = (ROOT / "flow.yml").read_text()
    (folder / "flow.yml").write_text(re.sub(r"port: \[51000, 8080\]", f"port: [{grpc_port}, {http_port}]", text))
    (folder / "stock.py").write_text(STOCK)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "stock.py"],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, "JINA_OPTOUT_TELEMETRY": "1"},
        )
        try:
            wait_ready(process, http_port, folder / "log")
            yield RunningFlow(folder / "flow.yml", grpc_port, http_port)
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(10)


def wait_ready(process: subprocess.Popen[bytes], http_port: int, log: Path) -> None:
    end = time.monotonic() + 150
    while time.monotonic() < end and process.poll() is None:
        try:
            if httpx.get(f"http://127.0.0.1:{http_port}/health/ready", trust_env=False).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.5)
    pytest.fail(f"stock Jina did not start the flow:\n{log.read_text(errors='replace')[-4000:]}")


def test_the_same_answers_under_stock_jina(stock_jina: RunningFlow, default_flow: RunningFlow) -> None:
    queries = ["what makes a plane fly", "boiling water", "dough"]
    answers = []
    for flow in (stock_jina, default_flow):
        with Client(flow.grpc_url) as client:
            vectors = client.encode(queries)
            indexed = client.index(DOCUMENTS)
            found = client.search(queries, limit=3, filter={"stock": True}, mode="dense")
            removed = client.delete([each["id"] for each in DOCUMENTS])
            left = client.search(queries[0], filter={"stock": True}).hits
        answers.append((vectors, indexed.documents, indexed.passages, found, removed, left))
    (vectors, *stock), (own_vectors, *own) = answers
    assert np.allclose(vectors, own_vectors, atol=1e-6)
    assert stock[:2] == own[:2] == [3, own[1]]
    assert own[1] > 3, "the long document has several passages"
    for ours, theirs in zip(own[2], stock[2], strict=True):
        assert [hit.id for hit in ours.hits] == [hit.id for hit in theirs.hits]
        assert [hit.score for hit in ours.hits] == pytest.approx([hit.score for hit in theirs.hits], abs=1e-5)
        assert [hit.location for hit in ours.hits] == [hit.location for hit in theirs.hits]
        assert [hit.highlights for hit in ours.hits] == [hit.highlights for hit in theirs.hits]
    assert stock[3] == own[3] == 3
    assert stock[4] == own[4] == []


def test_http_and_errors_are_the_same_too(stock_jina: RunningFlow, default_flow: RunningFlow) -> None:
    for body in ({"texts": ["a"]}, {"texts": [" "]}, {"texts": []}, {"text": "a"}):
        replies = [
            httpx.post(f"{flow.http_url}/encode", json=body, timeout=30, trust_env=False)
            for flow in (stock_jina, default_flow)
        ]
        assert replies[0].status_code == replies[1].status_code, body
        stock, own = (reply.json() for reply in replies)
        assert set(stock) == set(own)
        assert stock.get("detail") == own.get("detail")
