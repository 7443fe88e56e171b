"""What an executor is, as far as a cluster has to know: its image, and how much of a machine it wants.

uses: flowdex_executors.BertEncoder --role_of--> Role.ENCODER --> image flowdex-encoder-cpu, 1 CPU, 1.5 GiB
uses: my_package.MyExecutor         -----------> Role.OWN     --> the encoder's image, which has everything
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from importlib.metadata import version

from flowdex_orchestrator.flow.model import Executor

__all__ = ["DEFAULTS", "Defaults", "Role", "image", "role_of"]


class Role(Enum):
    """What a workload does; its value is the target of the Dockerfile that it runs from."""

    GATEWAY = "gateway"
    SEGMENTER = "segmenter"
    ENCODER = "encoder-cpu"
    GPU_ENCODER = "encoder-gpu"
    INDEXER = "indexer"
    RANKER = "ranker"
    OWN = "own"


@dataclass(frozen=True)
class Defaults:
    """What a pod gets where the flow says nothing.

    Attributes:
        requests: What it is promised.
        limits: What it gets at most. No CPU: a limit throttles a busy pod while its node is idle.
    """

    requests: Mapping[str, str]
    limits: Mapping[str, str]


DEFAULTS: Mapping[Role, Defaults] = {
    Role.GATEWAY: Defaults({"cpu": "500m", "memory": "256Mi"}, {"memory": "1Gi"}),
    Role.SEGMENTER: Defaults({"cpu": "500m", "memory": "512Mi"}, {"memory": "1Gi"}),
    Role.ENCODER: Defaults({"cpu": "1", "memory": "1536Mi"}, {"memory": "3Gi"}),
    Role.GPU_ENCODER: Defaults({"cpu": "2", "memory": "4Gi"}, {"memory": "8Gi"}),
    Role.INDEXER: Defaults({"cpu": "1", "memory": "1Gi"}, {"memory": "4Gi"}),
    Role.RANKER: Defaults({"cpu": "500m", "memory": "512Mi"}, {"memory": "1Gi"}),
    Role.OWN: Defaults({"cpu": "500m", "memory": "512Mi"}, {"memory": "2Gi"}),
}

_PACKAGE = "flowdex_executors"
_NAMED = {"Segmenter": Role.SEGMENTER, "QdrantIndexer": Role.INDEXER, "Ranker": Role.RANKER}


def role_of(executor: Executor, *, gpu: bool) -> Role:
    """The role of one of flowdex's own executors, `OWN` for everybody else's.

    Args:
        executor: Its entry in the flow.
        gpu: Whether it runs on a GPU.
    """
    if not isinstance(executor.uses, str):
        return Role.OWN
    module, _, name = executor.uses.rpartition(".")
    if module.partition(".")[0] not in ("", _PACKAGE) or (not module and executor.py_modules):
        return Role.OWN
    if name == "Ranker" and executor.uses_with.get("cross_encoder") is not None:
        return Role.OWN  # a model of its own, which needs what encoders need
    if name in _NAMED:
        return _NAMED[name]
    if name.endswith("Encoder"):
        return Role.GPU_ENCODER if gpu else Role.ENCODER
    return Role.OWN


def image(role: Role, *, gpu: bool = False) -> str:
    """The image of a role. Names have no registry: `kustomize edit set image` puts one in front."""
    target = role.value if role is not Role.OWN else Role.GPU_ENCODER.value if gpu else Role.ENCODER.value
    return f"flowdex-{target}:{version('flowdex')}"
