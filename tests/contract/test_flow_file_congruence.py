"""Flow files mean the same to stock Jina and to flowdex; every key that Jina's parsers know is known here.

Stock Jina reads all files in one process of its own (it takes seconds to import); nothing is started.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from flowdex_orchestrator.flow import Executor as ExecutorSection
from flowdex_orchestrator.flow import Flow, FlowSettings, Gateway, load_flow

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {"REPLICAS": "3", "PORT": "12345", "PORTS": "[50001, 50002]", "NAME": "named", "FLAG": "true"}
FLOWS = {
    "chain": """
with: {name: chain, port: 51000}
executors: [{name: a}, {name: b, replicas: 2}, {name: c}]
""",
    "branches": """
executors:
  - name: a
  - {name: b, needs: gateway}
  - {name: c, needs: gateway, replicas: 3}
  - {name: join, needs: [a, b, c]}
  - name: last
""",
    "unnamed": """
executors: [{}, {replicas: 2}, {needs: gateway}, {name: x, needs: [executor1, executor2]}]
""",
    "floating": """
executors: [{name: a}, {name: b, floating: true}, {name: c}, {name: d, needs: b}]
""",
    "later": """
executors: [{name: a, needs: b}, {name: b, needs: gateway}]
""",
    "inherited": """
with: {protocol: [grpc, http], port: [51000, 51001], timeout_send: 5000, retries: 2, replicas: 2, env: {A: b}}
executors: [{name: a}, {name: b, timeout_send: 7000, replicas: 1, retries: 0}]
""",
    "gateway": """
with: {port: 51000}
gateway: {protocol: [http], port: [51005]}
executors: [{name: a}]
""",
    "external": """
executors:
  - {name: a, external: true, host: 10.0.0.1, port: 6000}
  - {name: b, external: true, host: [10.0.0.1, 10.0.0.2], port: [6000, 6001]}
  - {name: c, external: true, host: 10.0.0.1, port: '6000,6001,6002'}
  - {name: d, external: true, host: '10.0.0.1,10.0.0.2', port: 6000}
""",
    "variables": """
with: {port: $PORT, protocol: http, name: '${{ ENV.NAME }}'}
executors:
  - {name: '${NAME}', replicas: '${{ ENV.REPLICAS }}', uses_with: {text: 'a ${{ ENV.NAME }}', flag: $FLAG}}
  - {name: b, external: '${{ env.FLAG }}', port: '${{ENV.PORTS}}'}
""",
    "anchors": """
x-shared: &shared {replicas: 2, uses_with: {a: 1}}
deployments:
  - {<<: *shared, name: a}
  - {<<: *shared, name: b, replicas: 4}
""",
    "own_keys": """
executors:
  - name: a
    replicas: 2
    log_level: debug
    kubernetes: {resources: {cpu: 2, memory: 1Gi}, tolerations: [x, y]}
    autoscale: {min: 1, max: 4}
  - name: b
""",
}
OURS_LATER = (
    "kubernetes",
    "autoscale",
)  # sections that stock Jina must let pass; flowdex has them when it acts on them

STOCK = """
import json, sys
import jina.orchestrate.orchestrator
jina.orchestrate.orchestrator.get_public_ip = lambda *_, **__: None
from jina import Flow
from jina.parsers import set_deployment_parser, set_gateway_parser
from jina.parsers.flow import set_flow_parser

def read(path):
    flow = Flow.load_config(path)
    found = {"name": flow.args.name, "executors": []}
    for name, node in flow._deployment_nodes.items():
        args = node.args
        found["executors"].append({
            "name": name, "needs": sorted(node.needs), "replicas": args.replicas, "uses": args.uses,
            "uses_with": args.uses_with or {}, "external": args.external, "timeout_send": args.timeout_send,
            "retries": args.retries, "shards": args.shards,
            "addresses": [f"{h}:{p}" for h, p in zip(node.ext_repl_hosts, node.ext_repl_ports)],
        })
    args = flow.gateway_args
    found["gateway"] = {"ports": args.port, "protocols": [str(p).lower().split(".")[-1] for p in args.protocol]}
    return found

def keys(parser):
    spellings = {}
    for action in parser._actions:
        for option in action.option_strings:
            if option.startswith("--"):
                spellings[option[2:].replace("-", "_")] = action.dest
    return sorted(set(spellings) - {"help", "version", "version_full"})

flows = {name: read(path) for name, path in json.loads(sys.argv[1]).items()}
parsers = {"executor": set_deployment_parser(), "gateway": set_gateway_parser(), "flow": set_flow_parser()}
print("ANSWER" + json.dumps({"flows": flows, "keys": {name: keys(parser) for name, parser in parsers.items()}}))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("flows")
    for name, body in FLOWS.items():
        (folder / f"{name}.yml").write_text("jtype: Flow\nversion: '1'\n" + body.lstrip())
    (folder / "default.yml").write_text((ROOT / "flow.yml").read_text())
    return folder


@pytest.fixture(scope="module")
def stock(folder: Path) -> dict[str, Any]:
    files = {name: f"./{name}.yml" for name in [*FLOWS, "default"]}
    done = subprocess.run(
        [sys.executable, "-c", STOCK, json.dumps(files)],
        cwd=folder,
        env={**os.environ, **ENVIRONMENT, "JINA_OPTOUT_TELEMETRY": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.partition("ANSWER")[2])
    return found


def ours(folder: Path, name: str) -> Flow:
    path = folder / f"{name}.yml"
    if name == "own_keys":  # not acted on yet, therefore unknown
        text = path.read_text()
        lines = [line for line in text.splitlines() if not line.strip().startswith(OURS_LATER)]
        path = folder / f"{name}-known.yml"
        path.write_text("\n".join(lines))
    return load_flow(path, env=ENVIRONMENT)


@pytest.mark.parametrize("name", [*FLOWS, "default"])
def test_the_same_flow(name: str, folder: Path, stock: dict[str, Any]) -> None:
    read, theirs = ours(folder, name), stock["flows"][name]
    before = read.predecessors()
    assert [executor.name for executor in read.executors] == [executor["name"] for executor in theirs["executors"]]
    if theirs["name"] is not None:
        assert read.name == theirs["name"]
    for executor, other in zip(read.executors, theirs["executors"], strict=True):
        assert sorted(before[executor.name]) == other["needs"]
        assert executor.uses == other["uses"]
        assert executor.uses_with == other["uses_with"]
        assert executor.external == other["external"]
        assert executor.shards == other["shards"]
        assert executor.retries == other["retries"]
        assert executor.timeout_send == (other["timeout_send"] if other["timeout_send"] is not None else -1)
        if executor.external:
            assert executor.addresses() == [address.replace("0.0.0.0", "127.0.0.1") for address in other["addresses"]]
            assert other["replicas"] == max(len(executor.addresses()), 1)  # Jina counts an address as a replica
        else:
            assert executor.replicas == other["replicas"]
    assert list(read.gateway.protocols) == theirs["gateway"]["protocols"]
    if read.gateway.ports:
        assert list(read.gateway.ports) == theirs["gateway"]["ports"]


@pytest.mark.parametrize(
    ("parser", "section"), [("executor", ExecutorSection), ("gateway", Gateway), ("flow", FlowSettings)]
)
def test_every_key_of_jina_is_known(parser: str, section: Any, stock: dict[str, Any]) -> None:
    assert set(stock["keys"][parser]) - set(section.known_keys()) == set()


def test_with_knows_what_jina_hands_down(stock: dict[str, Any]) -> None:
    handed_down = set(stock["keys"]["executor"]) | set(stock["keys"]["gateway"])
    assert handed_down - set(FlowSettings.known_keys()) == set()
