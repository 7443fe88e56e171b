"""A flow with mutual TLS on every connection: who gets in, what the others are told, and renewal under load."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from flow_support import free_ports, run_flowdex
from prometheus_client.parser import text_string_to_metric_families

from flowdex import AsyncClient, Client, ConfigurationError, FlowdexError, Unauthenticated
from flowdex_orchestrator.development_ca import Authority

FLOW = """\
jtype: Flow
with:
  port: [{grpc}, {http}, {websocket}]
  protocol: [grpc, http, websocket]
  tls: {{certificate: tls/flow.pem, key: tls/flow.key, ca: tls/ca.pem}}
gateway:
  tls: {{certificate: tls/gateway.pem, key: tls/gateway.key, ca: tls/ca.pem, client_ca: tls/ca.pem}}
executors:
  - {{name: counter, uses: Counter, py_modules: [counter.py], replicas: 2, port: [{one}, {two}]}}
"""
COUNTER = """\
import numpy as np
from flowdex import Client
from flowdex_executors import DocumentColumns
from jina import Executor, requests


class Counter(Executor):
    @requests(on="/encode")
    def encode(self, docs: DocumentColumns, **kwargs) -> DocumentColumns:
        docs.batch.embeddings = np.asarray([[len(text), 1] for text in docs.batch.texts], dtype=np.float32)
        return docs

    @requests(on="/delete")
    def ask(self, docs: DocumentColumns, **kwargs) -> DocumentColumns:
        with Client() as client:  # of the flow that this executor is part of
            assert client.url.startswith("grpcs://")
            docs.batch.texts = [str(client.encode([text]).tolist()) for text in docs.batch.texts]
        return docs
"""


class Flow:
    """A running flow, and the files that belong to it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.tls = folder, folder / "tls"
        names = ("grpc", "http", "websocket", "one", "two")
        self.ports = dict(zip(names, free_ports(5), strict=True))
        self.pair = {"certificate": self.tls / "client.pem", "key": self.tls / "client.key"}
        self.mutual: dict[str, Any] = {"ca": self.tls / "ca.pem", **self.pair}
        self.variables = {f"FLOWDEX_{name.upper()}": str(path) for name, path in self.mutual.items()}

    def url(self, scheme: str) -> str:
        return f"{scheme}://127.0.0.1:{self.ports['grpc' if scheme.startswith('grpc') else 'http']}"

    def run(self, *arguments: str, **variables: str) -> str:
        done = run_flowdex(*arguments, cwd=self.folder, **variables)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def shown(self, port: str, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> str:
        """The serial number of the certificate that a new connection is shown."""
        context = ssl.create_default_context(cafile=self.mutual["ca"])
        context.minimum_version = context.maximum_version = version
        context.load_cert_chain(self.mutual["certificate"], self.mutual["key"])
        context.set_alpn_protocols(["http/1.1"] if port in ("http", "websocket") else ["h2"])
        with (
            socket.create_connection(("127.0.0.1", self.ports[port]), timeout=5) as connection,
            context.wrap_socket(connection, server_hostname="127.0.0.1") as stream,
        ):
            return str((stream.getpeercert() or {})["serialNumber"])


@pytest.fixture(scope="module")
def flow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flow]:
    flow = Flow(tmp_path_factory.mktemp("mutual"))
    (flow.folder / "counter.py").write_text(COUNTER)
    (flow.folder / "flow.yml").write_text(FLOW.format(**flow.ports))
    flow.run("tls", "init")
    try:
        told = flow.run("up", "--detach")
        assert flow.url("grpcs") in told and flow.url("https") in told and "wss://" in told
        yield flow
    finally:
        run_flowdex("down", cwd=flow.folder)


SCHEMES = pytest.mark.parametrize("scheme", ["grpcs", "https"])


@SCHEMES
def test_with_a_certificate(flow: Flow, scheme: str) -> None:
    with Client(flow.url(scheme), **flow.mutual) as client:
        assert client.is_ready()
        assert client.encode(["abc", "de"]).tolist() == [[3, 1], [2, 1]]


def test_keys_are_for_their_owner_alone(flow: Flow) -> None:
    keys = sorted(flow.tls.glob("*.key"))
    assert len(keys) == 4 and {key.stat().st_mode & 0o777 for key in keys} == {0o600}


@SCHEMES
def test_every_command_takes_the_files(flow: Flow, scheme: str) -> None:
    address = ("--url", flow.url(scheme))
    assert "takes requests" in flow.run(*address, "health", **flow.variables)
    assert "counter" in flow.run(*address, "status", **flow.variables)
    files = [part for name, path in flow.mutual.items() for part in (f"--{name}", str(path))]
    assert "takes requests" in flow.run(*files, *address, "health")
    refused = run_flowdex(*address, "health", FLOWDEX_CA=str(flow.tls / "ca.pem"))
    assert refused.returncode == 1 and "asks for a certificate of the client" in refused.stderr


def test_an_executor_calls_its_own_gateway(flow: Flow) -> None:
    from flowdex.documents import DocumentBatch
    from flowdex.transport.grpc import GrpcTransport
    from flowdex.transport.target import Target

    async def ask() -> list[str | None]:
        transport = GrpcTransport(Target.parse(flow.url("grpcs"), **flow.mutual))
        reply, _ = await transport.post("/delete", DocumentBatch.from_columns(texts=["abcd"]), {}, 20)
        await transport.close()
        return reply.texts

    assert asyncio.run(ask()) == ["[[4.0, 1.0]]"]


@SCHEMES
def test_who_does_not_get_in_is_told_why(flow: Flow, scheme: str) -> None:
    foreign = Authority.make("foreign")
    foreign.pair.write(flow.folder, "foreign-ca")
    foreign.issue("somebody", client=True).write(flow.folder, "foreign")
    foreign_pair = {"certificate": flow.folder / "foreign.pem", "key": flow.folder / "foreign.key"}
    authority = {"ca": flow.tls / "ca.pem"}
    refused: list[tuple[str, dict[str, Any], type[FlowdexError], str]] = [
        (scheme, authority, Unauthenticated, "asks for a certificate of the client: give certificate= and key="),
        (scheme, {**authority, **foreign_pair}, Unauthenticated, "does not accept the client's certificate .*foreign"),
        (scheme, {**flow.pair}, Unauthenticated, "is not trusted: .*; name the authority that signed it with ca="),
        (scheme, {"ca": flow.folder / "foreign-ca.pem", **flow.pair}, Unauthenticated, "is not trusted"),
        (scheme[:-1], {}, ConfigurationError, f"speaks TLS: write {scheme}://"),
    ]
    for used, files, kind, message in refused:
        with Client(flow.url(used), **files, timeout=20) as client, pytest.raises(kind, match=message):
            client.encode(["a"])


def test_a_name_that_the_certificate_is_not_for(flow: Flow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWDEX_TLS_NAME", "search.example.org")
    with Client(flow.url("grpcs"), **flow.mutual) as client, pytest.raises(Unauthenticated, match="FLOWDEX_TLS_NAME"):
        client.encode(["a"])
    monkeypatch.setenv("FLOWDEX_TLS_NAME", "localhost")  # the certificate is for that too
    with Client(flow.url("grpcs"), **flow.mutual) as client:
        assert client.encode(["a"]).tolist() == [[1, 1]]


def test_an_expired_certificate_of_the_client(flow: Flow) -> None:
    Authority.read(flow.tls).issue("late", client=True, ended=timedelta(days=1)).write(flow.folder, "late")
    with pytest.raises(ConfigurationError, match=r"late\.pem: certificate has expired"):
        Client(flow.url("grpcs"), certificate=flow.folder / "late.pem", key=flow.folder / "late.key")


def test_tls_to_a_port_without() -> None:
    async def run() -> None:
        server = grpc.aio.server()
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with AsyncClient(f"grpcs://127.0.0.1:{port}") as client:
            with pytest.raises(ConfigurationError, match=r"speaks no TLS: write grpc://"):
                await client.encode(["a"])
        await server.stop(None)

    asyncio.run(run())


@pytest.mark.parametrize("port", ["one", "two"])
def test_an_executor_takes_nobody_without_a_certificate(flow: Flow, port: str) -> None:
    trusting = grpc.ssl_channel_credentials((flow.tls / "ca.pem").read_bytes())
    address = f"127.0.0.1:{flow.ports[port]}"
    for channel in (grpc.insecure_channel(address), grpc.secure_channel(address, trusting)):
        with channel, pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=5)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


def test_websockets(flow: Flow) -> None:
    from websockets.sync.client import connect

    context = ssl.create_default_context(cafile=flow.mutual["ca"])
    context.load_cert_chain(flow.mutual["certificate"], flow.mutual["key"])
    address = f"wss://127.0.0.1:{flow.ports['websocket']}"
    with connect(address, ssl=context, subprotocols=["bytes"], proxy=None) as socket_:  # type: ignore[list-item]
        assert socket_.subprotocol == "bytes"


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_old_versions_of_tls(flow: Flow, version: ssl.TLSVersion) -> None:
    assert flow.shown("grpc", version) == flow.shown("http", version)


def ends(flow: Flow) -> dict[tuple[str, str], float]:
    """(process, use) -> seconds until its certificate ends, as each process says at its metrics port."""
    runner = json.loads(flow.run("ps", "--json"))["metrics"]
    groups = httpx.get(runner.replace("/metrics", "/targets"), trust_env=False).json()
    found = {}
    for url in (runner, *(f"http://{group['targets'][0]}/metrics" for group in groups)):
        for family in text_string_to_metric_families(httpx.get(url, trust_env=False).text):
            if family.name == "flowdex_certificate_expires_in_seconds":
                found.update({(each.labels["process"], each.labels["use"]): each.value for each in family.samples})
    return found


def test_every_process_says_when_its_certificate_ends(flow: Flow) -> None:
    before = ends(flow)
    assert set(before) == {
        ("gateway", "serving"),
        *((process, "calling") for process in ("gateway", "runner")),
        *((f"counter-{replica}", "serving") for replica in range(2)),
    }
    assert all(value > 80 * 86_400 for value in before.values())
    old = {path: path.read_bytes() for path in flow.tls.iterdir()}
    soon = Authority.read(flow.tls).issue(
        "flow", ["localhost", "127.0.0.1"], server=True, client=True, valid=timedelta(days=3)
    )
    soon.write(flow.tls, "flow")
    try:  # read anew though nobody connects
        after = ends(flow)
    finally:
        for path, content in old.items():
            path.write_bytes(content)
    assert after.pop(("gateway", "serving")) == pytest.approx(before["gateway", "serving"], abs=60)
    assert all(value == pytest.approx(3 * 86_400, abs=60) for value in after.values()), after


async def test_renewal_under_load(flow: Flow) -> None:
    """Five renewals of all certificates, with torn writes, and a rolling restart: no request fails."""
    ports = ("grpc", "http", "websocket")
    before = {port: flow.shown(port) for port in (*ports, "one")}
    failed: list[str] = []
    answered, stop = 0, asyncio.Event()

    async def load(scheme: str, *, anew: bool) -> None:
        nonlocal answered
        client = AsyncClient(flow.url(scheme), retries=0, timeout=20, **flow.mutual)
        while not stop.is_set():
            try:
                assert (await client.encode(["abc"])).tolist() == [[3, 1]]
                answered += 1
            except FlowdexError as error:
                failed.append(f"{scheme}: {type(error).__name__}: {error}")
            if anew:  # each request on a connection of its own
                await client.close()
                client = AsyncClient(flow.url(scheme), retries=0, timeout=20, **flow.mutual)
        await client.close()

    async def command(*arguments: str) -> None:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "flowdex", *arguments, cwd=flow.folder, stdout=asyncio.subprocess.DEVNULL
        )
        assert await process.wait() == 0

    async with asyncio.TaskGroup() if sys.version_info >= (3, 11) else _Tasks() as tasks:
        for scheme in ("grpcs", "https"):
            for anew in (False, True):
                tasks.create_task(load(scheme, anew=anew))
        authority = Authority.read(flow.tls)
        for _ in range(4):
            names = ["localhost", "127.0.0.1"]
            for name, uses in (("gateway", {"server": True}), ("flow", {"server": True, "client": True})):
                renewed = authority.issue(name, names, **uses)
                (flow.tls / f"{name}.key").write_bytes(renewed.key)  # not at once, and first only one half
                await asyncio.sleep(0.1)
                with (flow.tls / f"{name}.pem").open("wb") as file:
                    file.write(renewed.certificate[:200])
                    file.flush()
                    await asyncio.sleep(0.1)
                    file.write(renewed.certificate[200:])
        executor = flow.shown("one")
        await command("restart", "counter")  # its replicas have other ports then
        await command("tls", "init", "--renew")
        await asyncio.sleep(1)
        stop.set()
    after = {port: flow.shown(port) for port in ports}
    assert not failed, f"{len(failed)} of {answered + len(failed)}: {failed[:3]}"
    assert answered > 100
    assert all(after[port] != before[port] for port in ports)
    assert executor != before["one"]
    log = flow.folder / ".flowdex/run/flow/logs/gateway.log"
    deadline = time.monotonic() + 40
    while "took over renewed certificate files" not in log.read_text():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.1)


class _Tasks:
    """`asyncio.TaskGroup`, for Python 3.10."""

    def __init__(self) -> None:
        self._tasks: list[asyncio.Task[None]] = []

    def create_task(self, work: Any) -> None:
        self._tasks.append(asyncio.ensure_future(work))

    async def __aenter__(self) -> _Tasks:
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(*self._tasks)
