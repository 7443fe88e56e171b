"""A deployment as one docker-compose.yml.

    Deployment --render_compose--> services: gateway, one an executor; the flow file mounted; volumes; one network

The same images and commands as in a cluster, under the same host names. Compose's own DNS lists the containers of a
scaled service, so `docker compose up --scale encoder=3` is all it takes.
"""

from __future__ import annotations

import math
import re
from typing import Any

from flowdex_orchestrator.export.kubernetes.objects import without_empty, write_yaml
from flowdex_orchestrator.export.model import CACHE, FLOW_FOLDER, HOME, Deployment, Workload
from flowdex_orchestrator.export.roles import Role

__all__ = ["render_compose"]

_COMMENT = """The flow {name}, in containers: docker compose up
Written by `flowdex export docker-compose`: change the flow file, or add a docker-compose.override.yml of your own."""
_UNITS = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


def render_compose(deployment: Deployment) -> str:
    """The text of the file; it expects the flow file and its modules beside it."""
    volumes: dict[str, dict[str, Any]] = {f"{each.label}-index": {} for each in deployment.executors if each.stateful}
    volumes |= {"models": {}} if any(map(_keeps_models, deployment.executors)) else {}
    body = without_empty(
        {
            "name": deployment.name,
            "services": {each.label: _service(deployment, each) for each in deployment.workloads},
            "volumes": volumes,
        }
    )
    return write_yaml(_COMMENT.format(name=deployment.flow.name), [body])


def _service(deployment: Deployment, workload: Workload) -> dict[str, Any]:
    gateway = workload.role is Role.GATEWAY
    port = next(iter(workload.ports.values()))
    protocol = next(iter(workload.ports))
    count = workload.least
    return without_empty(
        {
            "image": workload.image,
            "command": list(workload.arguments),
            "working_dir": HOME,
            "environment": _environment(deployment, workload),
            # On this machine alone: put 0.0.0.0 here to open the flow to the network.
            "ports": [f"127.0.0.1:{each}:{each}" for each in workload.ports.values()] if gateway else None,
            "depends_on": [each.label for each in deployment.executors] if gateway else None,
            "volumes": _volumes(deployment, workload),
            "tmpfs": _temporary(workload),
            "read_only": True,
            "cap_drop": ["ALL"],
            "security_opt": ["no-new-privileges:true"],
            "init": True,
            "restart": "unless-stopped",
            "stop_grace_period": f"{math.ceil(workload.drain) + 10}s",
            "healthcheck": {
                "test": ["CMD", "flowdex", "health", f"{protocol}://127.0.0.1:{port}"],
                "interval": "30s",
                "timeout": "5s",
                "retries": 3,
                "start_period": f"{math.ceil(min(workload.startup, 3600))}s",
            },
            "scale": count if count > 1 else None,
            "deploy": _deploy(workload),
        }
    )


def _environment(deployment: Deployment, workload: Workload) -> dict[str, str]:
    values = {"FLOWDEX_CACHE": CACHE, "HF_HOME": f"{CACHE}/huggingface"}
    values |= {name: f"${{{name}:-{value}}}" for name, value in deployment.variables.plain.items()}
    values |= {name: value.replace("$", "$$") for name, value in workload.env.items()}
    for name, (_, _, optional) in workload.secret_env.items():
        values[name] = f"${{{name}:-}}" if optional else f"${{{name}:?set {name} in the environment or in .env}}"
    if workload.role is not Role.GATEWAY:
        values.setdefault("OMP_NUM_THREADS", str(max(1, math.ceil(_cores(workload.requests.get("cpu", "1"))))))
    return values


def _volumes(deployment: Deployment, workload: Workload) -> list[str]:
    found = [f"./{name}:{FLOW_FOLDER}/{name}:ro" for name in deployment.files if name != "flow.yml"]
    source = deployment.flow.path.name if deployment.flow.path else "flow.yml"
    found.insert(0, f"./{source}:{FLOW_FOLDER}/flow.yml:ro")
    if workload.stateful:
        found.append(f"{workload.label}-index:{workload.index_mount}")
    if _keeps_models(workload):
        found.append(f"models:{CACHE}")
    return found


def _temporary(workload: Workload) -> list[str]:
    """Folders in memory: the root file system is read-only."""
    kept = {HOME: not (workload.stateful and workload.index_mount == HOME), CACHE: not _keeps_models(workload)}
    return ["/tmp", *(folder for folder, temporary in kept.items() if temporary)]


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
