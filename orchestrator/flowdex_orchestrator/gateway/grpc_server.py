"""The gateway over gRPC: Jina's services, health and reflection, on raw bytes.

    process_single_data  bytes --> router --> bytes
    Call (stream)        bytes, bytes, ... --> up to `stream_window` at a time through the router --> bytes, bytes, ...
    stream_doc           bytes --> the first executor that serves the endpoint --> bytes, bytes, ...
    endpoint_discovery, dry_run, _status, grpc.health.v1, reflection: answered here

Where there are keys, whoever calls must have one, in the metadata `authorization: Bearer KEY`; whether the flow is
ready (dry_run, health) and what the services look like (reflection) is told to all.

Errors of an executor travel in the reply's header, as Jina does it. The gateway's own become the status of a unary
call, and on a stream the header of that request's reply: the stream goes on.
"""

from __future__ import annotations

import platform
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from importlib.metadata import version
from typing import Any, NoReturn

import grpc
import grpc.aio
from grpc_reflection.v1alpha import reflection

from flowdex.certificates import CertificateFiles
from flowdex.errors import ConfigurationError, FlowdexError
from flowdex.priority import PRIORITY_KEY
from flowdex.proto import flowdex_pb2 as pb
from flowdex.proto.reflection import GATEWAY_SERVICES, descriptor_pool
from flowdex.wire import IS_ERROR_METADATA
from flowdex_orchestrator.access.guard import CALLER, Guard
from flowdex_orchestrator.gateway.descriptors import most_connections
from flowdex_orchestrator.gateway.exchange import Metadata
from flowdex_orchestrator.gateway.replicas import ReplicaPool
from flowdex_orchestrator.gateway.router import Router
from flowdex_orchestrator.gateway.settings import GatewaySettings
from flowdex_orchestrator.gateway.status import flow_readiness
from flowdex_orchestrator.gateway.streaming import answer_stream, incident
from flowdex_orchestrator.health import HEALTH_SERVICE, HealthService
from flowdex_orchestrator.tls import listen

__all__ = ["GrpcServer"]

Context = grpc.aio.ServicerContext[bytes, bytes]

# Metadata that executors see too: the request's name, W3C trace context, and its priority.
_FORWARDED = frozenset({"x-request-id", "traceparent", "tracestate", "baggage", PRIORITY_KEY})
_IS_ERROR = (IS_ERROR_METADATA,)
_HARD_LIMIT = (
    2  # times the message limit: up to there the error names the setting, beyond gRPC drops the message unread
)
_OPTIONS = (
    ("grpc.max_send_message_length", -1),
    ("grpc.so_reuseport", 0),  # a port in use must be an error, not a share of somebody else's requests
    # Stock Jina clients and gateways ping idle connections every 10 s; by default a server hangs up on that.
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.keepalive_permit_without_calls", 1),
    # Connections that are silent: not yet HTTP/2, without a call, or half open.
    ("grpc.server_handshake_timeout_ms", 10_000),
    ("grpc.max_connection_idle_ms", 5 * 60_000),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.http2.ping_timeout_ms", 20_000),  # of its own pings, beside which it sends no other
    ("grpc.http2.max_concurrent_streams", 1024),  # of one connection
    # What executors take too, to whom some of it is forwarded. (Between the two, gRPC refuses at random.)
    ("grpc.max_metadata_size", 8192),
    ("grpc.absolute_max_metadata_size", 8192),
    # Only messages that are not compressed: some bytes of those may stand for gigabytes.
    ("grpc.compression_enabled_algorithms_bitset", 1),
)


class GrpcServer:
    """The gRPC front of a gateway.

    Args:
        router: Answers the requests.
        pools: The executors' replicas, for what is asked about them.
        settings: The gateway's limits.
        guard: Who may call; everybody where None.
        files: Certificates; None for no TLS.
    """

    def __init__(
        self,
        router: Router,
        pools: Mapping[str, ReplicaPool],
        settings: GatewaySettings,
        guard: Guard | None = None,
        files: CertificateFiles | None = None,
    ) -> None:
        self.health = HealthService(GATEWAY_SERVICES)
        self._router = router
        self._pools = pools
        self._settings = settings
        self._guard = guard
        self._files = files
        self._server: grpc.aio.Server | None = None

    def configure(self, settings: GatewaySettings) -> None:
        """Go by other limits from the next request on; see `Gateway.configure`."""
        self._settings = settings

    async def start(self, host: str, port: int) -> int:
        """Listen and answer.

        Returns:
            The port, which differs from `port` if that is 0.

        Raises:
            ConfigurationError: The port cannot be had.
        """
        limits = self._settings
        options = (
            *_OPTIONS,
            ("grpc.max_receive_message_length", _HARD_LIMIT * limits.max_message_bytes),
            ("grpc.max_allowed_incoming_connections", most_connections(limits.max_connections)),
        )
        server = grpc.aio.server(options=options)
        server.add_generic_rpc_handlers((*self._handlers(), self.health.handler()))
        services = (*GATEWAY_SERVICES, HEALTH_SERVICE, reflection.SERVICE_NAME)
        from grpc_health.v1 import health_pb2
        from grpc_reflection.v1alpha import reflection_pb2

        pool = descriptor_pool((health_pb2.DESCRIPTOR, reflection_pb2.DESCRIPTOR))
        reflection.enable_server_reflection(services, server, pool=pool)
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            _try_port(host, port)
            bound = listen(server, address, self._files)
        except (OSError, RuntimeError) as error:
            raise ConfigurationError(
                f"the gRPC port {port} of {host} cannot be opened: {getattr(error, 'strerror', None) or error}; "
                "choose another with --port-grpc, or under `with: port:` in the flow file"
            ) from None
        await server.start()
        self._server = server
        return bound

    async def stop(self, grace: float) -> None:
        """Refuse new calls, give those in flight `grace` seconds."""
        self.health.close()
        if self._server is not None:
            await self._server.stop(grace)

    def _handlers(self) -> Sequence[grpc.GenericRpcHandler]:
        methods = self.methods()
        return [grpc.method_handlers_generic_handler(service, handlers) for service, handlers in methods.items()]

    def methods(self) -> dict[str, dict[str, Any]]:
        """Jina's services: their methods with what handles them."""
        unary, stream = grpc.unary_unary_rpc_method_handler, grpc.unary_stream_rpc_method_handler
        one, many = self._identified, self._identified_stream
        return {
            "jina.JinaSingleDataRequestRPC": {"process_single_data": unary(one(self._process_single_data))},
            "jina.JinaRPC": {"Call": grpc.stream_stream_rpc_method_handler(many(self._call))},
            "jina.JinaSingleDocumentRequestRPC": {"stream_doc": stream(many(self._stream_doc))},
            "jina.JinaDiscoverEndpointsRPC": {"endpoint_discovery": unary(one(self._endpoint_discovery))},
            "jina.JinaGatewayDryRunRPC": {"dry_run": unary(self._dry_run)},
            "jina.JinaInfoRPC": {"_status": unary(one(self._status))},
        }

    # ---- who calls ----

    def _identified(self, method: Callable[[bytes, Context], Awaitable[bytes]]) -> Any:
        """The method for callers with a key."""
        guard = self._guard
        if guard is None:
            return method

        async def guarded(request: bytes, context: Context) -> bytes:
            await self._identify(guard, context)
            return await method(request, context)

        return guarded

    def _identified_stream(self, method: Callable[[Any, Context], AsyncIterator[bytes]]) -> Any:
        """The same for methods that answer a stream."""
        guard = self._guard
        if guard is None:
            return method

        async def guarded(request: Any, context: Context) -> AsyncIterator[bytes]:
            await self._identify(guard, context)
            async for reply in method(request, context):
                yield reply

        return guarded

    async def _identify(self, guard: Guard, context: Context) -> None:
        """Note who calls, for the router; a caller without a key is refused here, whatever it asks for."""
        try:
            CALLER.set(guard.identify(_token(context)))
        except FlowdexError as error:
            self._router.metrics.deny("", error)
            await _abort(context, error)

    # ---- requests ----

    async def _process_single_data(self, request: bytes, context: Context) -> bytes:
        try:
            reply, is_error = await self._router.handle(
                request, deadline=_deadline(context), metadata=_forwarded(context)
            )
        except FlowdexError as error:
            await _abort(context, error)
        except Exception:
            await _abort(context, incident())
        if is_error:
            context.set_trailing_metadata(_IS_ERROR)
        return reply

    async def _stream_doc(self, request: bytes, context: Context) -> AsyncIterator[bytes]:
        replies = self._router.handle_stream(request, deadline=_deadline(context), metadata=_forwarded(context))
        try:
            async for reply in replies:
                yield reply
        except FlowdexError as error:
            await _abort(context, error)
        except Exception:
            await _abort(context, incident())

    async def _call(self, requests: AsyncIterator[bytes], context: Context) -> AsyncIterator[bytes]:
        deadline, metadata = _deadline(context), _forwarded(context)
        window, in_order = self._settings.stream_window, False
        for key, value in context.invocation_metadata() or ():
            if key == "__results_in_order__":
                in_order = value == "true"
            elif key == "__prefetch__" and str(value).isdecimal() and int(value) > 0:
                window = min(int(value), self._settings.max_in_flight)

        async for reply in answer_stream(
            self._router, requests, window=window, in_order=in_order, deadline=deadline, metadata=metadata
        ):
            yield reply

    # ---- questions about the gateway ----

    async def _endpoint_discovery(self, request: bytes, context: Context) -> bytes:
        reply = pb.EndpointsProto(endpoints=list(self._router.endpoints()))
        for pool in reversed(list(self._pools.values())):  # the first executor's schema is what callers send
            reply.schemas.MergeFrom(pool.schemas)
        for name in set(reply.schemas.fields) - set(reply.endpoints):
            del reply.schemas.fields[name]
        return reply.SerializeToString()

    async def _dry_run(self, request: bytes, context: Context) -> bytes:
        return flow_readiness(self._pools).SerializeToString()

    async def _status(self, request: bytes, context: Context) -> bytes:
        versions = {"flowdex": version("flowdex"), "python": platform.python_version(), "grpcio": version("grpcio")}
        return pb.JinaInfoProto(jina=versions).SerializeToString()


# ---- helpers ----


def _try_port(host: str, port: int) -> None:
    """Fail if the port cannot be had, as gRPC would, but without the lines that gRPC writes to standard error."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))


def _token(context: Context) -> str | None:
    for key, value in context.invocation_metadata() or ():
        text = value if isinstance(value, str) else ""
        if key == "authorization":
            if text[:7].lower() == "bearer ":
                return text[7:].strip()
        elif key in ("x-api-key", "api-key"):
            return text.strip()
    return None


def _deadline(context: Context) -> float | None:
    left = context.time_remaining()
    return None if left is None else time.monotonic() + left


def _forwarded(context: Context) -> Metadata:
    return tuple((key, value) for key, value in context.invocation_metadata() or () if key in _FORWARDED)


async def _abort(context: Context, error: FlowdexError) -> NoReturn:
    trailing: Metadata = ()
    if error.retry_after is not None:
        trailing = (("retry-after-ms", str(round(1000 * error.retry_after))),)
    await context.abort(error.status.grpc, error.message, trailing)
