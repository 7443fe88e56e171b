"""The stock `jina.Client(tls=True)`, unmodified, against a gateway with TLS and keys.

Stock Jina has no option for an authority of one's own. What its libraries read from the environment it takes:
GRPC_DEFAULT_SSL_ROOTS_FILE_PATH (gRPC) and SSL_CERT_FILE (OpenSSL, below aiohttp: HTTP and WebSocket).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from flow_support import ROOT, RunningFlow, run_flowdex, start_flow, stop_flow

pytest.importorskip("jina")

FLOW = """\
jtype: Flow
with: {protocol: [grpc, http], port: [51000, 8080]}
gateway:
  tls: {certificate: tls/gateway.pem, key: tls/gateway.key}
  keys: keys.json
executors:
  - {name: encoder, uses: HashingEncoder, py_modules: [hashing_encoder.py], uses_with: {dimensions: 64}}
"""
PROGRAM = """
import json, sys
from docarray import DocList
from docarray.documents import TextDoc
from jina import Client
scheme, port, key = sys.argv[1:]
token = {"authorization": f"Bearer {key}"}
said = {"metadata": tuple(token.items())} if scheme == "grpc" else {"headers": token}
docs = DocList[TextDoc]([TextDoc(text=f"text number {i}") for i in range(20)])
found = {}
for name, client in (
    ("option", Client(host="127.0.0.1", port=int(port), protocol=scheme, tls=True)),
    ("address", Client(host=f"{dict(grpc='grpcs', http='https', websocket='wss')[scheme]}://127.0.0.1:{port}")),
):
    found[name] = client.is_flow_ready(**said, **({"timeout": 10} if scheme == "grpc" else {}))
    if found[name]:  # without a limit of its own, a call over gRPC waits for ever where it is not
        done = client.post("/encode", docs, return_type=DocList[TextDoc], request_size=8, results_in_order=True, **said)
        found[name] = [[d.id for d in done] == [d.id for d in docs], [len(d.embedding) for d in done]]
print("ANSWER " + json.dumps(found))
"""
SCHEMES = {"grpc": "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", "http": "SSL_CERT_FILE", "websocket": "SSL_CERT_FILE"}


@dataclass(frozen=True)
class Secured:
    """The flow, its authority and a key to it."""

    flow: RunningFlow
    ca: Path
    key: str

    def ask(self, scheme: str, **environment: str) -> dict[str, object]:
        """What a program with a stock client finds."""
        port = self.flow.grpc_port if scheme == "grpc" else self.flow.http_port
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", PROGRAM, scheme, str(port), self.key],
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
            env={**os.environ, "JINA_OPTOUT_TELEMETRY": "1", **environment},
        )
        lines = [line for line in done.stdout.splitlines() if line.startswith("ANSWER ")]
        assert lines, f"the client failed:\n{done.stdout}\n{done.stderr}"
        found: dict[str, object] = json.loads(lines[-1].removeprefix("ANSWER "))
        return found


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    folder = tmp_path_factory.mktemp("stock-tls")
    shutil.copy(ROOT / "examples/executors/hashing_encoder.py", folder)
    assert run_flowdex("tls", "init", "tls", cwd=folder).returncode == 0
    added = run_flowdex("keys", "add", "stock", "--role", "search", "--file", "keys.json", cwd=folder)
    flow = start_flow(folder, FLOW)
    yield Secured(flow, folder / "tls/ca.pem", added.stdout.strip())
    stop_flow(flow)


@pytest.mark.parametrize(("scheme", "variable"), SCHEMES.items())
def test_the_environment_names_the_authority(secured: Secured, scheme: str, variable: str) -> None:
    found = secured.ask(scheme, **{variable: str(secured.ca)})
    assert found == {way: [True, [64] * 20] for way in ("option", "address")}
