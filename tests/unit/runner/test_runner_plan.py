"""Ports, addresses and command lines drawn from a flow."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import pytest

from flowdex.errors import ConfigurationError
from flowdex_orchestrator.flow import parse_flow
from flowdex_orchestrator.runner.health import GrpcProbe, HttpProbe
from flowdex_orchestrator.runner.plan import make_plan
from flowdex_orchestrator.runner.state import RunFolder
from flowdex_orchestrator.runner.supervisor import FlowPlan


def plan(tmp_path: Path, text: str, **replicas: int) -> FlowPlan:
    file = tmp_path / "flow.yml"
    flow = parse_flow(f"jtype: Flow\n{text}").with_replicas(replicas)
    return make_plan(flow, file, RunFolder(file, tmp_path), tmp_path)


def option(command: tuple[str, ...], name: str) -> list[str]:
    return [command[index + 1] for index, each in enumerate(command) if each == name]


def test_free_ports_for_each_replica(tmp_path: Path) -> None:
    found = plan(
        tmp_path,
        """
with: {port: [7001, 7002], protocol: [grpc, http], env: {COMMON: "1"}}
executors:
  - {name: a, uses: x.A, env: {OWN: "2"}, timeout_ready: 1500}
  - {name: b, uses: x.B, replicas: 3, timeout_ready: -1}
""",
    )
    assert [(each.name, each.replica) for each in found.executors] == [("a", 0), ("b", 0), ("b", 1), ("b", 2)]
    assert len({each.port for each in found.executors} | {7001, 7002}) == 6
    assert [each.timeout_ready for each in found.executors] == [1.5, math.inf, math.inf, math.inf]
    launch = found.executors[3].launch
    assert launch is not None
    assert launch.command[1:5] == ("-m", "flowdex", "executor", "b")
    assert option(launch.command, "--replica") == ["2"]
    assert option(launch.command, "--port") == [str(found.executors[3].port)]
    assert option(launch.command, "--flow") == [str(tmp_path / "flow.yml")]
    assert option(launch.command, "--parent-pid") == [str(os.getpid())]
    assert launch.log.name == "b-2.log"
    assert launch.cwd == tmp_path
    first = found.executors[0].launch
    assert first is not None
    assert (first.env["COMMON"], first.env["OWN"]) == ("1", "2")

    gateway = found.gateway.launch
    assert gateway is not None
    addresses = [f"{each.name}=127.0.0.1:{each.port}" for each in found.executors]
    assert option(gateway.command, "--address") == addresses
    assert option(gateway.command, "--port-grpc") == ["7001"]
    assert option(gateway.command, "--port-http") == ["7002"]
    assert found.endpoints == {
        "grpc": "grpc://127.0.0.1:7001",
        "http": "http://127.0.0.1:7002",
        "docs": "http://127.0.0.1:7002/docs",
    }
    assert isinstance(found.gateway.probe(), GrpcProbe)
    assert found.gateway.port == 7001


def test_ports_of_the_file_are_kept_and_completed(tmp_path: Path) -> None:
    found = plan(
        tmp_path,
        """
with: {port: 7001}
executors:
  - {name: a, uses: x.A, port: [7010, 7011], replicas: 2}
  - {name: b, uses: x.B, port: [7020, 7021], replicas: 2}
""",
        a=3,
        b=1,
    )
    ports = [each.port for each in found.executors]
    assert ports[:2] == [7010, 7011]
    assert ports[2] not in (7001, 7010, 7011, 7020, 7021)
    assert ports[3:] == [7020]


def test_external_executors_are_only_watched(tmp_path: Path) -> None:
    found = plan(
        tmp_path,
        """
with: {port: 7001}
executors:
  - {name: a, external: true, host: [10.0.0.1, 10.0.0.2], port: 9000}
  - {name: b, uses: x.B}
""",
    )
    outside, inside = found.executors[:2], found.executors[2]
    assert [(each.host, each.port, each.launch) for each in outside] == [
        ("10.0.0.1", 9000, None),
        ("10.0.0.2", 9000, None),
    ]
    assert inside.launch is not None
    assert found.gateway.launch is not None
    assert option(found.gateway.launch.command, "--address")[:2] == ["a=10.0.0.1:9000", "a=10.0.0.2:9000"]


@pytest.mark.parametrize(
    ("settings", "endpoints", "probe"),
    [
        ("{protocol: http, port: 7001}", {"http": "http://127.0.0.1:7001", "docs": ...}, HttpProbe),
        ("{port: 7001, host: 0.0.0.0}", {"grpc": "grpc://127.0.0.1:7001"}, GrpcProbe),
        ("{port: 7001, host: '::'}", {"grpc": "grpc://[::1]:7001"}, GrpcProbe),
    ],
)
def test_where_the_gateway_is_asked(tmp_path: Path, settings: str, endpoints: dict[str, Any], probe: type) -> None:
    found = plan(tmp_path, f"with: {settings}\nexecutors: [{{name: a, uses: x.A}}]")
    assert found.endpoints.keys() == endpoints.keys()
    assert all(url in (..., found.endpoints[name]) for name, url in endpoints.items())
    assert isinstance(found.gateway.probe(), probe)


def test_a_gateway_without_a_port_gets_a_free_one(tmp_path: Path) -> None:
    found = plan(tmp_path, "executors: [{name: a, uses: x.A}]")
    assert found.endpoints == {"grpc": f"grpc://127.0.0.1:{found.gateway.port}"}
    assert found.gateway.port > 0
    assert found.gateway.port != found.executors[0].port


def test_the_gateway_has_time_to_drain(tmp_path: Path) -> None:
    found = plan(tmp_path, "with: {port: 7001}\ngateway: {uses_with: {drain: 120}}\nexecutors: [{name: a, uses: x.A}]")
    assert found.gateway.grace == 125


def test_a_gateway_that_cannot_be_asked(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="neither grpc nor http"):
        plan(tmp_path, "with: {protocol: websocket, port: 7001}\nexecutors: [{name: a, uses: x.A}]")


def test_other_arguments_go_to_each_replica_of_their_executor(tmp_path: Path) -> None:
    file = tmp_path / "flow.yml"
    flow = parse_flow("jtype: Flow\nexecutors: [{name: a, uses: x.A, replicas: 2}, {name: b, uses: x.B}]")
    found = make_plan(flow, file, RunFolder(file, tmp_path), tmp_path, {"a": {"model": "x y", "deep": {"n": [1]}}})
    commands = [each.launch.command for each in found.executors if each.launch is not None]
    assert [option(command, "--set") for command in commands] == [['model="x y"', 'deep={"n": [1]}']] * 2 + [[]]
