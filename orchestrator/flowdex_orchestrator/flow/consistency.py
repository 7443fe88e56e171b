"""Keys that are right by themselves and wrong together.

    gateway, executor --> [(path, message)] --InconsistentFlow--> the loader, which knows the lines

The graph's own rules are in topology.py.
"""

from __future__ import annotations

from collections.abc import Sequence

from flowdex_orchestrator.flow.findings import KeyPath, format_key
from flowdex_orchestrator.flow.sections import Executor, Gateway

__all__ = ["InconsistentFlow", "address_problems", "gateway_problems"]


class InconsistentFlow(ValueError):
    """Keys that are right by themselves and wrong together; `problems` are (path, message)."""

    def __init__(self, problems: Sequence[tuple[KeyPath, str]]) -> None:
        super().__init__("; ".join(f"{format_key(path)}: {message}" for path, message in problems))
        self.problems = list(problems)


def gateway_problems(gateway: Gateway) -> list[tuple[KeyPath, str]]:
    """What is wrong with the gateway's ports and protocols taken together."""
    protocols, ports = gateway.protocols, gateway.ports
    key: KeyPath = ("gateway", "port")
    if ports and len(ports) != len(protocols):
        return [(key, f"expected one port for each of {', '.join(protocols)}, got {len(ports)}")]
    named = [port for _, port in gateway.listeners() if port]
    if len(set(named)) < len(named):
        if gateway.bert.port_out is not None and len(set(ports)) == len(ports):
            return [(("gateway", "bert", "port_out"), "expected a port that no protocol has")]
        hint = "; bert takes the one after its port too (gateway.bert.port_out)" if "bert" in protocols else ""
        return [(key, f"expected different ports for the protocols{hint}")]
    if 65536 in named:
        return [(key, "expected a port below 65535 for bert, which takes the next one too (gateway.bert.port_out)")]
    return []


def address_problems(executor: Executor) -> list[tuple[KeyPath, str]]:
    """What is wrong with an executor's hosts, ports and replicas taken together."""
    hosts, ports, replicas = len(executor.hosts), len(executor.ports), executor.replicas
    if min(hosts, ports) > 1 and hosts != ports:
        return [(("port",), f"expected one port for each of the {hosts} hosts, or one for all, got {ports}")]
    if executor.tls is not None and not executor.external and executor.tls.certificate is None:
        return [(("tls",), "an executor of the flow needs a certificate and its key: {certificate: FILE, key: FILE}")]
    if executor.external:
        return _external_problems(executor)
    if hosts > 1:
        return [(("host",), "expected one host: only an `external: true` executor has several")]
    if ports > 1 and ports != replicas:
        return [(("port",), f"expected one port for each of the {replicas} replicas, got {ports}")]
    return []


def _external_problems(executor: Executor) -> list[tuple[KeyPath, str]]:
    addresses, replicas = executor.addresses(), executor.replicas
    if not addresses:
        return [(("external",), "an external executor needs the `port` (and `host`) where it listens")]
    if replicas not in (1, len(addresses)):
        return [(("replicas",), f"expected {len(addresses)}, one for each address, or no `replicas`, got {replicas}")]
    return []
