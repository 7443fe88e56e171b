r"""Jina's WebSocket contract, on the HTTP port.

    ws://host:port/          frame, frame, ... --> up to `stream_window` at a time through the router --> frame, ...
    ws://host:port/dry_run   one frame --> StatusProto

A client chooses the subprotocol: `bytes` (serialised `DataRequestProto`s; the stock client's) or `json` (the objects of
POST /post in text frames; the default). It ends its requests with b"\0" or {}: those in flight are answered, and the
server closes. An error is the reply to its request. A browser's page of another origin is refused
unless `cors` names it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import orjson
from fastapi import APIRouter, WebSocket
from google.protobuf.json_format import MessageToDict
from pydantic import ValidationError
from starlette.types import Message
from starlette.websockets import WebSocketDisconnect
from websockets.exceptions import ConnectionClosed

from flowdex import wire
from flowdex.errors import FlowdexError, InvalidInput
from flowdex.proto import flowdex_pb2 as pb
from flowdex_orchestrator.gateway.http import replies
from flowdex_orchestrator.gateway.http.body import LARGE
from flowdex_orchestrator.gateway.http.jina.messages import JinaRequest, reply_json
from flowdex_orchestrator.gateway.status import flow_readiness
from flowdex_orchestrator.gateway.streaming import answer_stream

if TYPE_CHECKING:
    from flowdex_orchestrator.gateway.server import Gateway

__all__ = ["add_websocket_routes"]

_BYTES, _JSON = "bytes", "json"
_END = b"\0"  # bytes(True), as Jina's client says that there are no more requests
_CLOSED = "after sending 'websocket.close'"
_DONE, _REFUSED, _RESTART = 1000, 1008, 1012


def add_websocket_routes(router: APIRouter) -> None:
    """Add both."""

    @router.websocket("/")
    async def stream(websocket: WebSocket) -> None:
        if (connection := await _accept(websocket)) is not None:
            await connection.serve()

    @router.websocket("/dry_run")
    async def dry_run(websocket: WebSocket) -> None:
        if (connection := await _accept(websocket)) is not None:
            await connection.dry_run()


async def _accept(websocket: WebSocket) -> _Connection | None:
    gateway: Gateway = websocket.app.state.gateway
    origin = websocket.headers.get("origin")
    allowed = gateway.settings.cors
    if origin and not allowed & {origin, "*"} and urlsplit(origin).netloc != websocket.headers.get("host"):
        await websocket.close(_REFUSED, "pages of other origins are not served; `cors` allows them")
        return None
    offered = websocket.scope.get("subprotocols", [])
    subprotocol = next((each for each in offered if each in (_BYTES, _JSON)), None)
    await websocket.accept(subprotocol)
    return _Connection(gateway, websocket, as_json=subprotocol != _BYTES)


class _Connection:
    """One client, from its first frame to the last reply."""

    def __init__(self, gateway: Gateway, websocket: WebSocket, *, as_json: bool) -> None:
        self._gateway = gateway
        self._websocket = websocket
        self._as_json = as_json

    async def serve(self) -> None:
        """Answer requests until the client ends them or hangs up."""
        gateway = self._gateway
        window = gateway.settings.stream_window
        try:
            async for reply in answer_stream(gateway.router, self._requests(), window=window):
                await self._send(reply)
            await self._websocket.close(_RESTART if gateway.stopping.is_set() else _DONE)
        except (WebSocketDisconnect, ConnectionClosed):
            pass  # nobody is left to answer: what was in flight has been cancelled
        except RuntimeError as error:  # uvicorn's, of an answer after the client's end was seen
            if _CLOSED not in str(error):
                raise

    async def dry_run(self) -> None:
        """Say whether every executor takes requests."""
        try:
            await self._websocket.receive()
            status = flow_readiness(self._gateway.pools)
            if self._as_json:
                content = MessageToDict(status, preserving_proto_field_name=True, use_integers_for_enums=True)
                await self._websocket.send_text(orjson.dumps({"code": status.code, **content}).decode())
            else:
                await self._websocket.send_bytes(status.SerializeToString())
            await self._websocket.close()
        except WebSocketDisconnect:
            pass

    async def _frames(self) -> AsyncIterator[Message]:
        """What the client sends, until it hangs up or the gateway is stopping."""
        stopping = asyncio.ensure_future(self._gateway.stopping.wait())
        frame: asyncio.Future[Message] | None = None
        try:
            while True:
                frame = asyncio.ensure_future(self._websocket.receive())
                await asyncio.wait((frame, stopping), return_when=asyncio.FIRST_COMPLETED)
                if not frame.done():
                    return
                message = frame.result()
                if message["type"] == "websocket.disconnect":
                    raise WebSocketDisconnect(message.get("code", 1000))
                yield message
        finally:
            stopping.cancel()
            if frame is not None:
                frame.cancel()

    async def _requests(self) -> AsyncIterator[bytes]:
        async for message in self._frames():
            data, text = message.get("bytes"), message.get("text") or ""
            if data is not None:
                if data == _END:
                    return
                yield data
                continue
            try:
                request = await asyncio.to_thread(_read, text) if len(text) > LARGE else _read(text)
            except FlowdexError as error:
                await self._send(_error(error))
                continue
            if request is None:
                return
            yield request

    async def _send(self, reply: bytes) -> None:
        if self._as_json:
            text = await asyncio.to_thread(_write, reply) if len(reply) > LARGE else _write(reply)
            await self._websocket.send_text(text)
        else:
            await self._websocket.send_bytes(reply)


def _read(text: str) -> bytes | None:
    """A text frame as the request it stands for; None for the end of requests."""
    try:
        body = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise InvalidInput(f"the frame is not JSON: {error}") from None
    if body == {}:
        return None
    try:
        asked = JinaRequest.model_validate(body)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the frame"
        raise InvalidInput(f"{where}: {first['msg']}") from None
    if asked.endpoint is None:
        raise InvalidInput('name the endpoint of the flow: {"execEndpoint": "/search", "data": [...]}')
    return asked.to_bytes(asked.endpoint)


def _write(reply: bytes) -> str:
    return replies.dump(reply_json(wire.read_request(reply))).decode()


def _error(error: FlowdexError) -> bytes:
    reply = pb.DataRequestProto()
    wire.set_error(reply.header, error)
    return reply.SerializeToString()
