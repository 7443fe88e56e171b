"""A small server that keeps the HTTP contracts, over a real socket, and can be told to break one rule.

    request --HttpDouble.answer--> Reply --fault(request, Reply)--> what is sent

Its vectors are those of words: a text is the mean of its words' vectors, which are drawn by their hash.
"""

from __future__ import annotations

import base64
import itertools
import json
import re
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

LONGEST = 12  # words of a text that are read
LARGEST_BATCH = 8
SIZE = 48


@dataclass
class Reply:
    content: Any
    status: int = 200
    headers: dict[str, str] = field(default_factory=lambda: {"content-type": "application/json"})


Fault = Callable[[Any, Reply], object]
"""Gets the request's body and the right reply, and changes the reply; or returns another one."""


class Refused(Exception):
    def __init__(self, status: int, content: Any) -> None:
        super().__init__(status)
        self.reply = Reply(content, status)


def words(text: str) -> list[str]:
    return re.findall(r"\w+|[^\w\s]", text.lower())


def word_id(word: str) -> int:
    return zlib.crc32(word.encode()) % 30_000


def vector(ids: list[int], *, left: bool = False) -> Any:
    kept = ids[-LONGEST:] if left else ids[:LONGEST]
    return np.mean([np.random.default_rng(each).normal(size=SIZE) for each in kept], axis=0)


def normalised(value: Any) -> Any:
    return value / np.linalg.norm(value)


class HttpDouble:
    """The right answers."""

    def __init__(self) -> None:
        self.seen: dict[int, str] = {}
        self.requests = 0

    def ids(self, text: str) -> list[int]:
        found = [word_id(word) for word in words(text)]
        self.seen.update(zip(found, words(text), strict=True))
        return found

    def answer(self, method: str, path: str, body: Any) -> Reply:
        name = f"{method.lower()}_{path.strip('/').replace('/', '_').replace('.', '_')}"
        handler = getattr(self, name, None)
        if handler is None:
            return Reply({"detail": "Not Found"}, 404)
        try:
            found = handler(body)
        except Refused as refused:
            return refused.reply
        return found if isinstance(found, Reply) else Reply(found)

    # ---- OpenAI ----

    def get_v1_models(self, body: Any) -> Any:
        return {"object": "list", "data": [{"id": "words", "object": "model", "created": 1, "owned_by": "tests"}]}

    def post_v1_embeddings(self, body: Any) -> Any:
        def refuse(status: int, code: str | None = None) -> Refused:
            error = {"message": "no", "type": "invalid_request_error", "param": None, "code": code}
            return Refused(status, {"error": error})

        if not isinstance(body, dict) or body.get("encoding_format", "float") not in ("float", "base64"):
            raise refuse(400)
        if body.get("model") != "words":
            raise refuse(404, "model_not_found")
        given = body["input"]
        if not given or (isinstance(given, list) and "" in given) or len(given) > 2048:
            raise refuse(400)
        inputs = [given] if isinstance(given, str) or isinstance(given[0], int) else given
        ids = [self.ids(each) if isinstance(each, str) else each for each in inputs]
        vectors = [normalised(vector(each)[: body.get("dimensions")]) for each in ids]
        encoded = body.get("encoding_format") == "base64"
        data = [
            {
                "object": "embedding",
                "index": index,
                "embedding": base64.b64encode(each.astype("<f4").tobytes()).decode() if encoded else each.tolist(),
            }
            for index, each in enumerate(vectors)
        ]
        tokens = sum(map(len, ids))
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return {"object": "list", "data": data, "model": "words", "usage": usage}

    # ---- rerankers ----

    def ranked(self, query: str, texts: list[str]) -> list[tuple[int, float]]:
        scores = [float(len(set(words(query)) & set(words(text)))) for text in texts]
        return sorted(enumerate(scores), key=lambda each: -each[1])

    def rerank(self, body: Any, error: str) -> list[dict[str, Any]]:
        if not body.get("query") or not body.get("documents") or body.get("top_n", 1) < 1:
            raise Refused(422, {error: "no"})
        texts = [each if isinstance(each, str) else each["text"] for each in body["documents"]]
        with_texts = body.get("return_documents", error == "detail")
        return [
            {"index": index, "relevance_score": score, **({"document": {"text": texts[index]}} if with_texts else {})}
            for index, score in self.ranked(body["query"], texts)
        ][: body.get("top_n")]

    def post_v1_rerank(self, body: Any) -> Any:
        return {"model": "words", "usage": {"total_tokens": 5}, "results": self.rerank(body, "detail")}

    def post_v2_rerank(self, body: Any) -> Any:
        return {"id": "1", "results": self.rerank(body, "message"), "meta": {}}

    # ---- text-embeddings-inference ----

    def get_info(self, body: Any) -> Any:
        return {
            "model_id": "words",
            "model_dtype": "float64",
            "model_type": {"embedding": {"pooling": "mean"}},
            "max_concurrent_requests": 8,
            "max_input_length": LONGEST,
            "max_client_batch_size": LARGEST_BATCH,
            "version": "1",
        }

    def get_health(self, body: Any) -> Any:
        return Reply(None)

    def get_metrics(self, body: Any) -> Any:
        return Reply("requests_total 1\n", headers={"content-type": "text/plain; version=0.0.4"})

    def tei_inputs(self, value: Any) -> list[str]:
        def refuse(status: int, kind: str) -> Refused:
            return Refused(status, {"error": "no", "error_type": kind})

        inputs = [value] if isinstance(value, str) else value
        if not isinstance(inputs, list):
            raise refuse(422, "Validation")
        if not inputs:
            raise refuse(400, "Empty")
        if len(inputs) > LARGEST_BATCH:
            raise refuse(413, "Validation")
        return inputs

    def tei(self, content: Any) -> Reply:
        names = ("compute-time", "total-time", "tokenization-time", "queue-time", "inference-time", "compute-tokens")
        return Reply(content, headers={"content-type": "application/json", **{f"x-{name}": "3" for name in names}})

    def post_embed(self, body: Any) -> Any:
        ids = [self.ids(each) for each in self.tei_inputs(body.get("inputs"))]
        if body.get("truncate") is False and any(len(each) + 2 > LONGEST for each in ids):
            raise Refused(422, {"error": "too long", "error_type": "Validation"})
        left = body.get("truncation_direction") == "Left"
        vectors = [vector(each, left=left)[: body.get("dimensions")] for each in ids]
        return self.tei([(normalised(each) if body.get("normalize", True) else each).tolist() for each in vectors])

    def post_embed_all(self, body: Any) -> Any:
        tokens = self.post_tokenize(body)
        return self.tei([[vector([token["id"]]).tolist() for token in each] for each in tokens])

    def post_similarity(self, body: Any) -> Any:
        sentences = self.tei_inputs(body["inputs"]["sentences"])
        source = normalised(vector(self.ids(body["inputs"]["source_sentence"])))
        return self.tei([float(normalised(vector(self.ids(each))) @ source) for each in sentences])

    def post_tokenize(self, body: Any) -> Any:
        found = []
        for text in self.tei_inputs(body.get("inputs")):
            self.ids(text)
            special = [{"id": 1, "text": "[X]", "special": True, "start": None, "stop": None}]
            tokens = [
                {"id": word_id(each[0]), "text": each[0], "special": False, "start": each.start(), "stop": each.end()}
                for each in re.finditer(r"\w+|[^\w\s]", text.lower())
            ]
            found.append([*special, *tokens, *special] if body.get("add_special_tokens", True) else tokens)
        return found

    def post_decode(self, body: Any) -> Any:
        return [" ".join(self.seen[each] for each in ids if each in self.seen) for ids in body["ids"]]

    def post_embed_sparse(self, body: Any) -> Any:
        inputs = self.tei_inputs(body.get("inputs"))
        return self.tei([[{"index": each, "value": 1.0} for each in sorted(set(self.ids(text)))] for text in inputs])

    def post_rerank(self, body: Any) -> Any:
        texts = self.tei_inputs(body.get("texts"))
        if not body.get("query"):
            raise Refused(422, {"error": "no", "error_type": "Validation"})
        more = body.get("return_text")
        return self.tei(
            [
                {"index": index, "score": score, **({"text": texts[index]} if more else {})}
                for index, score in self.ranked(body["query"], texts)
            ]
        )

    # ---- bert-as-service ----

    def post_encode(self, body: Any) -> Any:
        if "data" in body:
            return self.post_post(body)
        texts = body.get("texts")
        good = isinstance(texts, list) and texts
        if not good or not all(each.strip() if isinstance(each, str) else each for each in texts):
            raise Refused(400, {"description": "no", "type": "ValueError", "status": 400})
        joined = [each if isinstance(each, str) else " ".join(each) for each in texts]
        return {"id": body["id"], "result": [vector(self.ids(each)).tolist() for each in joined], "status": 200}

    def get_status_server(self, body: Any) -> Any:
        statistic = {"num_data_request": 1, "num_total_seq": 1}
        return {"server_version": "1.10.0", "max_seq_len": LONGEST, "pooling_layer": [-2], "statistic": statistic}

    def get_status_client(self, body: Any) -> Any:
        return {"client_version": "1.10.0", "num_request": 1}

    # ---- Jina ----

    def get_dry_run(self, body: Any) -> Any:
        return {"code": 0}

    def post_post(self, body: Any) -> Any:
        if not isinstance(body["data"], list):
            raise Refused(422, {"detail": "no"})
        times = {"start_time": "2026-01-01T00:00:00Z", "end_time": "2026-01-01T00:00:01Z"}
        return {
            "header": {"request_id": body.get("header", {}).get("request_id", "1")},
            "routes": [{"executor": name, **times} for name in ("gateway", "words")],
            "data": [{**each, "embedding": vector(self.ids(each["text"])).tolist()} for each in body["data"]],
        }


@contextmanager
def serve_http(fault: Fault | None = None, path: str = "", right: int = 0) -> Iterator[tuple[str, HttpDouble]]:
    """The address of a server; `fault` spoils its replies at `path`, but for the first few that are to be right."""
    double = HttpDouble()
    asked = itertools.count()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def handle_one(self) -> None:
            double.requests += 1
            data = self.rfile.read(int(self.headers.get("content-length") or 0))
            try:
                body = json.loads(data) if data else None
            except ValueError:
                body = None
            reply = double.answer(self.command, self.path, body)
            if fault is not None and self.path == path and next(asked) >= right:
                spoiled = fault(body, reply)
                reply = spoiled if isinstance(spoiled, Reply) else reply
            is_text = isinstance(reply.content, str)
            content = (
                b"" if reply.content is None else (reply.content if is_text else json.dumps(reply.content)).encode()
            )
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = handle_one

        def log_message(self, format: str, *arguments: Any) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", double
    finally:
        server.shutdown()
        thread.join(10)
        server.server_close()
