"""The stock `jina.Client`, unmodified, against a running flowdex flow.

It runs in processes of its own, as a user's program would: what it prints comes back as JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from typing import Any

import pytest
from flow_support import RunningFlow

pytest.importorskip("jina")

HEADER = """
import asyncio, json, sys
import numpy as np
from docarray import BaseDoc, DocList
from docarray.documents import TextDoc
from docarray.documents.legacy import LegacyDocument
from jina import Client
port = int(sys.argv[1])
def answer(**values):
    print("ANSWER " + json.dumps(values))
"""


def run_client(flow: RunningFlow, program: str) -> dict[str, Any]:
    """Run `program` with a stock client at hand; it reports with `answer(...)`."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", HEADER + textwrap.dedent(program), str(flow.grpc_port)],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
        env={**os.environ, "JINA_OPTOUT_TELEMETRY": "1"},
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("ANSWER ")]
    assert lines, f"the client failed:\n{done.stdout}\n{done.stderr}"
    found: dict[str, Any] = json.loads(lines[-1].removeprefix("ANSWER "))
    return found


@pytest.mark.parametrize("stream", [True, False], ids=["streaming", "unary"])
def test_encode_answers_in_order_and_equals_our_own_client(default_flow: RunningFlow, stream: bool) -> None:
    from flowdex import Client

    found = run_client(
        default_flow,
        f"""
        docs = DocList[TextDoc]([TextDoc(text=f"text number {{i}}") for i in range(70)])
        done = Client(host="127.0.0.1", port=port).post(
            "/encode", docs, return_type=DocList[TextDoc], request_size=8, stream={stream}, results_in_order=True)
        answer(texts=done.text, ids=[d.id for d in done] == [d.id for d in docs],
               shape=list(np.stack(done.embedding).shape), first=[float(x) for x in done[0].embedding],
               dtype=str(done[0].embedding.dtype))
        """,
    )
    assert found["ids"]
    assert found["texts"] == [f"text number {index}" for index in range(70)]
    assert found["shape"] == [70, 384]
    assert found["dtype"] == "float32"
    with Client(default_flow.grpc_url) as client:
        assert client.encode(["text number 0"])[0] == pytest.approx(found["first"], abs=1e-6)


def test_index_search_delete_with_legacy_documents(default_flow: RunningFlow) -> None:
    found = run_client(
        default_flow,
        """
        client = Client(host="127.0.0.1", port=port)
        docs = DocList[LegacyDocument]([
            LegacyDocument(id="jina-1", text="The wing of an aircraft gives lift.", tags={"kind": "air", "year": 1960}),
            LegacyDocument(id="jina-2", text="Bread is baked from flour and water.", tags={"kind": "food"}),
        ])
        indexed = client.post("/index", docs, return_type=DocList[LegacyDocument])
        hits = client.post("/search", DocList[LegacyDocument]([LegacyDocument(text="what makes a plane fly")]),
                           return_type=DocList[LegacyDocument], parameters={"limit": 1, "filter": {"kind": "air"}})
        matches = hits[0].matches
        client.post("/delete", DocList[LegacyDocument]([LegacyDocument(id="jina-1"), LegacyDocument(id="jina-2")]),
                    return_type=DocList[LegacyDocument])
        after = client.post("/search", DocList[LegacyDocument]([LegacyDocument(text="what makes a plane fly")]),
                            return_type=DocList[LegacyDocument], parameters={"filter": {"kind": "air"}})
        answer(indexed=[d.id for d in indexed], matches=[d.id for d in matches], tags=matches[0].tags,
               scores=matches[0].scores, chunks=[c.text for c in matches[0].chunks],
               after=[d.id for d in after[0].matches or []])
        """,
    )
    assert found["indexed"] == ["jina-1", "jina-2"]
    assert found["matches"] == ["jina-1"]
    assert found["tags"] == {"kind": "air", "year": 1960}
    assert found["scores"]["score"] > 0
    assert found["chunks"] == ["The wing of an aircraft gives lift."]
    assert found["after"] == []


def test_the_asynchronous_client(default_flow: RunningFlow) -> None:
    found = run_client(
        default_flow,
        """
        async def main():
            client = Client(host="127.0.0.1", port=port, asyncio=True)
            count = 0
            async for docs in client.post("/encode", DocList[TextDoc]([TextDoc(text=str(i)) for i in range(20)]),
                                          return_type=DocList[TextDoc], request_size=5):
                count += sum(d.embedding is not None for d in docs)
            return count, await client.is_flow_ready()
        count, ready = asyncio.run(main())
        answer(count=count, ready=ready)
        """,
    )
    assert found == {"count": 20, "ready": True}


def test_a_document_class_of_ones_own_comes_back_whole(default_flow: RunningFlow) -> None:
    found = run_client(
        default_flow,
        """
        from typing import Optional
        from docarray.typing import NdArray
        class Mine(BaseDoc):
            text: str
            price: float
            labels: list
            embedding: Optional[NdArray] = None
        done = Client(host="127.0.0.1", port=port).post(
            "/encode", DocList[Mine]([Mine(text="hi", price=2.5, labels=["a", 1])]), return_type=DocList[Mine])
        answer(price=done[0].price, labels=done[0].labels, dim=len(done[0].embedding))
        """,
    )
    assert found == {"price": 2.5, "labels": ["a", 1], "dim": 384}


def test_errors_reach_the_callbacks_and_the_next_request_works(default_flow: RunningFlow) -> None:
    found = run_client(
        default_flow,
        """
        client, errors = Client(host="127.0.0.1", port=port), []
        client.post("/encode", DocList[TextDoc]([TextDoc(text="  ")]),
                    on_error=lambda r: errors.append(r.status.description), return_type=DocList[TextDoc])
        client.post("/encoed", DocList[TextDoc]([TextDoc(text="hi")]),
                    on_error=lambda r: errors.append(r.status.description), return_type=DocList[TextDoc])
        done = client.post("/encode", DocList[TextDoc]([TextDoc(text="hi")]), return_type=DocList[TextDoc])
        answer(errors=errors, dim=len(done[0].embedding))
        """,
    )
    blank, unknown = found["errors"]
    assert "text" in blank
    assert "/encode" in unknown
    assert found["dim"] == 384


def test_profiling_reads_the_routes(default_flow: RunningFlow) -> None:
    found = run_client(
        default_flow,
        """
        (reply,) = Client(host="127.0.0.1", port=port).post(
            "/search", DocList[TextDoc]([TextDoc(text="hi")]), return_responses=True, return_type=DocList[TextDoc])
        routes = reply.routes
        answer(routes=[route.executor for route in routes],
               times=[r.end_time.ToMilliseconds() >= r.start_time.ToMilliseconds() > 0 for r in routes])
        """,
    )
    assert found["routes"][0] == "gateway"
    assert found["routes"][1:] == ["encoder", "indexer", "ranker"]
    assert all(found["times"])


@pytest.mark.parametrize("protocol", ["http", "ws"])
def test_the_other_protocols(default_flow: RunningFlow, protocol: str) -> None:
    found = run_client(
        default_flow,
        f"""
        client = Client(host="{protocol}://127.0.0.1:{default_flow.http_port}")
        ready = client.is_flow_ready()
        docs = DocList[TextDoc]([TextDoc(text=f"text number {{i}}") for i in range(20)])
        done = client.post("/encode", docs, return_type=DocList[TextDoc], request_size=8, results_in_order=True)
        L = DocList[LegacyDocument]
        client.post("/index", L([LegacyDocument(id="jina-3", text="Bread is baked.", tags={{"kind": "food"}})]),
                    return_type=L)
        (reply,) = client.post("/search", L([LegacyDocument(text="what is baked")]), return_responses=True,
                               return_type=L, parameters={{"limit": 1, "filter": {{"kind": "food"}}}})
        match = reply.docs[0].matches[0]
        client.post("/delete", L([LegacyDocument(id="jina-3")]), return_type=L, target_executor="indexer")
        finished, always, errors = [], [], []
        client.post("/encode", docs[:5], on_done=lambda r: finished.append(len(r.docs)), request_size=2,
                    on_always=lambda r: always.append(r.status.code), return_type=DocList[TextDoc])
        for endpoint, text in (("/encoed", "hi"), ("/encode", "  ")):
            try:
                client.post(endpoint, DocList[TextDoc]([TextDoc(text=text)]), return_type=DocList[TextDoc],
                            on_error=lambda r: errors.append(r.status.description))
            except Exception as error:  # over HTTP the client raises what it read
                errors.append(str(error))

        async def count():
            later = Client(host="{protocol}://127.0.0.1:{default_flow.http_port}", asyncio=True)
            return [len(part) async for part in later.post("/encode", docs, return_type=DocList[TextDoc],
                                                           request_size=10)]

        answer(ready=ready, ids=[d.id for d in done] == [d.id for d in docs], texts=done.text == docs.text,
               dims=[len(d.embedding) for d in done], first=[float(x) for x in done[0].embedding], match=match.id,
               tags=match.tags, chunks=[c.text for c in match.chunks], scored=match.scores["score"] > 0,
               routes=[route.executor for route in reply.routes], finished=sorted(finished), always=always,
               errors=errors, later=asyncio.run(count()))
        """,
    )
    assert found["ready"]
    assert found["ids"]
    assert found["texts"]
    assert found["dims"] == [384] * 20
    assert found["match"] == "jina-3"
    assert found["tags"] == {"kind": "food"}
    assert found["chunks"] == ["Bread is baked."]
    assert found["scored"]
    assert found["routes"] == ["gateway", "encoder", "indexer", "ranker"]
    assert found["finished"] == [1, 2, 2]
    assert found["always"] == [0, 0, 0]
    assert len(found["errors"]) == 2
    assert "blank text" in found["errors"][1]
    assert found["later"] == [10, 10]
    from flowdex import Client

    with Client(default_flow.grpc_url) as client:
        assert client.encode(["text number 0"])[0] == pytest.approx(found["first"], abs=1e-6)
