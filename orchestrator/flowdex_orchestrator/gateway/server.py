"""The gateway as a whole: replicas, router and both servers on one event loop, from start to drain.

async with Gateway(targets, settings) as gateway:
    await gateway.serve(host, grpc_port=51000, http_port=8080)    # answers from here on
    await gateway.wait_ready()                                    # every executor has a ready replica
# leaving: refuse new requests, finish those in flight, close all connections
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any

from flowdex.certificates import CertificateFiles
from flowdex.errors import ConfigurationError, NotFound
from flowdex_orchestrator.access.network import check_gateway
from flowdex_orchestrator.gateway.grpc_server import GrpcServer
from flowdex_orchestrator.gateway.names import SCHEME, NameWatch, Resolve, resolve
from flowdex_orchestrator.gateway.replicas import ReplicaPool
from flowdex_orchestrator.gateway.router import Router
from flowdex_orchestrator.gateway.settings import LIVE, ExecutorTarget, GatewaySettings, options_of
from flowdex_orchestrator.gateway.status import STATUS_ENDPOINT, metrics_text, status_results
from flowdex_orchestrator.gateway.topology import GATEWAY, Topology
from flowdex_orchestrator.tls import Hop

if TYPE_CHECKING:
    from flowdex_orchestrator.access import Guard
    from flowdex_orchestrator.flow import Flow
    from flowdex_orchestrator.flow.bert import Bert
    from flowdex_orchestrator.gateway.admin import GatewayAdmin
    from flowdex_orchestrator.gateway.bert.server import BertServer
    from flowdex_orchestrator.gateway.bert.service import BertService
    from flowdex_orchestrator.gateway.http.server import HttpServer
    from flowdex_orchestrator.observability.endpoint import MetricsServer
    from flowdex_orchestrator.observability.tracing import Tracing

__all__ = ["Gateway", "settings_from_flow", "targets_from_flow"]

_METRICS_SECONDS = 5.0  # for the metrics to be put together, executors' answers included


class Gateway:
    """A gateway in this event loop.

    Args:
        targets: The executors, in the order of the flow file.
        settings: Limits and habits.
        name: The flow's name, for people to read.
        resolve: How the names of `dns:///` addresses are resolved.
        bert: What clients of bert-as-service get; its defaults where not given.
        tracing: Makes spans; None for none.
        guard: Who may call; everybody where not given.
        certificates: What gRPC, HTTP and WebSockets are encrypted with; None for no TLS.

    Attributes:
        router: Answers requests.
        pools: The replicas of each executor; `pools[name].add(address)` and `.remove(address)` work at any time.
        targets: As given.
        host: Where it listens.
        ports: The open ports, by protocol.
        stopping: Set when no new requests are taken any more.
        runner_token: What that runner must be told; known where keys say who may ask.
        runner: Address of the runner that started it, for what is asked of that; None without one.
        guard: Who may call, None for everybody.
    """

    def __init__(
        self,
        targets: Sequence[ExecutorTarget],
        settings: GatewaySettings | None = None,
        *,
        name: str = "flowdex",
        resolve: Resolve = resolve,
        bert: Bert | None = None,
        guard: Guard | None = None,
        certificates: CertificateFiles | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        self.name = name
        self.certificates = certificates
        self.targets = tuple(targets)
        self.settings = settings or GatewaySettings()
        self.host = "127.0.0.1"
        self.ports: dict[str, int] = {}
        self.runner: str | None = None
        self.started = time.monotonic()
        self._ready = asyncio.Event()
        self.stopping = asyncio.Event()
        topology = Topology(
            {target.name: target.needs for target in targets}, [target.name for target in targets if target.floating]
        )
        self.pools: dict[str, ReplicaPool] = {}
        self.guard = guard
        self.router = Router(topology, self.pools, self.settings, guard, tracing)
        self._tracing = tracing
        self.router.answer(STATUS_ENDPOINT, lambda: status_results(self))
        self.router.answer("/bert/status", self._bert_status)
        self._grpc = GrpcServer(self.router, self.pools, self.settings, guard, certificates)
        self._web: list[HttpServer] = []
        self._bert: BertServer | None = None
        self.runner_token: str | None = None
        self._bert_settings = bert
        self._bert_service: BertService | None = None
        self._admin: GatewayAdmin | None = None
        self._metrics: MetricsServer | None = None
        self._names: dict[str, list[NameWatch]] = {}
        for target in targets:
            pool = self.pools[target.name] = ReplicaPool(
                target.name,
                [address for address in target.addresses if not address.startswith(SCHEME)],
                timeout=target.timeout,
                retries=target.retries if target.retries >= 0 else self.settings.replica_retries,
                wait=self.settings.replica_wait,
                hop=Hop(target.certificates),
                on_change=partial(self._changed, target.name),
                largest=self.settings.max_reply_bytes,
            )
            names = [address for address in target.addresses if address.startswith(SCHEME)]
            self._names[target.name] = [NameWatch(pool, name, resolve=resolve) for name in names]

    async def __aenter__(self) -> Gateway:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def ready(self) -> bool:
        """Whether every executor has a replica that takes calls, and the gateway is not stopping."""
        return self._ready.is_set() and not self.stopping.is_set()

    @property
    def problem(self) -> str:
        """Why it is not ready; empty if it is."""
        if self.stopping.is_set():
            return "the gateway is stopping"
        missing = self.missing()
        return f"no replica is ready of executor {', '.join(missing)}" if missing else ""

    def missing(self) -> list[str]:
        """The executors without a ready replica."""
        return [name for name, pool in self.pools.items() if not pool.ready]

    @property
    def bert(self) -> BertService:
        """What answers in bert-as-service's name, over ZeroMQ and HTTP."""
        if self._bert_service is None:
            from flowdex_orchestrator.flow.bert import Bert
            from flowdex_orchestrator.gateway.bert.service import BertService

            self._bert_service = BertService(self, self._bert_settings or Bert())
        return self._bert_service

    async def serve(
        self,
        host: str,
        *,
        grpc_port: int | None = None,
        http_port: int | None = None,
        websocket_port: int | None = None,
        bert_ports: tuple[int, int] | None = None,
    ) -> dict[str, int]:
        """Open the ports (0 for any free one, None for not at all) and answer from now on.

        Args:
            host: Address to listen on.
            grpc_port: For gRPC.
            http_port: For HTTP, and the WebSockets of Jina's clients.
            websocket_port: For the same again, on a port of its own.
            bert_ports: For bert-as-service's protocol: requests, replies.

        Returns:
            The ports, by protocol.

        Raises:
            ConfigurationError: A port cannot be had, what a protocol needs is not installed, or everybody on the
                network could call.
        """
        mutual = self.certificates is not None and self.certificates.ca is not None
        check_gateway(host, keys=mutual or self.guard is not None, insecure=self.settings.insecure)
        self.host, ports = host, self.ports
        if grpc_port is not None:
            ports["grpc"] = await self._grpc.start(host, grpc_port)
        web = {"http": http_port, "websocket": websocket_port}
        for protocol, port in ((name, port) for name, port in web.items() if port is not None):
            try:
                from flowdex_orchestrator.gateway.http.server import HttpServer
            except ModuleNotFoundError as error:
                raise ConfigurationError(
                    f"HTTP needs {error.name!r}, which is not installed: pip install 'flowdex[gateway]'"
                ) from None
            server = HttpServer(self)
            ports[protocol] = await server.start(host, port)
            self._web.append(server)
        if bert_ports is not None:
            if self.guard is not None and not self.settings.bert_without_key:
                raise ConfigurationError(
                    "protocol: bert carries no keys, and this gateway asks for them: take it out of `protocol` and "
                    "have clients use flowdex.compat.BertClient, or say `gateway: bert: {without_key: true}`"
                )
            try:
                from flowdex_orchestrator.gateway.bert.server import BertServer
            except ModuleNotFoundError as error:
                raise ConfigurationError(
                    f"protocol: bert needs {error.name!r}, which is not installed: pip install 'flowdex[zeromq]'"
                ) from None
            self._bert = BertServer(self.bert, self.settings)
            ports.update(await self._bert.start(host, *bert_ports))
        return ports

    def serve_metrics(self, host: str, port: int) -> int | None:
        """Let Prometheus read the metrics at a port of their own; `GET /metrics` of the HTTP API gives the same.

        Args:
            host: Address to listen on.
            port: 0 for any free one.

        Returns:
            The port, None where it cannot be had.
        """
        from flowdex_orchestrator.observability.endpoint import CONTENT_TYPE, Page, serve_metrics

        loop = asyncio.get_running_loop()

        def text() -> bytes:  # in a thread; what is counted belongs to the event loop
            return asyncio.run_coroutine_threadsafe(metrics_text(self), loop).result(_METRICS_SECONDS)

        self._metrics = serve_metrics({"/metrics": Page(text, CONTENT_TYPE)}, host, port)
        return self._metrics.port if self._metrics is not None else None

    async def serve_admin(self, port: int, token: str) -> str:
        """Let a runner on this machine change the addresses of replicas, at a loopback port.

        Args:
            port: 0 for any free one.
            token: What the runner must know.

        Returns:
            The address.

        Raises:
            ConfigurationError: The port is taken.
        """
        from flowdex_orchestrator.gateway.admin import GatewayAdmin

        self._admin = GatewayAdmin(self, token)
        return await self._admin.server.start(port)

    def set_addresses(self, executor: str, addresses: Sequence[str], *, drain: float = 30.0) -> Awaitable[None]:
        """Make these the replicas of an executor: the new ones are added and the others take no new calls, at once.

        Returns:
            To be awaited: the end of the calls in flight on those removed, or `drain` seconds.
        """
        pool = self.pools[executor]
        gone = [replica.address for replica in pool.replicas if replica.address not in addresses]
        for address in addresses:
            pool.add(address)
        removals = [asyncio.ensure_future(pool.remove(address, drain=drain)) for address in gone]
        return _all(removals)

    def configure(self, settings: GatewaySettings, calls: Mapping[str, Mapping[str, Any]]) -> None:
        """Go by other settings from now on, as far as they can change while requests come.

        Args:
            settings: Of which those that `LIVE` names are taken over.
            calls: By executor, how it is called: `timeout` in seconds or None, and `retries`, negative for the default.

        Raises:
            NotFound: There is no such executor.
        """
        if unknown := [name for name in calls if name not in self.pools]:
            raise NotFound(f"the gateway has no executor {unknown[0]!r}, only {', '.join(self.pools)}")
        self.settings = replace(self.settings, **{name: getattr(settings, name) for name in LIVE})
        self.router.configure(self.settings)
        self._grpc.configure(self.settings)
        for name, values in calls.items():
            retries = values["retries"] if values["retries"] >= 0 else self.settings.replica_retries
            self.pools[name].configure(timeout=values["timeout"], retries=retries, wait=self.settings.replica_wait)

    async def wait_ready(self) -> None:
        """Return once every executor has a ready replica."""
        await self._ready.wait()

    async def stop(self) -> None:
        """Refuse new requests, finish those in flight (up to `settings.drain` seconds), close all connections."""
        self.stopping.set()
        if self._admin is not None:
            await self._admin.server.stop()
        if self._metrics is not None:
            await asyncio.to_thread(self._metrics.close)
        servers = [self._grpc.stop(self.settings.drain), *(server.stop() for server in self._web)]
        if self._bert is not None:
            servers.append(self._bert.stop())
        await asyncio.gather(*servers)
        await asyncio.gather(*(watch.close() for watches in self._names.values() for watch in watches))
        await asyncio.gather(*(pool.close() for pool in self.pools.values()))
        if self._tracing is not None:
            await asyncio.to_thread(self._tracing.close)

    async def _bert_status(self) -> dict[str, Any]:
        """What our own BertClient asks for, as results of an endpoint."""
        return {GATEWAY: self.bert.status()}

    def _changed(self, executor: str) -> None:
        for watch in self._names.get(executor, ()):
            watch.look_again()
        self.router.forget_plans()
        if self.missing():
            self._ready.clear()
        else:
            self._ready.set()
        self._grpc.health.set(self.ready, self.problem)


async def _all(tasks: Sequence[asyncio.Future[None]]) -> None:
    await asyncio.gather(*tasks)


def settings_from_flow(flow: Flow) -> GatewaySettings:
    """The settings of a flow file: `gateway: uses_with:`, and those keys of `gateway` or `with` that are Jina's.

    Raises:
        ConfigurationError: A setting is unknown or wrong.
    """
    return GatewaySettings.from_options(options_of(flow))


def targets_from_flow(flow: Flow, addresses: Mapping[str, Sequence[str]] | None = None) -> list[ExecutorTarget]:
    """The executors of a flow file.

    Args:
        flow: The flow.
        addresses: `host:port` of the replicas, by executor; those it does not name are at the file's host and port.

    Raises:
        ConfigurationError: An address belongs to no executor, or an executor has none.
    """
    from flowdex_orchestrator.flow.certificates import hop_files

    addresses = addresses or {}
    for name in addresses:
        flow.executor(name)
    needs = flow.predecessors()
    targets = []
    for executor in flow.executors:
        found = tuple(addresses.get(executor.name, ())) or tuple(executor.addresses())
        if not found:
            raise ConfigurationError(
                f"where executor {executor.name!r} runs is not known: give --address {executor.name}=HOST:PORT, "
                "or its `port:` in the flow file"
            )
        targets.append(
            ExecutorTarget(
                name=executor.name,
                needs=tuple(needs[executor.name]),
                addresses=found,
                timeout=executor.send_timeout or flow.gateway.send_timeout,
                retries=executor.retries if executor.retries >= 0 else flow.gateway.retries,
                floating=executor.floating,
                certificates=hop_files(flow, executor),
                uses=executor.uses if isinstance(executor.uses, str) else "",
            )
        )
    return targets
