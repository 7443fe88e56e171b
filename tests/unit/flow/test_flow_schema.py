"""The JSON Schema: up to date, valid, and of one mind with the loader."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from jsonschema import Draft202012Validator

from flowdex.cli.main import main
from flowdex_orchestrator.flow import FlowFileError, parse_flow
from flowdex_orchestrator.flow.schema import flow_schema

ROOT = Path(__file__).resolve().parents[3]
FLOWS = [ROOT / "flow.yml", *sorted((ROOT / "flows").glob("*.yml"))]
SCHEMA = ROOT / "orchestrator/flowdex_orchestrator/flow/schema.json"


def valid(text: str) -> bool:
    return Draft202012Validator(flow_schema()).is_valid(yaml.safe_load(text))


def test_the_committed_schema_is_up_to_date() -> None:
    assert json.loads(SCHEMA.read_text(encoding="utf-8")) == flow_schema(), "run: flowdex schema -o " + str(SCHEMA)


def test_it_is_a_schema_of_draft_2020_12() -> None:
    Draft202012Validator.check_schema(flow_schema())


def test_every_key_is_described() -> None:
    def walk(schema: dict[str, Any]) -> None:
        for key, item in schema["properties"].items():
            assert item.get("description"), key

    made = flow_schema()
    walk(made)
    for name in ("FlowSettings", "Gateway", "Executor"):
        walk(made["$defs"][name])


@pytest.mark.parametrize(
    "path", [ROOT / "flow.yml", *sorted((ROOT / "flows").glob("*.yml"))], ids=lambda path: path.name
)
def test_our_flows_are_valid(path: Path) -> None:
    assert valid(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "body",
    [
        "",
        "version: '1'",
        "version: 1",
        "x-own: {a: 1}",
        "with: {port: 5000, protocol: GRPC, cors: true, timeout_send: -1, log_level: debug}",
        "with: {port: [1, 2], protocol: [grpc, http], env: {A: 1, B: x, C: true}}",
        "with: {port: '${{ ENV.P }}', retries: $R}",
        "gateway: {uses: a.B, uses_with: {x: 1}}",
        "executors: [{name: a, uses: a.B, replicas: 2, needs: gateway, gpus: all}]",
        "executors: [{name: a}, {name: b, needs: [a, gateway], polling: {/a: ALL}}]",
        "executors: [{name: a, uses: {jtype: A, with: {}}, gpus: 2, external: true, host: [h], port: [5], ports: [5]}]",
        "deployments: [{name: a, docker_kwargs: {}}]",
    ],
)
def test_schema_and_loader_accept(body: str) -> None:
    text = "jtype: Flow\n" + body
    parse_flow(text.replace(", ports: [5]", ""), env={"P": "1", "R": "1"})
    assert valid(text)


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "executors: []",
        "jtype: Deployment",
        "jtype: Flow\nversion: 3",
        "jtype: Flow\npods: []",
        "jtype: Flow\nwith: {prot: 5}",
        "jtype: Flow\nwith: {port: 70000}",
        "jtype: Flow\nwith: {timeout_send: -2}",
        "jtype: Flow\nwith: {protocol: ftp}",
        "jtype: Flow\ngateway: []",
        "jtype: Flow\nexecutors: {}",
        "jtype: Flow\nexecutors: [a]",
        "jtype: Flow\nexecutors: [{replicas: 0}]",
        "jtype: Flow\nexecutors: [{need: a}]",
        "jtype: Flow\nexecutors: [{uses_with: []}]",
        "jtype: Flow\nexecutors: [{external: 1}]",
    ],
)
def test_schema_and_loader_refuse(text: str) -> None:
    with pytest.raises(FlowFileError):
        parse_flow(text)
    assert not valid(text)


def test_the_command(tmp_path: Path) -> None:
    printed = CliRunner().invoke(main, ["schema"])
    assert printed.exit_code == 0
    assert json.loads(printed.output) == flow_schema()
    file = tmp_path / "schema.json"
    assert CliRunner().invoke(main, ["schema", "-o", str(file)]).exit_code == 0
    assert file.read_text(encoding="utf-8") == SCHEMA.read_text(encoding="utf-8")
    failed = CliRunner().invoke(main, ["schema", "-o", str(tmp_path / "no" / "folder.json")])
    assert (failed.exit_code, "cannot be written" in failed.output) == (1, True)
