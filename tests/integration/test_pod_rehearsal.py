"""The rendered manifests, run: each pod's command with its environment, probes and ports, found by the cluster's names.

    k8s/overlays/local                     --> index and search through the gateway's Service
    a flow with an encoder that takes 20 ms --> under load: 1 pod, 3 pods, one killed, 1 pod again

Each twice: with pods in network namespaces and, as those cannot be made everywhere, at addresses 127.x.y.z; see
pod_support.
"""

from __future__ import annotations

import asyncio
import math
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
from flow_support import ROOT
from pod_network import DOMAIN, Loopback, NameServer, Namespaces, Network, ask, why_no_loopback, why_no_namespaces
from pod_support import Cluster, Pod, load_manifests

from flowdex import Client, wire
from flowdex.documents import DocumentBatch
from flowdex_orchestrator.export import make_deployment
from flowdex_orchestrator.export.folder import write_folder
from flowdex_orchestrator.export.kubernetes import render
from flowdex_orchestrator.flow import load_flow

FLOW = """\
jtype: Flow
with: {name: rehearsal, protocol: [grpc, http], port: [51000, 8080]}
executors:
  - {name: encoder, uses: FixedCostEncoder, py_modules: fixed_cost.py}
"""
# Says in its working directory, which every pod has to itself, when it began to work on a request.
ENCODER = """\
import time
from pathlib import Path

from docarray import DocList
from docarray.documents import TextDoc
from jina import Executor, requests


class FixedCostEncoder(Executor):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        time.sleep(1.5)  # loads: its port is open, and it is not ready
        self._served = Path("served").open("a", buffering=1)

    @requests(on="/encode")
    def encode(self, docs: DocList[TextDoc], **kwargs) -> DocList[TextDoc]:
        print(time.monotonic(), file=self._served)
        time.sleep(0.02)
        return docs
"""
START_SECONDS = 150.0  # for pods to become ready, on a machine that is busy with other things
REACHED_SECONDS = 10.0  # from readiness to traffic
COUNTED = 450  # requests: a fair share of them is known to a few per cent
CALLERS = 6

pytestmark = pytest.mark.timeout(400)


@pytest.fixture(params=["namespaces", "loopback"])
def network(request: pytest.FixtureRequest) -> Iterator[Network]:
    """Both ways to have an address for each pod; closed whatever the test did."""
    ways: Mapping[str, tuple[Callable[[], str | None], Callable[[], Network]]] = {
        "namespaces": (why_no_namespaces, Namespaces),
        "loopback": (why_no_loopback, Loopback),
    }
    why_not, make = ways[request.param]
    if reason := why_not():
        pytest.skip(f"{reason}; the other of the two ways holds")
    made = make()
    try:
        yield made
    finally:
        made.close()


# ---- the default flow ----


async def test_index_and_search_through_the_service_of_the_gateway(network: Network, tmp_path: Path) -> None:
    texts = {
        "tea": "Green tea is steeped in water that has not quite boiled.",
        "train": "The night train to Vienna leaves at eleven from platform four.",
        "moon": "Tides follow the moon, which pulls at the sea.",
    }
    async with Cluster(load_manifests(ROOT / "k8s", "overlays/local"), network, tmp_path) as cluster:
        await cluster.wait_ready(START_SECONDS)
        address = cluster.service_addresses["gateway"]

        def index_and_search(url: str) -> None:
            with Client(url, timeout=60) as client:
                assert client.is_ready(timeout=20)
                client.index([{"id": id, "text": text} for id, text in texts.items()])
                assert client.count() == len(texts)
                for query, id in {
                    "when does the railway depart?": "train",
                    "why is there ebb and flow?": "moon",
                }.items():
                    assert client.search(query, limit=2).hits[0].id == id
                    # Asks the encoder once more: the ranker finds the gateway by its name.
                    again = client.search(query, limit=2, rerank={"method": "late_interaction", "timeout": 30})
                    assert again.hits[0].id == id
                    assert not again.notes
                states = {
                    each.name: [replica["address"] for replica in each.replicas] for each in client.status().executors
                }
            assert states == {
                name: [f"{pod.address}:52000" for pod in pods]
                for name, pods in cluster.pods.items()
                if name != "gateway"
            }

        for url in (f"grpc://{address}:51000", f"http://{address}:8080"):
            await asyncio.to_thread(index_and_search, url)
        assert [pod.restarts for pods in cluster.pods.values() for pod in pods] == [0] * 5
        codes = await asyncio.gather(*(cluster.scale(name, 0) for name in cluster.pods))
        assert codes == [[0]] * 5, cluster.describe()


# ---- an encoder that is scaled ----


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    (tmp_path / "fixed_cost.py").write_text(ENCODER)
    (tmp_path / "flow.yml").write_text(FLOW)
    write_folder(tmp_path / "k8s", render(make_deployment(load_flow(tmp_path / "flow.yml"), FLOW, {})))
    return tmp_path / "k8s"


class Load:
    """Callers that call again and again; every error counts, and nothing is retried on this side."""

    def __init__(self) -> None:
        self.answered = 0
        self.errors: list[str] = []


@asynccontextmanager
async def load(address: str) -> AsyncIterator[Load]:
    found, stop = Load(), asyncio.Event()
    request = wire.build_request("/encode", DocumentBatch.from_columns(texts=["a"]))
    options = [("grpc.enable_retries", 0), ("grpc.enable_http_proxy", 0)]
    async with grpc.aio.insecure_channel(address, options=options) as channel:
        call = channel.unary_unary(wire.PROCESS_SINGLE_DATA)

        async def caller() -> None:
            while not stop.is_set():
                try:
                    reply = wire.read_reply(await call(request, timeout=60))
                    assert wire.documents_of(reply).texts == ["a"]
                    found.answered += 1
                except Exception as error:
                    found.errors.append(repr(error))
                    await asyncio.sleep(0.1)
                await asyncio.sleep(0.01)

        tasks = [asyncio.create_task(caller()) for _ in range(CALLERS)]
        try:
            yield found
        finally:
            stop.set()
            await asyncio.gather(*tasks)


def served(pod: Pod) -> list[float]:
    """When a pod began to work on requests."""
    path = pod.file("/var/lib/flowdex/served")
    return [float(line) for line in path.read_text().split()] if path.exists() else []


async def until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        await asyncio.sleep(0.05)


async def reached_and_shared(pods: list[Pod], fresh: list[Pod], callers: Load) -> None:
    """The pods that have just become ready have traffic within ten seconds of that, and then each of all its share."""
    for pod in fresh:
        ready = pod.times("ready")[-1]
        await until(lambda pod=pod, ready=ready: served(pod)[-1:] > [ready], 60, f"a request to {pod.name}")
        first = next(moment for moment in served(pod) if moment > ready) - ready
        assert first < REACHED_SECONDS, f"{pod.name} had its first request {first:.1f} s after it was ready"
    before, began = [len(served(pod)) for pod in pods], callers.answered
    await until(lambda: callers.answered - began >= COUNTED, 90, f"{COUNTED} answers")
    counts = [len(served(pod)) - count for pod, count in zip(pods, before, strict=True)]
    fair = sum(counts) / len(counts)
    print(f"requests of {[pod.name for pod in pods]}: {counts}")
    assert all(abs(each - fair) <= 0.25 * fair for each in counts), counts


def assert_only_while_ready(pod: Pod) -> None:
    """No request before a pod was in the Service, none while it was not serving, none once it had been told to end."""
    moments = served(pod)
    assert moments[0] >= pod.times("listed")[0], f"{pod.name} had a request before its Service named it"
    for started in pod.times("started"):
        ready = next((each for each in pod.times("ready") if each > started), math.inf)
        failed = max((each for each in pod.times("failed") if started < each < ready), default=started)
        early = [each for each in moments if started < each < failed]
        assert not early, f"{pod.name} had {len(early)} requests before it was ready"
    for told in pod.times("SIGTERM"):
        late = [each - told for each in moments if each > told + 1.0]
        assert not late, f"{pod.name} had requests {late} s after it was told to end"


async def test_encoders_come_and_go_under_load(network: Network, exported: Path, tmp_path: Path) -> None:
    async with Cluster(load_manifests(exported, "overlays/local"), network, tmp_path / "cluster") as cluster:
        await cluster.wait_ready(START_SECONDS)
        gateway = f"http://{cluster.service_addresses['gateway']}:8080"
        known: dict[str, float] = {}

        async def addresses() -> set[str]:
            status = (await cluster.http.get(f"{gateway}/status", timeout=30)).json()
            found = {each["address"].rpartition(":")[0] for each in status["executors"][0]["replicas"]}
            for each in found:
                known.setdefault(each, time.monotonic())
            return found

        async with load(f"{cluster.service_addresses['gateway']}:51000") as callers:
            encoders = cluster.pods["encoder"]
            await until(lambda: callers.answered >= 30, 60, "answers of one encoder")

            await cluster.scale("encoder", 3)
            end = time.monotonic() + START_SECONDS
            while not all(pod.listed for pod in encoders):
                assert time.monotonic() < end, "the new pods are not ready"
                await addresses()
                await asyncio.sleep(0.2)
            await reached_and_shared(encoders, encoders[1:], callers)
            assert await addresses() == {pod.address for pod in encoders}

            victim = encoders[1]
            victim.kill()
            (killed,) = victim.times("SIGKILL")
            await until(lambda: victim.times("ready")[-1] > killed, START_SECONDS, f"{victim.name} is ready again")
            await reached_and_shared(encoders, [victim], callers)

            pods = [*encoders]
            assert await cluster.scale("encoder", 1) == [0, 0], cluster.describe()
            answered = callers.answered
            await until(lambda: callers.answered >= answered + 30, 60, "answers of the encoder that is left")
            end = time.monotonic() + 30
            while await addresses() != {encoders[0].address}:
                assert time.monotonic() < end, "the gateway keeps pods that have gone"
                await asyncio.sleep(0.2)

        assert not callers.errors, f"{len(callers.errors)} of {callers.answered} requests failed: {callers.errors[:3]}"
        for pod in pods:
            assert_only_while_ready(pod)
            assert known[pod.address] >= pod.times("listed")[0]
        assert [pod.restarts for pod in pods] == [0, 1, 0]


# ---- the network itself ----


async def test_names_are_answered_as_a_cluster_does(network: Network) -> None:
    places = [network.place(name, "trial") for name in ("a", "b")]
    known = {f"two.trial.{DOMAIN}": [each.address for each in places], f"none.trial.{DOMAIN}": None}
    server = NameServer(known.get)
    await server.start(network.address, network.dns_port)
    try:
        for name, addresses in known.items():
            assert await asyncio.to_thread(ask, name, (network.address, network.dns_port)) == addresses
        say = "import socket, sys; print(sorted({each[4][0] for each in socket.getaddrinfo(sys.argv[1], 1)}))"
        if isinstance(network, Namespaces):  # by this machine's resolver, with the search domains of the pod
            asking = network.start(places[0], [sys.executable, "-S", "-c", say, "two"], stdout=subprocess.PIPE)
            out, _ = await asyncio.to_thread(asking.communicate, timeout=60)
            assert out.decode().strip() == str(sorted(each.address for each in places))
    finally:
        server.close()


def test_nothing_is_left_of_a_network(network: Network) -> None:
    place = network.place("left", "trial")
    process = network.start(place, [sys.executable, "-S", "-c", "import time; time.sleep(600)"])
    assert process.poll() is None
    network.close()
    assert process.poll() is not None
    if isinstance(network, Namespaces):
        made = f"fx{os.getpid()}"
        listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, timeout=30, check=True).stdout
        left = [*listed.split(), *(each.name for each in Path("/sys/class/net").iterdir())]
        left += [each.name for each in Path("/etc").glob("netns/*")]
        assert not [each for each in left if each.startswith(made)]
