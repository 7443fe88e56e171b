"""What a flow needs in processes: a flow's model in, ports and command lines out.

    Flow --make_plan()--> FlowPlan: encoder-0 at 127.0.0.1:23117, encoder-1 at ..., gateway at ...

The commands are the ones that run in containers, too: `flowdex executor NAME`, `flowdex gateway`.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from flowdex.errors import ConfigurationError
from flowdex_orchestrator.flow.model import Executor, Flow
from flowdex_orchestrator.flow.overrides import Overrides
from flowdex_orchestrator.gateway.settings import GatewaySettings
from flowdex_orchestrator.runner.environment import child_environment
from flowdex_orchestrator.runner.health import GrpcProbe, HttpProbe, Probe
from flowdex_orchestrator.runner.ports import LOOPBACK, free_ports
from flowdex_orchestrator.runner.process import Launch
from flowdex_orchestrator.runner.state import RunFolder
from flowdex_orchestrator.runner.supervised import ProcessPlan
from flowdex_orchestrator.runner.supervisor import FlowPlan

__all__ = ["FLOWDEX", "make_plan"]

FLOWDEX = (sys.executable, "-m", "flowdex")
_GATEWAY = "gateway"
_GATEWAY_TIMEOUT = 60.0  # seconds, counted from the moment when all executors are ready
_TO_END = 5.0  # seconds a process may take to end after its last request
_REACHED_AT = {"0.0.0.0": LOOPBACK, "::": "::1"}  # a server that listens everywhere


def make_plan(
    flow: Flow, flow_file: Path, folder: RunFolder, cwd: Path, overrides: Overrides | None = None
) -> FlowPlan:
    """Choose ports and write the command lines.

    Args:
        flow: The flow; external executors are only watched.
        flow_file: Its file, which the processes read again.
        folder: Takes the logs.
        cwd: The folder in which the processes run.
        overrides: Arguments of executors that differ from the file's.

    Raises:
        ConfigurationError: The gateway serves nothing that can be asked for its health.
        Unavailable: There are not enough free ports.
    """
    listeners = flow.gateway.listeners()
    fixed = {port for executor in flow.executors for port in executor.ports} | {port for _, port in listeners}
    wanted = sum(executor.replicas for executor in flow.executors) + len(listeners)
    free = free_ports(wanted, exclude=frozenset(fixed))
    ports = {protocol: port or free.pop() for protocol, port in listeners}
    planner = _Planner(flow_file, folder, cwd, free, overrides or {}, flow.gateway.host, ports)
    executors = [plan for executor in flow.executors for plan in planner.executor(executor)]
    gateway, endpoints = planner.gateway(flow, executors)
    return FlowPlan(executors, gateway, endpoints)


@dataclass(frozen=True)
class _Planner:
    flow_file: Path
    folder: RunFolder
    cwd: Path
    free: list[int]
    overrides: Overrides
    gateway_host: str
    gateway_ports: Mapping[str, int]

    def executor(self, executor: Executor) -> list[ProcessPlan]:
        """One plan a replica."""
        timeout = executor.ready_timeout or math.inf
        arguments = self.overrides.get(executor.name, {})
        settings = [part for key, value in arguments.items() for part in ("--set", f"{key}={json.dumps(value)}")]
        plans = []
        for replica, (host, port) in enumerate(self._places(executor)):
            launch, reached = None, host
            if not executor.external:
                reached = _REACHED_AT.get(host, host)
                launch = self._launch(
                    f"{executor.name}-{replica}",
                    (
                        "executor",
                        executor.name,
                        "--host",
                        host,
                        "--port",
                        str(port),
                        "--replica",
                        f"{replica}",
                        *settings,
                    ),
                    child_environment(executor.env, replicas=executor.replicas, replica=replica, url=self.url),
                )
            probe = partial(GrpcProbe, reached, port)
            plans.append(ProcessPlan(executor.name, replica, reached, port, launch, probe, timeout))
        return plans

    @property
    def url(self) -> str | None:
        """Where the executors reach the gateway: over gRPC, if it serves that."""
        for protocol in ("grpc", "http"):
            if protocol in self.gateway_ports:
                host = _REACHED_AT.get(self.gateway_host, self.gateway_host)
                return f"{protocol}://{_address(host, self.gateway_ports[protocol])}"
        return None

    def gateway(self, flow: Flow, executors: list[ProcessPlan]) -> tuple[ProcessPlan, dict[str, str]]:
        """The gateway's plan, and protocol (or page) -> URL."""
        ports, host = self.gateway_ports, self.gateway_host
        reached = _REACHED_AT.get(host, host)
        endpoints = {protocol: f"{protocol}://{_address(reached, port)}" for protocol, port in ports.items()}
        arguments = [_GATEWAY, "--host", host]
        for protocol, port in ports.items():
            arguments += [f"--port-{protocol}", str(port)]
        for each in executors:
            arguments += ["--address", f"{each.name}={_address(each.host, each.port)}"]
        launch = self._launch(_GATEWAY, arguments, child_environment(flow.gateway.env))
        if "http" in ports:
            endpoints["docs"] = f"{endpoints['http']}/docs"
        probe: Callable[[], Probe]
        if "grpc" in ports:
            port, probe = ports["grpc"], partial(GrpcProbe, reached, ports["grpc"])
        elif "http" in ports:
            port, probe = ports["http"], partial(HttpProbe, reached, ports["http"])
        else:
            raise ConfigurationError("the gateway serves neither grpc nor http: name one of them under `protocol:`")
        timeout = min(_GATEWAY_TIMEOUT, flow.gateway.ready_timeout or math.inf)
        grace = GatewaySettings.from_options(flow.gateway.uses_with).drain + _TO_END
        return ProcessPlan(_GATEWAY, None, reached, port, launch, probe, timeout, grace), endpoints

    def _places(self, executor: Executor) -> list[tuple[str, int]]:
        """Host and port of each replica: as the file says, else any free port."""
        found = []
        for address in executor.addresses():
            host, _, port = address.rpartition(":")
            found.append((host.strip("[]"), int(port)))
        if executor.external:
            return found
        found = found[: executor.replicas]
        return found + [(executor.hosts[0], self.free.pop()) for _ in range(executor.replicas - len(found))]

    def _launch(self, label: str, arguments: list[str] | tuple[str, ...], env: Mapping[str, str]) -> Launch:
        verb, *options = arguments
        command = (*FLOWDEX, verb, *options, "--flow", str(self.flow_file), "--parent-pid", str(os.getpid()))
        return Launch(command, env, self.cwd, self.folder.log(label))


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
