"""flowdex's gateway as a `jina.Gateway`, so that stock Jina can run a flow with it.

    jina flow --uses ./flow.yml --starts--> stock workers (our executors), and this gateway
                                              addresses, graph --> gateway.server.Gateway on the flow's ports

Named in a flow file as `gateway: {uses: flowdex_orchestrator.jina_gateway.FlowdexGateway}`; `flowdex gateway` serves
the same without Jina. Stock Jina's own gateway machinery (connection pools, HTTP application) is not started.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from jina import Gateway as JinaGateway

from flowdex.errors import ConfigurationError
from flowdex_orchestrator.access.guard import KEYS_VARIABLE, guard_of
from flowdex_orchestrator.access.network import open_gateway
from flowdex_orchestrator.gateway.server import Gateway
from flowdex_orchestrator.gateway.settings import ExecutorTarget, GatewaySettings
from flowdex_orchestrator.gateway.topology import GATEWAY

__all__ = ["FlowdexGateway", "targets_from_graph"]

_log = logging.getLogger(__name__)
_START, _END = "start-gateway", "end-gateway"


class FlowdexGateway(JinaGateway):  # type: ignore[misc]  # jina is not typed
    """Serves gRPC and HTTP on the ports of a flow that stock Jina runs.

    Args:
        **options: `GatewaySettings` (`gateway: uses_with:` in the flow file), among what stock Jina adds.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(req_handler=_NoRequestHandler(), **{**options, "req_handler_cls": None})
        known = {each.name for each in fields(GatewaySettings)}
        given = {name: value for name, value in options.items() if name in known and value is not None}
        self._settings = GatewaySettings.from_options(given)
        self._gateway: Gateway | None = None
        self._stopped = asyncio.Event()

    async def setup_server(self) -> None:
        """Open the ports, and wait until every executor is there: stock Jina calls the flow ready after this.

        Raises:
            ConfigurationError: A port cannot be had, or a protocol is none of grpc, http and websocket.
        """
        arguments = self.runtime_args
        ports: dict[str, int] = {}
        for protocol, port in zip(self.protocols, self.ports, strict=True):
            ports[str(getattr(protocol, "name", protocol)).lower()] = int(port)
        if unknown := sorted(set(ports) - {"grpc", "http", "websocket"}):
            raise ConfigurationError(
                f"FlowdexGateway serves grpc, http and websocket, not {', '.join(unknown)}: change `protocol:`"
            )
        targets = targets_from_graph(
            json.loads(arguments.graph_description),
            json.loads(arguments.deployments_addresses),
            timeout=arguments.timeout_send,
            retries=arguments.retries,
        )
        # Stock Jina listens on all addresses by default; here as there, what keeps others out is the operator's.
        path = os.environ.get(KEYS_VARIABLE)
        guard = guard_of(Path(path) if path else None)
        if open_gateway(self.host, keys=guard is not None, insecure=self._settings.insecure):
            _log.warning(
                "the flow is open to everybody who reaches %s: name a key file in %s", self.host, KEYS_VARIABLE
            )
        self._gateway = Gateway(targets, replace(self._settings, insecure=True), guard=guard)
        await self._gateway.serve(
            self.host,
            grpc_port=ports.get("grpc"),
            http_port=ports.get("http"),
            websocket_port=ports.get("websocket"),
        )
        while not self._gateway.ready and not self.is_cancel.is_set():  # noqa: ASYNC110 - any of three kinds of events
            await asyncio.sleep(0.02)

    async def run_server(self) -> None:
        """Serve until `shutdown`."""
        await self._stopped.wait()

    async def shutdown(self) -> None:
        """Refuse new requests, finish those in flight, close the connections."""
        if self._gateway is not None:
            await self._gateway.stop()
        self._stopped.set()
        await super().shutdown()


class _NoRequestHandler:
    """In the place of Jina's own, which would open connections to every executor."""


def targets_from_graph(
    graph: Mapping[str, Sequence[str]],
    addresses: Mapping[str, Sequence[str] | Mapping[str, Sequence[str]]],
    *,
    timeout: float | None = None,
    retries: int = -1,
) -> list[ExecutorTarget]:
    """The executors of a flow as stock Jina describes it to its gateway.

    Args:
        graph: For each executor those that follow it, between `start-gateway` and `end-gateway`.
        addresses: For each executor its addresses, or its addresses by protocol.
        timeout: Seconds for one call, None for no limit.
        retries: Further tries of a call, negative for the default.
    """
    names = {name for followers in graph.values() for name in followers} | set(graph)
    order = [name for name in addresses if name in names]
    # What leads to the end is the answer: it goes last. Other leaves only listen.
    order.sort(key=lambda name: _END in graph.get(name, ()))
    targets = []
    for name in order:
        found = addresses[name]
        found = found if not isinstance(found, Mapping) else found.get("GRPC") or found.get("grpc") or ()
        targets.append(
            ExecutorTarget(
                name=name,
                needs=tuple(
                    GATEWAY if each == _START else each for each, followers in graph.items() if name in followers
                ),
                addresses=tuple(address.removeprefix("grpc://") for address in found),
                timeout=timeout,
                retries=retries,
                floating=not graph.get(name),
            )
        )
    return targets
