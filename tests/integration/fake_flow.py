"""A small flow for tests of the client: answers like the gateway, over gRPC and HTTP, and misbehaves on demand.

Store (documents, vectors, searching)  <--  GrpcFront: raw DataRequestProto bytes
                                       <--  HttpFront: the gateway's JSON API
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import random
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np

from flowdex import wire
from flowdex.documents import DocumentBatch
from flowdex.errors import FlowdexError, InvalidInput, NotFound
from flowdex.fields import read_fields, write_fields
from flowdex.inputs import MAX_MESSAGE_BYTES

DIM = 8


def vector_of(text: str) -> np.ndarray:
    """A unit vector that depends on the text alone."""
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little")
    vector = np.random.default_rng(seed).standard_normal(DIM).astype(np.float32)
    return vector / np.linalg.norm(vector)


@dataclass
class FakeFlow:
    """The state behind both fronts.

    Attributes:
        trouble: Called with (endpoint, number of the call, from 0) before each answer; may raise, or return a delay.
        calls: The endpoint and the number of documents of every call so far.
    """

    documents: dict[str, dict[str, Any]] = field(default_factory=dict)
    trouble: Callable[[str, int], float | None] = lambda endpoint, number: None
    calls: list[tuple[str, int]] = field(default_factory=list)
    metadata: list[dict[str, str]] = field(default_factory=list)
    parameters: list[dict[str, Any]] = field(default_factory=list)
    ready: bool = True
    in_flight: int = 0
    most_in_flight: int = 0
    grpc_port: int = 0
    http_port: int = 0

    @property
    def grpc_url(self) -> str:
        return f"grpc://127.0.0.1:{self.grpc_port}"

    @property
    def http_url(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"

    def forget(self) -> None:
        """Be as at the start: no documents, no calls so far, no trouble."""
        for seen in (self.documents, self.calls, self.metadata, self.parameters):
            seen.clear()
        self.trouble = lambda endpoint, number: None
        self.most_in_flight = 0
        self.ready = True

    @contextlib.asynccontextmanager
    async def call(self, endpoint: str, size: int):
        number = len(self.calls)
        self.calls.append((endpoint, size))
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await asyncio.sleep(self.trouble(endpoint, number) or 0)
            yield
        finally:
            self.in_flight -= 1

    def get(self, ids: list[str]) -> list[dict[str, Any]]:
        return [self.documents[id_] for id_ in ids if id_ in self.documents]

    def scroll(self, parameters: dict[str, Any]) -> tuple[list[dict[str, Any]], str | None]:
        condition = parameters.get("filter") or {}
        found = [each for each in self.documents.values() if condition.items() <= each["tags"].items()]
        start, limit = int(parameters.get("cursor") or 0), int(parameters.get("limit", 100))
        return found[start : start + limit], str(start + limit) if start + limit < len(found) else None

    def failures(self, documents: list[dict[str, Any]]) -> dict[int, InvalidInput]:
        """Documents that fail alone."""
        return {
            row: InvalidInput(f"document {each['id']!r} is rotten")
            for row, each in enumerate(documents)
            if "rotten" in (each.get("text") or "")
        }

    def index(self, documents: list[dict[str, Any]]) -> list[int]:
        for document in documents:
            if "poison" in (document.get("text") or ""):
                raise InvalidInput(f"document {document['id']!r} is poisoned")
        failures = self.failures(documents)
        for row, document in enumerate(documents):
            if row not in failures:
                self.documents[document["id"]] = document
        return [0 if row in failures else 1 + len(each.get("text") or "") // 100 for row, each in enumerate(documents)]

    def delete(self, ids: list[str], condition: dict[str, Any] | None) -> int:
        if condition:
            ids = [id_ for id_, document in self.documents.items() if condition.items() <= document["tags"].items()]
        return sum(self.documents.pop(id_, None) is not None for id_ in ids)

    def search(self, query: str, parameters: dict[str, Any]) -> list[dict[str, Any]]:
        words = query.lower().split()
        condition = parameters.get("filter") or {}
        hits = []
        for document in self.documents.values():
            text = document["text"]
            spans = [
                [text.lower().index(word), text.lower().index(word) + len(word)]
                for word in words
                if word in text.lower()
            ]
            if spans and condition.items() <= document["tags"].items():
                score = len(spans) / len(words)
                passage = {"id": f"{document['id']}#0", "text": text, "location": [0, len(text)], "score": score}
                hits.append(
                    {
                        "id": document["id"],
                        "score": score,
                        "text": text,
                        "tags": document["tags"],
                        "location": [0, len(text)],
                        "highlights": sorted(spans),
                        "scores": {"score": score, "dense": 0.5},
                        "passages": [passage],
                    }
                )
        hits.sort(key=lambda hit: -hit["score"])
        start = int(parameters.get("offset", 0))
        return hits[start : start + int(parameters.get("limit", 10))]

    def status(self) -> dict[str, Any]:
        replicas = [{"address": "127.0.0.1:1", "ready": True, "in_flight": 0}]
        return {
            "name": "fake",
            "version": "0.1.0",
            "uptime_s": 12.5,
            "endpoints": {"/encode": ["encoder"]},
            "executors": [
                {"name": "encoder", "uses": "Fake", "needs": [], "replicas": replicas, "status": {"dimensions": DIM}},
                {
                    "name": "indexer",
                    "uses": "Fake",
                    "needs": ["encoder"],
                    "replicas": replicas,
                    "status": {"documents": len(self.documents)},
                },
            ],
        }


# ---- gRPC ----


async def _answer(  # noqa: PLR0912 - one branch an endpoint
    flow: FakeFlow, data: bytes, context: grpc.aio.ServicerContext
) -> bytes:
    request = wire.read_request(data)
    endpoint, batch = request.header.exec_endpoint, wire.documents_of(request)
    parameters = wire.dict_from_struct(request.parameters)
    flow.metadata.append(dict(context.invocation_metadata()))
    flow.parameters.append(parameters)
    try:
        async with flow.call(endpoint, len(batch)):
            if endpoint == "/encode":
                for each in batch.nested("chunks"):
                    if each:
                        each.embeddings = np.stack([vector_of(text) for text in each.texts])
                plain = batch.select([i for i, each in enumerate(batch.nested("chunks")) if not each])
                if plain:
                    plain.embeddings = np.stack([vector_of(text) for text in plain.texts])
            elif endpoint == "/index":
                documents = [
                    {"id": id_, "text": text, "tags": tags, "fields": fields, "digest": digest, "embedding": embedding}
                    for id_, text, tags, fields, digest, embedding in zip(
                        batch.ids,
                        batch.texts,
                        batch.tags,
                        read_fields(batch),
                        batch.column("digest"),
                        batch.column("embedding"),
                        strict=True,
                    )
                ]
                batch.set_column("passages", flow.index(documents))
                failures = flow.failures(documents)
                errors = [failures.get(row) for row in range(len(batch))]
                batch.set_column(
                    "error", [error and {"name": error.name, "message": error.message} for error in errors]
                )
                batch.keep("id", "passages", "error")
            elif endpoint in ("/get", "/scroll"):
                found, cursor = (flow.get(batch.ids), None) if endpoint == "/get" else flow.scroll(parameters)
                reply = DocumentBatch.from_columns(
                    ids=[each["id"] for each in found],
                    texts=[each.get("text") for each in found],
                    tags=[each["tags"] for each in found],
                    digest=[each.get("digest") for each in found],
                    passages=[1] * len(found),
                )
                write_fields(reply, [each.get("fields") for each in found])
                for row, each in enumerate(found):
                    if each.get("embedding") is not None:
                        reply.select([row]).embeddings = np.asarray([each["embedding"]], np.float32)
                if found and cursor is not None:
                    reply.select([len(found) - 1]).set_column("cursor", [cursor])
                request.data.docs.CopyFrom(reply.to_proto())
            elif endpoint == "/count":
                count = len(flow.scroll({**parameters, "limit": 10**9})[0])
                request.parameters.update({wire.RESULTS_KEY: {"indexer": {"documents": count}}})
            elif endpoint == "/search":
                matches = []
                for query in batch.texts:
                    hits = flow.search(query, parameters)
                    found = DocumentBatch.from_columns(
                        ids=[hit["id"] for hit in hits],
                        texts=[hit["text"] for hit in hits],
                        tags=[hit["tags"] for hit in hits],
                        location=[hit["location"] for hit in hits],
                        highlights=[hit["highlights"] for hit in hits],
                        scores=[hit["scores"] for hit in hits],
                    )
                    found.set_nested(
                        "chunks",
                        [
                            DocumentBatch.from_columns(
                                ids=[each["id"] for each in hit["passages"]],
                                texts=[each["text"] for each in hit["passages"]],
                                location=[each["location"] for each in hit["passages"]],
                                scores=[{"score": each["score"]} for each in hit["passages"]],
                            )
                            for hit in hits
                        ],
                    )
                    matches.append(found)
                batch.set_nested("matches", matches)
            elif endpoint == "/delete":
                deleted = flow.delete(batch.ids, parameters.get("filter"))
                request.parameters.update({wire.RESULTS_KEY: {"indexer": {"deleted": deleted}}})
            elif endpoint == "/status":
                status = flow.status()
                results = {each["name"]: each.pop("status") for each in status["executors"]} | {"gateway": status}
                request.parameters.update({wire.RESULTS_KEY: results})
            else:
                raise NotFound(f"no executor binds {endpoint}")
    except InvalidInput as error:
        wire.set_error(request.header, error, executor="indexer")
        context.set_trailing_metadata([wire.IS_ERROR_METADATA])
    except FlowdexError as error:
        trailing = () if error.retry_after is None else (("retry-after-ms", str(round(1000 * error.retry_after))),)
        await context.abort(error.status.grpc, error.message, trailing)
    return request.SerializeToString()


async def _health(flow: FakeFlow) -> bytes:
    return b"\x08\x01" if flow.ready else b"\x08\x02"


def _grpc_server(flow: FakeFlow) -> grpc.aio.Server:
    limits = [
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ]
    server = grpc.aio.server(options=limits)

    async def process(data: bytes, context: grpc.aio.ServicerContext) -> bytes:
        return await _answer(flow, data, context)

    async def check(data: bytes, context: grpc.aio.ServicerContext) -> bytes:
        return await _health(flow)

    for service, method, handler in (
        ("jina.JinaSingleDataRequestRPC", "process_single_data", process),
        ("grpc.health.v1.Health", "Check", check),
    ):
        handlers = {method: grpc.unary_unary_rpc_method_handler(handler)}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    flow.grpc_port = server.add_insecure_port(f"127.0.0.1:{flow.grpc_port}")
    return server


# ---- HTTP ----


def _http_app(flow: FakeFlow) -> Any:
    from fastapi import FastAPI, Request
    from fastapi.responses import JSONResponse

    app = FastAPI()

    @app.exception_handler(FlowdexError)
    async def problem(request: Request, error: FlowdexError) -> JSONResponse:
        headers = {} if error.retry_after is None else {"retry-after": str(error.retry_after)}
        body = {
            "type": f"urn:flowdex:error:{error.name}",
            "title": error.status.title,
            "status": error.status.http,
            "detail": error.message,
        }
        return JSONResponse(body, error.status.http, headers, media_type="application/problem+json")

    async def read(request: Request, endpoint: str, key: str) -> dict[str, Any]:
        body = await request.json()
        flow.metadata.append(dict(request.headers))
        flow.parameters.append(body)
        return body

    async def encode(request: Request) -> dict[str, Any]:
        body = await read(request, "/encode", "texts")
        async with flow.call("/encode", len(body["texts"])):
            rows = [base64.b64encode(vector_of(text).tobytes()).decode() for text in body["texts"]]
            return {"embeddings": rows, "dimensions": DIM, "count": len(rows), "took_ms": 1.0}

    async def index(request: Request) -> dict[str, Any]:
        body = await read(request, "/index", "documents")
        async with flow.call("/index", len(body["documents"])):
            counts = flow.index(body["documents"])
            ids = [each["id"] for each in body["documents"]]
            failed = [
                {"index": row, "id": ids[row], "error": {"name": error.name, "message": error.message}}
                for row, error in flow.failures(body["documents"]).items()
            ]
            stored = len(ids) - len(failed)
            return {"ids": ids, "documents": stored, "passages": sum(counts), "failed": failed, "took_ms": 1.0}

    async def get(request: Request) -> dict[str, Any]:
        body = await read(request, "/get", "ids")
        async with flow.call("/get", len(body["ids"])):
            return {"documents": [{**each, "passage_count": 1} for each in flow.get(body["ids"])], "took_ms": 1.0}

    async def scroll(request: Request) -> dict[str, Any]:
        body = await read(request, "/scroll", "limit")
        async with flow.call("/scroll", 0):
            found, cursor = flow.scroll(body)
            return {"documents": [{**each, "passage_count": 1} for each in found], "cursor": cursor, "took_ms": 1.0}

    async def count(request: Request) -> dict[str, Any]:
        body = await read(request, "/count", "filter")
        async with flow.call("/count", 0):
            return {"documents": len(flow.scroll({**body, "limit": 10**9})[0]), "passages": 0, "took_ms": 1.0}

    async def search(request: Request) -> dict[str, Any]:
        body = await read(request, "/search", "query")
        async with flow.call("/search", len(body["query"])):
            results = [{"query": query, "hits": flow.search(query, body)} for query in body["query"]]
            return {"results": results, "took_ms": 1.0}

    async def delete(request: Request) -> dict[str, Any]:
        body = await read(request, "/delete", "ids")
        async with flow.call("/delete", len(body.get("ids", []))):
            return {"deleted": flow.delete(body.get("ids", []), body.get("filter")), "took_ms": 1.0}

    async def status(request: Request) -> dict[str, Any]:
        async with flow.call("/status", 0):
            return flow.status()

    async def ready(request: Request) -> JSONResponse:
        return JSONResponse({}, 200 if flow.ready else 503)

    for handler in (encode, index, get, scroll, count, search, delete, status, ready):
        handler.__annotations__["request"] = Request  # FastAPI reads the annotation, which is local here
        handler.__annotations__["return"] = None
    app.post("/encode", response_model=None)(encode)
    app.post("/index", response_model=None)(index)
    app.post("/search", response_model=None)(search)
    app.post("/get", response_model=None)(get)
    app.post("/scroll", response_model=None)(scroll)
    app.post("/count", response_model=None)(count)
    app.delete("/documents", response_model=None)(delete)
    app.get("/status", response_model=None)(status)
    app.get("/health/ready", response_model=None)(ready)
    return app


def _listener() -> socket.socket:
    # asyncio turns Nagle's algorithm off only on sockets that say TCP; with it, every answer waits 40 ms.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    return listener


@contextlib.contextmanager
def running(flow: FakeFlow, *, http: bool = True) -> Iterator[FakeFlow]:
    """Run both fronts on free loopback ports, in a thread with an event loop of its own."""
    import uvicorn

    started, stop, failure = threading.Event(), asyncio.Event(), []
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        server = _grpc_server(flow)
        await server.start()
        tasks = []
        if http:
            listener = _listener()
            flow.http_port = listener.getsockname()[1]
            web = uvicorn.Server(uvicorn.Config(_http_app(flow), log_level="error", lifespan="off"))
            web.install_signal_handlers = lambda: None
            tasks.append(asyncio.ensure_future(web.serve(sockets=[listener])))
            while not web.started:  # noqa: ASYNC110 - uvicorn has no event to wait for
                await asyncio.sleep(0.01)
        started.set()
        await stop.wait()
        if http:
            web.should_exit = True
            web.force_exit = True
            await asyncio.gather(*tasks)
        await server.stop(0)
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)

    def run() -> None:
        try:
            loop.run_until_complete(serve())
        except BaseException as error:
            failure.append(error)
            raise
        finally:
            started.set()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert started.wait(20)
    assert not failure
    try:
        yield flow
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(20)
        loop.close()


def slow_and_random(seed: int = 0, longest: float = 0.05) -> Callable[[str, int], float]:
    """Trouble: every answer takes a random time."""
    rng = random.Random(seed)
    return lambda endpoint, number: rng.uniform(0, longest)
