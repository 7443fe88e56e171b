"""Kubernetes in small: the pods of rendered manifests as processes of this machine, kept as a cluster keeps them.

    manifests --load_manifests--> objects --Cluster--> Deployments, StatefulSets --> pods   (see pod_network)
                                              Services --> names (headless) or an address with a proxy, of READY pods

A pod is its container's command with its environment, working directory and volumes, in folders of its own. What a
kubelet does is done here by the manifest's own words: startup, readiness and liveness probes, restarts, preStop,
SIGTERM, the grace period. Periods of probes are shortened by `PACE`, nothing else is. A pod leaves its Services at the
moment when its end begins, and every change takes `PROPAGATION` seconds to be known to the name server.

Left out is what needs a container engine or the network's plugin: images, users, read-only root file systems, memory
limits, network policies, schedulers.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any

import grpc
import httpx
import yaml
from flow_support import ROOT
from grpc_health.v1 import health_pb2
from pod_network import DOMAIN, NameServer, Network

PACE = 0.2
PROPAGATION = 0.5
_WORKLOADS = ("Deployment", "StatefulSet")
_CRASHES_APART = 10.0  # seconds before a container that has ended twice is started again, doubling

Object = Mapping[str, Any]


# ---- manifests ----


def load_manifests(folder: Path, overlay: str) -> list[Object]:
    """The objects of an export: of an overlay as Kustomize builds it, of the base where there is no kubectl."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        return _read_base(folder / "base")
    done = subprocess.run(
        [kubectl, "kustomize", str(folder / overlay)], capture_output=True, text=True, timeout=120, check=True
    )
    return [each for each in yaml.safe_load_all(done.stdout) if each]


def _read_base(folder: Path) -> list[Object]:
    built = yaml.safe_load((folder / "kustomization.yaml").read_text())
    objects: list[Object] = []
    for name in built["resources"]:
        objects += [each for each in yaml.safe_load_all((folder / name).read_text()) if each]
    for each in built["configMapGenerator"]:
        data = {Path(name).name: (folder / name).read_text() for name in each["files"]}
        objects.append({"kind": "ConfigMap", "metadata": {"name": each["name"]}, "data": data})
    for each in objects:
        each["metadata"].setdefault("namespace", built["namespace"])
    return objects


# ---- pods ----


@dataclass(frozen=True)
class Event:
    """Something that happened to a pod, at `time.monotonic()`."""

    time: float
    what: str


class Pod:
    """One pod: a process that is started, probed, restarted and ended.

    Attributes:
        events: started, failed (a probe), ready, not ready, listed, unlisted, deleted, SIGTERM, SIGKILL,
            ended CODE.
        listed: Whether its Services name it.
    """

    def __init__(self, cluster: Cluster, name: str, template: Object, claims: Sequence[str]) -> None:
        self._cluster = cluster
        self.name = name
        self.labels: Mapping[str, str] = template["metadata"]["labels"]
        self._spec: Object = template["spec"]
        (self._container,) = self._spec["containers"]
        self.place = cluster.network.place(name, cluster.namespace)
        self.folder = cluster.folder / name
        shutil.rmtree(self.folder, ignore_errors=True)  # of a pod of that name that there was
        self.events: list[Event] = []
        self.listed = False
        self.ready = False
        self.deleted = False
        self.restarts = 0
        self.process: subprocess.Popen[bytes] | None = None
        self._mounts = self._make_volumes(claims)
        self._env = self._environment()
        self._note("created")
        self._task = asyncio.create_task(self._keep_running())

    @property
    def address(self) -> str:
        return self.place.address

    @property
    def log(self) -> str:
        path = self.folder / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    def file(self, path: str) -> Path:
        """Where a path of the container is on this machine."""
        return Path(self._here(path))

    def times(self, what: str) -> list[float]:
        """When something happened."""
        return [event.time for event in self.events if event.what == what]

    def port(self, port: int | str) -> int:
        """The number of a port, which may be given by its name."""
        named = {each["name"]: each["containerPort"] for each in self._container["ports"]}
        return int(named[port]) if isinstance(port, str) else port

    def kill(self) -> None:
        """What happens to a container that needs more memory than it may have."""
        assert self.process is not None
        self._note("SIGKILL")
        os.killpg(self.process.pid, signal.SIGKILL)

    async def delete(self) -> int:
        """End it as Kubernetes does; returns the exit code."""
        self.deleted = True
        self._note("deleted")
        self._set_ready(False)  # the Services forget it while it is being ended, not before
        grace = float(self._spec.get("terminationGracePeriodSeconds", 30))
        end = time.monotonic() + grace
        await self._before_stop(grace)
        code = await self._stop(max(2.0, end - time.monotonic()))
        await asyncio.wait({self._task}, timeout=1)  # it notes the end, unless it waits to start the container again
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._cluster.network.remove(self.place)
        return code

    async def close(self) -> None:
        """Stop minding it; the network ends the process."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    # -- the container --

    def _make_volumes(self, claims: Sequence[str]) -> dict[str, Path]:
        """Mount path -> folder, the longest first."""
        maps = {each["metadata"]["name"]: each for each in self._cluster.of_kind("ConfigMap")}
        folders: dict[str, Path] = {}
        for volume in self._spec.get("volumes", ()):
            folder = folders[volume["name"]] = self.folder / volume["name"]
            folder.mkdir(parents=True)
            if "configMap" in volume:
                for file, text in maps[volume["configMap"]["name"]]["data"].items():
                    (folder / file).write_text(text)
            else:
                assert "emptyDir" in volume, f"volume {volume} is of a kind that is not rehearsed"
        for claim in claims:  # outlives the pod
            folders[claim] = self._cluster.folder / "claims" / f"{claim}-{self.name}"
            folders[claim].mkdir(parents=True, exist_ok=True)
        mounts = {each["mountPath"]: folders[each["name"]] for each in self._container["volumeMounts"]}
        return dict(sorted(mounts.items(), key=lambda item: -len(item[0])))

    def _here(self, value: str) -> str:
        for path, folder in self._mounts.items():
            if value == path or value.startswith(f"{path}/"):
                return str(folder) + value[len(path) :]
        return value

    def _adapt(self, value: str) -> str:
        return self._cluster.network.adapt(self._here(value), self.place, self._cluster.service_addresses)

    def _environment(self) -> dict[str, str]:
        """The container's variables, and those that an image would have."""
        env = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.pathsep.join(str(ROOT / each) for each in ("client", "executors", "orchestrator")),
            "TMPDIR": self._here("/tmp"),
            "HF_HUB_OFFLINE": "1",
            "POD_NAMESPACE": self._cluster.namespace,
        }
        for each in self._container["env"]:
            source = each.get("valueFrom", {})
            if "value" in each:
                env[each["name"]] = self._adapt(each["value"])
            elif "resourceFieldRef" in source:
                assert source["resourceFieldRef"] == {"resource": "requests.cpu", "divisor": "1"}, source
                env[each["name"]] = str(_whole_cpus(self._container["resources"]["requests"]["cpu"]))
            else:
                assert source["secretKeyRef"]["optional"], f"{each['name']}: Secrets are not rehearsed"
        return env

    def _start(self) -> subprocess.Popen[bytes]:
        arguments: list[str] = self._container["args"]
        assert self._container["command"] == ["flowdex"]
        with (self.folder / "log").open("ab") as log:
            return self._cluster.network.start(
                self.place,
                [sys.executable, "-m", "flowdex", *map(self._adapt, arguments)],
                cwd=self._here(self._container["workingDir"]),
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    async def _keep_running(self) -> None:
        pause = 0.0
        while not self.deleted:
            self.process = self._start()
            self._note("started")
            probing = asyncio.create_task(self._probe())
            try:
                code = await _ended(self.process)
            finally:
                probing.cancel()
                await asyncio.gather(probing, return_exceptions=True)
            self._note(f"ended {code}")
            self._set_ready(False)
            if not self.deleted:
                self.restarts += 1
                await asyncio.sleep(pause)
                pause = max(_CRASHES_APART, 2 * pause)

    async def _before_stop(self, seconds: float) -> None:
        hook = self._container.get("lifecycle", {}).get("preStop")
        if hook is not None:
            process = self._cluster.network.start(self.place, hook["exec"]["command"], env=self._env)
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(_ended(process), seconds)

    async def _stop(self, grace: float) -> int:
        assert self.process is not None
        self._note("SIGTERM")
        self.process.send_signal(signal.SIGTERM)
        try:
            return await asyncio.wait_for(_ended(self.process), grace)
        except asyncio.TimeoutError:
            self.process.kill()
            return await _ended(self.process)

    # -- its probes --

    async def _probe(self) -> None:
        """What a kubelet does while the container runs."""
        startup = self._container.get("startupProbe")
        if startup is not None and not await self._until_started(startup):
            await self._stop(30)
            return
        await asyncio.gather(self._probe_readiness(), self._probe_liveness())

    async def _until_started(self, probe: Object) -> bool:
        failures = 0
        async for passed in self._answers(probe):
            if passed:
                return True
            failures += 1
            if failures >= probe["failureThreshold"]:
                break
        return False

    async def _probe_readiness(self) -> None:
        probe = self._container["readinessProbe"]
        failures = 0
        async for passed in self._answers(probe):
            failures = 0 if passed else failures + 1
            if passed and not self.deleted:
                self._set_ready(True)
            elif failures >= probe["failureThreshold"]:
                self._set_ready(False)

    async def _probe_liveness(self) -> None:
        probe = self._container["livenessProbe"]
        failures = 0
        async for passed in self._answers(probe):
            failures = 0 if passed else failures + 1
            if failures >= probe["failureThreshold"] and not self.deleted:
                self._note("not alive")
                await self._stop(30)
                return

    async def _answers(self, probe: Object) -> Any:
        await asyncio.sleep(probe.get("initialDelaySeconds", 0) * PACE)
        while True:
            began = time.monotonic()
            passed = await self._passes(probe)
            if not passed:
                self.events.append(Event(began, "failed"))
            yield passed
            await asyncio.sleep(max(0.0, began + probe["periodSeconds"] * PACE - time.monotonic()))

    async def _passes(self, probe: Object) -> bool:
        seconds = float(probe["timeoutSeconds"])
        if "grpc" in probe:
            return await _grpc_healthy(f"{self.address}:{probe['grpc']['port']}", seconds)
        path, port = probe["httpGet"]["path"], self.port(probe["httpGet"]["port"])
        try:
            reply = await self._cluster.http.get(f"http://{self.address}:{port}{path}", timeout=seconds)
        except httpx.HTTPError:
            return False
        return 200 <= reply.status_code < 400

    def _set_ready(self, ready: bool) -> None:
        if ready != self.ready:
            self.ready = ready
            self._note("ready" if ready else "not ready")
            asyncio.get_running_loop().call_later(PROPAGATION, self._list)

    def _list(self) -> None:
        if self.listed != self.ready:
            self.listed = self.ready
            self._note("listed" if self.listed else "unlisted")

    def _note(self, what: str) -> None:
        self.events.append(Event(time.monotonic(), what))


async def _ended(process: subprocess.Popen[bytes]) -> int:
    while (code := process.poll()) is None:  # noqa: ASYNC110 - no event tells it on every Python
        await asyncio.sleep(0.02)
    return code


async def _grpc_healthy(address: str, seconds: float) -> bool:
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
    async with grpc.aio.insecure_channel(address, options=options) as channel:
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        try:
            reply = await check(health_pb2.HealthCheckRequest(), timeout=seconds)
        except grpc.aio.AioRpcError:
            return False
    return bool(reply.status == health_pb2.HealthCheckResponse.SERVING)


def _whole_cpus(quantity: str) -> int:
    """As Kubernetes divides by 1: rounded up."""
    return math.ceil(int(quantity[:-1]) / 1000 if quantity.endswith("m") else float(quantity))


# ---- the cluster ----


class Cluster:
    """What runs the objects of a namespace; an async context manager.

    Args:
        objects: The manifests.
        network: Where pods get their addresses; closed by its owner.
        folder: For volumes and logs.
    """

    def __init__(self, objects: Sequence[Object], network: Network, folder: Path) -> None:
        self._objects = objects
        self.network = network
        self.folder = folder
        (self.namespace,) = {each["metadata"]["namespace"] for each in self.of_kind(*_WORKLOADS)}
        self.pods: dict[str, list[Pod]] = {}
        self.past: list[Pod] = []
        self.service_addresses: dict[str, str] = {}
        self.http = httpx.AsyncClient(trust_env=False, verify=False, limits=httpx.Limits(max_keepalive_connections=0))
        self._numbers = count(1)
        self._names = NameServer(self._lookup)
        self._proxies: list[asyncio.Server] = []
        self._connections: set[asyncio.Task[None]] = set()

    def of_kind(self, *kinds: str) -> list[Object]:
        return [each for each in self._objects if each["kind"] in kinds]

    async def __aenter__(self) -> Cluster:
        await self._names.start(self.network.address, self.network.dns_port)
        for each in self.of_kind("Service"):
            if each["spec"].get("clusterIP") != "None":
                await self._open_service(each)
        for each in self.of_kind(*_WORKLOADS):
            await self.scale(each["metadata"]["name"], each["spec"].get("replicas", 1))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            print(self.describe())
        for each in self._proxies:
            each.close()
        for task in self._connections:
            task.cancel()
        pods = [pod for pods in self.pods.values() for pod in pods]
        await asyncio.gather(*self._connections, *(pod.close() for pod in pods), return_exceptions=True)
        self._names.close()
        await self.http.aclose()

    async def scale(self, name: str, replicas: int) -> list[int]:
        """Start pods of a workload, or end the newest of them; returns the exit codes of those ended."""
        (workload,) = (each for each in self.of_kind(*_WORKLOADS) if each["metadata"]["name"] == name)
        claims = [each["metadata"]["name"] for each in workload["spec"].get("volumeClaimTemplates", ())]
        pods = self.pods.setdefault(name, [])
        while len(pods) < replicas:
            number = len(pods) if workload["kind"] == "StatefulSet" else next(self._numbers)
            pods.append(Pod(self, f"{name}-{number}", workload["spec"]["template"], claims))
        gone = pods[replicas:]
        del pods[replicas:]
        self.past += gone
        return await asyncio.gather(*(pod.delete() for pod in gone))

    async def wait_ready(self, seconds: float, *names: str) -> None:
        """Wait until all pods, or those of these workloads, are ready and their Services know it."""
        end = time.monotonic() + seconds
        while missing := [
            pod.name for name in names or self.pods for pod in self.pods[name] if not (pod.ready and pod.listed)
        ]:
            assert time.monotonic() < end, f"not ready after {seconds} s: {', '.join(missing)}"
            await asyncio.sleep(0.05)

    def describe(self) -> str:
        """What happened, and the end of every log."""
        parts = []
        for pod in [*self.past, *(pod for pods in self.pods.values() for pod in pods)]:
            first = pod.events[0].time
            events = ", ".join(f"{event.time - first:.2f} {event.what}" for event in pod.events)
            parts.append(f"== {pod.name} {pod.address} (from {first:.2f}): {events}\n{pod.log[-4000:]}")
        return "\n".join(parts)

    # -- Services --

    def _lookup(self, name: str) -> list[str] | None:
        """What a cluster's DNS knows: an address of its own, or those of the ready pods."""
        service, _, rest = name.partition(".")
        if rest != f"{self.namespace}.{DOMAIN}":
            return None
        if service in self.service_addresses:
            return [self.service_addresses[service]]
        for each in self.of_kind("Service"):
            if each["metadata"]["name"] == service:
                found = [pod.address for pod in self._endpoints(each)]
                return random.sample(found, len(found)) or None
        return None

    def _endpoints(self, service: Object) -> list[Pod]:
        selector = service["spec"]["selector"].items()
        pods = (pod for pods in (*self.pods.values(), self.past) for pod in pods if selector <= pod.labels.items())
        return [pod for pod in pods if pod.listed]

    async def _open_service(self, service: Object) -> None:
        """The address of a Service, where every connection goes to one of its ready pods."""
        address = self.network.service_address()
        self.service_addresses[service["metadata"]["name"]] = address
        for port in service["spec"]["ports"]:

            def accept(
                reader: asyncio.StreamReader, writer: asyncio.StreamWriter, target: int | str = port["targetPort"]
            ) -> None:
                task = asyncio.ensure_future(self._connect(service, target, reader, writer))
                self._connections.add(task)
                task.add_done_callback(self._connections.discard)

            self._proxies.append(await asyncio.start_server(accept, address, port["port"]))

    async def _connect(
        self, service: Object, target: int | str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        async with contextlib.AsyncExitStack() as stack:
            stack.callback(writer.close)
            pods = self._endpoints(service)
            if not pods:
                return
            pod = random.choice(pods)
            try:
                from_pod, to_pod = await asyncio.open_connection(pod.address, pod.port(target))
            except OSError:
                return
            stack.callback(to_pod.close)
            ways = [asyncio.create_task(_pump(reader, to_pod)), asyncio.create_task(_pump(from_pod, writer))]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()


async def _pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    """Copy until one of them ends."""
    with contextlib.suppress(OSError):
        while data := await source.read(1 << 16):
            target.write(data)
            await target.drain()
