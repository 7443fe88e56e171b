"""`flowdex conformance` against our own servers: the default flow, and that of bert-as-service. All of it passes."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from conformance_double import Reply, serve_http
from flow_support import ROOT, RunningFlow, free_ports, run_flowdex, stop_flow

from flowdex.conformance.suite import contracts


@pytest.fixture(scope="module")
def bert_flow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningFlow]:
    """flows/bert-as-service.yml on free ports."""
    pytest.importorskip("zmq")
    file = tmp_path_factory.mktemp("bert") / "flow.yml"
    grpc, http, bert, out = free_ports(4)
    text = (ROOT / "flows/bert-as-service.yml").read_text()
    text = re.sub(r"port: \[51000, 8080, 5555\].*", f"port: [{grpc}, {http}, {bert}]", text)
    file.write_text(text.replace("  bert:\n", f"  bert:\n    port_out: {out}\n"))
    done = run_flowdex("up", str(file), "--detach")
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    flow = RunningFlow(file, grpc, http)
    yield flow
    stop_flow(flow)


def conformance(*arguments: str, **options: Any) -> dict[str, Any]:
    """The report as JSON; all that is offered must pass."""
    done = run_flowdex("conformance", *arguments, "--json", **options)
    assert done.stdout, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    wrong = [
        (contract["name"], case) for contract in report["contracts"] for case in contract["cases"] if case["problems"]
    ]
    assert not wrong, wrong
    assert done.returncode == 0
    return report


def offered(report: dict[str, Any]) -> list[str]:
    return [each["name"] for each in report["contracts"] if each["absent"] is None]


def test_the_default_flow_keeps_all_that_it_offers(default_flow: RunningFlow, tmp_path: Path) -> None:
    junit = tmp_path / "results.xml"
    report = conformance(default_flow.http_url, default_flow.grpc_url, "--junit", str(junit))
    expected = [each.name for each in contracts() if each.name != "bert"]
    assert offered(report) == expected
    cases = [case for contract in report["contracts"] for case in contract["cases"]]
    assert {case["outcome"] for case in cases} == {"passed"}
    root = ElementTree.parse(junit).getroot()
    assert len(root.findall(".//testcase")) == len(cases) + 1
    assert len(root.findall(".//skipped")) == 1
    assert not root.findall(".//failure")


def test_bert_as_service_too(bert_flow: RunningFlow) -> None:
    report = conformance(bert_flow.http_url, "--contract", "bert", "--contract", "bert-http", "--contract", "openai")
    assert offered(report) == ["bert", "bert-http", "openai"]
    assert {case["outcome"] for contract in report["contracts"] for case in contract["cases"]} == {"passed"}


# ---- the command, against a server that is small ----


def test_the_table_says_what_failed_and_why() -> None:
    with serve_http(lambda request, reply: reply.content.pop("usage", None) and None, "/v1/embeddings") as (url, _):
        done = run_flowdex("conformance", url)
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert next(line.split()[:5] for line in lines if line.startswith("openai ")) == ["openai", "15", "14", "1", "0"]
    assert next(line for line in lines if line.startswith("jina-grpc")).split()[1] == "absent"
    assert "jina-grpc is absent: needs an address with grpc://" in lines
    at = lines.index("openai: usage")
    assert lines[at + 1 : at + 5] == [
        "  rule      embeddings: usage counts the tokens of the request",
        "  at        POST /v1/embeddings: usage",
        "  expected  a member of this name",
        "  got       there is none",
    ]
    assert "1 of " in lines[-1]
    assert not done.stderr


def test_what_is_absent_fails_only_where_it_was_asked_for_by_name() -> None:
    with serve_http(lambda request, reply: Reply({}, 404), "/v2/rerank") as (url, _):
        rest = run_flowdex("conformance", url)
        named = run_flowdex("conformance", url, "--contract", "rerank-cohere")
    assert rest.returncode == 0
    assert "rerank-cohere is absent: POST /v2/rerank answers 404 {}" in rest.stdout
    assert named.returncode == 1
    assert "does not offer rerank-cohere" in named.stdout


def test_a_case_of_ones_own(tmp_path: Path) -> None:
    case = {
        "name": "it counts",
        "rule": "mine",
        "send": {"method": "GET", "path": "/info?of=$what"},
        "status": [200, 404],
    }
    file = tmp_path / "mine.json"
    file.write_text(json.dumps({"version": 1, "contract": "mine", "cases": [case]}))
    with serve_http() as (url, _):
        without = run_flowdex("conformance", url, "--cases", str(file), "--contract", "mine")
        done = run_flowdex("conformance", url, "--cases", str(file), "--contract", "mine", "--set", "what=it")
    assert without.returncode == 1
    assert "--set what=VALUE" in without.stdout
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["http://127.0.0.1:9", "http://127.0.0.1:10"], 2, "one server at a time"),
        (["--bert", "127.0.0.1:5555"], 2, "HOST:PORT:PORT_OUT"),
        (["http://127.0.0.1:9", "--contract", "opena"], 1, "there is no contract 'opena'"),
        (["http://127.0.0.1:9", "--contract", "openai"], 1, "nothing answers at http://127.0.0.1:9"),
        (
            ["grpc://127.0.0.1:9", "--contract", "jina-grpc", "--timeout", "5"],
            1,
            "nothing answers at grpc://127.0.0.1:9",
        ),
        (["http://127.0.0.1:9", "--set", "model"], 2, "NAME=VALUE"),
    ],
)
def test_wrong_use_is_one_line(arguments: list[str], code: int, told: str) -> None:
    done = run_flowdex("conformance", *arguments)
    assert done.returncode == code, done.stderr
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_an_interrupt_shows_what_is_known_so_far() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections, and never answers
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        command = [sys.executable, "-m", "flowdex", "conformance", url, "--contract", "openai"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ)
        try:
            silent.settimeout(60)
            connection, _ = silent.accept()
            time.sleep(0.2)
            process.send_signal(signal.SIGINT)
            stdout, stderr = process.communicate(timeout=30)
            connection.close()
        finally:
            process.kill()
            process.wait(10)
    assert process.returncode == 130
    assert "Interrupted after 0 cases" in stdout
    assert not stderr
