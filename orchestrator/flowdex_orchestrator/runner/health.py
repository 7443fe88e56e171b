"""Is the service on this port ready? Asked over grpc.health.v1, or over HTTP where there is no gRPC port.

probe = GrpcProbe("127.0.0.1", 23117)
await probe.ready()     # False until the service answers SERVING
await probe.close()
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, Protocol

import grpc

from flowdex.errors import DeadlineExceeded, FlowdexError, Unavailable
from flowdex.timeouts import within
from flowdex_orchestrator.control import ask
from flowdex_orchestrator.health import REASON_KEY
from flowdex_orchestrator.tls import PLAIN, Hop

__all__ = ["ControlProbe", "GrpcProbe", "HttpProbe", "Probe"]

_OPTIONS = (
    ("grpc.enable_http_proxy", 0),  # a proxy in the environment is not meant for the next room
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 5000),  # this is how long an attempt may take: a busy process is slow to greet
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.use_local_subchannel_pool", 1),
)
_CHECK = "/grpc.health.v1.Health/Check"


class Probe(Protocol):
    """Asks one service whether it takes requests."""

    @property
    def reason(self) -> str:
        """Why it takes none, where its last answer said so."""
        ...

    @property
    def silent(self) -> bool:
        """Whether there was no answer at all to the last question."""
        ...

    async def ready(self, timeout: float = 2.0) -> bool:
        """Whether it said so within `timeout` seconds; never raises."""
        ...

    async def close(self) -> None:
        """Release the connection."""
        ...


class GrpcProbe:
    """Asks grpc.health.v1; a server without that service counts as ready once it answers at all."""

    def __init__(self, host: str, port: int, hop: Hop = PLAIN) -> None:
        self._target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._hop = hop
        self._generation = 0
        self._channel: grpc.aio.Channel | None = None
        self.reason = ""
        self.silent = False

    async def ready(self, timeout: float = 2.0) -> bool:
        """Whether the service answered SERVING."""
        from grpc_health.v1 import health_pb2

        if (generation := self._hop.generation) != self._generation:  # the certificates have been renewed
            await self.close()
        if self._channel is None:
            self._channel, self._generation = self._hop.channel(self._target, _OPTIONS), generation
        check = self._channel.unary_unary(
            _CHECK,
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        call: Any = check(health_pb2.HealthCheckRequest(), timeout=timeout)
        self.reason = ""
        try:
            reply = await call
            self.reason = next((value for key, value in await call.trailing_metadata() if key == REASON_KEY), "")
        except grpc.aio.AioRpcError as error:
            self.silent = error.code() in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE)
            return error.code() is grpc.StatusCode.UNIMPLEMENTED
        self.silent = False
        return bool(reply.status == health_pb2.HealthCheckResponse.SERVING)

    async def close(self) -> None:
        """Close the channel; a later `ready` opens a new one."""
        channel, self._channel = self._channel, None
        if channel is not None:
            await channel.close()


class ControlProbe:
    """Asks a gateway over its control port: the one port that needs no certificate of the caller.

    Args:
        address: Of the control port.
        token: Of the runner.
    """

    def __init__(self, address: str, token: str) -> None:
        self._address, self._token = address, token
        self.reason = ""
        self.silent = False

    async def ready(self, timeout: float = 2.0) -> bool:
        """Whether the gateway is ready."""
        try:
            reply = await ask(self._address, self._token, "ready", {}, timeout=timeout)
        except FlowdexError as error:
            self.silent = isinstance(error, (Unavailable, DeadlineExceeded))
            return False
        self.silent, self.reason = False, reply["problem"]
        return bool(reply["ready"])

    async def close(self) -> None:
        """Nothing is kept open."""


class HttpProbe:
    """Asks `GET /health/ready` for status 200."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self.reason = ""
        self.silent = False

    async def ready(self, timeout: float = 2.0) -> bool:
        """Whether the service answered 200."""
        try:
            found = await within(self._get(), timeout)
        except (OSError, asyncio.TimeoutError):
            self.silent = True
            return False
        self.silent = False
        return found

    async def _get(self) -> bool:
        reader, writer = await asyncio.open_connection(self._host, self._port)
        try:
            writer.write(f"GET /health/ready HTTP/1.1\r\nHost: {self._host}\r\nConnection: close\r\n\r\n".encode())
            await writer.drain()
            status = (await reader.readline()).split()
            return len(status) > 1 and status[1] == b"200"
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def close(self) -> None:
        """Nothing is kept open."""
