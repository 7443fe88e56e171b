"""uvicorn on the gateway's own event loop: sockets that are ours, no signal handlers, a drain that ends.

HttpServer(gateway).start(host, port) --> uvicorn.Server.serve(sockets) as a task --> stop()     HTTP and WebSockets
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import uvicorn
from uvicorn.protocols.websockets.websockets_impl import WebSocketProtocol

from flowdex.errors import ConfigurationError
from flowdex_orchestrator.gateway.http.app import make_app
from flowdex_orchestrator.gateway.http.connections import Connections, protocol_class
from flowdex_orchestrator.tls import server_context

if TYPE_CHECKING:
    from flowdex_orchestrator.gateway.server import Gateway

__all__ = ["HttpServer"]

_KEEP_ALIVE = 75  # seconds; longer than clients keep idle connections, so that they are the ones to close them

_PONG = 60.0  # seconds for a client to answer a ping: one that computes between its requests answers late
_FRAME_LIMIT = 2  # times the message limit: up to there the error names the setting, beyond the connection is closed


class HttpServer:
    """The HTTP front of a gateway."""

    def __init__(self, gateway: Gateway) -> None:
        self._drain = gateway.settings.drain
        self._connections = Connections(gateway.settings)
        config = uvicorn.Config(
            make_app(gateway),
            loop="none",
            lifespan="off",
            http=protocol_class(self._connections),
            ws=WebSocketProtocol,
            ws_max_size=_FRAME_LIMIT * gateway.settings.max_message_bytes,
            ws_ping_timeout=_PONG,
            ws_per_message_deflate=False,  # vectors do not shrink
            log_config=None,
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=_KEEP_ALIVE,
        )
        if gateway.certificates is not None:
            config.load()
            config.ssl = server_context(gateway.certificates)
        self._server = _Server(config)
        self._task: asyncio.Task[None] | None = None
        self._sweep: asyncio.Task[None] | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen and answer.

        Returns:
            The port, which differs from `port` if that is 0.

        Raises:
            ConfigurationError: The port cannot be had.
        """
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        # asyncio turns Nagle's algorithm off only on sockets that say TCP; with it, answers wait up to 40 ms.
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            listener.close()
            raise ConfigurationError(
                f"the HTTP port {port} of {host} cannot be opened: {error.strerror}; choose another with --port-http, "
                "or under `with: port:` in the flow file"
            ) from None
        bound: int = listener.getsockname()[1]
        self._task = asyncio.create_task(self._server.serve(sockets=[listener]))
        while not self._server.started:  # uvicorn has no event for it
            if self._task.done():
                self._task.result()
            await asyncio.sleep(0.005)
        self._sweep = asyncio.create_task(self._connections.sweep())
        return bound

    async def stop(self) -> None:
        """Refuse new connections, finish the requests in flight, close the others at once."""
        if self._task is not None:
            self._server.drain = self._drain
            self._server.should_exit = True
            await self._task
        if self._sweep is not None:
            self._sweep.cancel()


class _Server(uvicorn.Server):
    drain = 0.0

    def install_signal_handlers(self) -> None:
        """None: signals are the gateway's (uvicorn up to 0.28)."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """None: signals are the gateway's (uvicorn from 0.29)."""
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close idle connections, give busy ones the time to finish.

        uvicorn's own waits for the listening sockets first, which on Python 3.12 and later means for every connection.
        """
        for server in self.servers:
            server.close()
        for listener in sockets or ():
            listener.close()
        state, end = self.server_state, time.monotonic() + self.drain
        # WebSockets see that the gateway is stopping: they answer what they have begun, and close.
        for connection in list(state.connections):
            if not isinstance(connection, WebSocketProtocol):
                connection.shutdown()
        while (state.connections or state.tasks) and time.monotonic() < end:  # noqa: ASYNC110 - uvicorn has no event
            await asyncio.sleep(0.02)
        for connection in list(state.connections):
            connection.shutdown()
        for task in list(state.tasks):
            task.cancel()
