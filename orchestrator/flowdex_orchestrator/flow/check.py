"""Everything about a flow that can be known to fail before it starts.

    Flow --+-- keys and settings          (here)
           +-- ports                      (here: bind and let go)
       +-- certificate files          (certificates.py)
           +-- classes, arguments, hooks  (probe.py, one process for all executors: it imports Jina and their code)
           +-- facts of the hooks         (here: dimensions along the graph, replicas of an embedded index)
           +--> list[Finding], in the order of the file

Mistakes of the file itself (types, names, cycles) are found earlier, by `load_flow`.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from flowdex.errors import ConfigurationError
from flowdex_orchestrator.access.guard import keys_path
from flowdex_orchestrator.access.keys import read_keys
from flowdex_orchestrator.access.network import open_executor, open_gateway
from flowdex_orchestrator.flow.certificates import certificate_findings
from flowdex_orchestrator.flow.classes import inspect_classes
from flowdex_orchestrator.flow.findings import Finding, KeyPath
from flowdex_orchestrator.flow.model import Executor, Flow
from flowdex_orchestrator.flow.topology import GATEWAY
from flowdex_orchestrator.gpus import VISIBLE, count_gpus

__all__ = ["Inspection", "bind_error", "check_flow", "inspect_flow", "named_ports"]

_SERVED = ("grpc", "http", "websocket", "bert")
_WITHOUT_EFFECT = {
    "polling": "flowdex runs one shard of an executor, so there is nothing to poll",
    "shards": "flowdex runs one shard of an executor; an embedded index has its own (uses_with.shards), and so has a "
    "remote Qdrant (uses_with.server.shards); `replicas` share the load",
    "uvicorn_kwargs": "flowdex starts uvicorn with its own options",
    "volumes": "only containers have volumes; a process sees all of this machine's folders",
}


@dataclass(frozen=True)
class Inspection:
    """What is known of a flow before it starts.

    Attributes:
        findings: Errors and warnings, in the order of the file.
        facts: What the class of each executor, by its index, says of itself; see `hooks.Facts`.
    """

    findings: list[Finding]
    facts: Mapping[int, Mapping[str, Any]]


def check_flow(
    flow: Flow,
    *,
    ports: bool = True,
    classes: bool = True,
    folder: Path | None = None,
    timeout: float = 60.0,
) -> list[Finding]:
    """The findings of `inspect_flow`, which takes the same arguments."""
    return inspect_flow(flow, ports=ports, classes=classes, folder=folder, timeout=timeout).findings


def inspect_flow(
    flow: Flow,
    *,
    ports: bool = True,
    classes: bool = True,
    folder: Path | None = None,
    timeout: float = 60.0,
) -> Inspection:
    """Find what would keep a flow from starting, or from doing what its file says.

    Args:
        flow: The flow.
        ports: Whether to try the ports that it names.
        classes: Whether to import the executors' classes (some seconds) and ask what they know.
        folder: The folder the processes will run in; the flow file's by default.
        timeout: Seconds for the imports of all executors together.

    Returns:
        The findings, and what the executors' classes say of themselves where they were imported.
    """
    facts: Mapping[int, Mapping[str, Any]] = {}
    findings = [*_keys(flow), *_gateway(flow), *_autoscale(flow), *_gpus(flow), *_same_ports(flow)]
    findings += certificate_findings(flow)
    if ports:
        findings += _taken_ports(flow)
    if classes:
        found, facts = inspect_classes(flow, folder or flow.folder, timeout)
        findings += [*found, *_dimensions(flow, facts), *_embedded(flow, facts)]
    return Inspection(sorted(findings, key=lambda finding: (finding.line or 0, finding.column or 0)), facts)


def _keys(flow: Flow) -> Iterator[Finding]:
    """Keys of Jina that flowdex accepts and does not act on."""
    sections: list[tuple[KeyPath, list[str]]] = [(("with",), flow.settings.unused), (("gateway",), flow.gateway.unused)]
    sections += [(("executors", index), executor.unused) for index, executor in enumerate(flow.executors)]
    for path, keys in sections:
        for key in keys:
            yield flow.finding((*path, key), "flowdex accepts this key of Jina but does not act on it", "warning")
    used: list[tuple[KeyPath, set[str]]] = [
        (("with",), flow.settings.model_fields_set),
        (("gateway",), flow.gateway.model_fields_set),
        *((("executors", index), executor.model_fields_set) for index, executor in enumerate(flow.executors)),
    ]
    inherited = {
        flow.finding((*path, key), reason, "warning"): None
        for path, keys in used
        for key, reason in _WITHOUT_EFFECT.items()
        if key in keys
    }
    yield from inherited  # each once, though every executor may have it from `with`


def _autoscale(flow: Flow) -> Iterator[Finding]:
    for index, executor in enumerate(flow.executors):
        if executor.autoscale is not None and executor.autoscale.queue_ms is None:
            yield flow.finding(
                ("executors", index, "autoscale", "target_cpu"),
                "target_cpu is for clusters; on one machine `target_queue_ms` scales",
                "warning",
            )


def _gateway(flow: Flow) -> Iterator[Finding]:
    for protocol in flow.gateway.protocols:
        if protocol not in _SERVED:
            yield flow.finding(("gateway", "protocol"), f"the gateway serves {', '.join(_SERVED)}, not {protocol}")
    yield from _access(flow)
    if "bert" in flow.gateway.protocols and find_spec("zmq") is None:
        yield flow.finding(("gateway", "protocol"), "bert needs pyzmq: pip install 'flowdex[zeromq]'")
    if "bert" in flow.gateway.protocols and flow.gateway.serving_tls is not None:
        yield flow.finding(
            ("gateway", "tls"),
            "the ports of bert stay without encryption, which their protocol (ZeroMQ) does not have: keep them on "
            "127.0.0.1, or leave bert out",
            "warning",
        )
    if flow.gateway.uses_with:
        from flowdex_orchestrator.gateway.settings import GatewaySettings

        try:
            GatewaySettings.from_options(flow.gateway.uses_with)
        except ConfigurationError as error:
            options = flow.gateway.uses_with
            named = [name for name in options if repr(name) in error.message or f".{name} " in error.message]
            yield flow.finding(("gateway", "uses_with", *named[:1]), error.message)


def _access(flow: Flow) -> Iterator[Finding]:
    """Keys that cannot be read, and what would be open to everybody."""
    path = keys_path(flow)
    place = ("gateway", "keys" if flow.gateway.keys is not None else "host")
    if path is not None:
        try:
            read_keys(path)
        except ConfigurationError as error:
            yield flow.finding(place, error.message)
        if "bert" in flow.gateway.protocols and not flow.gateway.bert.without_key:
            yield flow.finding(
                ("gateway", "protocol"),
                "bert carries no keys, and this gateway asks for them: take it out, or say `bert: {without_key: true}`",
            )
    mutual = flow.gateway.serving_tls is not None and flow.gateway.serving_tls.client_ca is not None
    if reason := open_gateway(flow.gateway.host, keys=mutual or path is not None, insecure=flow.gateway.insecure):
        yield flow.finding(("gateway", "host"), reason)
    for index, executor in enumerate(flow.executors):
        if executor.external:
            continue
        mutual = executor.tls is not None and executor.tls.ca is not None
        reasons = (open_executor(host, mutual=mutual, insecure=executor.insecure) for host in executor.hosts)
        if reason := next(filter(None, reasons), None):
            yield flow.finding(("executors", index, "host"), reason)


# ---- machine ----


def named_ports(flow: Flow) -> Iterator[tuple[KeyPath, str, int]]:
    """(key, host, port) of every port that the flow will listen on and the file names."""
    own = flow.gateway.bert.port_out is not None
    for protocol, port in flow.gateway.listeners():
        if port:
            place = ("gateway", "bert", "port_out") if own and protocol == "bert-out" else ("gateway", "port")
            yield place, flow.gateway.host, port
    for index, executor in enumerate(flow.executors):
        if not executor.external:
            for port in executor.ports:
                if port:
                    yield ("executors", index, "port"), executor.hosts[0], port


def _same_ports(flow: Flow) -> Iterator[Finding]:
    owners: dict[int, str] = {}
    for key, _, port in named_ports(flow):
        owner = flow.executors[key[1]].name if isinstance(key[1], int) else "the gateway"
        if owners.setdefault(port, owner) != owner:
            yield flow.finding(key, f"port {port} is also that of {owners[port]}")


def _taken_ports(flow: Flow) -> Iterator[Finding]:
    for key, host, port in named_ports(flow):
        if reason := bind_error(host, port):
            yield flow.finding(key, reason)


def bind_error(host: str, port: int) -> str:
    """Why no server can listen there now; empty where one can."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return f"port {port} is taken: stop what listens there, or choose another"
            if error.errno == errno.EACCES:
                return f"port {port} is reserved to the system's administrator: choose one above 1023"
            if error.errno == errno.EADDRNOTAVAIL or isinstance(error, socket.gaierror):
                return f"{host} is no address of this machine"
            return f"cannot listen on {host}:{port}: {error.strerror}"
    return ""


def _gpus(flow: Flow) -> Iterator[Finding]:
    wanted = [(index, executor) for index, executor in enumerate(flow.executors) if _gpu_count(executor)]
    if not wanted:
        return
    visible = _visible_gpus()
    for index, executor in wanted:
        if _gpu_count(executor) > visible:
            yield flow.finding(
                ("executors", index, "gpus"),
                f"it asks for {_gpu_count(executor)} GPU{'s' if _gpu_count(executor) > 1 else ''}, "
                f"{visible or 'none'} {'are' if visible > 1 else 'is'} visible here",
                "warning",
            )


def _gpu_count(executor: Executor) -> int:
    """The least number of GPUs that satisfies `gpus`."""
    if executor.gpus is None or executor.external:
        return 0
    if executor.gpus.isdigit():
        return int(executor.gpus)
    return max(1, executor.gpus.count("device="))


def _visible_gpus() -> int:
    chosen = os.environ.get(VISIBLE)
    if chosen is not None and not chosen.startswith("RR"):
        return len([device for device in chosen.split(",") if device.strip() not in ("", "-1")])
    return count_gpus()


# ---- facts ----


def _dimensions(flow: Flow, facts: Mapping[int, Mapping[str, Any]]) -> Iterator[Finding]:
    """An index must store vectors of the length that the encoders in front of it make."""
    places = {executor.name: index for index, executor in enumerate(flow.executors)}
    before = flow.predecessors()
    for index, executor in enumerate(flow.executors):
        stored = facts.get(index, {}).get("dimensions")
        if stored is None or "model" in facts[index]:
            continue
        waiting, seen = list(before[executor.name]), set[str]()
        while waiting:
            name = waiting.pop()
            if name == GATEWAY or name in seen:
                continue
            seen.add(name)
            made = facts.get(places[name], {})
            if "model" not in made or made.get("dimensions") is None:
                waiting += before[name]
            elif made["dimensions"] != stored:
                yield flow.finding(
                    ("executors", index, "uses_with", "dimensions"),
                    f"it stores vectors of {stored} dimensions, but {name} ({made['model']}) makes vectors of "
                    f"{made['dimensions']}; use an encoder of the same size, or another index",
                )


def _embedded(flow: Flow, facts: Mapping[int, Mapping[str, Any]]) -> Iterator[Finding]:
    for index, executor in enumerate(flow.executors):
        most = executor.autoscale.max if executor.autoscale is not None else 1
        if executor.replicas <= 1 < most and facts.get(index, {}).get("embedded"):
            yield flow.finding(
                ("executors", index, "autoscale"),
                f"an embedded index lives in one process, so it cannot grow to {most} replicas; "
                "use a Qdrant server (uri: http://...) to have more, or leave autoscale out",
            )
        if executor.replicas > 1 and facts.get(index, {}).get("embedded"):
            yield flow.finding(
                ("executors", index, "replicas"),
                f"an embedded index lives in one process, so it cannot have {executor.replicas} replicas; "
                "use a Qdrant server (uri: http://...) to have more",
            )
