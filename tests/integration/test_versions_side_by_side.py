"""Old and new versions side by side: replicas are exchanged one by one under load, and no request fails.

The old version is run with its own code (see old_versions.py): executors, gateway and client.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import grpc
import numpy as np
import pytest
from flow_support import free_ports
from grpc_health.v1 import health_pb2, health_pb2_grpc
from old_versions import BEFORE_EXCHANGE, PREVIOUS, OldVersion

from flowdex import AsyncClient
from flowdex_orchestrator.control import TOKEN_VARIABLE, ask

FLOW = """\
jtype: Flow
with: {name: rolling, protocol: [grpc], port: [51000]}
gateway: {uses_with: {replica_wait: 40}}
executors:
  - {name: segmenter, uses: flowdex_executors.Segmenter}
  - {name: encoder, uses: flowdex_executors.WordVectorEncoder}
  - name: indexer
    uses: flowdex_executors.QdrantIndexer
    uses_with: {uri: edge://index}
"""
TOKEN = "for this test alone"
TEXTS = ["a cat on a mat", "the weather of tomorrow"]


class Flow:
    """Processes of two versions in one folder."""

    def __init__(self, folder: Path, old: OldVersion) -> None:
        self.folder, self.old = folder, old
        self._environments = {"old": old.environment(), "new": dict(os.environ)}
        self.gateway_port, self._control_port = free_ports(2)
        self.addresses: dict[str, list[str]] = {}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._revision = 0
        (folder / "flow.yml").write_text(FLOW)

    @property
    def url(self) -> str:
        return f"grpc://127.0.0.1:{self.gateway_port}"

    def start(self, version: str, name: str, port: int | None = None) -> str:
        """Start an executor; its address."""
        port = port or free_ports(1)[0]
        self._start(version, f"127.0.0.1:{port}", "executor", name, "--port", f"{port}")
        return f"127.0.0.1:{port}"

    def start_gateway(self, version: str) -> None:
        named = [f"--address={name}={each}" for name, addresses in self.addresses.items() for each in addresses]
        ports = ["--port-grpc", f"{self.gateway_port}", "--control-port", f"{self._control_port}"]
        self._start(version, f"127.0.0.1:{self.gateway_port}", "gateway", *ports, *named)

    def _start(self, version: str, address: str, *arguments: str) -> None:
        environment = {**self._environments[version], TOKEN_VARIABLE: TOKEN}
        with (self.folder / f"{version}-{arguments[0]}-{address.rpartition(':')[2]}.log").open("ab") as log:
            self._processes[address] = subprocess.Popen(
                [sys.executable, "-m", "flowdex", *arguments, "--flow", "flow.yml", "--parent-pid", f"{os.getpid()}"],
                env=environment,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def serves(self, address: str) -> bool:
        if self._processes[address].poll() is not None:
            logs = "\n".join(
                path.read_text()[-2000:] for path in self.folder.glob(f"*-{address.rpartition(':')[2]}.log")
            )
            raise AssertionError(f"the process at {address} has ended:\n{logs}")
        with grpc.insecure_channel(address) as channel, suppress(grpc.RpcError):
            check = health_pb2_grpc.HealthStub(channel).Check  # type: ignore[no-untyped-call]
            return bool(check(health_pb2.HealthCheckRequest(), timeout=2).status == 1)
        return False

    async def ready(self, *addresses: str) -> None:
        end = time.monotonic() + 90
        for address in addresses:
            while not await asyncio.to_thread(self.serves, address):
                assert time.monotonic() < end, f"{address} is not ready"
                await asyncio.sleep(0.1)

    async def tell_gateway(self) -> None:
        self._revision += 1
        body = {"revision": self._revision, "addresses": self.addresses, "drain": 20}
        await ask(f"127.0.0.1:{self._control_port}", TOKEN, "set_addresses", body, timeout=40)

    async def end(self, address: str) -> None:
        process = self._processes.pop(address)
        process.terminate()
        assert await asyncio.to_thread(process.wait, 40) == 0, address

    def stop(self) -> None:
        for process in self._processes.values():
            process.kill()
            process.wait()

    # ---- the exchange ----

    async def exchange(self, name: str) -> None:
        """A new replica in the place of each old one: start it, tell the gateway, end the old one."""
        for place, address in enumerate(list(self.addresses[name])):
            new = self.start("new", name)
            await self.ready(new)
            self.addresses[name][place] = new
            await self.tell_gateway()
            await self.end(address)

    async def exchange_the_only_one(self, name: str) -> None:
        """The same where there can be but one: requests wait for it (`replica_wait`)."""
        (address,) = self.addresses[name]
        await self.end(address)
        self.start("new", name, int(address.rpartition(":")[2]))
        await self.ready(address)


@pytest.fixture
def make_flow(tmp_path: Path) -> Iterator[Callable[[str], Flow]]:
    flows: list[Flow] = []

    def make(commit: str) -> Flow:
        old = OldVersion(commit, tmp_path / "old")
        (tmp_path / "flow").mkdir()
        flows.append(Flow(tmp_path / "flow", old))
        return flows[0]

    yield make
    for flow in flows:
        flow.stop()


class Callers:
    """Encode, search and index without pause; nothing is tried again, and every error counts."""

    def __init__(self, client: AsyncClient, vectors: np.ndarray) -> None:
        self._client, self._vectors = client, vectors
        self.done: Counter[str] = Counter()
        self.errors: list[str] = []
        self.stored: set[str] = {"first"}
        self._stop = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Callers:
        kinds = [self._encode, self._encode, self._search, self._search, self._index]
        self._tasks = [asyncio.create_task(self._repeat(kind)) for kind in kinds]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stop.set()
        await asyncio.gather(*self._tasks)

    async def _repeat(self, call: Callable[[], object]) -> None:
        while not self._stop.is_set():
            try:
                await call()  # type: ignore[misc]
            except Exception as error:
                self.errors.append(repr(error))
            await asyncio.sleep(0.005)

    async def _encode(self) -> None:
        assert np.allclose(await self._client.encode(TEXTS, timeout=60), self._vectors, atol=1e-5)
        self.done["encode"] += 1

    async def _search(self) -> None:
        found = await self._client.search("cat", limit=1, timeout=60)
        assert found[0], "nothing was found"
        self.done["search"] += 1

    async def _index(self) -> None:
        name = f"d{len(self.stored)}"
        await self._client.index([{"id": name, "text": f"{name} about a dog"}], timeout=60)
        self.stored.add(name)
        self.done["index"] += 1


OLD_CLIENT = """
import sys
from flowdex import Client

with Client(sys.argv[1]) as client:
    client.index([{"id": "old", "text": "a cat of an old client"}])
    assert client.encode(["a cat"]).shape[0] == 1
    assert client.search("cat")[0]
    saved = client.count()
    client.snapshot(sys.argv[2])
    client.delete(["old"])
    client.restore(sys.argv[2])
    assert client.count() == saved
    client.status()
    print(client.get(["old"]))
"""


def an_old_client_understands(flow: Flow) -> None:
    """Everything that a client does, by the old client's code."""
    script = flow.folder / "old_client.py"
    script.write_text(OLD_CLIENT)
    assert "a cat of an old client" in flow.old.run(str(script), flow.url, str(flow.folder / "a.snapshot"))


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("commit", "gateway"),
    [(PREVIOUS, "old"), (PREVIOUS, "new"), (BEFORE_EXCHANGE, "new")],
    ids=str,
)
async def test_replicas_are_exchanged_under_load(make_flow: Callable[[str], Flow], commit: str, gateway: str) -> None:
    flow = make_flow(commit)
    names = ("segmenter", "encoder", "encoder", "indexer")
    for name in names:
        flow.addresses.setdefault(name, []).append(flow.start("old", name))
    await flow.ready(*(address for found in flow.addresses.values() for address in found))
    flow.start_gateway(gateway)
    await flow.ready(f"127.0.0.1:{flow.gateway_port}")
    async with AsyncClient(flow.url, retries=0) as client:
        await client.index([{"id": "first", "text": TEXTS[0]}])
        vectors = await client.encode(TEXTS)
        async with Callers(client, vectors) as callers:
            await asyncio.sleep(0.5)
            for exchange, name in [
                (flow.exchange, "encoder"),
                (flow.exchange, "segmenter"),
                (flow.exchange_the_only_one, "indexer"),
            ]:
                before = callers.done.copy()
                await exchange(name)
                await asyncio.sleep(0.5)
                assert all(callers.done[kind] > before[kind] for kind in ("encode", "search", "index")), callers.errors
        assert not callers.errors
        assert await client.count() == len(callers.stored)
    if commit == PREVIOUS and gateway == "new":  # by now all of it is new
        await asyncio.to_thread(an_old_client_understands, flow)
