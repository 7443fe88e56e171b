"""What a flow needs in processes: a flow's model in, ports and command lines out.

    Flow --make_plan()--> FlowPlan: encoder-0 at 127.0.0.1:23117, encoder-1 at ..., gateway at ...

The commands are the ones that run in containers, too: `flowdex executor NAME`, `flowdex gateway`.
"""

from __future__ import annotations

import json
import math
import os
import secrets
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from flowdex.certificates import CertificateFiles
from flowdex.errors import ConfigurationError
from flowdex_orchestrator.access.guard import FLOW_KEY_VARIABLE, keys_path
from flowdex_orchestrator.control import RUNNER_VARIABLE, TOKEN_VARIABLE
from flowdex_orchestrator.flow.certificates import gateway_files, hop_files
from flowdex_orchestrator.flow.model import Executor, Flow
from flowdex_orchestrator.flow.overrides import Overrides
from flowdex_orchestrator.gateway.settings import GatewaySettings
from flowdex_orchestrator.runner.environment import child_environment
from flowdex_orchestrator.runner.health import ControlProbe, GrpcProbe, HttpProbe, Probe
from flowdex_orchestrator.runner.ports import LOOPBACK, free_ports
from flowdex_orchestrator.runner.process import Launch
from flowdex_orchestrator.runner.state import RunFolder
from flowdex_orchestrator.runner.supervised import ProcessPlan, address_of
from flowdex_orchestrator.runner.supervisor import FlowPlan
from flowdex_orchestrator.tls import Hop

__all__ = ["FLOWDEX", "make_plan"]

FLOWDEX = (sys.executable, "-m", "flowdex")
_GATEWAY = "gateway"
_GATEWAY_TIMEOUT = 60.0  # seconds, counted from the moment when all executors are ready
_TO_END = 5.0  # seconds a process may take to end after its last request
_SCHEMES = {"websocket": "ws", "bert": "tcp", "bert-out": "tcp"}
_SECURE_SCHEMES = {"grpc": "grpcs", "http": "https", "websocket": "wss", "bert": "tcp", "bert-out": "tcp"}
_REACHED_AT = {"0.0.0.0": LOOPBACK, "::": "::1"}  # nosec B104 # read, not bound; a server that listens everywhere


def make_plan(
    flow: Flow,
    flow_file: Path,
    folder: RunFolder,
    cwd: Path,
    overrides: Overrides | None = None,
    *,
    text: Path | None = None,
) -> FlowPlan:
    """Choose ports and write the command lines.

    Args:
        flow: The flow; external executors are only watched.
        flow_file: Its file.
        folder: Takes the logs.
        cwd: The folder in which the processes run.
        overrides: Arguments of executors that differ from the file's.
        text: A copy of the file, which the processes read, so that a process that starts anew is as it was whatever has
            become of the file; without it they read the file.

    Raises:
        ConfigurationError: The gateway serves nothing that can be asked for its health, or a certificate cannot be
            used.
        Unavailable: There are not enough free ports.
    """
    listeners = flow.gateway.listeners()
    fixed = {port for executor in flow.executors for port in executor.ports} | {port for _, port in listeners}
    wanted = 2 * sum(executor.replicas for executor in flow.executors) + len(listeners) + 3
    free = free_ports(wanted, exclude=frozenset(fixed))
    ports = {protocol: port or free.pop() for protocol, port in listeners}
    planner = _Planner(
        flow=flow,
        flow_file=flow_file,
        folder=folder,
        cwd=cwd,
        overrides=overrides or {},
        gateway_ports=ports,
        control_port=free.pop(),
        runner_port=free.pop(),
        metrics_port=free.pop(),
        token=secrets.token_urlsafe(32),
        text=text,
        flow_key=secrets.token_urlsafe(32) if keys_path(flow) is not None else None,
        hops={executor.name: Hop(hop_files(flow, executor)) for executor in flow.executors},
        certificates=gateway_files(flow),
    )
    executors = [plan for executor in flow.executors for plan in planner.executor(executor, free)]
    gateway, endpoints = planner.gateway_and_endpoints([(each.name, each.address) for each in executors])
    return FlowPlan(executors, gateway, endpoints, planner)


@dataclass(frozen=True)
class _Planner:
    """Plans the processes of one flow, at its start and later; see `scaling.Planner`."""

    flow: Flow
    flow_file: Path
    folder: RunFolder
    cwd: Path
    overrides: Overrides
    gateway_ports: Mapping[str, int]
    control_port: int
    runner_port: int
    metrics_port: int
    token: str
    flow_key: str | None
    hops: Mapping[str, Hop]
    certificates: CertificateFiles | None
    text: Path | None = None
    texts: Mapping[str, Path] = field(default_factory=dict)  # of executors that have been reloaded alone

    def reloaded(self, flow: Flow, text: Path, names: Collection[str] | None = None) -> _Planner:
        """The planner after a reload.

        Args:
            flow: The new flow.
            text: A copy of its file.
            names: The executors that have it already, where not all do; the rest, gateway included, is as before.
        """
        if names is None:
            return replace(self, flow=flow, text=text, texts={})
        executors = tuple(flow.executor(each.name) if each.name in names else each for each in self.flow.executors)
        return replace(
            self,
            flow=self.flow.model_copy(update={"executors": executors}),
            texts={**self.texts, **dict.fromkeys(names, text)},
        )

    def again(self, plan: ProcessPlan, *, replicas: int, settings: Mapping[str, Any]) -> ProcessPlan:
        """The plan of a replica that is there, by the flow as it is now."""
        executor = self.flow.executor(plan.name)
        place, metrics = (executor.hosts[0], plan.port), plan.metrics_port or 0
        return self._replica(executor, plan.replica or 0, place, replicas, settings, metrics)

    @property
    def gateway_control(self) -> str:
        """Address at which the gateway takes the runner's commands."""
        return f"{LOOPBACK}:{self.control_port}"

    def executor(self, executor: Executor, free: list[int]) -> list[ProcessPlan]:
        """One plan a replica."""
        settings = self.overrides.get(executor.name, {})
        return [
            self._replica(executor, replica, place, executor.replicas, settings, 0 if executor.external else free.pop())
            for replica, place in enumerate(self._places(executor, free))
        ]

    def replica(
        self, name: str, number: int, *, replicas: int, taken: Collection[int], settings: Mapping[str, Any]
    ) -> ProcessPlan:
        """One more replica of an executor that the flow starts.

        Args:
            name: The executor.
            number: The replica's number, from 0.
            replicas: How many there will be, to share the cores.
            taken: Ports of the flow's other processes.
            settings: Arguments of the executor's class that differ from the file's.

        Raises:
            Unavailable: There is no free port.
        """
        executor = self.flow.executor(name)
        fixed = {port for each in self.flow.executors for port in each.ports}
        reserved = {*self.gateway_ports.values(), self.control_port, self.runner_port, self.metrics_port}
        port, metrics_port = free_ports(2, exclude=frozenset({*taken, *fixed, *reserved}))
        return self._replica(executor, number, (executor.hosts[0], port), replicas, settings, metrics_port)

    def _replica(  # noqa: PLR0917 - made in two places here
        self,
        executor: Executor,
        number: int,
        place: tuple[str, int],
        replicas: int,
        settings: Mapping[str, Any],
        metrics_port: int,
    ) -> ProcessPlan:
        host, port = place
        launch, reached = None, host
        if not executor.external:
            reached = _REACHED_AT.get(host, host)
            given = {"host": host, "port": port, "replica": number, "metrics-port": metrics_port}
            options = [part for name, value in given.items() for part in (f"--{name}", f"{value}")]
            options += [part for key, value in settings.items() for part in ("--set", f"{key}={json.dumps(value)}")]
            launch = self._launch(
                f"{executor.name}-{number}",
                ("executor", executor.name, *options),
                child_environment(
                    {**self._call_variables(), **executor.env}, replicas=replicas, replica=number, url=self.url
                ),
            )
        hop = self.hops[executor.name]
        return ProcessPlan(
            executor.name,
            number,
            reached,
            port,
            launch,
            partial(GrpcProbe, reached, port, hop),
            timeout_ready=executor.ready_timeout or math.inf,
            timeout_silent=executor.silent_timeout or math.inf,
            hop=hop,
            metrics_port=None if executor.external else metrics_port,
        )

    @property
    def url(self) -> str | None:
        """Where the executors reach the gateway: over gRPC, if it serves that."""
        for protocol in ("grpc", "http"):
            if protocol in self.gateway_ports:
                host = _REACHED_AT.get(self.flow.gateway.host, self.flow.gateway.host)
                return f"{self._scheme(protocol)}://{address_of(host, self.gateway_ports[protocol])}"
        return None

    def _scheme(self, protocol: str) -> str:
        return (_SCHEMES if self.certificates is None else _SECURE_SCHEMES).get(protocol, protocol)

    def _call_variables(self) -> dict[str, str]:
        """What executors need to call the gateway: a key where it asks for one, and where it has TLS whom to trust."""
        tls, files, inner = self.flow.gateway.serving_tls, self.certificates, self.flow.settings.tls
        found: dict[str, str] = {} if self.flow_key is None else {"FLOWDEX_API_KEY": self.flow_key}
        if tls is None or files is None:
            return found
        if tls.ca is not None:
            found["FLOWDEX_CA"] = str(self.flow.folder / tls.ca)
        if tls.client_ca is not None and inner is not None and inner.certificate is not None and inner.key is not None:
            found["FLOWDEX_CERTIFICATE"] = str(self.flow.folder / inner.certificate)
            found["FLOWDEX_KEY"] = str(self.flow.folder / inner.key)
        host = _REACHED_AT.get(self.flow.gateway.host, self.flow.gateway.host)
        names = [name.partition(":")[2] for name in files.names]
        if names and host not in names:
            found["FLOWDEX_TLS_NAME"] = names[0].replace("*.", "gateway.")
        return found

    def gateway(self, addresses: Sequence[tuple[str, str]]) -> ProcessPlan:
        """The gateway's plan, for these addresses of replicas: (executor, address)."""
        return self.gateway_and_endpoints(addresses)[0]

    def gateway_and_endpoints(self, addresses: Sequence[tuple[str, str]]) -> tuple[ProcessPlan, dict[str, str]]:
        """The gateway's plan, and protocol (or page) -> URL."""
        flow, ports, host = self.flow, self.gateway_ports, self.flow.gateway.host
        reached = _REACHED_AT.get(host, host)
        endpoints = {
            protocol: f"{self._scheme(protocol)}://{address_of(reached, port)}" for protocol, port in ports.items()
        }
        arguments = [_GATEWAY, "--host", host, "--control-port", f"{self.control_port}"]
        arguments += ["--metrics-port", f"{self.metrics_port}"]
        for protocol, port in ports.items():
            arguments += [f"--port-{protocol}", str(port)]
        if flow.gateway.insecure:
            arguments.append("--insecure")
        for name, address in addresses:
            arguments += ["--address", f"{name}={address}"]
        env = {
            **child_environment(flow.gateway.env),
            TOKEN_VARIABLE: self.token,
            RUNNER_VARIABLE: f"{LOOPBACK}:{self.runner_port}",
        }
        if self.flow_key is not None:
            env[FLOW_KEY_VARIABLE] = self.flow_key
        launch = self._launch(_GATEWAY, arguments, env)
        if "http" in ports:
            endpoints["docs"] = f"{endpoints['http']}/docs"
        probe: Callable[[], Probe]
        if self.certificates is not None:
            port = ports.get("grpc") or ports.get("http") or next(iter(ports.values()))
            probe = partial(ControlProbe, self.gateway_control, self.token)
        elif "grpc" in ports:
            port, probe = ports["grpc"], partial(GrpcProbe, reached, ports["grpc"])
        elif "http" in ports:
            port, probe = ports["http"], partial(HttpProbe, reached, ports["http"])
        else:
            raise ConfigurationError("the gateway serves neither grpc nor http: name one of them under `protocol:`")
        timeout = min(_GATEWAY_TIMEOUT, flow.gateway.ready_timeout or math.inf)
        grace = GatewaySettings.from_options(flow.gateway.uses_with).drain + _TO_END
        silent = flow.gateway.silent_timeout or math.inf
        plan = ProcessPlan(_GATEWAY, None, reached, port, launch, probe, timeout, silent, grace, self.metrics_port)
        return plan, endpoints

    @staticmethod
    def _places(executor: Executor, free: list[int]) -> list[tuple[str, int]]:
        """Host and port of each replica: as the file says, else any free port."""
        found = []
        for address in executor.addresses():
            host, _, port = address.rpartition(":")
            found.append((host.strip("[]"), int(port)))
        if executor.external:
            return found
        found = found[: executor.replicas]
        return found + [(executor.hosts[0], free.pop()) for _ in range(executor.replicas - len(found))]

    def _launch(self, label: str, arguments: list[str] | tuple[str, ...], env: Mapping[str, str]) -> Launch:
        verb, *options = arguments
        command = (*FLOWDEX, verb, *options, "--flow", str(self.flow_file), "--parent-pid", str(os.getpid()))
        text = self.text if verb == _GATEWAY else self.texts.get(options[0], self.text)
        command += () if text is None else ("--flow-text", str(text))
        return Launch(command, env, self.cwd, self.folder.log(label))
