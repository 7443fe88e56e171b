"""Each recorded case can fail: a server that keeps all HTTP contracts, and then breaks one rule at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from conformance_double import Fault, Reply, serve_http

from flowdex.conformance.http import RecordedContract
from flowdex.conformance.model import Server
from flowdex.conformance.recorded import recorded_files
from flowdex.conformance.suite import contracts, run
from flowdex.errors import Unauthenticated
from flowdex.transport.target import Target

FILES = recorded_files()


# ---- ways to spoil a reply ----


def put(path: str, value: Any, *, add: bool = False) -> Fault:
    """Another value at a path such as `data.0.index`; of successful replies."""

    def change(request: Any, reply: Reply) -> None:
        if reply.status == 200:
            *parents, last = (int(part) if part.isdecimal() else part for part in path.split("."))
            holder = reply.content
            for part in parents:
                holder = holder[part]
            assert add or not isinstance(holder, dict) or last in holder
            holder[last] = value(holder[last]) if callable(value) else value

    return change


def drop(name: str) -> Fault:
    """Without a member."""
    return lambda request, reply: reply.content.pop(name, None) and None


def content(change: Callable[[Any], Any]) -> Fault:
    """What `change` makes of the content of successful replies."""
    return lambda request, reply: Reply(change(reply.content), 200, reply.headers) if reply.status == 200 else None


def status(value: int, fitting: int) -> Fault:
    """Another status in the place of this one."""
    return lambda request, reply: Reply(reply.content, value) if reply.status == fitting else None


def header(name: str, value: str | None) -> Fault:
    def change(request: Any, reply: Reply) -> None:
        del reply.headers[name]
        if value is not None:
            reply.headers[name] = value

    return change


def instead(value: Any, code: int = 200) -> Fault:
    return lambda request, reply: Reply(value, code)


def where(asked: Callable[[Any], Any], fault: Fault) -> Fault:
    """The fault where the request is of this kind."""
    return lambda request, reply: fault(request, reply) if asked(request) else None


def encoding(name: str, fault: Fault) -> Fault:
    return where(lambda it: it.get("encoding_format") == name, fault)


def choosing(name: str, fault: Fault) -> Fault:
    return where(lambda it: name in it, fault)


def of_two(fault: Fault) -> Fault:
    return where(lambda it: len(it.get("input", it.get("inputs"))) == 2, fault)


def swapped(values: list[Any]) -> list[Any]:
    return [values[1], values[0], *values[2:]] if len(values) > 1 else values


def half(values: list[float]) -> list[float]:
    return [each / 2 for each in values]


def same_twice(reply: Any) -> Any:
    reply["data"][0]["embedding"] = reply["data"][1]["embedding"]
    return reply


EMBEDDINGS, JINA, COHERE, EMBED = "/v1/embeddings", "/v1/rerank", "/v2/rerank", "/embed"
NONE = {"object": "list", "data": []}

# contract, case that must fail, path of the replies that are spoiled, how
FAULTS: list[tuple[str, str, str, Fault]] = [
    ("openai", "one text", EMBEDDINGS, put("data.0.object", "vector")),
    ("openai", "one text", EMBEDDINGS, put("data.0.embedding", ["0.5"])),
    ("openai", "one text", EMBEDDINGS, header("content-type", "text/html")),
    ("openai", "one text", EMBEDDINGS, instead("no JSON")),
    ("openai", "usage", EMBEDDINGS, put("usage.total_tokens", 1)),
    ("openai", "usage", EMBEDDINGS, drop("usage")),
    ("openai", "the order of the input", EMBEDDINGS, put("data", swapped)),
    ("openai", "the order of the input", EMBEDDINGS, content(same_twice)),
    ("openai", "a text alone and in a batch", EMBEDDINGS, of_two(put("data.0.embedding", half))),
    ("openai", "base64", EMBEDDINGS, encoding("base64", put("data.0.embedding", "AAAA"))),
    ("openai", "base64", EMBEDDINGS, encoding("float", put("data.0.embedding", half))),
    ("openai", "token ids", EMBEDDINGS, instead({}, 422)),
    ("openai", "token ids", EMBEDDINGS, of_two(put("data.0.embedding", half))),
    ("openai", "dimensions", EMBEDDINGS, put("data.0.embedding", [1.0] * 48)),
    ("openai", "user", EMBEDDINGS, instead({}, 400)),
    ("openai", "the list of models", "/v1/models", put("data.0.object", "encoder")),
    ("openai", "an empty text", EMBEDDINGS, instead(NONE)),
    ("openai", "an empty text", EMBEDDINGS, instead({"detail": "no"}, 400)),
    ("openai", "an empty list", EMBEDDINGS, instead(NONE)),
    ("openai", "more than 2048 inputs", EMBEDDINGS, instead(NONE)),
    ("openai", "a wrong encoding", EMBEDDINGS, instead(NONE)),
    ("openai", "an unknown model", EMBEDDINGS, status(400, 404)),
    ("openai", "no JSON", EMBEDDINGS, status(422, 400)),
    ("rerank-jina", "results", JINA, drop("model")),
    ("rerank-jina", "results", JINA, put("results.0.relevance_score", None)),
    ("rerank-jina", "each document once", JINA, put("results.1.index", 1)),
    ("rerank-jina", "the best first", JINA, put("results", lambda it: it[::-1])),
    ("rerank-jina", "top_n", JINA, choosing("top_n", put("results", lambda it: it[:1]))),
    ("rerank-jina", "top_n beyond their number", JINA, instead({"detail": ""}, 422)),
    ("rerank-jina", "the documents in the results", JINA, put("results.0.document.text", "another")),
    ("rerank-jina", "results without documents", JINA, put("results.0", lambda it: {**it, "document": {}})),
    ("rerank-jina", "documents as objects", JINA, instead({"detail": ""}, 422)),
    ("rerank-jina", "no documents", JINA, instead({"results": []})),
    ("rerank-jina", "no query", JINA, instead("no", 422)),
    ("rerank-jina", "a wrong top_n", JINA, instead({"results": []})),
    ("rerank-cohere", "results", COHERE, drop("id")),
    ("rerank-cohere", "each document once", COHERE, put("results", lambda it: it[:1] * 3)),
    ("rerank-cohere", "the best first", COHERE, put("results.0.relevance_score", -5.0)),
    ("rerank-cohere", "top_n", COHERE, choosing("top_n", put("results", swapped))),
    ("rerank-cohere", "top_n beyond their number", COHERE, instead({}, 500)),
    ("rerank-cohere", "no documents", COHERE, instead({"message": ""}, 500)),
    ("rerank-cohere", "no query", COHERE, instead({"detail": "no"}, 400)),
    ("rerank-cohere", "a wrong top_n", COHERE, instead({"results": []})),
    ("tei", "one text", EMBED, header("content-type", "text/plain")),
    ("tei", "one text", EMBED, content(lambda it: it[0])),
    ("tei", "the order of the input", EMBED, content(swapped)),
    ("tei", "a text alone and in a batch", EMBED, of_two(put("0", half))),
    ("tei", "length 1", EMBED, put("0", half)),
    ("tei", "normalize: false", EMBED, where(lambda it: not it["normalize"], content(swapped))),
    ("tei", "dimensions", EMBED, content(lambda it: [each[:31] for each in it])),
    ("tei", "a text that is cut", EMBED, instead({}, 422)),
    ("tei", "which side is cut", EMBED, choosing("truncation_direction", put("0", lambda it: it[::-1]))),
    ("tei", "a text that is not cut", EMBED, status(400, 422)),
    ("tei", "times", EMBED, header("x-queue-time", None)),
    ("tei", "times", EMBED, header("x-compute-tokens", "0")),
    ("tei", "a vector a token", "/embed_all", content(lambda it: [each[1:] for each in it])),
    ("tei", "similarity", "/similarity", put("1", 0.9)),
    ("tei", "tokens", "/tokenize", content(lambda it: [[{**each, "stop": 90} for each in it[0]]])),
    ("tei", "tokens", "/tokenize", content(lambda it: [[{**each, "special": 0} for each in it[0]]])),
    ("tei", "tokens without special ones", "/tokenize", content(lambda it: [[{"special": True}]])),
    ("tei", "decode", "/decode", put("0", "bread")),
    ("tei", "info", "/info", put("max_client_batch_size", "8")),
    ("tei", "health", "/health", instead(None, 503)),
    ("tei", "metrics", "/metrics", header("content-type", "text/html")),
    ("tei", "no inputs", EMBED, instead([])),
    ("tei", "no inputs", EMBED, instead({"error": "", "error_type": "Validation"}, 400)),
    ("tei", "no sentences", "/similarity", instead([])),
    ("tei", "too many inputs", EMBED, status(422, 413)),
    ("tei", "too many inputs", "/info", put("max_client_batch_size", "8")),
    ("tei", "too many inputs", "/info", drop("max_client_batch_size")),
    ("tei", "inputs of a wrong kind", EMBED, instead({}, 500)),
    ("tei-rerank", "scores", "/rerank", put("0", {"index": 0, "score": 9.0})),
    ("tei-rerank", "the best first", "/rerank", content(lambda it: it[::-1])),
    ("tei-rerank", "texts", "/rerank", content(lambda it: [{**each, "text": "another"} for each in it])),
    ("tei-rerank", "no texts asked for", "/rerank", content(lambda it: [{**each, "text": "there"} for each in it])),
    ("tei-rerank", "raw scores", "/rerank", choosing("raw_scores", content(swapped))),
    ("tei-rerank", "times", "/rerank", header("x-total-time", "1.5 s")),
    ("tei-rerank", "nothing to order", "/rerank", status(200, 400)),
    ("tei-rerank", "no query", "/rerank", instead({})),
    ("tei-sparse", "one text", "/embed_sparse", content(lambda it: [[{"index": 1.5, "value": 1.0}]])),
    ("tei-sparse", "the order of the input", "/embed_sparse", content(lambda it: sorted(it, key=str))),
    ("tei-sparse", "no inputs", "/embed_sparse", status(424, 400)),
    ("bert-http", "texts", "/encode", put("id", "123")),
    ("bert-http", "the order of the input", "/encode", put("result", swapped)),
    ("bert-http", "an id of one's own", "/encode", put("id", 1)),
    ("bert-http", "tokens of one's own", "/encode", choosing("is_tokenized", put("result", lambda it: [half(it[0])]))),
    ("bert-http", "a pair", "/encode", put("result", [[1.0] * 48])),
    ("bert-http", "a text that is too long", "/encode", instead({}, 400)),
    ("bert-http", "texts that are no list", "/encode", instead({"status": 200})),
    ("bert-http", "no texts", "/encode", instead({"description": "", "type": "", "status": 500}, 400)),
    ("bert-http", "no texts", "/encode", drop("description")),
    ("bert-http", "a blank text", "/encode", status(422, 400)),
    ("bert-http", "the server's status", "/status/server", drop("statistic")),
    ("bert-http", "the client's status", "/status/client", instead({}, 404)),
    ("jina-http", "documents", "/post", put("data", lambda it: it[:2])),
    ("jina-http", "documents", "/post", drop("header")),
    ("jina-http", "what documents hold", "/post", put("data", lambda it: [{**each, "id": "a"} for each in it])),
    ("jina-http", "what documents hold", "/post", put("data", lambda it: [{**each, "text": ""} for each in it])),
    ("jina-http", "the order of the documents", "/post", put("data", swapped)),
    ("jina-http", "request id", "/post", put("header", {})),
    ("jina-http", "routes", "/post", put("routes", lambda it: it[:1])),
    ("jina-http", "the first route", "/post", put("routes", swapped)),
    ("jina-http", "the path of an endpoint", "/encode", put("data", swapped)),
    ("jina-http", "the path of an endpoint", "/encode", instead({}, 404)),
    ("jina-http", "no documents", "/post", put("data", [{}])),
    ("jina-http", "data of a wrong kind", "/post", status(500, 422)),
    ("jina-http", "dry run", "/dry_run", put("code", 1)),
]


def test_a_server_that_keeps_all_rules_passes() -> None:
    names = [file.contract for file in FILES]
    with serve_http() as (url, double):
        report = run(Server(Target.parse(url)), contracts(chosen=names), required=names)
    assert report.passed, report.to_dict()
    assert double.requests == sum(contract.requests for contract in contracts(chosen=names)), "no more than it says"


def test_an_address_that_does_not_answer_does_not_hide_what_the_other_one_keeps() -> None:
    with serve_http() as (url, _):
        server = Server(Target.parse(url), Target.parse("grpc://127.0.0.1:9"), timeout=20)
        report = run(server, contracts(chosen=["bert-http", "jina-grpc"]))
    http, grpc = report.contracts
    assert not http.of("failed")
    assert [each.name for each in grpc.of("failed")] == ["the probe"]
    assert not report.passed


@pytest.mark.parametrize("code", [401, 403])
def test_a_server_that_wants_a_key(code: int) -> None:
    with serve_http(instead({}, code), EMBED) as (url, _), pytest.raises(Unauthenticated, match="--api-key"):
        run(Server(Target.parse(url)), contracts(chosen=["tei"]))


@pytest.mark.parametrize("code", [429, 500])
def test_a_server_that_has_a_route_but_fails_is_not_absent(code: int) -> None:
    with serve_http(instead({}, code), EMBED) as (url, _):
        report = run(Server(Target.parse(url)), contracts(chosen=["tei"]))
    assert report.contracts[0].absent is None
    assert len(report.contracts[0].of("failed")) > 10


@pytest.mark.parametrize(("name", "case", "path", "fault"), FAULTS, ids=[f"{each[0]}: {each[1]}" for each in FAULTS])
def test_a_broken_rule_is_found(name: str, case: str, path: str, fault: Fault) -> None:
    (file,) = (each for each in FILES if each.contract == name)
    alone = RecordedContract(replace(file, cases=[each for each in file.cases if each.name == case]))
    probes = [file.probe.send["path"]] if file.probe is not None else []
    with serve_http(fault, path, right=probes.count(path)) as (url, _):
        report = run(Server(Target.parse(url)), [alone])
    (result,) = report.contracts
    assert result.absent is None
    assert [each.name for each in result.of("failed")] == [case]
    assert not report.passed
    assert all(each.where and each.expected and each.got for each in result.results[0].problems)


def test_each_case_is_shown_to_be_able_to_fail() -> None:
    recorded = {(file.contract, case.name) for file in FILES for case in file.cases}
    assert {(contract, case) for contract, case, _, _ in FAULTS} == recorded
