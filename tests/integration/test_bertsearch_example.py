"""examples/bertsearch, from the mapping to the answers of its page, on a flow of its own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import httpx
import numpy as np
import pytest
from flow_support import ROOT, free_ports, run_flowdex

from flowdex.compat import BertClient

pytest.importorskip("zmq")
pytestmark = pytest.mark.timeout(400)

EXAMPLE = ROOT / "examples" / "bertsearch"


@dataclass(frozen=True)
class Bertsearch:
    """The flow of the example, running."""

    folder: Path
    grpc: int
    http: int
    bert: int

    @property
    def options(self) -> list[str]:
        addresses = {"--grpc": f"grpc://127.0.0.1:{self.grpc}", "--http": f"http://127.0.0.1:{self.http}"}
        return [part for pair in addresses.items() for part in pair] + ["--bert-port", str(self.bert)]

    def script(self, name: str, *arguments: str, fails: bool = False) -> str:
        """Run a script of the example; what it printed."""
        command = [sys.executable, "-W", "ignore", str(EXAMPLE / name), *self.options, *arguments]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, timeout=120, check=False)
        assert bool(done.returncode) == fails, done.stdout + done.stderr
        return done.stdout + done.stderr


@pytest.fixture(scope="module")
def bertsearch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bertsearch]:
    folder = tmp_path_factory.mktemp("bertsearch")
    ports = free_ports(3)
    flow = folder / "flow.yml"
    text, count = re.subn(
        r"port: \[51000, 8080, 5555\].*",
        f"port: [{ports[0]}, {ports[1]}, {ports[2]}]",
        (EXAMPLE / "flow.yml").read_text(),
    )
    assert count == 1
    flow.write_text(text)
    done = run_flowdex("up", str(flow), "--detach", cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    running = Bertsearch(folder, *ports)
    running.script("create_index.py")
    running.script("create_documents.py")
    running.script("index_documents.py")
    yield running
    run_flowdex("down", str(flow), cwd=folder)


@pytest.fixture(scope="module")
def page(bertsearch: Bertsearch) -> Iterator[httpx.Client]:
    (port,) = free_ports(1)
    command = [sys.executable, str(EXAMPLE / "app.py"), *bertsearch.options, "--port", str(port)]
    process = subprocess.Popen(command, cwd=bertsearch.folder, env={**os.environ, "PYTHONWARNINGS": "ignore"})
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False) as client:
            end = time.monotonic() + 60
            while True:
                try:
                    client.get("/")
                    break
                except httpx.TransportError:
                    assert process.poll() is None, "the application ended"
                    assert time.monotonic() < end, "the application does not listen"
                    time.sleep(0.2)
            yield client
    finally:
        process.terminate()
        process.wait(30)


def documents(bertsearch: Bertsearch, name: str = "documents.jsonl") -> list[dict[str, object]]:
    return [json.loads(line) for line in (bertsearch.folder / name).read_text().splitlines()]


def test_a_search_ranks_every_document_by_cosine_plus_one(bertsearch: Bertsearch, page: httpx.Client) -> None:
    found = page.get("/search", params={"q": "fresh bread and cakes"}).json()
    hits = found["hits"]["hits"]
    stored = documents(bertsearch)
    with BertClient(port=bertsearch.grpc, ignore_all_checks=True) as client:
        query = client.encode(["fresh bread and cakes"])[0]
    vectors = np.array([document["text_vector"] for document in stored])
    cosines = vectors @ query / np.linalg.norm(vectors, axis=1) / np.linalg.norm(query)
    expected = [(stored[index]["title"], stored[index]["text"]) for index in np.argsort(-cosines)]
    assert [(hit["_source"]["title"], hit["_source"]["text"]) for hit in hits] == expected
    assert [hit["_score"] for hit in hits] == pytest.approx(sorted(cosines + 1.0, reverse=True), abs=1e-4)
    assert found["hits"]["total"]["value"] == len(stored) == 15
    assert hits[0]["_source"]["title"] == "Pastry cook"
    two = page.get("/search", params={"q": "fresh bread and cakes", "size": 2}).json()
    assert two["hits"]["hits"] == hits[:2]


def test_the_page_and_a_search_for_nothing(page: httpx.Client) -> None:
    assert 'name="q"' in page.get("/").text
    reply = page.get("/search", params={"q": " "})
    assert reply.status_code == 400
    assert "missing" in reply.json()["error"]


def test_indexes_are_apart_and_a_new_one_is_empty(bertsearch: Bertsearch, page: httpx.Client) -> None:
    before = page.get("/search", params={"q": "trains"}).json()["hits"]["total"]["value"]
    other = ("--index_name", "other")
    assert "create it with create_index.py" in bertsearch.script("index_documents.py", *other, fails=True)
    mapping = {"mappings": {"properties": {"v": {"type": "dense_vector", "dims": 2}}}}
    (bertsearch.folder / "other.json").write_text(json.dumps(mapping))
    bertsearch.script("create_index.py", *other, "--index_file", "other.json")
    line = {"title": "t", "text": "x", "v": [1.0, 2.0, 3.0]}
    (bertsearch.folder / "other.jsonl").write_text(json.dumps(line))
    assert "v must be a list of 2 numbers" in bertsearch.script(
        "index_documents.py", *other, "--data", "other.jsonl", fails=True
    )
    assert page.get("/search", params={"q": "trains"}).json()["hits"]["total"]["value"] == before


@pytest.mark.skipif(find_spec("bert_serving") is None, reason="bert-serving-client is not installed")
def test_the_stock_client_makes_the_same_vectors(bertsearch: Bertsearch) -> None:
    bertsearch.script("create_documents.py", "--stock", "--save", "stock.jsonl")
    ours, theirs = documents(bertsearch), documents(bertsearch, "stock.jsonl")
    assert [each["title"] for each in ours] == [each["title"] for each in theirs]
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one["text_vector"], other["text_vector"], atol=1e-5)
