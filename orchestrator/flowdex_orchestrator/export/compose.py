"""A deployment as a docker-compose.yml, and the files that it mounts.

    Deployment --render_compose--> services: gateway, one an executor; the flow file mounted; volumes
                 with qdrant       + Qdrant's server, and flow.yml with the index on it
                 with monitoring   + Prometheus, Grafana, their configuration

The same images and commands as in a cluster, under the same host names. Compose's own DNS lists the containers of a
scaled service, so `docker compose up --scale encoder=3` is all it takes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from flowdex.errors import ConfigurationError
from flowdex_orchestrator.export.compose_others import (
    INDEX_NETWORK,
    QDRANT,
    QDRANT_KEY,
    Others,
    monitoring,
    qdrant_server,
    with_qdrant,
)
from flowdex_orchestrator.export.encryption import outside
from flowdex_orchestrator.export.kubernetes import qdrant
from flowdex_orchestrator.export.kubernetes.objects import without_empty, write_yaml
from flowdex_orchestrator.export.model import CACHE, FLOW_FOLDER, HOME, KEYS_FILE, KEYS_FOLDER, Deployment, Workload
from flowdex_orchestrator.export.roles import Role, image

__all__ = ["ADDITIONS", "Compose", "render_compose"]

ADDITIONS = ("qdrant", "monitoring")
"""What a flow can be rendered with."""

_COMMENT = """The flow {name}, in containers: docker compose up
Written by `flowdex export docker-compose`: change the flow file, or add a docker-compose.override.yml of your own."""
_UNITS = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


@dataclass(frozen=True)
class Compose:
    """A Compose file, and the folder of files beside it.

    Attributes:
        text: The file.
        files: Path below the folder -> text; empty where it needs no folder.
    """

    text: str
    files: Mapping[str, str] = field(default_factory=dict)


def render_compose(
    deployment: Deployment, *, additions: Collection[str] = (), build: str | None = None, folder: str = "./compose"
) -> Compose:
    """Render a deployment; the Compose file expects the flow file and its modules beside it.

    Args:
        deployment: The flow.
        additions: Of `ADDITIONS`.
        build: Folder of flowdex's Dockerfile, as seen from the Compose file, to build its images from.
        folder: Where the files besides it will lie, seen from there too, beginning with `./`.

    Raises:
        ConfigurationError: The flow has no use for an addition.
    """
    others: list[Others] = []
    flow_file = f"./{deployment.flow.path.name if deployment.flow.path else 'flow.yml'}"
    files: dict[str, str] = {}
    if "qdrant" in additions:
        original, deployment = deployment, with_qdrant(deployment)
        others.append(qdrant_server())
        if deployment is not original:
            files["flow.yml"] = deployment.text
            flow_file = f"{folder}/flow.yml"
    if "monitoring" in additions:
        others.append(monitoring(deployment, folder))
    renderer = _Renderer(deployment, flow_file, build, served="qdrant" in additions)
    services = {each.label: renderer.service(each) for each in deployment.workloads}
    volumes: dict[str, Any] = {f"{each.label}-index": {} for each in deployment.executors if each.stateful}
    volumes |= {"models": {}} if any(map(_keeps_models, deployment.executors)) else {}
    for each in others:
        if taken := services.keys() & each.services.keys():
            raise ConfigurationError(f"the executor {min(taken)!r} is also a service beside the flow: rename it")
        services |= each.services
        volumes |= {name: {} for name in each.volumes}
        files |= each.files
    networks = {INDEX_NETWORK: {"internal": True}} if "qdrant" in additions else {}
    body = {"name": deployment.name, "services": services, "volumes": volumes, "networks": networks}
    return Compose(
        write_yaml(_COMMENT.format(name=deployment.flow.name), [without_empty(body)]), dict(sorted(files.items()))
    )


@dataclass(frozen=True)
class _Renderer:
    """Renders the services of one flow.

    Attributes:
        deployment: The flow.
        flow_file: Its file, as seen from the Compose file.
        build: Folder of the Dockerfile, None for images that are there.
        served: Whether a Qdrant server is among the services.
    """

    deployment: Deployment
    flow_file: str
    build: str | None
    served: bool

    def service(self, workload: Workload) -> dict[str, Any]:
        """Gateway or executor."""
        deployment = self.deployment
        gateway = workload.role is Role.GATEWAY
        protocol, port = next(iter(workload.ports.items()))
        count = workload.least
        indexes = self.served and (workload.qdrant or ("",))[0] == QDRANT
        needs = [each.label for each in deployment.executors] if gateway else [QDRANT] if indexes else []
        return without_empty(
            {
                "image": workload.image,
                "build": self._build(workload),
                "command": list(workload.arguments),
                "working_dir": HOME,
                "environment": self._environment(workload),
                # On this machine alone: put 0.0.0.0 here to open the flow to the network.
                "ports": [f"127.0.0.1:{each}:{each}" for each in workload.ports.values()] if gateway else None,
                "networks": ["default", INDEX_NETWORK] if indexes else None,
                "depends_on": needs,
                "volumes": self._volumes(workload),
                "tmpfs": _temporary(workload),
                "read_only": True,
                "cap_drop": ["ALL"],
                "security_opt": ["no-new-privileges:true"],
                "init": True,
                "restart": "unless-stopped",
                "stop_grace_period": f"{math.ceil(workload.drain) + 10}s",
                "healthcheck": {
                    "test": ["CMD", *(workload.encryption.health or _health(protocol, port))],
                    "interval": "30s",
                    "timeout": "5s",
                    "retries": 3,
                    "start_period": f"{math.ceil(min(workload.startup, 3600))}s",
                },
                "scale": count if count > 1 else None,
                "deploy": _deploy(workload),
            }
        )

    def _build(self, workload: Workload) -> dict[str, Any] | None:
        """How flowdex's own image is built; None for somebody else's."""
        own = image(workload.role, gpu=workload.gpus > 0)
        if self.build is None or not workload.image.endswith(own):
            return None
        # Build arguments without a value have that of the environment, if there is one.
        target = own.partition(":")[0].removeprefix("flowdex-")
        return {"context": self.build, "target": target, "args": ["PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL"]}

    def _environment(self, workload: Workload) -> dict[str, str]:
        plain = self.deployment.variables.plain
        values = {"FLOWDEX_CACHE": CACHE, "HF_HOME": f"{CACHE}/huggingface"}
        values |= {name: f"${{{name}:-{value}}}" for name, value in plain.items()}
        values |= {name: value.replace("$", "$$") for name, value in workload.env.items()}
        for name, (secret, key, optional) in workload.secret_env.items():
            source = key if secret == self.deployment.secret else name
            missing = "-" if optional else f"?set {source} in the environment or in .env"
            values[name] = f"${{{source}:{missing}}}"
        if self.served and qdrant.KEY in workload.secret_env:
            values[qdrant.KEY] = QDRANT_KEY
        if workload.role is not Role.GATEWAY:
            values.setdefault("OMP_NUM_THREADS", str(max(1, math.ceil(_cores(workload.requests.get("cpu", "1"))))))
        return values

    def _volumes(self, workload: Workload) -> list[str]:
        found = [f"{self.flow_file}:{FLOW_FOLDER}/flow.yml:ro"]
        found += [f"./{name}:{FLOW_FOLDER}/{name}:ro" for name in self.deployment.files if name != "flow.yml"]
        if workload.keys is not None:
            found.append(f"./{workload.keys}:{KEYS_FOLDER}/{KEYS_FILE}:ro")
        # Folders, not files: of a file that is renewed by another in its place a container would keep the old one.
        folders = sorted({name.rpartition("/")[0] for name in workload.encryption.names if not outside([name])})
        found += [f"./{folder}:{FLOW_FOLDER}/{folder}:ro" for folder in folders if folder]
        found += [f"./{name}:{FLOW_FOLDER}/{name}:ro" for name in workload.encryption.names if "/" not in name]
        if workload.stateful:
            found.append(f"{workload.label}-index:{workload.index_mount}")
        if _keeps_models(workload):
            found.append(f"models:{CACHE}")
        return found


def _health(protocol: str, port: int) -> tuple[str, ...]:
    return ("flowdex", "health", f"{protocol}://127.0.0.1:{port}")


def _temporary(workload: Workload) -> list[str]:
    """Folders in memory: the root file system is read-only."""
    kept = {HOME: not (workload.stateful and workload.index_mount == HOME), CACHE: not _keeps_models(workload)}
    return ["/tmp", *(folder for folder, temporary in kept.items() if temporary)]  # nosec B108 # a folder within the container


def _keeps_models(workload: Workload) -> bool:
    return workload.downloads or workload.model_cache is not None


def _deploy(workload: Workload) -> dict[str, Any]:
    limits = without_empty({"memory": _bytes(workload.limits.get("memory"))})
    devices = [{"driver": "nvidia", "count": workload.gpus, "capabilities": ["gpu"]}] if workload.gpus else []
    resources = without_empty({"limits": limits, "reservations": without_empty({"devices": devices})})
    return without_empty({"resources": resources})


def _cores(quantity: str) -> float:
    return float(quantity[:-1]) / 1000 if quantity.endswith("m") else float(quantity)


def _bytes(quantity: str | None) -> str | None:
    """A quantity of Kubernetes as Compose writes it, in MiB."""
    match = re.fullmatch(r"([0-9.]+)([A-Za-z]*)", quantity or "")
    if match is None:
        return None
    return f"{max(1, int(float(match[1]) * _UNITS.get(match[2], 1) / 2**20))}m"
