"""The cases that are code can fail too: small servers of ZeroMQ and gRPC that break one rule at a time."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
import pytest
from conformance_double import vector, word_id, words

from flowdex import wire
from flowdex.conformance.bert import BertContract
from flowdex.conformance.jina_grpc import JinaGrpcContract
from flowdex.conformance.jina_websocket import JinaWebSocketContract
from flowdex.conformance.model import Contract, Report, Server
from flowdex.conformance.suite import run
from flowdex.proto import flowdex_pb2 as pb
from flowdex.transport.target import Target


def encoded(texts: list[str]) -> Any:
    return np.array([vector([word_id(word) for word in words(text)]) for text in texts], dtype=np.float32)


def alone(contract: Contract, case: str, server: Server) -> Report:
    """Run one case of a contract."""
    kind = type(contract)
    only = type(kind.__name__, (kind,), {"cases": [each for each in contract.cases if each.name == case]})
    assert len(only.cases) == 1
    return run(server, [only()])


def assert_failed(report: Report, case: str) -> None:
    (result,) = report.contracts
    assert result.absent is None
    assert [each.name for each in result.of("failed")] == [case]
    assert all(each.where and each.expected and each.got for each in result.results[0].problems)


# ---- bert-as-service ----


@dataclass
class BertReply:
    texts: list[Any] | None
    info: dict[str, Any]
    vectors: Any
    request_id: bytes


BertFault = Callable[[BertReply], object]
CONFIG = {
    "port": 1,
    "port_out": 2,
    "max_seq_len": 12,
    "pooling_layer": [-2],
    "pooling_strategy": 2,
    "num_worker": 1,
    "server_version": "1.10.0",
    "show_tokens_to_client": True,
}
COUNTS = ("num_data_request", "num_sys_request", "num_total_request", "num_total_seq", "num_total_client")
ABOUT = ("server_start_time", "server_current_time", "python_version", "zmq_version")


def bert_reply(identity: bytes, payload: bytes, request_id: bytes) -> BertReply:
    if payload == b"SHOW_CONFIG":
        return BertReply(None, dict(CONFIG), None, request_id)
    if payload == b"SHOW_STATUS":
        status = {**dict.fromkeys(ABOUT, "1"), "num_process": 1, "num_concurrent_socket": 1}
        statistic = dict.fromkeys(COUNTS, 1)
        info = {**CONFIG, **status, "client": identity.decode(), "statistic": statistic}
        return BertReply(None, info, None, request_id)
    texts = json.loads(payload)
    vectors = encoded([each if isinstance(each, str) else " ".join(each) for each in texts])
    tokens = [["[CLS]", *(words(each) if isinstance(each, str) else each), "[SEP]"] for each in texts]
    return BertReply(texts, {"dtype": "float32", "shape": list(vectors.shape), "tokens": tokens}, vectors, request_id)


@contextmanager
def serve_bert(fault: BertFault) -> Iterator[Server]:
    """A server of the protocol, whose replies are spoiled, but for the one that says that it is there."""
    zmq = pytest.importorskip("zmq")
    context = zmq.Context()
    pull, publish = context.socket(zmq.PULL), context.socket(zmq.XPUB)
    ports = [each.bind_to_random_port("tcp://127.0.0.1") for each in (pull, publish)]
    end = threading.Event()

    def serve() -> None:
        replies = 0
        publish.recv()  # a subscription: what is published before it is lost
        while not end.is_set():
            if not pull.poll(20):
                continue
            identity, payload, request_id, _ = pull.recv_multipart()
            reply = bert_reply(identity, payload, request_id)
            if replies:
                fault(reply)
            replies += 1
            content = b"" if reply.vectors is None else reply.vectors.tobytes()
            publish.send_multipart([identity, json.dumps(reply.info).encode(), content, reply.request_id])

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield Server(bert=("127.0.0.1", ports[0], ports[1]), timeout=10)
    finally:
        end.set()
        thread.join(10)
        context.destroy(linger=0)


def in_info(name: str, value: Any, of: type = object) -> BertFault:
    def change(reply: BertReply) -> None:
        if reply.texts is None or isinstance(reply.texts[0], of):
            reply.info[name] = value

    return change


def in_vectors(change: Callable[[Any], Any], asked: Callable[[list[Any]], bool] = lambda texts: True) -> BertFault:
    def changed(reply: BertReply) -> None:
        if reply.texts is not None and asked(reply.texts):
            reply.vectors = np.ascontiguousarray(change(reply.vectors))
            reply.info |= {"shape": list(reply.vectors.shape), "dtype": str(reply.vectors.dtype)}

    return changed


def another_id(reply: BertReply) -> None:
    reply.request_id = b"99"


BERT_FAULTS: list[tuple[str, BertFault]] = [
    ("configuration", in_info("max_seq_len", "25")),
    ("status", in_info("statistic", {})),
    ("status", in_info("client", "somebody else")),
    ("texts", in_vectors(lambda it: it.astype(np.float64))),
    ("texts", in_vectors(lambda it: it[:1])),
    ("texts", in_vectors(lambda it: it * np.nan)),
    ("texts", in_info("shape", [7, 7])),
    ("the order of the texts", in_vectors(lambda it: np.sort(it, axis=0))),
    ("requests at once", another_id),
    ("tokens of one's own", in_vectors(lambda it: it / 2, lambda texts: isinstance(texts[0], list))),
    ("a pair", in_vectors(np.ones_like)),
    ("a text that is too long", in_info("dtype", "TooLarge: no")),
    ("tokens to the client", in_info("tokens", [["bread"], ["bread", "and", "water"]])),
    ("tokens to the client", in_info("tokens", "")),
]


@pytest.mark.parametrize(("case", "fault"), BERT_FAULTS, ids=[case for case, _ in BERT_FAULTS])
def test_a_rule_of_bert_as_service_that_is_broken_is_found(case: str, fault: BertFault) -> None:
    with serve_bert(fault) as server:
        assert_failed(alone(BertContract(), case, server), case)


def test_a_server_that_keeps_the_rules_of_bert_as_service() -> None:
    with serve_bert(lambda reply: None) as server:
        report = run(server, [BertContract()])
    assert report.passed, report.to_dict()
    assert {case.name for case in BertContract().cases} == {case for case, _ in BERT_FAULTS}


def test_a_case_that_a_setting_rules_out_is_skipped() -> None:
    with serve_bert(in_info("show_tokens_to_client", False)) as server:
        report = alone(BertContract(), "tokens to the client", server)
    (result,) = report.contracts[0].of("skipped")
    assert result.skipped == "the server has show_tokens_to_client off"
    assert report.passed


# ---- Jina over gRPC ----

GrpcFault = Callable[[str, Any], Any]
"""Gets a method and its reply, and changes or replaces it."""
_DISCOVERY, _DRY_RUN, _PROCESS, _CALL = "endpoint_discovery", "dry_run", "process_single_data", "Call"


def grpc_reply(data: bytes) -> pb.DataRequestProto:
    request = pb.DataRequestProto.FromString(data)
    batch = wire.documents_of(request)
    if len(batch):
        batch.embeddings = encoded([text or "" for text in batch.texts])
    request.data.docs.CopyFrom(batch.to_proto())
    for name in ("gateway", "encoder"):
        route = request.routes.add(executor=name)
        route.start_time.FromNanoseconds(10**9)
        route.end_time.FromNanoseconds(2 * 10**9)
    return request


@contextmanager
def serve_grpc(fault: GrpcFault) -> Iterator[Server]:
    def spoiled(method: str, reply: Any) -> bytes:
        changed = fault(method, reply)
        found = reply if changed is None else changed
        return found if isinstance(found, bytes) else found.SerializeToString()

    asked = iter(range(1000))
    endpoints = pb.EndpointsProto(endpoints=["/encode"])
    unary, service = grpc.unary_unary_rpc_method_handler, grpc.method_handlers_generic_handler
    discovery = lambda data, context: (  # noqa: E731
        spoiled(_DISCOVERY, endpoints) if next(asked) else endpoints.SerializeToString()
    )

    def call(requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
        replies = [grpc_reply(data) for data in requests]
        changed = fault(_CALL, replies)
        yield from (reply.SerializeToString() for reply in (replies if changed is None else changed))

    with ThreadPoolExecutor(4) as pool:
        server = grpc.server(pool)
        server.add_generic_rpc_handlers(
            (
                service("jina.JinaDiscoverEndpointsRPC", {_DISCOVERY: unary(discovery)}),
                service("jina.JinaGatewayDryRunRPC", {_DRY_RUN: unary(lambda *_: spoiled(_DRY_RUN, pb.StatusProto()))}),
                service(
                    "jina.JinaSingleDataRequestRPC",
                    {_PROCESS: unary(lambda data, _: spoiled(_PROCESS, grpc_reply(data)))},
                ),
                service("jina.JinaRPC", {_CALL: grpc.stream_stream_rpc_method_handler(call)}),
                service("grpc.health.v1.Health", {"Check": unary(lambda *_: spoiled("Check", b"\x08\x01"))}),
            )
        )
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            yield Server(grpc=Target.parse(f"grpc://127.0.0.1:{port}"), timeout=20)
        finally:
            server.stop(0).wait(10)


def on(method: str, change: Callable[[Any], Any]) -> GrpcFault:
    return lambda name, reply: change(reply) if name == method else None


def in_documents(change: Callable[[list[Any]], list[Any]]) -> GrpcFault:
    def changed(reply: pb.DataRequestProto) -> None:
        docs = change(list(reply.data.docs.docs))
        reply.data.docs.CopyFrom(pb.DocListProto(docs=docs))

    return on(_PROCESS, changed)


def without(name: str) -> GrpcFault:
    def changed(docs: list[Any]) -> list[Any]:
        for doc in docs:
            del doc.data[name]
        return docs

    return in_documents(changed)


def failing(reply: Any) -> None:
    reply.header.status.code = wire.ERROR


def without_times(reply: Any) -> None:
    reply.routes[1].end_time.FromNanoseconds(1)


GRPC_FAULTS: list[tuple[str, GrpcFault]] = [
    ("endpoints", on(_DISCOVERY, lambda reply: pb.EndpointsProto(endpoints=["encode"]))),
    ("dry run", on(_DRY_RUN, lambda reply: pb.StatusProto(code=wire.ERROR, description="no"))),
    ("health", on("Check", lambda reply: b"\x08\x02")),
    ("vectors", without("embedding")),
    ("vectors", in_documents(lambda docs: docs[:2])),
    ("vectors", on(_PROCESS, failing)),
    ("vectors", on(_PROCESS, lambda reply: b"\xff\xff")),
    ("the order of the documents", in_documents(lambda docs: sorted(docs, key=str))),
    ("what documents hold", without("price")),
    ("request id", on(_PROCESS, lambda reply: reply.header.ClearField("request_id"))),
    ("routes", on(_PROCESS, lambda reply: reply.ClearField("routes"))),
    ("routes", on(_PROCESS, without_times)),
    ("no documents", in_documents(lambda docs: docs or [pb.DocProto()])),
    ("a stream", on(_CALL, lambda replies: replies[:-1])),
    ("a stream in order", on(_CALL, lambda replies: replies[::-1])),
]


@pytest.mark.parametrize(("case", "fault"), GRPC_FAULTS, ids=[case for case, _ in GRPC_FAULTS])
def test_a_rule_of_jina_that_is_broken_is_found(case: str, fault: GrpcFault) -> None:
    with serve_grpc(fault) as server:
        assert_failed(alone(JinaGrpcContract(), case, server), case)


def test_a_server_that_keeps_the_rules_of_jina() -> None:
    with serve_grpc(lambda method, reply: None) as server:
        report = run(server, [JinaGrpcContract()])
    assert report.passed, report.to_dict()
    assert {case.name for case in JinaGrpcContract().cases} == {case for case, _ in GRPC_FAULTS}


# ---- Jina over WebSocket ----


@contextmanager
def serve_websocket(fault: GrpcFault) -> Iterator[Server]:
    """A server of `bytes` and `json`, whose replies are spoiled; a fault of "end" says whether it closes."""
    sync = pytest.importorskip("websockets.sync.server")

    def answer(connection: Any) -> None:
        path = connection.request.path
        for frame in connection:
            if frame in (b"\0", "{}"):
                if fault("end", True) is not False:
                    return
            elif path == "/dry_run":
                status = pb.StatusProto()
                connection.send((fault(_DRY_RUN, status) or status).SerializeToString())
                return
            elif isinstance(frame, str):
                data = [{**each, "embedding": [1.0]} for each in json.loads(frame)["data"]]
                content = {"header": {}, "data": data}
                fault("json", content)
                connection.send(json.dumps(content))
            else:
                reply = grpc_reply(frame)
                fault(_PROCESS, reply)
                connection.send(reply.SerializeToString())

    with sync.serve(answer, "127.0.0.1", 0, subprotocols=["bytes", "json"]) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield Server(http=Target.parse(f"http://127.0.0.1:{server.socket.getsockname()[1]}"), timeout=2)
        finally:
            server.shutdown()
            thread.join(10)


WEBSOCKET_FAULTS: list[tuple[str, GrpcFault]] = [
    ("documents", without("embedding")),
    ("documents", on(_PROCESS, lambda reply: reply.header.ClearField("request_id"))),
    ("the order of the documents", in_documents(lambda docs: sorted(docs, key=lambda doc: doc.data["text"].text))),
    ("requests at once", on(_PROCESS, failing)),
    ("requests at once", on("end", lambda closes: False)),
    ("JSON", on("json", lambda content: content.pop("header"))),
    ("dry run", on(_DRY_RUN, lambda reply: pb.StatusProto(code=wire.ERROR, description="no"))),
]


@pytest.mark.parametrize(("case", "fault"), WEBSOCKET_FAULTS, ids=[case for case, _ in WEBSOCKET_FAULTS])
def test_a_rule_of_jinas_websocket_that_is_broken_is_found(case: str, fault: GrpcFault) -> None:
    with serve_websocket(fault) as server:
        assert_failed(alone(JinaWebSocketContract(), case, server), case)


def test_a_server_that_keeps_the_rules_of_jinas_websocket() -> None:
    with serve_websocket(lambda method, reply: None) as server:
        report = run(server, [JinaWebSocketContract()])
    assert report.passed, report.to_dict()
    assert {case.name for case in JinaWebSocketContract().cases} == {case for case, _ in WEBSOCKET_FAULTS}
