"""Connections of clients that are slow, silent or too many: bounded in number, in the size of heads, and in patience.

    connection --head--> request --body--> answer --> idle --> ...
          |       |         |        |        |         +-- the one idle for longest makes room for a new one
          |       +---------+--------+--------+------------ `client_timeout` without getting on: closed
          +-- `max_connections`, none of them idle: 503

uvicorn has none of this with httptools: a head may grow without end, and a client that sends nothing stays for ever.
The clock is not read for each request: `Connections.sweep` looks at all connections from time to time.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from http import HTTPStatus

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from flowdex_orchestrator.gateway.descriptors import most_connections
from flowdex_orchestrator.gateway.seldom import SeldomLogger
from flowdex_orchestrator.gateway.settings import GatewaySettings

__all__ = ["BoundedProtocol", "Connections", "protocol_class"]

_LEAST_RATE = 1024  # bytes a second of a body, once `client_timeout` has passed
_NO_REQUEST = "Invalid HTTP request received."  # in uvicorn's words
_SWEEPS = 4  # in the time of `client_timeout`


class _Refused(Exception):
    """Raised in the parser's callbacks: the request gets the status of the connection's `refusal`."""


class Connections:
    """The HTTP connections of one server.

    Args:
        settings: `max_connections`, `max_header_bytes`, `max_headers` and `client_timeout` are heeded.
    """

    def __init__(self, settings: GatewaySettings) -> None:
        self.settings = settings
        self.logger = SeldomLogger(logging.getLogger("uvicorn.error"))
        self._most = most_connections(settings.max_connections)
        self.open: set[BoundedProtocol] = set()
        self._idle: dict[BoundedProtocol, None] = {}  # in the order in which they became so

    def add(self, connection: BoundedProtocol, others: int) -> bool:
        """Take in a connection; False if there is no room, as no other is idle.

        Args:
            connection: The new one.
            others: How many connections there are that are not HTTP's any more: WebSockets.
        """
        if len(self.open) + others >= self._most:
            if not self._idle:
                return False
            oldest = next(iter(self._idle))
            self.remove(oldest)
            oldest.transport.abort()
        self.open.add(connection)
        self._idle[connection] = None
        return True

    def remove(self, connection: BoundedProtocol) -> None:
        """Forget a connection."""
        self.open.discard(connection)
        self._idle.pop(connection, None)

    def busy(self, connection: BoundedProtocol) -> None:
        """A request has begun on it."""
        self._idle.pop(connection, None)

    def idle(self, connection: BoundedProtocol) -> None:
        """Its request has been answered."""
        if connection in self.open:
            self._idle[connection] = None

    async def sweep(self) -> None:
        """End connections that have kept the gateway waiting for too long, until cancelled."""
        pause = self.settings.client_timeout / _SWEEPS
        while pause:
            await asyncio.sleep(pause)
            for connection in list(self.open):
                connection.check(pause)


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's connection, with limits; `protocol_class` says which connections it belongs to."""

    bounds: Connections

    # ---- the transport's ----

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a place among the connections, or answer 503."""
        self.refusal: HTTPStatus | None = None
        self._in_head = True
        self._heads = 0
        self._head_bytes = 0
        self.logger = self.bounds.logger
        self._body_bytes = 0
        self._waited = 0.0
        self._unsent = 0
        super().connection_made(transport)
        if not self.bounds.add(self, sum(not isinstance(each, BoundedProtocol) for each in self.connections)):
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE)

    def connection_lost(self, exc: Exception | None) -> None:
        """Give the place back."""
        self.bounds.remove(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what came, unless a head has grown too large."""
        if self.refusal is not None:
            return
        in_head, heads = self._in_head, self._heads
        super().data_received(data)
        if in_head and heads == self._heads:
            if not self._head_bytes:
                self._waited = 0.0
            self._head_bytes += len(data)
            if self._head_bytes > self.bounds.settings.max_header_bytes:
                self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)

    def handle_websocket_upgrade(self) -> None:
        """Give the place to the WebSocket."""
        self.bounds.remove(self)
        super().handle_websocket_upgrade()

    # ---- the parser's ----

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count the header."""
        if len(self.headers) >= self.bounds.settings.max_headers:
            self.refusal = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            raise _Refused
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head is there: the body is next."""
        size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if size > self.bounds.settings.max_header_bytes:
            self.refusal = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            raise _Refused
        super().on_headers_complete()
        self._in_head = False
        self._heads += 1
        self._head_bytes = self._body_bytes = 0
        self._waited = 0.0
        self.bounds.busy(self)

    def on_body(self, body: bytes) -> None:
        """Count the body."""
        self._body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is there; another may follow."""
        super().on_message_complete()
        self._in_head = True

    def on_response_complete(self) -> None:
        """The request is answered."""
        more = bool(self.pipeline)
        super().on_response_complete()
        self._waited = 0.0
        if more:
            return
        if self.refusal is HTTPStatus.BAD_REQUEST:
            super().send_400_response(_NO_REQUEST)
        else:
            self.bounds.idle(self)

    def send_400_response(self, msg: str) -> None:
        """Answer bytes that are no request, or one that is refused; after the requests before it, if there are any."""
        if self.refusal is not None:
            self._refuse(self.refusal)
        elif self._in_head and self.cycle is not None and not self.cycle.response_complete:
            self.refusal = HTTPStatus.BAD_REQUEST
        else:
            super().send_400_response(msg)

    # ---- time ----

    def check(self, passed: float) -> None:
        """End the connection if its client has kept it waiting for too long.

        Args:
            passed: Seconds since the last time.
        """
        unsent = self.transport.get_write_buffer_size()
        answering = self.cycle is not None and not self.cycle.response_complete
        if unsent:
            self._waited = self._waited + passed if unsent == self._unsent else 0.0
        elif not answering or not self._in_head:
            self._waited += passed
        else:
            self._waited = 0.0  # the client waits for us
        self._unsent = unsent
        patience = self.bounds.settings.client_timeout
        if self._waited <= patience:
            return
        if unsent:
            self.transport.abort()  # it does not take its answer
        elif not self._in_head:
            if self._body_bytes < _LEAST_RATE * (self._waited - patience):
                self._refuse(HTTPStatus.REQUEST_TIMEOUT)
        elif self._head_bytes:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT)
        elif self.cycle is None:  # it never sent anything; after an answer the keep-alive time counts
            self.transport.close()

    def _refuse(self, status: HTTPStatus) -> None:
        """Answer with a status, and close."""
        self.refusal = status
        self.bounds.remove(self)
        if self.transport.is_closing():
            return
        answered = self.cycle is None or self.cycle.response_complete
        if answered or not (self._in_head or self.cycle.response_started):  # else it would stand in another answer
            body = _BODIES[status].encode()
            head = [
                f"HTTP/1.1 {status.value} {status.phrase}",
                "content-type: application/problem+json",
                f"content-length: {len(body)}",
                "connection: close",
            ]
            self.transport.write("\r\n".join([*head, "", ""]).encode() + body)
        self.transport.close()


def _bodies() -> Iterator[tuple[HTTPStatus, str]]:
    for status, name, detail in (
        (
            HTTPStatus.REQUEST_TIMEOUT,
            "DeadlineExceeded",
            "the request did not come in time (gateway.uses_with.client_timeout)",
        ),
        (
            HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
            "TooLarge",
            "the head of the request is too large (gateway.uses_with.max_header_bytes, max_headers)",
        ),
        (
            HTTPStatus.SERVICE_UNAVAILABLE,
            "Unavailable",
            "there are as many connections as this gateway takes (gateway.uses_with.max_connections)",
        ),
    ):
        body = {"type": f"urn:flowdex:error:{name}", "title": status.phrase, "status": status.value, "detail": detail}
        yield status, json.dumps(body)


_BODIES = dict(_bodies())


def protocol_class(bounds: Connections) -> type[BoundedProtocol]:
    """The class of connections for uvicorn, which makes them itself."""
    return type("Connection", (BoundedProtocol,), {"bounds": bounds})
