"""Stock Jina around our worker: its gateway in front of it, and its client straight at it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

COLUMNAR = """
import numpy as np
from jina import Executor, requests

from flowdex.errors import InvalidInput
from flowdex_executors import DocumentColumns


class Encode(Executor):
    @requests(on="/encode")
    async def encode(self, docs: DocumentColumns, **kwargs) -> DocumentColumns:
        if not docs.batch.texts[0]:
            raise InvalidInput("document 0 has no text")
        docs.batch.embeddings = np.array([[len(text), 1] for text in docs.batch.texts], np.float32)
        return docs

    @requests(on="/status", response_schema=DocumentColumns)
    def status(self, docs: DocumentColumns, **kwargs):
        return {"dimensions": 2}


class Upper(Executor):
    @requests(on="/encode")
    def upper(self, docs: DocumentColumns, **kwargs) -> DocumentColumns:
        docs.batch.texts = [text.upper() for text in docs.batch.texts]
        docs.batch.set_column("location", [[0, len(text)] for text in docs.batch.texts])

    @requests(on="/status", response_schema=DocumentColumns)
    def status(self, docs: DocumentColumns, **kwargs):
        return {"upper": True}
"""

CLASSIC = """
from typing import AsyncGenerator
from docarray import DocList
from docarray.documents import TextDoc
from jina import Executor, requests


class Tested(Executor):
    @requests(on="/upper")
    def upper(self, docs: DocList[TextDoc], **kwargs) -> DocList[TextDoc]:
        for doc in docs:
            doc.text = doc.text.upper()

    @requests(on="/stream")
    async def stream(self, doc: TextDoc, **kwargs) -> AsyncGenerator[TextDoc, None]:
        for index in range(3):
            yield TextDoc(text=f"{doc.text} {index}")
"""

# Runs in a process of its own, because jina's Flow forks and prints.
STOCK = """
import asyncio, json, sys
import jina.orchestrate.orchestrator
jina.orchestrate.orchestrator.get_public_ip = lambda *args, **kwargs: None
from docarray import DocList
from docarray.documents import TextDoc
from jina import Client, Flow
from flowdex_executors.schema import Document


def texts(*values):
    return DocList[TextDoc](TextDoc(text=value) for value in values)


def columnar(ports):
    flow = Flow(host="127.0.0.1")
    for name, port in zip(("encode", "upper"), ports):
        flow = flow.add(name=name, host="127.0.0.1", port=port, external=True)
    with flow:
        client = Client(port=flow.port)
        docs = client.post("/encode", inputs=texts("hé", "abc"), return_type=DocList[Document])
        status = client.post("/status", return_responses=True)
        try:
            client.post("/encode", inputs=texts(""))
            error = None
        except Exception as raised:
            error = str(raised)
    return {
        "texts": docs.text,
        "vectors": [doc.embedding.tolist() for doc in docs],
        "locations": [doc.location for doc in docs],
        "status": status[0].parameters["__results__"],
        "error": error,
    }


def classic(ports):
    async def stream(client):
        return [doc.text async for doc in client.stream_doc("/stream", inputs=TextDoc(text="x"), return_type=TextDoc)]

    def ask(port):
        upper = Client(port=port).post("/upper", inputs=texts("a", "b"), return_type=DocList[TextDoc])
        return {"texts": upper.text, "stream": asyncio.run(stream(Client(port=port, asyncio=True)))}

    with Flow(host="127.0.0.1").add(name="tested", host="127.0.0.1", port=ports[0], external=True) as flow:
        through_gateway = ask(flow.port)
    return {"gateway": through_gateway, "direct": ask(ports[0])}


if __name__ == "__main__":
    print("RESULT", json.dumps({"columnar": columnar, "classic": classic}[sys.argv[1]]([int(p) for p in sys.argv[2:]])))
"""


def run_stock_jina(folder, part: str, *ports: int) -> dict:
    script = folder / "stock.py"
    script.write_text(STOCK)
    done = subprocess.run(
        [sys.executable, str(script), part, *map(str, ports)],
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
        cwd=folder,
    )
    results = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    assert results, f"stock Jina failed:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return json.loads(results[0].removeprefix("RESULT "))


@pytest.mark.slow
def test_a_stock_gateway_chains_our_columnar_executors(start_worker, tmp_path):
    workers = [start_worker(COLUMNAR, name) for name in ("Encode", "Upper")]
    ports = [worker.wait_ready().port for worker in workers]
    result = run_stock_jina(tmp_path, "columnar", *ports)
    assert result["texts"] == ["HÉ", "ABC"]
    assert result["vectors"] == [[2, 1], [3, 1]]
    assert result["locations"] == [[0, 2], [0, 3]]
    assert "document 0 has no text" in result["error"]
    assert "Traceback" not in result["error"]


@pytest.mark.slow
def test_a_stock_gateway_and_a_stock_client_reach_an_ordinary_executor(start_worker, tmp_path):
    worker = start_worker(CLASSIC).wait_ready()
    result = run_stock_jina(tmp_path, "classic", worker.port)
    expected = {"texts": ["A", "B"], "stream": ["x 0", "x 1", "x 2"]}
    assert result == {"gateway": expected, "direct": expected}
