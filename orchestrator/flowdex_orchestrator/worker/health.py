"""grpc.health.v1 for one server: one status for all its services.

The servicer of grpcio-health-checking keeps every `Watch` open until its client ends it, so that a server with a
watcher would wait for the whole grace period before it stops; this one ends them with `close`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from typing import Any

import grpc
from grpc_health.v1 import health_pb2

__all__ = ["SERVICE", "HealthService"]

SERVICE = "grpc.health.v1.Health"


class HealthService:
    """Answers `Check` and `Watch`.

    Args:
        services: Names of the services it speaks for; the empty name, the server as a whole, is always known.
    """

    def __init__(self, services: Collection[str]) -> None:
        self._services = frozenset({"", *services})
        self._status = health_pb2.HealthCheckResponse.NOT_SERVING
        self._closed = False
        self._changed = asyncio.Event()

    def set(self, serving: bool) -> None:
        """Change the status and tell the watchers."""
        self._status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def close(self) -> None:
        """Say NOT_SERVING, and end every watch."""
        self._closed = True
        self.set(False)

    def handler(self) -> grpc.GenericRpcHandler:
        """The handler to add to a `grpc.aio` server."""
        codec = {
            "request_deserializer": health_pb2.HealthCheckRequest.FromString,
            "response_serializer": health_pb2.HealthCheckResponse.SerializeToString,
        }
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                "Check": grpc.unary_unary_rpc_method_handler(self._check, **codec),
                "Watch": grpc.unary_stream_rpc_method_handler(self._watch, **codec),
            },
        )

    async def _check(self, request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        if request.service not in self._services:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"no service {request.service!r} here")
        return health_pb2.HealthCheckResponse(status=self._status)

    async def _watch(self, request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[Any]:
        known = request.service in self._services
        while True:
            changed = self._changed
            status = self._status if known else health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
            yield health_pb2.HealthCheckResponse(status=status)
            if self._closed:
                return
            await changed.wait()
