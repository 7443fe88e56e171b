"""An index on a Qdrant server: layout, TLS, keys, and what happens while the server is away or unwilling.

QdrantIndexer --http(s)://, grpc(s)://--> the double of qdrant_double.py, which is told what to do wrong, or is killed
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import qdrant_double as doubles
from qdrant_double import Protocol, Running, Tls, running

from flowdex.documents import DocumentBatch
from flowdex.errors import ConfigurationError, DeadlineExceeded, InvalidInput, Overloaded, Unavailable
from flowdex_executors import DocumentColumns, QdrantIndexer

PROTOCOLS: tuple[Protocol, ...] = ("rest", "grpc")
pytestmark = pytest.mark.filterwarnings("ignore:Api key is used with an insecure connection")


@asynccontextmanager
async def opened(uri: str, **settings: Any) -> AsyncIterator[QdrantIndexer]:
    indexer = QdrantIndexer(uri=uri, **settings)
    try:
        yield indexer
    finally:
        closing = indexer.close()
        if closing is not None:
            await closing


async def store(indexer: QdrantIndexer, *names: str) -> None:
    vectors = np.random.default_rng(len(names)).standard_normal((len(names), 8)).astype(np.float32)
    batch = DocumentBatch.from_columns(ids=list(names), texts=[f"the text of {name}" for name in names])
    batch.embeddings = vectors
    reply = await indexer.index(DocumentColumns(batch))
    assert reply.batch.column("passages") == [1] * len(names)


async def count(indexer: QdrantIndexer) -> int:
    return int((await indexer.status())["documents"])


@pytest.fixture(scope="module", params=PROTOCOLS)
def double(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp(request.param), request.param) as double:
        yield double


@pytest.fixture(autouse=True)
def _nothing_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test's faults end with it."""
    yield
    if "double" in request.fixturenames:
        request.getfixturevalue("double").faults.next.clear()


# ---- layout ----

LAYOUT: dict[str, Any] = {
    "shards": 3,
    "replication_factor": 2,
    "write_consistency": 2,
    "quantization": {"method": "scalar", "quantile": 0.99, "rescore": True, "oversampling": 2.0},
    "on_disk": {"vectors": True, "payload": False, "graph": True},
    "hnsw": {"m": 32, "ef_construct": 200, "ef": 128},
}


async def test_a_collection_is_created_as_the_settings_say(double: Running) -> None:
    async with opened(double.uri, collection="laid-out", dimensions=8, server=LAYOUT) as indexer:
        await indexer.warm_up()
        await store(indexer, "a")
        names = {each.alias_name: each.collection_name for each in (await aliases_of(indexer))}
        info = await indexer._backend.call(lambda c: c.get_collection(names["laid-out"]))
        params, graph = info.config.params, info.config.hnsw_config
        assert (params.shard_number, params.replication_factor, params.write_consistency_factor) == (3, 2, 2)
        assert params.on_disk_payload is False
        assert params.vectors["dense"].on_disk is True
        assert params.sparse_vectors["bm25"].index.on_disk is True
        assert (graph.m, graph.ef_construct, graph.on_disk) == (32, 200, True)
        assert info.config.quantization_config.scalar.quantile == pytest.approx(0.99)
        assert info.config.quantization_config.scalar.always_ram is True
        assert "differences" not in await indexer.status()


async def aliases_of(indexer: QdrantIndexer) -> Any:
    return (await indexer._backend.call(lambda c: c.get_aliases())).aliases


@pytest.mark.parametrize("method", ["scalar", "binary", "product"])
async def test_each_method_of_quantization_is_understood(double: Running, method: str) -> None:
    server = {"quantization": method, "on_disk": True}
    async with opened(double.uri, collection=f"with-{method}", dimensions=8, server=server) as indexer:
        await indexer.warm_up()
        assert "differences" not in await indexer.status()


async def test_another_layout_is_reported_and_used(double: Running, caplog: pytest.LogCaptureFixture) -> None:
    async with opened(double.uri, collection="plain", dimensions=8) as indexer:
        await indexer.warm_up()
        await store(indexer, "a")
    async with opened(double.uri, collection="plain", server=LAYOUT) as indexer:
        await indexer.warm_up()
        assert await count(indexer) == 1
        differences = (await indexer.status())["differences"]
    assert "shards is 1 instead of 3" in differences
    assert "quantization is none instead of scalar" in differences
    assert "on_disk.vectors is false instead of true" in differences
    assert "shards is 1 instead of 3" in caplog.text
    assert "flowdex reindex" in caplog.text


@pytest.mark.parametrize(
    ("server", "message"),
    [
        ({"shards": 0}, "server.shards"),
        ({"quantization": "int4"}, r"server.quantization.*scalar"),
        ({"on_disk": {"everything": True}}, "server.on_disk.everything"),
        ({"sharding": 2}, "server.sharding"),
    ],
)
def test_wrong_settings_are_named(server: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        QdrantIndexer(uri="http://127.0.0.1:6333", server=server)


def test_an_embedded_index_has_no_server_settings(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="embedded index, which has none of these"):
        QdrantIndexer(uri=f"edge://{tmp_path}", server={"shards": 2})


# ---- unwilling ----


@pytest.mark.parametrize(
    "fault", [doubles.UNAVAILABLE, doubles.BAD_GATEWAY, doubles.RATE_LIMITED_SILENTLY], ids=lambda fault: fault.message
)
async def test_what_passes_is_waited_for(double: Running, fault: doubles.Refusal) -> None:
    async with opened(double.uri, collection="patient", retry_for=20.0) as indexer:
        await store(indexer, "a")
        double.faults.next = [fault] * 4
        await store(indexer, "b")
        assert not double.faults.next
        assert await count(indexer) == 2
        await indexer.delete(DocumentColumns(DocumentBatch.from_columns(ids=["a", "b"])))


async def test_retry_after_is_heeded(double: Running) -> None:
    async with opened(double.uri, collection="limited", retry_for=20.0) as indexer:
        await store(indexer, "a")
        double.faults.next = [doubles.RATE_LIMITED]
        started = time.monotonic()
        await store(indexer, "b")
        assert time.monotonic() - started >= 1.0
    async with opened(double.uri, collection="limited", retry_for=0.5) as indexer:
        await indexer.warm_up()
        double.faults.next = [doubles.RATE_LIMITED]
        started = time.monotonic()
        with pytest.raises(Overloaded, match="limits the rate") as caught:
            await store(indexer, "b")
        assert caught.value.retry_after == 1.0
        assert time.monotonic() - started < 1.0, "waiting would be longer than retry_for allows"


async def test_what_is_wrong_is_not_tried_again(double: Running) -> None:
    async with opened(double.uri, collection="wrong", retry_for=20.0) as indexer:
        await store(indexer, "a")
        double.faults.next = [doubles.BAD_REQUEST]
        double.faults.calls.clear()
        with pytest.raises(InvalidInput, match=r"refuses the request.*nonsense"):
            await indexer.status()
        assert len(double.faults.calls) == 1


async def test_a_deadline_ends_the_waiting(double: Running) -> None:
    async with opened(double.uri, collection="late", retry_for=60.0) as indexer:
        await store(indexer, "a")
        double.faults.next = [doubles.UNAVAILABLE] * 1000
        try:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(indexer.status(), 0.5)  # as a request's deadline cancels its work
            calls = len(double.faults.calls)
            await asyncio.sleep(0.5)
            assert len(double.faults.calls) == calls
        finally:
            double.faults.next = []


async def test_a_slow_server_is_said_to_be(double: Running) -> None:
    async with opened(double.uri, collection="slow", timeout=1.0) as indexer:
        await store(indexer, "a")
        double.faults.next = [3.0]
        with pytest.raises(DeadlineExceeded, match=r"did not answer in time; see uses_with\.timeout"):
            await indexer.status()


# ---- keys and certificates ----


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_the_key_is_sent_and_its_refusal_is_the_flows_fault(tmp_path: Path, protocol: Protocol) -> None:
    with running(tmp_path, protocol, api_key="secret") as double:
        async with opened(double.uri, api_key="secret") as indexer:
            await store(indexer, "a")
        for key in ("wrong", None):
            async with opened(double.uri, api_key=key) as indexer:
                started = time.monotonic()
                with pytest.raises(ConfigurationError, match=r"refuses this flow's API key; set uses_with\.api_key"):
                    await indexer.warm_up()
                assert time.monotonic() - started < 5


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    """A certificate for 127.0.0.1 that signs itself."""
    folder = tmp_path_factory.mktemp("tls")
    tls = Tls(folder / "cert.pem", folder / "key.pem")
    command = (
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1"
    )
    subprocess.run(
        [*command.split(), "-keyout", str(tls.key), "-out", str(tls.certificate)], check=True, capture_output=True
    )
    return tls


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_tls_with_an_authority_of_ones_own(tmp_path: Path, protocol: Protocol, certificate: Tls) -> None:
    with running(tmp_path, protocol, api_key="secret", tls=certificate) as double:
        trusted = {"ca_file": str(certificate.certificate)}
        async with opened(double.uri, api_key="secret", server=trusted) as indexer:
            await store(indexer, "a")
            assert await count(indexer) == 1
        async with opened(double.uri, api_key="secret", retry_for=20.0) as indexer:
            started = time.monotonic()
            with pytest.raises(ConfigurationError, match=r"is not trusted.*uses_with\.server\.ca_file"):
                await indexer.warm_up()
            assert time.monotonic() - started < 10, "trying again cannot help"


def test_a_ca_file_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "no.pem").write_text("this is no certificate")
    for name in ("no.pem", "missing.pem"):
        with pytest.raises(ConfigurationError, match=f"ca_file.*{name}"):
            QdrantIndexer(uri="https://127.0.0.1:6333", server={"ca_file": str(tmp_path / name)})


# ---- away, and back ----


@pytest.mark.parametrize("scheme", ["http", "grpc"])
async def test_a_server_that_is_away_is_said_to_be(unused_tcp_port: int, scheme: str) -> None:
    async with opened(f"{scheme}://127.0.0.1:{unused_tcp_port}", retry_for=0.5) as indexer:
        started = time.monotonic()
        with pytest.raises(Unavailable, match=f"index at {scheme}://127.0.0.1:{unused_tcp_port} cannot be reached"):
            await indexer.warm_up()
        assert time.monotonic() - started < 20


class Killable:
    """The double as a process on a fixed port."""

    def __init__(self, directory: Path, port: int, protocol: Protocol) -> None:
        self._command = [sys.executable, doubles.__file__, str(directory), str(port), protocol]
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, text=True)

    def wait(self) -> None:
        assert self._process is not None and self._process.stdout is not None
        assert self._process.stdout.readline().strip(), "the double does not start"

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(20)
            assert self._process.stdout is not None
            self._process.stdout.close()


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_server_killed_in_the_middle_loses_nothing(
    tmp_path: Path, unused_tcp_port: int, protocol: Protocol
) -> None:
    server = Killable(tmp_path, unused_tcp_port, protocol)
    scheme = "http" if protocol == "rest" else "grpc"
    acknowledged: list[str] = []
    searches = 0

    async def write(indexer: QdrantIndexer) -> None:
        for number in range(1, 10_000):
            await store(indexer, f"d{number}")
            acknowledged.append(f"d{number}")

    async def search(indexer: QdrantIndexer) -> None:
        nonlocal searches
        while True:
            query = DocumentBatch.from_columns(texts=["text"])
            reply = await indexer.search(DocumentColumns(query), {"mode": "sparse", "limit": 3})
            assert len(reply.batch.nested("matches")[0])
            searches += 1
            await asyncio.sleep(0.02)

    async with opened(f"{scheme}://127.0.0.1:{unused_tcp_port}", retry_for=60.0) as indexer:
        starting = asyncio.create_task(store(indexer, "d0"))  # before there is a server
        await asyncio.sleep(0.3)
        assert not starting.done()
        server.start()
        try:
            await asyncio.wait_for(starting, 60)
            await asyncio.to_thread(server.wait)
            work = [asyncio.create_task(write(indexer)), asyncio.create_task(search(indexer))]
            for _ in range(2):
                seen = len(acknowledged), searches
                async with asyncio.timeout(60):
                    while len(acknowledged) < seen[0] + 10 or searches < seen[1] + 3:
                        assert not any(task.done() for task in work), [task for task in work if task.done()]
                        await asyncio.sleep(0.02)
                await asyncio.to_thread(server.kill)
                await asyncio.sleep(0.3)
                server.start()
                await asyncio.to_thread(server.wait)
            async with asyncio.timeout(60):
                while len(acknowledged) < seen[0] + 30:
                    assert not any(task.done() for task in work), [task for task in work if task.done()]
                    await asyncio.sleep(0.02)
            for task in work:
                task.cancel()
            await asyncio.wait(work)
            assert all(task.cancelled() for task in work)
            query = DocumentBatch.from_columns(texts=["text"])
            reply = await indexer.search(DocumentColumns(query), {"mode": "sparse", "limit": 1000})
            found = set(reply.batch.nested("matches")[0].column("parent_id"))
            assert found >= set(acknowledged)
        finally:
            server.kill()
