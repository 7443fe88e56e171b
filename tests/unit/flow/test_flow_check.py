"""check_flow, without importing any executor: keys, ports, GPUs, and what the facts of classes imply."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from click.testing import CliRunner

from flowdex.cli.main import main
from flowdex_orchestrator.flow import Flow, parse_flow
from flowdex_orchestrator.flow import check as check_module
from flowdex_orchestrator.flow.check import check_flow


def flow(text: str) -> Flow:
    return parse_flow("jtype: Flow\n" + dedent(text), file="flow.yml")


def findings(text: str, **keywords: Any) -> list[str]:
    return [str(finding) for finding in check_flow(flow(text), classes=False, **keywords)]


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server.getsockname()[1]


def test_nothing_to_say() -> None:
    assert findings("with: {protocol: [grpc, http]}\nexecutors: [{name: a}]") == []


def test_keys_without_effect_are_warned_of() -> None:
    assert findings(
        """
        with:
          prefetch: 5
        gateway:
          ssl_keyfile: a.pem
        executors:
          - name: a
            docker_kwargs: {}
            shards: 2
        """
    ) == [
        "flow.yml:4:3: warning: with.prefetch: flowdex accepts this key of Jina but does not act on it",
        "flow.yml:6:3: warning: gateway.ssl_keyfile: flowdex accepts this key of Jina but does not act on it",
        "flow.yml:9:5: warning: executors[0].docker_kwargs: flowdex accepts this key of Jina but does not act on it",
        "flow.yml:10:5: warning: executors[0].shards: flowdex runs one shard of an executor; "
        "an embedded index has its own (uses_with.shards), and so has a remote Qdrant (uses_with.server.shards); "
        "`replicas` share the load",
    ]


def test_an_inherited_key_is_warned_of_once() -> None:
    assert findings("with: {polling: ALL}\nexecutors: [{}, {}]") == [
        "flow.yml:2:8: warning: with.polling: flowdex runs one shard of an executor, so there is nothing to poll"
    ]


def test_protocols_and_limits_of_the_gateway() -> None:
    assert findings("with:\n  protocols: [grpc, websocket]\ngateway:\n  uses_with:\n    max_in_flght: 5\n") == [
        "flow.yml:6:5: gateway.uses_with.max_in_flght: gateway.uses_with has no setting 'max_in_flght'; "
        "did you mean 'max_in_flight'?",
    ]


def test_ports_that_are_taken(taken: int) -> None:
    text = (
        f"with:\n  port: {taken}\nexecutors:\n  - name: a\n    port: {taken}\n  - {{external: true, port: {taken}}}\n"
    )
    same = f"flow.yml:6:5: executors[0].port: port {taken} is also that of the gateway"
    busy = f"port {taken} is taken: stop what listens there, or choose another"
    assert findings(text) == [
        f"flow.yml:3:3: with.port: {busy}",
        same,
        f"flow.yml:6:5: executors[0].port: {busy}",
    ]
    assert findings(text, ports=False) == [same]


def test_an_address_of_another_machine() -> None:
    assert findings("with: {host: 192.0.2.1, port: 5000}\ngateway: {insecure: true}") == [
        "flow.yml:2:25: with.port: 192.0.2.1 is no address of this machine"
    ]


def test_a_gateway_that_everybody_could_call() -> None:
    (found,) = findings("with: {host: 0.0.0.0}")
    assert found.startswith("flow.yml:2:8: with.host: listening on 0.0.0.0 would open the flow to everybody")
    assert "gateway: keys:" in found and "insecure: true" in found
    assert findings("with: {host: 127.0.0.2}") == []
    (missing,) = findings("with: {host: 0.0.0.0}\ngateway: {keys: nowhere.json}")
    assert missing.startswith("flow.yml:3:11: gateway.keys: the key file") and "cannot be read" in missing


@pytest.mark.parametrize(
    ("entry", "refused"),
    [
        ("host: 0.0.0.0", True),
        ("host: '::'", True),
        ("host: 127.0.0.2", False),
        ("host: 0.0.0.0, insecure: true", False),
        ("host: 10.0.0.7, port: 5000, external: true", False),
    ],
)
def test_an_executor_that_everybody_could_call(entry: str, refused: bool) -> None:
    found = findings(f"executors: [{{name: a, {entry}}}]")
    assert len(found) == refused
    if refused:
        assert found[0].startswith("flow.yml:2:23: executors[0].host: listening on ")
        assert "`with: tls:`" in found[0] and "`insecure: true` at the executor" in found[0]


def test_keys_and_bert_as_service() -> None:
    keys = Path(__file__).parent / "no-keys.json"
    found = findings(f"with: {{protocol: [grpc, bert], port: [5000, 5001]}}\ngateway: {{keys: {keys}}}")
    assert any("bert carries no keys" in each for each in found)


@pytest.mark.parametrize(
    ("visible", "gpus", "found"),
    [
        ("", "2", "it asks for 2 GPUs, none is visible here"),
        ("0", "2", "it asks for 2 GPUs, 1 is visible here"),
        ("0,1", "2", None),
        ("", "0", None),
        ("-1", "all", "it asks for 1 GPU, none is visible here"),
        ("0", "device=0,device=1", "it asks for 2 GPUs, 1 is visible here"),
    ],
)
def test_gpus(visible: str, gpus: str, found: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    expected = [f"flow.yml:2:23: warning: executors[0].gpus: {found}"] if found else []
    assert findings(f"executors: [{{name: a, gpus: {gpus!r}}}]") == expected


ENCODER = {"dimensions": 384, "model": "mini"}


@pytest.mark.parametrize(
    ("executors", "facts", "found"),
    [
        # needs of the executors, what their classes say, (executor, start of the message)
        ("[{}, {}]", [ENCODER, {"dimensions": 384}], []),
        ("[{}, {}]", [ENCODER, {"dimensions": None}], []),
        (
            "[{}, {}]",
            [ENCODER, {"dimensions": 100}],
            [(1, "it stores vectors of 100 dimensions, but executor0")],
        ),
        ("[{}, {}, {}]", [ENCODER, {}, {"dimensions": 100}], [(2, "it stores vectors of 100 dimensions")]),
        ("[{}, {needs: gateway}]", [ENCODER, {"dimensions": 100}], []),
        ("[{}, {}, {}]", [{"dimensions": 5, "model": "x"}, ENCODER, {"dimensions": 384}], []),
        (
            "[{}, {needs: gateway}, {needs: [executor0, executor1]}]",
            [ENCODER, {"dimensions": 5, "model": "x"}, {"dimensions": 384}],
            [(2, "it stores vectors of 384 dimensions, but executor1 (x) makes vectors of 5;")],
        ),
        ("[{replicas: 2}]", [{"embedded": True}], [(0, "an embedded index lives in one process")]),
        ("[{autoscale: {}}]", [{"embedded": True}], [(0, "an embedded index lives in one process")]),
        ("[{autoscale: {max: 1}}]", [{"embedded": True}], []),
        ("[{replicas: 1}]", [{"embedded": True}], []),
        ("[{replicas: 2}]", [{"embedded": False}], []),
    ],
)
def test_facts(
    executors: str,
    facts: list[dict[str, Any]],
    found: list[tuple[int, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(check_module, "inspect_classes", lambda *_: ([], dict(enumerate(facts))))
    made = check_flow(flow(f"executors: {executors}"))
    assert len(made) == len(found)
    for finding, (index, message) in zip(made, found, strict=True):
        assert finding.key.startswith(f"executors[{index}]")
        assert finding.message.startswith(message)
        assert finding.severity == "error"


def test_cpu_is_no_target_on_one_machine() -> None:
    (finding,) = check_flow(flow("executors: [{autoscale: {target_cpu: 0.7}}]"), classes=False)
    assert (finding.severity, finding.key) == ("warning", "executors[0].autoscale.target_cpu")


def test_a_replica_number_that_with_hands_down_is_reported_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_module, "inspect_classes", lambda *_: ([], {0: {"embedded": True}}))
    assert [finding.key for finding in check_flow(flow("with: {replicas: 2}\nexecutors: [{}]"))] == ["with.replicas"]


# ---- the command ----


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["check", "--no-classes", *arguments])
    return result.exit_code, result.output


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "flow.yml"
    file.write_text("jtype: Flow\n")
    assert run() == (0, "flow.yml: no problems\n")
    assert run("flow.yml", "--json") == (0, "[]\n")
    file.write_text("jtype: Flow\nwith: {prefetch: 5}\n")
    code, output = run("flow.yml")
    assert (code, output.count("\n")) == (0, 1)  # a warning does not fail
    file.write_text("jtype: Flow\nexecutors:\n  - replicas: two\n")
    message = "expected a positive integer, got 'two'"
    assert run("flow.yml") == (1, f"flow.yml:3:5: executors[0].replicas: {message}\n")
    code, output = run("flow.yml", "--json")
    assert code == 1
    assert json.loads(output) == [
        {
            "message": message,
            "key": "executors[0].replicas",
            "file": "flow.yml",
            "line": 3,
            "column": 5,
            "severity": "error",
        }
    ]
    assert run("other.yml") == (1, "other.yml: there is no such file\n")


def test_the_command_tries_the_ports(tmp_path: Path, taken: int) -> None:
    file = tmp_path / "flow.yml"
    file.write_text(f"jtype: Flow\nwith: {{port: {taken}}}\n")
    code, output = run(str(file))
    assert (code, "is taken" in output) == (1, True)
    assert run(str(file), "--no-ports")[0] == 0
