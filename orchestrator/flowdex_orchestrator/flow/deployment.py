"""The sections of a flow file that say how it is deployed: `autoscale` and `kubernetes`.

    executors:
      - name: encoder
        autoscale: {min: 1, max: 4, target_queue_ms: 50}                 -> Autoscale
        kubernetes: {image: ..., resources: {...}, env: {...}, ...}      -> ExecutorKubernetes
    gateway:
      kubernetes: {replicas: 2, ingress: {host: search.example.org}}     -> GatewayKubernetes

The runner acts on `autoscale`, the exporters on both. Stock Jina ignores both.
"""

from __future__ import annotations

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from flowdex_orchestrator.flow.section import Section
from flowdex_orchestrator.flow.values import (
    Environment,
    Mappings,
    PositiveInteger,
    Quantities,
    Quantity,
    SecretKeys,
    ServiceType,
    Share,
    Text,
    Texts,
)

__all__ = ["Autoscale", "ExecutorKubernetes", "GatewayKubernetes", "Ingress", "Resources", "Service", "Storage"]

_DEFAULT_QUEUE_MS = 50


class Autoscale(Section):
    """How many replicas an executor has: as many as keep its queue, or its processors, at a target."""

    min: PositiveInteger = Field(default=1, description="Fewest replicas.")
    max: PositiveInteger = Field(default=4, description="Most replicas.")
    target_queue_ms: PositiveInteger | None = Field(
        default=None, description="Milliseconds that requests wait in the executor; 50 where no target is given."
    )
    target_cpu: Share | None = Field(default=None, description="Share of the requested CPU in use, such as 0.7.")

    @property
    def queue_ms(self) -> int | None:
        """The target for the queue in milliseconds, None where CPU is the target."""
        return self.target_queue_ms or (_DEFAULT_QUEUE_MS if self.target_cpu is None else None)

    @model_validator(mode="after")
    def _consistent(self) -> Autoscale:
        if self.min > self.max:
            text = f"expected min <= max, got min {self.min} and max {self.max}"
            raise PydanticCustomError("expected", "{text}", {"text": text})
        if self.target_queue_ms is not None and self.target_cpu is not None:
            text = "expected one target, got both target_queue_ms and target_cpu; take one out"
            raise PydanticCustomError("expected", "{text}", {"text": text})
        return self


class Resources(Section):
    """What a pod asks for and may use, in Kubernetes' quantities."""

    requests: Quantities = Field(default_factory=dict, description="What it is promised: {cpu: 500m, memory: 1Gi}.")
    limits: Quantities = Field(default_factory=dict, description="What it gets at most.")


class Storage(Section):
    """A persistent volume."""

    size: Quantity = Field(default="10Gi", description="Size of the volume, such as 10Gi.")
    storage_class: Text | None = Field(
        default=None, alias="class", description="Storage class; the cluster's default where not given."
    )


class _Pods(Section):
    """What holds for the pods of executors and gateway alike."""

    image: Text | None = Field(default=None, description="Container image; flowdex's own where not given.")
    resources: Resources = Field(default_factory=Resources, description="CPU and memory; over sensible defaults.")
    env: Environment = Field(default_factory=dict, description="Environment variables of the pods alone.")
    secret_env: SecretKeys = Field(
        default_factory=dict, description="Environment variables from Secrets: {NAME: secret/key}."
    )
    node_selector: Texts = Field(default_factory=dict, description="Labels of the nodes to run on.")
    tolerations: Mappings = Field(default=(), description="Taints of nodes to run on all the same.")
    annotations: Texts = Field(default_factory=dict, description="Annotations of the pods.")


class ExecutorKubernetes(_Pods):
    """The pods of an executor in a cluster."""

    storage: Storage = Field(default_factory=Storage, description="Volume of an embedded index.")
    model_cache: Storage | None = Field(
        default=None, description="Volume of downloaded models; without it they go with the pod."
    )
    gpu_resource: Text = Field(
        default="nvidia.com/gpu", description="What `gpus` are called: another name for MIG or time slices."
    )
    metric: Text | None = Field(
        default=None, description="External metric of `target_queue_ms`; flowdex's own where not given."
    )


class Ingress(Section):
    """The way in from outside the cluster."""

    host: Text | None = Field(default=None, description="Host name.")
    tls_secret: Text | None = Field(default=None, description="Secret with its certificate (kubernetes.io/tls).")
    ingress_class: Text | None = Field(default=None, alias="class", description="Ingress class.")


class Service(Section):
    """The gateway's address in the cluster."""

    type: ServiceType = Field(default="ClusterIP", description="ClusterIP, NodePort or LoadBalancer.")


class GatewayKubernetes(_Pods):
    """The pods of the gateway in a cluster, and the ways to them."""

    replicas: PositiveInteger = Field(default=1, description="Pods of the gateway.")
    ingress: Ingress | None = Field(default=None, description="The way in from outside the cluster.")
    service: Service = Field(default_factory=Service, description="The gateway's address in the cluster.")
