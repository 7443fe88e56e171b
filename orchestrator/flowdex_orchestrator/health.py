"""grpc.health.v1 for one server, all of whose services are ready together or not at all.

    HealthService.set(True)            -->  Check: SERVING       Watch: ..., SERVING
    HealthService.set(False, reason)   -->  Check: NOT_SERVING and the reason, in the metadata

The servicer of grpcio-health-checking forgets all watchers of a service as soon as one of them leaves, and never ends a
watch, so that a server somebody watches cannot stop before its grace is over. This one does neither.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2

__all__ = ["HEALTH_SERVICE", "REASON_KEY", "HealthService"]

HEALTH_SERVICE = "grpc.health.v1.Health"
REASON_KEY = "flowdex-reason"
"""Of the metadata that come with an answer: why the server takes no requests (ASCII)."""

_Status = health_pb2.HealthCheckResponse


class HealthService:
    """The health of one server.

    Args:
        services: Names of its services; the empty name, the server as a whole, is always known.
    """

    def __init__(self, services: Collection[str] = ()) -> None:
        self._services = frozenset(services) | {"", HEALTH_SERVICE}
        self._serving = False
        self._reason = ""
        self._closed = False
        self._changed = asyncio.Event()

    @property
    def serving(self) -> bool:
        """What it says now."""
        return self._serving

    def set(self, serving: bool, reason: str = "") -> None:
        """Say from now on that the server is ready, or that it is not, and why."""
        self._reason = reason
        if serving != self._serving and not self._closed:
            self._serving = serving
            self._wake()

    def close(self) -> None:
        """Say that the server is not ready, for good, and end all watches; before `grpc.aio.Server.stop`."""
        self._serving, self._closed = False, True
        self._wake()

    def handler(self) -> grpc.GenericRpcHandler:
        """For `grpc.aio.Server.add_generic_rpc_handlers`."""
        formats: dict[str, Any] = {
            "request_deserializer": health_pb2.HealthCheckRequest.FromString,
            "response_serializer": _Status.SerializeToString,
        }
        methods = {
            "Check": grpc.unary_unary_rpc_method_handler(self._check, **formats),
            "Watch": grpc.unary_stream_rpc_method_handler(self._watch, **formats),
        }
        return grpc.method_handlers_generic_handler(HEALTH_SERVICE, methods)

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _status(self, service: str) -> Any:
        if service not in self._services:
            return _Status.SERVICE_UNKNOWN
        return _Status.SERVING if self._serving else _Status.NOT_SERVING

    async def _check(self, request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        status = self._status(request.service)
        if status == _Status.SERVICE_UNKNOWN:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"this server has no service {request.service!r}")
        if self._reason:
            reason = self._reason.encode("ascii", "backslashreplace").decode()
            context.set_trailing_metadata(((REASON_KEY, reason),))
        return _Status(status=status)

    async def _watch(self, request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[Any]:
        last = None
        while True:
            changed, status = self._changed, self._status(request.service)
            if status != last:
                yield _Status(status=status)
                last = status
            if self._closed:
                return
            await changed.wait()
