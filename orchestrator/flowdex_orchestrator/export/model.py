"""What has to run for a flow, wherever it runs: one gateway, and a workload for each executor.

    Flow + facts of its classes --make_deployment--> Deployment
                                                      +-- gateway    Workload
                                                      +-- executors  Workload, Workload, ...
                                                      +-- files      flow.yml and what it names beside it

A workload has no word of Kubernetes' or Docker's own format in it; what it says is what `flowdex up` would have done.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from flowdex.errors import ConfigurationError
from flowdex_orchestrator.export.encryption import Encryption, executor_encryption, gateway_encryption, outside
from flowdex_orchestrator.export.roles import DEFAULTS, Role, image, role_of
from flowdex_orchestrator.export.variables import WITHHELD, Variables, read_variables
from flowdex_orchestrator.flow.deployment import Autoscale, ExecutorKubernetes, GatewayKubernetes, Storage
from flowdex_orchestrator.flow.model import Executor, Flow
from flowdex_orchestrator.flow.uses import config_file
from flowdex_orchestrator.gateway.server import settings_from_flow

__all__ = [
    "CACHE",
    "EXECUTOR_PORT",
    "FLOW_FOLDER",
    "HOME",
    "KEYS_FILE",
    "KEYS_FOLDER",
    "KEYS_SECRET",
    "METRICS_PORT",
    "Deployment",
    "Workload",
    "dns_label",
    "make_deployment",
]

METRICS_PORT = 9090
"""At which every container has its metrics."""
_METRICS = ("--metrics-host", "0.0.0.0", "--metrics-port", str(METRICS_PORT))  # nosec B104 # within the container
EXECUTOR_PORT = 52000
FLOW_FOLDER = "/etc/flowdex"
HOME = "/var/lib/flowdex"
"""Working directory of every process: relative paths of the flow, such as edge://.flowdex/index, start here."""
CACHE = "/var/cache/flowdex"
KEYS_FOLDER, KEYS_FILE = "/etc/flowdex-keys", "keys.json"
"""Where the gateway's key file is mounted, apart from the flow's files."""
KEYS_SECRET = "flow-keys"  # nosec B105 # a name
GATEWAY = "gateway"
GRACE = 30.0
"""Seconds an executor takes at most to end what it has begun: the default of `flowdex executor --grace`."""

_DEFAULT_PORTS = {"grpc": 51000, "http": 8080, "websocket": 8081, "bert": 5555, "bert-out": 5556}  # in this order
_RESERVED = frozenset({GATEWAY, "qdrant", "qdrant-headless"})
_LABEL = 63
_MOST_FILES = 1_000_000  # bytes: what a ConfigMap holds


@dataclass(frozen=True)
class Workload:
    """Pods or containers that all run the same command.

    Attributes:
        name: Its name in the flow.
        label: The same as a DNS label: its host name.
        role: What it does.
        image: The container image.
        arguments: After `flowdex`.
        ports: Name -> port it listens on.
        replicas: How many, where nothing scales it.
        autoscale: How it is scaled, None for not at all.
        env: Environment variables.
        secret_env: Environment variable -> (secret, key, whether the pod starts without).
        requests: Quantities it is promised.
        limits: Quantities it gets at most.
        gpus: GPUs a replica.
        gpu_resource: What they are called.
        node_selector: Labels of nodes.
        tolerations: Taints of nodes.
        annotations: Of the pods.
        index: Volume of an embedded index, None where it holds no state.
        index_mount: Where that volume is mounted.
        embedded: Whether there can only be one of it.
        model_cache: Volume of downloaded models.
        downloads: Whether it fetches a model from a hub when it starts.
        calls_gateway: Whether it calls the flow that it is part of.
        keys: Key file, as the flow file names it; None where it has none, or this is no gateway.
        qdrant: Host and port of the Qdrant server that it uses.
        startup: Seconds it may take to load.
        drain: Seconds it may take to end what it has begun.
        encryption: What TLS asks of it.
    """

    name: str
    label: str
    role: Role
    image: str
    arguments: tuple[str, ...]
    ports: Mapping[str, int]
    replicas: int = 1
    autoscale: Autoscale | None = None
    metric: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    secret_env: Mapping[str, tuple[str, str, bool]] = field(default_factory=dict)
    requests: Mapping[str, str] = field(default_factory=dict)
    limits: Mapping[str, str] = field(default_factory=dict)
    gpus: int = 0
    gpu_resource: str = "nvidia.com/gpu"
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: tuple[Mapping[str, Any], ...] = ()
    annotations: Mapping[str, str] = field(default_factory=dict)
    index: Storage | None = None
    index_mount: str = HOME
    embedded: bool = False
    model_cache: Storage | None = None
    downloads: bool = False
    calls_gateway: bool = False
    keys: str | None = None
    qdrant: tuple[str, int] | None = None
    startup: float = 600.0
    drain: float = GRACE
    encryption: Encryption = field(default_factory=Encryption)

    @property
    def stateful(self) -> bool:
        """Whether what it stores must outlive its pods."""
        return self.index is not None

    @property
    def most(self) -> int:
        """Most replicas there may be."""
        return self.autoscale.max if self.autoscale else self.replicas

    @property
    def least(self) -> int:
        """Fewest replicas there may be."""
        return self.autoscale.min if self.autoscale else self.replicas

    def on_gpu(self) -> Workload:
        """The same on one GPU a replica."""
        role = Role.GPU_ENCODER if self.role is Role.ENCODER else self.role
        before, after = DEFAULTS[self.role], DEFAULTS[role]
        workload = replace(
            self,
            role=role,
            image=self.image.replace(image(self.role), image(role, gpu=True)),
            requests={**after.requests, **_changed(self.requests, before.requests)},
            limits={**after.limits, **_changed(self.limits, before.limits)},
        )
        return _with_gpus(workload, count=1)


def _changed(values: Mapping[str, str], defaults: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in values.items() if defaults.get(name) != value}


@dataclass(frozen=True)
class Deployment:
    """A whole flow, ready to be written.

    Attributes:
        name: The flow's, as a DNS label.
        flow: The flow.
        text: Its file.
        files: Name -> text of every file that the processes read, flow.yml among them.
        gateway: The gateway.
        executors: Those that the flow starts, in the order of the file.
        variables: Environment variables that the file names.
        remarks: What the operator has to see to.
    """

    name: str
    flow: Flow
    text: str
    files: Mapping[str, str]
    gateway: Workload
    executors: tuple[Workload, ...]
    variables: Variables
    remarks: tuple[str, ...] = ()

    @property
    def secret(self) -> str:
        """The name of the Secret with the values that are in no file."""
        return "flow-secrets"

    @property
    def workloads(self) -> tuple[Workload, ...]:
        """Gateway and executors."""
        return (self.gateway, *self.executors)

    @property
    def settings(self) -> GatewayKubernetes:
        """The `kubernetes` section of the gateway."""
        return self.flow.gateway.kubernetes


def dns_label(name: str) -> str:
    """A name of a flow as a DNS label: lower case, hyphens, at most 63 characters."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:_LABEL].strip("-") or "flow"


def make_deployment(
    flow: Flow,
    text: str,
    facts: Mapping[int, Mapping[str, Any]],
    *,
    image_prefix: str = "",
    environment: Mapping[str, str] | None = None,
) -> Deployment:
    """Work out what has to run.

    Args:
        flow: The flow.
        text: The text of its file.
        facts: What the executors' classes say of themselves, by index; see `flow.classes.inspect_classes`.
        image_prefix: In front of the names of flowdex's own images, such as a registry and a slash.
        environment: Values of the variables that the file names; this process's by default.

    Raises:
        ConfigurationError: Two executors have the same DNS label, or a file is too large or missing.
    """
    variables = read_variables(text, os.environ if environment is None else environment)
    started = [(index, executor) for index, executor in enumerate(flow.executors) if not executor.external]
    labels = _labels([executor.name for _, executor in started])
    ports = _gateway_ports(flow)
    secure = "" if flow.gateway.serving_tls is None else "s"
    url = next(f"{protocol}{secure}://{GATEWAY}:{port}" for protocol, port in ports.items())
    maker = _Maker(variables, url, image_prefix)
    if "bert" in ports:
        maker.remarks.append(
            f"{GATEWAY}: protocol: bert works with one gateway, so do not scale it; its ports have no keys and no TLS, "
            "and replies can be read by whoever reaches them: keep them inside of the cluster"
        )
    executors = tuple(
        maker.executor(flow, executor, labels[executor.name], facts.get(index, {})) for index, executor in started
    )
    gateway = _gateway(flow, ports, executors, variables, image_prefix)
    maker.remarks += _certificate_remarks((gateway, *executors))
    if flow.gateway.keys is None:
        maker.remarks.append(
            f"{GATEWAY}: it has no keys, so whoever reaches its ports may call it; name a key file (`gateway: keys:`) "
            "and export again before others do"
        )
    else:
        maker.remarks.append(
            f"{GATEWAY}: in a cluster its keys are the Secret {KEYS_SECRET}: kubectl create secret generic "
            f"{KEYS_SECRET} --from-file={KEYS_FILE}={flow.gateway.keys}"
        )
    return Deployment(
        name=dns_label(flow.name),
        flow=flow,
        text=text,
        files=_files(flow, text, maker.remarks),
        gateway=gateway,
        executors=executors,
        variables=variables,
        remarks=tuple(dict.fromkeys(maker.remarks)),
    )


# ---- parts ----


def _labels(names: list[str]) -> dict[str, str]:
    labels = {name: dns_label(name) for name in names}
    owners: dict[str, str] = {}
    for name, label in labels.items():
        if label in _RESERVED:
            raise ConfigurationError(f"the executor {name!r} would be the host {label!r}, which is taken: rename it")
        if owners.setdefault(label, name) != name:
            raise ConfigurationError(f"{owners[label]!r} and {name!r} would both be the host {label!r}: rename one")
    return labels


def _gateway_ports(flow: Flow) -> dict[str, int]:
    replicas = flow.gateway.kubernetes.replicas
    if "bert" in flow.gateway.protocols and replicas > 1:
        raise ConfigurationError(
            f"gateway.kubernetes.replicas is {replicas}, but protocol: bert takes one gateway: a client's requests and "
            "replies are two connections, which a service would lead to two pods. Set it to 1, or take bert out of "
            "`protocol` and `port` and have clients use flowdex.compat.BertClient"
        )
    named = dict(flow.gateway.listeners())
    ports = {each: named[each] or default for each, default in _DEFAULT_PORTS.items() if each in named}
    if not ports.keys() & {"grpc", "http"}:
        raise ConfigurationError("the gateway serves neither grpc nor http: name one of them under `protocol:`")
    return ports


def _gateway(
    flow: Flow, ports: Mapping[str, int], executors: tuple[Workload, ...], variables: Variables, prefix: str
) -> Workload:
    arguments = ["gateway", "--flow", f"{FLOW_FOLDER}/flow.yml", "--host", "0.0.0.0"]  # nosec B104 # within the container; not on the host
    arguments += ["--insecure"] if flow.gateway.keys is None else ["--keys", f"{KEYS_FOLDER}/{KEYS_FILE}"]
    for protocol, port in ports.items():
        arguments += [f"--port-{protocol}", str(port)]
    arguments += _METRICS
    for each in executors:
        arguments += ["--address", f"{each.name}=dns:///{each.label}:{EXECUTOR_PORT}"]
    pods = flow.gateway.kubernetes
    slowest = max((each.startup for each in executors), default=0.0)
    return replace(
        _pods(pods, Role.GATEWAY, prefix),
        name=GATEWAY,
        label=GATEWAY,
        arguments=tuple(arguments),
        ports=ports,
        replicas=pods.replicas,
        env={**_withheld(GATEWAY, variables), **_plain(GATEWAY, variables, {**flow.gateway.env, **pods.env})},
        secret_env=_secrets(GATEWAY, variables, pods.secret_env),
        startup=slowest + min(60.0, flow.gateway.ready_timeout or 60.0),
        drain=settings_from_flow(flow).drain,
        keys=flow.gateway.keys,
        encryption=gateway_encryption(flow, ports, GATEWAY, FLOW_FOLDER),
    )


def _certificate_remarks(workloads: Iterable[Workload]) -> list[str]:
    """Where certificates have to be put, and what they have to be for."""
    remarks: list[str] = []
    secrets: dict[str, dict[str, None]] = {}
    for workload in workloads:
        for secret, names in workload.encryption.files.items():
            secrets.setdefault(secret, {}).update(dict.fromkeys(names))
        if workload.encryption.health is not None:
            remarks.append(f"{workload.name}: its certificate must be for the name {workload.label}")
    for secret, files in secrets.items():
        if wrong := outside(files):
            remarks.append(f"{wrong[0]}: name certificates relative to the flow file, and beside it or below")
        given = " ".join(f"--from-file={name.replace('/', '__')}={name}" for name in files)
        remarks.append(f"certificates: in Kubernetes, kubectl create secret generic {secret} {given}")
    return remarks


@dataclass
class _Maker:
    """Makes the workloads of executors, and notes what the operator has to see to."""

    variables: Variables
    url: str
    prefix: str
    remarks: list[str] = field(default_factory=list)

    def executor(self, flow: Flow, executor: Executor, label: str, facts: Mapping[str, Any]) -> Workload:
        pods, gpus = executor.kubernetes, _gpu_count(executor)
        role = role_of(executor, gpu=gpus > 0)
        embedded = bool(facts.get("embedded"))
        uri = str(facts.get("uri", ""))
        calls_gateway = role in (Role.RANKER, Role.OWN)
        secrets = _secrets(executor.name, self.variables, pods.secret_env)
        if calls_gateway:
            secrets.setdefault("FLOWDEX_API_KEY", ("flow-secrets", "FLOWDEX_API_KEY", True))
        plain = {name: value for name, value in executor.env.items() if name != "CUDA_VISIBLE_DEVICES"}
        plain = _plain(executor.name, self.variables, {**plain, **pods.env})
        if gpus == 0 and executor.env.get("CUDA_VISIBLE_DEVICES", "").startswith("RR"):
            self.remarks.append(
                f"{executor.name}: CUDA_VISIBLE_DEVICES deals GPUs on one machine; in a cluster say `gpus: 1`"
            )
        model = executor.uses_with.get("model")
        downloads = role in (Role.ENCODER, Role.GPU_ENCODER) and _is_hub_id(model)
        if isinstance(model, str) and not downloads and role is not Role.OWN:
            self.remarks.append(f"{executor.name}: the model {model} must be at that path in the image, or on a volume")
        mutual = executor.tls is not None and executor.tls.ca is not None
        encryption = executor_encryption(flow, executor, label, EXECUTOR_PORT, FLOW_FOLDER)
        index, mount = _index(pods, uri, embedded, executor.name, self.remarks)
        if embedded and executor.autoscale is not None:
            self.remarks.append(f"{executor.name}: an embedded index has one replica, so `autoscale` has no effect")
        workload = replace(
            _pods(pods, role, self.prefix, gpu=gpus > 0),
            name=executor.name,
            label=label,
            arguments=(
                "executor",
                executor.name,
                "--flow",
                f"{FLOW_FOLDER}/flow.yml",
                "--host",
                "0.0.0.0",  # nosec B104 # within the container; not on the host
                "--port",
                str(EXECUTOR_PORT),
                *(() if mutual else ("--insecure",)),
                *_METRICS,
            ),
            ports={"grpc": EXECUTOR_PORT},
            replicas=1 if embedded else executor.replicas,
            autoscale=None if embedded else executor.autoscale,
            metric=pods.metric,
            env={"FLOWDEX_URL": self.url, **encryption.env, **_withheld(executor.name, self.variables), **plain},
            secret_env=secrets,
            index=index,
            index_mount=mount,
            embedded=embedded,
            model_cache=pods.model_cache,
            downloads=downloads,
            calls_gateway=calls_gateway,
            qdrant=_server(uri),
            startup=executor.ready_timeout or math.inf,
            encryption=encryption,
        )
        return _with_gpus(workload, gpus, pods.gpu_resource) if gpus else workload


def _pods(pods: ExecutorKubernetes | GatewayKubernetes, role: Role, prefix: str, *, gpu: bool = False) -> Workload:
    """A workload with what both kinds of `kubernetes` sections say; the rest is still to be filled in."""
    defaults = DEFAULTS[role]
    return Workload(
        name="",
        label="",
        role=role,
        image=pods.image or prefix + image(role, gpu=gpu),
        arguments=(),
        ports={},
        requests={**defaults.requests, **pods.resources.requests},
        limits=_limits(defaults.limits, pods.resources.requests, pods.resources.limits),
        node_selector=pods.node_selector,
        tolerations=pods.tolerations,
        annotations=pods.annotations,
    )


def _limits(defaults: Mapping[str, str], requests: Mapping[str, str], given: Mapping[str, str]) -> dict[str, str]:
    """A default limit holds only where the flow does not ask for another amount of the same."""
    kept = {name: requests.get(name, value) for name, value in defaults.items()}  # nosec B113 # a dict, not the library
    return {**kept, **given}


def _with_gpus(workload: Workload, count: int, resource: str = "nvidia.com/gpu") -> Workload:
    """A workload with GPUs, on nodes that have them, past the taint that keeps others off these."""
    taint = {"key": resource, "operator": "Exists", "effect": "NoSchedule"}
    vendor = resource.partition("/")[0]
    return replace(
        workload,
        gpus=count,
        gpu_resource=resource,
        limits={**workload.limits, resource: str(count)},
        node_selector=workload.node_selector or ({"nvidia.com/gpu.present": "true"} if vendor == "nvidia.com" else {}),
        tolerations=workload.tolerations or (taint,),
    )


def _gpu_count(executor: Executor) -> int:
    """GPUs of one pod: `all` of a pod is what it asks for, one."""
    if executor.gpus is None:
        return 0
    return int(executor.gpus) if executor.gpus.isdigit() else max(1, len(executor.gpus.split(",")))


def _withheld(name: str, variables: Variables) -> dict[str, str]:
    return {secret: WITHHELD for secret in variables.secrets if secret not in variables.of.get(name, ())}


def _plain(name: str, variables: Variables, env: Mapping[str, str]) -> dict[str, str]:
    """What of an environment may be written down: not the secrets in it."""
    return {variable: value for variable, value in env.items() if variable not in variables.env.get(name, {})}


def _secrets(name: str, variables: Variables, given: Mapping[str, str]) -> dict[str, tuple[str, str, bool]]:
    found = {secret: ("flow-secrets", secret, False) for secret in sorted(variables.of.get(name, ()))}
    for variable, secret in variables.env.get(name, {}).items():
        found[variable] = ("flow-secrets", secret, False)
    for variable, place in given.items():
        secret, _, key = place.partition("/")
        found[variable] = (secret, key, False)
    return found


def _index(
    pods: ExecutorKubernetes, uri: str, embedded: bool, name: str, remarks: list[str]
) -> tuple[Storage | None, str]:
    """The volume of an embedded index and where it is mounted."""
    if not embedded:
        return None, HOME
    scheme, _, place = uri.partition("://")
    if scheme == "memory":
        remarks.append(f"{name}: {uri} keeps nothing; a pod that is replaced starts with an empty index")
        return None, HOME
    if place.startswith("/") and not place.startswith(f"{HOME}/"):
        return pods.storage, place.rstrip("/")
    return pods.storage, HOME


def _server(uri: str) -> tuple[str, int] | None:
    match = re.match(r"(https?|grpcs?)://(\[[^\]]+\]|[^:/]+)(?::(\d+))?", uri)
    if match is None:
        return None
    return match[2], int(match[3] or (6334 if match[1].startswith("grpc") else 6333))


def _is_hub_id(model: Any) -> bool:
    return (
        isinstance(model, str)
        and re.fullmatch(r"[\w.-]+(/[\w.-]+)?", model) is not None
        and not model.startswith((".", "~"))
        and not Path(model).exists()
    )


def _files(flow: Flow, text: str, remarks: list[str]) -> dict[str, str]:
    """flow.yml and the files beside it that executors read: modules and configurations."""
    files = {"flow.yml": text}
    for executor in flow.executors:
        if executor.external:
            continue
        names = [name for name in executor.py_modules if name.endswith(".py")]
        config = config_file(executor.uses, flow.folder) if isinstance(executor.uses, str) else None
        if config is not None:
            names.append(config)
            remarks.append(f"{executor.name}: what {config} names (py_modules) must be in the image")
        for name in (*executor.py_modules, *names):
            path = flow.folder / name
            if path.is_dir():
                remarks.append(f"{executor.name}: the package {name} must be installed in the image")
            elif path.is_file() and Path(name).parts[0] not in ("..", "/"):
                files[name] = path.read_text(encoding="utf-8")
            elif name in names:
                raise ConfigurationError(f"{executor.name}: there is no file {path} below the flow file's folder")
    size = sum(len(content.encode()) for content in files.values())
    if size > _MOST_FILES:
        raise ConfigurationError(
            f"the flow and its modules have {size:,} bytes, a ConfigMap holds {_MOST_FILES:,}: install them in an image"
        )
    return files
