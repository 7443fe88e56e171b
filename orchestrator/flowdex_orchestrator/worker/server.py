"""The life of an executor's process: listen, load, serve, drain.

    bind port --> health NOT_SERVING --> load and warm up, in a thread --> SERVING
                                              |                              | SIGTERM, SIGINT, parent gone
                                         raised, or stopped                  v
                                              |              NOT_SERVING, refuse, finish what is in flight
                                              v                              v
                                            ended <------------------- executor.close()

The port is bound first so that whoever starts the process can watch it, and so that a taken port is known at once and
not after a model has been loaded.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import os
import signal
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import grpc

from flowdex.certificates import CertificateFiles
from flowdex.collector import settle
from flowdex.errors import ConfigurationError
from flowdex.proto import flowdex_pb2 as pb
from flowdex.proto.reflection import EXECUTOR_SERVICES, descriptor_pool
from flowdex.timeouts import within
from flowdex_orchestrator import local_socket
from flowdex_orchestrator.access.network import check_executor
from flowdex_orchestrator.health import HEALTH_SERVICE, HealthService
from flowdex_orchestrator.observability.endpoint import CONTENT_TYPE, Page, serve_metrics
from flowdex_orchestrator.processes import watch_parent
from flowdex_orchestrator.tls import listen
from flowdex_orchestrator.traits import Traits
from flowdex_orchestrator.worker.canary import Canary
from flowdex_orchestrator.worker.endpoints import EndpointTable
from flowdex_orchestrator.worker.metrics import WorkerMetrics
from flowdex_orchestrator.worker.service import ExecutorService

if TYPE_CHECKING:
    from jina import Executor

    from flowdex_orchestrator.observability.tracing import Tracing

__all__ = ["ServerOptions", "serve"]

log = logging.getLogger(__name__)

MEBIBYTE = 1 << 20
_ORPHAN_GRACE = 1.0  # seconds for requests in flight once the parent is gone: nobody waits for most of them


@dataclass(frozen=True)
class ServerOptions:
    """How to serve.

    Attributes:
        host: Address to listen on.
        port: Port to listen on; 0 takes any free one.
        max_message_bytes: Largest request and reply.
        max_connection_age: Seconds after which a client has to connect anew, so that clients behind a name with
            several addresses find new ones; None for never.
        grace: Seconds to finish requests in flight after SIGTERM.
        stacks: Whether error replies carry the traceback.
        parent_pid: Process whose end ends this one.
        certificates: What to encrypt with; None for no TLS.
        insecure: Whether it may listen beyond this machine though callers need no certificate.
        replica: Number of this replica, for its metrics.
        metrics_host: Address to listen on for Prometheus.
        metrics_port: Port for it; 0 takes any free one, None opens none.
        canary_period: Seconds between two canaries, None for none.
        tracing: Makes spans; None for none.
    """

    host: str = "127.0.0.1"
    port: int = 0
    max_message_bytes: int = 64 * MEBIBYTE
    max_connection_age: float | None = None
    grace: float = 30.0
    stacks: bool = False
    parent_pid: int | None = None
    certificates: CertificateFiles | None = None
    insecure: bool = False
    replica: int = 0
    metrics_host: str = "127.0.0.1"
    metrics_port: int | None = None
    canary_period: float | None = 10.0
    tracing: Tracing | None = None


async def serve(name: str, load: Callable[[], Executor], options: ServerOptions) -> None:
    """Serve an executor until the process is asked to end.

    Args:
        name: The executor's name in the flow.
        load: Makes the executor; called in a thread.
        options: Where and how.

    Raises:
        ConfigurationError: The port cannot be bound, or everybody on the network could call.
        BaseException: Whatever `load` or the executor's `warm_up` raises, `SystemExit` included.
    """
    mutual = options.certificates is not None and options.certificates.ca is not None
    check_executor(options.host, mutual=mutual, insecure=options.insecure)
    stop = _Stop(options)
    health = HealthService(EXECUTOR_SERVICES)
    metrics = WorkerMetrics(
        name,
        options.replica,
        in_flight=lambda: service.in_flight,
        ready=lambda: health.serving,
        certificates=options.certificates,
    )
    service = ExecutorService(
        name,
        stacks=options.stacks,
        largest=options.max_message_bytes,
        age=options.max_connection_age,
        observe=metrics.observe,
        tracing=options.tracing,
    )
    server, port = _listen(service, health, options)
    await server.start()
    stop.watch()
    log.info("executor %s listens on %s:%d and loads", name, options.host, port)
    if options.metrics_port is not None:
        page = Page(metrics.expose, CONTENT_TYPE)
        serve_metrics({"/metrics": page}, options.metrics_host, options.metrics_port)
    started = time.monotonic()
    loading = _in_thread(lambda loop: _load(load, name, loop))
    either: set[asyncio.Future[Any]] = {loading, stop.requested}
    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    if not loading.done() or loading.result().error is not None:
        await server.stop(None)
        if loading.done() and (error := loading.result().error) is not None:
            raise error
        return

    executor, endpoints, discovery, info = cast(_Loaded, loading.result().value)
    canary = _canary(executor, options, metrics, health)
    if canary is not None:
        await canary.start()
    metrics.open(executor, endpoints, canary)
    local, name_of_local = await _listen_locally(service, options)
    traits = replace(Traits.of(executor), local_socket=name_of_local)
    service.open(endpoints, discovery, info, traits, canary)
    health.set(True)
    log.info("executor %s is ready after %.1f s: %s", name, time.monotonic() - started, ", ".join(endpoints.paths))
    await stop.requested
    log.info("executor %s finishes what is in flight and ends", name)
    health.close()
    if canary is not None:
        await canary.stop()
    await _drain(server, service, stop.grace)
    if local is not None:
        local.close()
    endpoints.close()
    if options.tracing is not None:
        await asyncio.to_thread(options.tracing.close)
    closed = executor.close()
    if inspect.isawaitable(closed):
        await closed


def _canary(executor: Executor, options: ServerOptions, metrics: WorkerMetrics, health: HealthService) -> Canary | None:
    """What watches the executor, if it has a canary and one is wanted."""
    ask: Callable[[], Awaitable[float | None]] | None = getattr(executor, "canary", None)
    if ask is None or options.canary_period is None:
        return None
    return Canary(
        ask, options.canary_period, served=metrics.work_done, changed=lambda problem: health.set(not problem, problem)
    )


# ---- listening ----


def _listen(service: ExecutorService, health: HealthService, options: ServerOptions) -> tuple[grpc.aio.Server, int]:
    from grpc_health.v1 import health_pb2
    from grpc_reflection.v1alpha import reflection

    server = grpc.aio.server(options=_channel_options(options))
    server.add_generic_rpc_handlers([*service.handlers(), health.handler()])
    names = (*EXECUTOR_SERVICES, HEALTH_SERVICE, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(names, server, pool=descriptor_pool([health_pb2.DESCRIPTOR]))
    host = f"[{options.host}]" if ":" in options.host else options.host
    try:
        return server, listen(server, f"{host}:{options.port}", options.certificates)
    except RuntimeError:
        raise ConfigurationError(
            f"cannot listen on {host}: port {options.port} is already in use, or the address is not this machine's"
        ) from None


async def _listen_locally(
    service: ExecutorService, options: ServerOptions
) -> tuple[asyncio.AbstractServer | None, str]:
    """A socket for gateways on this machine, and its name; none where all is to be encrypted."""
    name = local_socket.new_name()
    if name is None or options.certificates is not None:
        return None, ""
    try:
        return await local_socket.serve(name, service.serve_local, options.max_message_bytes), name
    except OSError as error:
        log.debug("no local socket, gRPC serves as well: %s", error)
        return None, ""


def _channel_options(options: ServerOptions) -> list[tuple[str, int]]:
    values = [
        ("grpc.so_reuseport", 0),  # two processes on one port would share its connections, unnoticed
        ("grpc.max_receive_message_length", options.max_message_bytes),
        ("grpc.max_send_message_length", options.max_message_bytes),
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.http2.ping_timeout_ms", 20_000),  # of its own pings, beside which it sends no other
        ("grpc.http2.min_ping_interval_without_data_ms", 1_000),  # gateways ping idle connections
        ("grpc.keepalive_permit_without_calls", 1),
    ]
    if options.max_connection_age is not None:
        values.append(("grpc.max_connection_age_ms", int(options.max_connection_age * 1000)))
    return values


async def _drain(server: grpc.aio.Server, service: ExecutorService, grace: float) -> None:
    """Refuse new requests, and end when those in flight are answered or `grace` seconds have passed.

    gRPC's own stop would also wait for every idle client to agree, which takes one that does not listen 20 s.
    """
    refusing = asyncio.ensure_future(server.stop(grace))
    with contextlib.suppress(asyncio.TimeoutError):
        await within(service.drain(), grace)
    await server.stop(None)
    await refusing


# ---- loading ----

_Loaded = tuple["Executor", EndpointTable, pb.EndpointsProto, pb.JinaInfoProto]


@dataclass(frozen=True)
class _Result:
    value: Any = None
    error: BaseException | None = None


def _load(load: Callable[[], Executor], name: str, loop: asyncio.AbstractEventLoop) -> _Loaded:
    from flowdex_orchestrator.worker.discovery import describe_endpoints, describe_software

    asyncio.set_event_loop(loop)  # for constructors that ask for it, as under Jina, where they run on the loop
    executor = load()
    endpoints = EndpointTable(executor, name)
    discovery, info = describe_endpoints(executor), describe_software()
    if getattr(executor, "dynamic_batching", None):
        log.warning("executor %s: dynamic batching is not applied, every request is one call", name)
    warm_up: Callable[[], Awaitable[None] | None] | None = getattr(executor, "warm_up", None)
    if warm_up is not None:
        waited_for = warm_up()
        if inspect.isawaitable(waited_for):
            asyncio.run_coroutine_threadsafe(cast(Coroutine[Any, Any, None], waited_for), loop).result()
    settle()
    return executor, endpoints, discovery, info


def _in_thread(work: Callable[[asyncio.AbstractEventLoop], Any]) -> asyncio.Future[_Result]:
    """Run `work` in a daemon thread, which unlike a pool's does not keep the process from ending.

    What it raises is part of the result, because an event loop does not survive a `SystemExit` in a future.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[_Result] = loop.create_future()

    def finish(result: _Result) -> None:
        if not future.done():
            future.set_result(result)

    def run() -> None:
        try:
            result = _Result(work(loop))
        except BaseException as error:  # handed over, not swallowed
            result = _Result(error=error)
        with contextlib.suppress(RuntimeError):  # the loop has ended: the process was told to stop while it loaded
            loop.call_soon_threadsafe(finish, result)

    threading.Thread(target=run, name="load", daemon=True).start()
    return future


# ---- ending ----


class _Stop:
    """When to end, and how much time is left for that then."""

    def __init__(self, options: ServerOptions) -> None:
        self._options = options
        self._loop = asyncio.get_running_loop()
        self.requested: asyncio.Future[None] = self._loop.create_future()
        self.grace = options.grace

    def watch(self) -> None:
        """Listen for signals and for the death of the parent."""
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._on_signal, number)
        if self._options.parent_pid is not None:
            watch_parent(
                self._options.parent_pid,
                self._call_from_thread,
                grace=_ORPHAN_GRACE + 0.5,
            )

    def _on_signal(self, number: int) -> None:
        if self.requested.done() and number == signal.SIGINT:
            os._exit(130)  # the second Ctrl-C: somebody is impatient
        self._request()

    def _call_from_thread(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended already
            self._loop.call_soon_threadsafe(self._on_orphaned)

    def _on_orphaned(self) -> None:
        log.warning("the process that started this one has ended")
        self.grace = _ORPHAN_GRACE
        self._request()

    def _request(self) -> None:
        if not self.requested.done():
            self.requested.set_result(None)
