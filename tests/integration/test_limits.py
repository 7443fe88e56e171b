"""The limits of a request hold over every protocol, and the error names the setting."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import grpc
import numpy as np
import pytest
from gateway_fakes import FakeExecutor, Flow, serving
from websockets.asyncio.client import connect

from flowdex import wire
from flowdex.documents import DocumentBatch
from flowdex.errors import FlowdexError, error_from_grpc
from flowdex.proto import flowdex_pb2 as pb
from flowdex_orchestrator.gateway.settings import GatewaySettings

zmq = pytest.importorskip("zmq")
zmq_asyncio = pytest.importorskip("zmq.asyncio")

LIMITS = GatewaySettings(
    max_message_bytes=4000, max_texts=3, max_text_characters=1000, max_parameters=4, max_parameter_bytes=500
)
MANY, LONG, HUGE = ["a"] * 4, ["x" * 1001], ["x" * 900] * 5
BROKEN = [(MANY, "max_texts"), (LONG, "max_text_characters"), (HUGE, "max_message_bytes")]


def encoder() -> FakeExecutor:
    async def encode(request: pb.DataRequestProto) -> None:
        batch = DocumentBatch.from_proto(request.data.docs)
        batch.embeddings = np.ones((len(batch), 2), np.float32)

    return FakeExecutor("encoder", {"/encode": encode, "/rank": None})


def request(texts: list[str], **parameters: Any) -> bytes:
    return wire.build_request("/encode", DocumentBatch.from_columns(texts=texts), parameters=parameters)


async def over_grpc(flow: Flow, texts: list[str]) -> str:
    try:
        await flow.send(request(texts))
    except grpc.aio.AioRpcError as error:
        return str(error_from_grpc(error.code(), error.details() or ""))
    return ""


async def over_grpc_stream(flow: Flow, texts: list[str]) -> str:
    call = flow.channel.stream_stream(wire.CALL)(iter([request(texts)]))
    (reply,) = [wire.read_request(each) async for each in call]
    return str(wire.error_of(reply.header) or "")


async def over_websocket(flow: Flow, texts: list[str]) -> str:
    url = f"ws://127.0.0.1:{flow.ports['http']}/"
    async with connect(url, subprotocols=["json"]) as socket:  # type: ignore[list-item]
        await socket.send(json.dumps({"execEndpoint": "/encode", "data": [{"text": text} for text in texts]}))
        return str(json.loads(await socket.recv())["header"].get("status", {}).get("description", ""))


async def over_zeromq(flow: Flow, texts: list[str]) -> str:
    context = zmq_asyncio.Context()
    try:
        sender, receiver = context.socket(zmq.PUSH), context.socket(zmq.SUB)
        sender.connect(f"tcp://127.0.0.1:{flow.ports['bert']}")
        receiver.setsockopt(zmq.SUBSCRIBE, b"me")
        receiver.connect(f"tcp://127.0.0.1:{flow.ports['bert-out']}")
        await sender.send_multipart([b"me", json.dumps(texts).encode(), b"1", b"%d" % len(texts)])
        _, info, _, _ = await asyncio.wait_for(receiver.recv_multipart(), 10)
        return str(json.loads(info).get("error", {}).get("message", ""))
    finally:
        context.destroy(linger=0)


def over_http(path: str, **body: Any) -> Any:
    async def send(flow: Flow, texts: list[str]) -> str:
        sent = {name: texts if value is ... else value for name, value in body.items()}
        if path == "/post":
            sent["data"] = [{"text": text} for text in texts]
        reply = await flow.http.post(path, json=sent)
        assert reply.status_code in (200, 413, 400), reply.text
        return "" if reply.status_code == 200 else reply.text

    return send


PROTOCOLS = {
    "gRPC": over_grpc,
    "gRPC stream": over_grpc_stream,
    "WebSocket": over_websocket,
    "ZeroMQ": over_zeromq,
    "POST /encode": over_http("/encode", texts=...),
    "POST /encode of bert-as-service": over_http("/encode", id=1, texts=...),
    "POST /post": over_http("/post", execEndpoint="/encode"),
    "POST /v1/embeddings": over_http("/v1/embeddings", model="encoder", input=...),
    "POST /embed": over_http("/embed", inputs=...),
    "POST /embed_all": over_http("/embed_all", inputs=...),
}


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_limits_hold_over_every_protocol(protocol: str) -> None:
    send = PROTOCOLS[protocol]
    async with serving(encoder(), settings=LIMITS) as flow:
        if protocol == "ZeroMQ":
            flow.ports.update(await flow.gateway.serve("127.0.0.1", bert_ports=(0, 0)))
        for texts, limit in BROKEN:
            assert limit in await send(flow, texts)
        if protocol != "POST /embed_all":  # which needs vectors of tokens
            assert await send(flow, ["a", "x" * 1000]) == ""


async def test_parameters_are_bound_over_grpc_and_http() -> None:
    async with serving(encoder(), settings=LIMITS) as flow:
        for parameters, limit in (
            ({str(number): 1 for number in range(5)}, "max_parameters"),
            ({"a": "x" * 500}, "max_parameter_bytes"),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await flow.send(request(["a"], **parameters))
            assert caught.value.code() is grpc.StatusCode.OUT_OF_RANGE
            assert limit in str(caught.value.details())
            reply = await flow.http.post("/encode", json={"texts": "a", "parameters": parameters})
            assert reply.status_code == 413
            assert limit in reply.json()["detail"]
        assert len(flow.gateway.pools["encoder"].replicas) == 1
        with pytest.raises(FlowdexError):
            wire.build_request("/encode", parameters={"a": float("inf"), "b": [[[]]] * 3, "c": _nested(30)})


async def test_stream_doc_is_bound() -> None:
    asked = pb.SingleDocumentRequestProto()
    asked.header.exec_endpoint = "/encode"
    asked.document.data["text"].text = "x" * 1001
    async with serving(encoder(), settings=LIMITS) as flow:
        call = flow.channel.unary_stream(wire.STREAM_DOC)(asked.SerializeToString())
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            [each async for each in call]
        assert caught.value.code() is grpc.StatusCode.OUT_OF_RANGE
        assert "max_text_characters" in str(caught.value.details())


def _nested(depth: int) -> Any:
    return {"a": _nested(depth - 1)} if depth else {}
