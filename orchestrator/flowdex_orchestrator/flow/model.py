"""The typed model of a flow: Jina's `jtype: Flow` syntax as immutable Python objects, valid by construction.

    Flow
     +-- settings   (`with`)      what holds for all; gateway and executors inherit from it
     +-- gateway    (`gateway`)   ports, protocols, class: resolved, that is with what it inherits
     +-- executors  (`executors`) one item an executor, resolved likewise
     +-- predecessors(), topological_order()

`load.load_flow` makes one from a file and knows the line of every key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from flowdex.errors import ConfigurationError
from flowdex_orchestrator.flow import jina_keys, topology
from flowdex_orchestrator.flow.findings import Finding, KeyPath, format_key, nearest
from flowdex_orchestrator.flow.values import (
    Environment,
    Flag,
    Gpus,
    Hosts,
    LogLevel,
    Mapped,
    Milliseconds,
    Polling,
    Ports,
    PositiveInteger,
    Protocols,
    Retries,
    Strings,
    Text,
    Uses,
    expected,
)
from flowdex_orchestrator.flow.yaml_reader import Document

__all__ = ["Executor", "Flow", "FlowSettings", "Gateway", "Section"]

DEFAULT_HOST = "127.0.0.1"
EXTENSION = "x-"
"""Prefix of top-level keys that are the author's own, such as places for YAML anchors."""
_OWN = frozenset({"name", "env"})  # never inherited, or merged
_LISTENING = frozenset({"host", "ports", "protocols"})  # of the gateway: executors stay on loopback and free ports
SectionT = TypeVar("SectionT", bound="Section")


def _seconds(milliseconds: int) -> float | None:
    return None if milliseconds < 0 else milliseconds / 1000


class Section(BaseModel):
    """A mapping of a flow file: typed keys, keys of Jina that are only accepted, and nothing else."""

    model_config = ConfigDict(frozen=True, extra="allow", populate_by_name=True)

    accepted: ClassVar[Mapping[str, str]] = {}
    """Keys of Jina that flowdex accepts without acting on them, with their descriptions."""
    aliases: ClassVar[Mapping[str, str]] = {}
    """Other spellings that Jina accepts of keys."""

    @classmethod
    def typed_keys(cls) -> dict[str, str]:
        """The keys that flowdex acts on, as written in YAML, with the attributes they become."""
        return {field.alias or name: name for name, field in cls.model_fields.items()}

    @classmethod
    def known_keys(cls) -> list[str]:
        """All keys that a file may use here."""
        return [*cls.typed_keys(), *cls.aliases, *cls.accepted]

    @classmethod
    def unknown_key(cls, key: str) -> str:
        """The message for a key that does not exist."""
        near = nearest(key, cls.known_keys())
        return f"unknown key{near}" if near else f"unknown key; the usual keys are {', '.join(cls.typed_keys())}"

    @property
    def unused(self) -> list[str]:
        """The keys in use that flowdex accepts without acting on them."""
        return list(self.model_extra or {})

    @model_validator(mode="before")
    @classmethod
    def _keys(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            raise expected("a mapping (key: value)", data)
        typed = cls.typed_keys()
        values: dict[str, Any] = {}
        for key, value in data.items():
            key = cls.aliases.get(key, key)  # noqa: PLW2901 - the same key, as flowdex spells it
            if key not in typed and key not in cls.accepted and key not in cls.model_fields:
                raise PydanticCustomError("unknown_key", "{text}", {"text": f"{key}: {cls.unknown_key(key)}"})
            if value is not None:  # `key:` without a value is as good as no key
                values[key] = value
        return values


class Gateway(Section):
    """The flow's front: what it listens on and which class serves it under stock Jina."""

    accepted = jina_keys.GATEWAY_KEYS
    aliases = {
        "host_in": "host",
        "port_expose": "port",
        "port_in": "port",
        "ports": "port",
        "protocols": "protocol",
    }

    name: Text = Field(default="gateway", description="Name in logs.")
    uses: Uses | None = Field(default=None, description="Gateway class for stock Jina; flowdex runs its own gateway.")
    uses_with: Mapped = Field(default_factory=dict, description="Arguments of the gateway class.")
    py_modules: Strings = Field(default=(), description="Python files or modules to import first.")
    host: Text = Field(default=DEFAULT_HOST, description="Address to listen on; 0.0.0.0 opens the flow to the network.")
    ports: Ports = Field(default=(), alias="port", description="One port for each protocol, in the same order.")
    protocols: Protocols = Field(default=("grpc",), alias="protocol", description="Protocols to serve: grpc, http.")
    env: Environment = Field(default_factory=dict, description="Environment variables of the process.")
    workspace: Text | None = Field(default=None, description="Folder for files of the gateway.")
    timeout_ready: Milliseconds = Field(default=600_000, description="Time to become ready in, in ms; -1 for no limit.")
    timeout_send: Milliseconds = Field(
        default=-1, description="Time for a call of an executor, in ms; -1 for no limit."
    )
    retries: Retries = Field(default=-1, description="Further tries of a call of an executor; -1 for the default.")
    log_level: LogLevel = Field(default="INFO", description="Least level of messages in the log.")
    cors: Flag = Field(default=False, description="Allow browsers of any origin to call the HTTP interface.")
    uvicorn_kwargs: Mapped = Field(default_factory=dict, description="Options of the HTTP server, uvicorn.")
    title: Text | None = Field(default=None, description="Title of the HTTP interface's documentation.")
    description: Text | None = Field(default=None, description="Text of the HTTP interface's documentation.")

    @property
    def send_timeout(self) -> float | None:
        """Seconds for a call of an executor, None for no limit."""
        return _seconds(self.timeout_send)

    @property
    def ready_timeout(self) -> float | None:
        """Seconds to become ready in, None for no limit."""
        return _seconds(self.timeout_ready)

    def listeners(self) -> list[tuple[str, int]]:
        """(protocol, port) of each server, port 0 where the flow names none: any free one."""
        ports = self.ports or (0,) * len(self.protocols)
        return list(zip(self.protocols, ports, strict=True))


class Executor(Section):
    """One step of the flow: a class, its arguments, how many replicas, and what it waits for."""

    accepted = jina_keys.EXECUTOR_KEYS
    aliases = {"force": "force_update", "host_in": "host", "ports": "port"}

    name: Text = Field(default="executor", description="Unique name: a letter or _, then letters, digits and _.")
    uses: Uses = Field(
        default="BaseExecutor", description="package.Class, a config.yml, or an inline mapping with jtype."
    )
    uses_with: Mapped = Field(default_factory=dict, description="Arguments of the class's constructor.")
    uses_metas: Mapped = Field(default_factory=dict, description="Overrides of the executor's metas.")
    uses_requests: Mapped = Field(default_factory=dict, description="Endpoint to method name, instead of @requests.")
    py_modules: Strings = Field(default=(), description="Python files or modules to import first.")
    method: Literal["add", "needs"] = Field(
        default="add", description="Jina's Flow method; both only add the executor."
    )
    needs: Strings = Field(
        default=(), description="Names to wait for; 'gateway' is the start. Default: the one before."
    )
    floating: Flag = Field(default=False, description="No later executor follows this one by default.")
    replicas: PositiveInteger = Field(default=1, description="Processes that share the load.")
    shards: PositiveInteger = Field(default=1, description="Parts of the data, each with its replicas.")
    polling: Polling = Field(default="ANY", description="With shards: ask any or all of them.")
    env: Environment = Field(default_factory=dict, description="Environment variables of the processes.")
    hosts: Hosts = Field(
        default=(DEFAULT_HOST,),
        alias="host",
        description="Address to listen on, or the addresses of an external executor.",
    )
    ports: Ports = Field(default=(), alias="port", description="Port of each replica; any free ones by default.")
    external: Flag = Field(
        default=False, description="It runs elsewhere, at host and port; the flow does not start it."
    )
    timeout_ready: Milliseconds = Field(default=600_000, description="Time to load in, in ms; -1 for no limit.")
    timeout_send: Milliseconds = Field(default=-1, description="Time for one call, in ms; -1 for no limit.")
    retries: Retries = Field(default=-1, description="Further tries of a call on other replicas; -1 for the default.")
    workspace: Text | None = Field(default=None, description="Folder for the executor's files.")
    volumes: Strings = Field(default=(), description="host:container folders of its container.")
    gpus: Gpus | None = Field(default=None, description="GPUs it uses: a number, 'all' or 'device=ID,...'.")
    log_level: LogLevel = Field(default="INFO", description="Least level of messages in the log.")

    @property
    def send_timeout(self) -> float | None:
        """Seconds for one call, None for no limit."""
        return _seconds(self.timeout_send)

    @property
    def ready_timeout(self) -> float | None:
        """Seconds to load in, None for no limit."""
        return _seconds(self.timeout_ready)

    def addresses(self) -> list[str]:
        """`host:port` of each replica that the file fixes an address of; empty where it names no port.

        As in Jina one host serves several ports, or several hosts one port; a host may itself be `host:port`, with or
        without a `grpc://` in front.
        """
        hosts = list(self.hosts)
        ports: list[int | None] = list(self.ports) or [None]
        if len(hosts) == 1:
            hosts *= len(ports)
        elif len(ports) == 1:
            ports *= len(hosts)
        found = []
        for host, port in zip(hosts, ports, strict=True):
            bare = host.partition("://")[2] or host
            bare = bare.rstrip("/")
            if bare.rpartition(":")[2].isdigit() and not bare.endswith("]") and bare.count(":") == 1:
                found.append(bare)
            elif port is not None:
                found.append(f"{bare}:{port}")
        return found


class FlowSettings(Section):
    """`with`: what holds for the gateway, and what the executors take where they say nothing themselves."""

    accepted = {
        **jina_keys.FLOW_KEYS,
        "external": "Whether all executors run elsewhere; say so at each.",
        "floating": "Whether no executor follows another by default; say so at each.",
        "gpus": "GPUs of all executors; say so at each.",
        "uses_metas": "Metas of all executors; say so at each.",
        "uses_requests": "Endpoints of all executors; say so at each.",
        "uses_with": "Arguments of all executors; say so at each.",
        "volumes": "Volumes of all executors; say so at each.",
    }
    aliases = {**Executor.aliases, **Gateway.aliases}

    name: Text = Field(default="flowdex", description="Name of the flow.")
    host: Text = Field(
        default=DEFAULT_HOST, description="Address the gateway listens on; 0.0.0.0 opens it to the network."
    )
    ports: Ports = Field(
        default=(), alias="port", description="One port of the gateway for each protocol, in the same order."
    )
    protocols: Protocols = Field(
        default=("grpc",), alias="protocol", description="Protocols of the gateway: grpc, http."
    )
    env: Environment = Field(default_factory=dict, description="Environment variables of all processes.")
    workspace: Text | None = Field(default=None, description="Folder for files of the executors.")
    py_modules: Strings = Field(default=(), description="Python files or modules that all executors import first.")
    replicas: PositiveInteger = Field(default=1, description="Replicas of each executor that does not say.")
    shards: PositiveInteger = Field(default=1, description="Shards of each executor that does not say.")
    polling: Polling = Field(default="ANY", description="Polling of each executor that does not say.")
    timeout_ready: Milliseconds = Field(default=600_000, description="Time to load in, in ms; -1 for no limit.")
    timeout_send: Milliseconds = Field(
        default=-1, description="Time for one call of an executor, in ms; -1 for no limit."
    )
    retries: Retries = Field(default=-1, description="Further tries of a call of an executor; -1 for the default.")
    log_level: LogLevel = Field(default="INFO", description="Least level of messages in the logs.")
    cors: Flag = Field(default=False, description="Allow browsers of any origin to call the HTTP interface.")
    uvicorn_kwargs: Mapped = Field(default_factory=dict, description="Options of the HTTP server, uvicorn.")
    title: Text | None = Field(default=None, description="Title of the HTTP interface's documentation.")
    description: Text | None = Field(default=None, description="Text of the HTTP interface's documentation.")

    def hand_down(self, section: SectionT, *, ports: bool = False) -> SectionT:
        """`section` with what it leaves open taken from here; ports, protocols and host only where `ports` says so."""
        update: dict[str, Any] = {"env": {**self.env, **getattr(section, "env", {})}}
        for name in type(section).model_fields:
            if name in self.model_fields_set - section.model_fields_set - _OWN and (ports or name not in _LISTENING):
                update[name] = getattr(self, name)
        return section.model_copy(update=update)


class Flow(Section):
    """A whole flow, resolved: gateway and executors carry what they inherit from `with`.

    Attributes:
        settings: The `with` section.
        gateway: The `gateway` section over what `with` says.
        executors: In the order of the file.
    """

    aliases = {"deployments": "executors"}

    jtype: Literal["Flow"] = Field(description="Always Flow.")
    version: Text = Field(default="1", description="Version of the syntax: '1'.")
    settings: FlowSettings = Field(
        default_factory=FlowSettings, alias="with", description="What holds for the whole flow."
    )
    gateway: Gateway = Field(
        default_factory=Gateway,
        validate_default=True,
        description="The gateway, where it differs from `with`.",
    )
    executors: tuple[Executor, ...] = Field(
        default=(), description="The steps; each follows the one before unless it `needs`."
    )

    _document: Document | None = PrivateAttr(None)
    _file: str | None = PrivateAttr(None)

    @classmethod
    def unknown_key(cls, key: str) -> str:
        """As for every section, and where the key belongs if it exists elsewhere."""
        if key in ("pods", "pod"):
            return "the key `pods` is the syntax of Jina 2; write `executors`"
        if key in FlowSettings.known_keys():
            return "unknown key; it belongs under `with`"
        return super().unknown_key(key)

    @model_validator(mode="before")
    @classmethod
    def _extensions(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        return {key: value for key, value in data.items() if not key.startswith(EXTENSION)}

    @field_validator("jtype", mode="before")
    @classmethod
    def _jtype(cls, value: Any) -> Any:
        if value != "Flow":
            raise expected("Flow", value)
        return value

    @field_validator("version", mode="before")
    @classmethod
    def _version(cls, value: Any) -> str:
        if str(value) not in ("1", "1.0"):
            raise expected("version '1'", value)
        return "1"

    @field_validator("gateway", mode="after")
    @classmethod
    def _gateway(cls, gateway: Gateway, info: ValidationInfo) -> Gateway:
        settings = info.data.get("settings")
        return settings.hand_down(gateway, ports=True) if settings else gateway

    @field_validator("executors", mode="before")
    @classmethod
    def _named(cls, items: Any) -> Any:
        if not isinstance(items, (list, tuple)):
            raise expected("a list of executors (- name: ...)", items)
        return [
            {"name": f"executor{index}", **item} if isinstance(item, Mapping) and not item.get("name") else item
            for index, item in enumerate(items)
        ]

    @field_validator("executors", mode="after")
    @classmethod
    def _inherit(cls, executors: tuple[Executor, ...], info: ValidationInfo) -> tuple[Executor, ...]:
        settings = info.data.get("settings")
        return tuple(settings.hand_down(executor) for executor in executors) if settings else executors

    @model_validator(mode="after")
    def _consistent(self) -> Flow:
        found = [(("executors", *path), message) for path, message in topology.problems(self._links())]
        found += gateway_problems(self.gateway)
        for index, executor in enumerate(self.executors):
            found += [(("executors", index, *path), message) for path, message in address_problems(executor)]
        if found:
            raise InconsistentFlow(found)
        return self

    def _links(self) -> list[topology.Link]:
        return [topology.Link(item.name, item.needs, item.floating) for item in self.executors]

    @property
    def name(self) -> str:
        """The flow's name."""
        return self.settings.name

    @property
    def path(self) -> Path | None:
        """The file it was read from, None for a flow made in Python."""
        return Path(self._file) if self._file is not None else None

    @property
    def folder(self) -> Path:
        """The folder that relative paths of the flow start from: the file's, else the working directory."""
        return Path(self._file).resolve().parent if self._file is not None else Path.cwd()

    def executor(self, name: str) -> Executor:
        """The executor of that name.

        Raises:
            ConfigurationError: There is none; the message names the nearest.
        """
        for executor in self.executors:
            if executor.name == name:
                return executor
        names = [executor.name for executor in self.executors]
        hint = nearest(name, names) or f"; the executors are {', '.join(names)}"
        raise ConfigurationError(f"the flow has no executor {name!r}{hint}")

    def predecessors(self) -> dict[str, list[str]]:
        """For each executor, in the order of the file, the names it waits for; `gateway` where requests enter."""
        return topology.predecessors(self._links())

    def topological_order(self) -> list[str]:
        """The executors' names, each after its predecessors and otherwise in the order of the file."""
        return topology.order(self._links())

    def with_replicas(self, replicas: Mapping[str, int]) -> Flow:
        """The same flow with other numbers of replicas, `{"encoder": 2}`.

        Raises:
            ConfigurationError: An executor does not exist or a number is not positive.
        """
        for name, number in replicas.items():
            if number < 1:
                raise ConfigurationError(f"{name} needs at least one replica, got {number}")
            self.executor(name)
        executors = tuple(
            executor.model_copy(update={"replicas": replicas[executor.name]}) if executor.name in replicas else executor
            for executor in self.executors
        )
        return self.model_copy(update={"executors": executors})

    def has(self, path: KeyPath) -> bool:
        """Whether the file has the key at `path`."""
        return self._document is not None and path in self._document.positions

    def finding(self, path: KeyPath, message: str, severity: Literal["error", "warning"] = "error") -> Finding:
        """A finding about the key at `path`, with its place in the file where there is one."""
        if self._document is None:
            return Finding(message, format_key(path), severity=severity)
        line, column = self._document.position(path) or (1, 1)
        return Finding(message, format_key(path), self._file or "<flow>", line, column, severity)


class InconsistentFlow(ValueError):
    """Keys that are right by themselves and wrong together; `problems` are (path, message)."""

    def __init__(self, problems: Sequence[tuple[KeyPath, str]]) -> None:
        super().__init__("; ".join(f"{format_key(path)}: {message}" for path, message in problems))
        self.problems = list(problems)


def gateway_problems(gateway: Gateway) -> list[tuple[KeyPath, str]]:
    """What is wrong with the gateway's ports and protocols taken together."""
    protocols, ports = gateway.protocols, gateway.ports
    key: KeyPath = ("gateway", "port") if "ports" in gateway.model_fields_set else ("with", "port")
    if ports and len(ports) != len(protocols):
        return [(key, f"expected one port for each of {', '.join(protocols)}, got {len(ports)}")]
    if len({port for port in ports if port}) < len([port for port in ports if port]):
        return [(key, "expected different ports for the protocols")]
    return []


def address_problems(executor: Executor) -> list[tuple[KeyPath, str]]:
    """What is wrong with an executor's hosts, ports and replicas taken together."""
    hosts, ports, replicas = len(executor.hosts), len(executor.ports), executor.replicas
    if min(hosts, ports) > 1 and hosts != ports:
        return [(("port",), f"expected one port for each of the {hosts} hosts, or one for all, got {ports}")]
    if not executor.external:
        if hosts > 1:
            return [(("host",), "expected one host: only an `external: true` executor has several")]
        if ports > 1 and ports != replicas:
            return [(("port",), f"expected one port for each of the {replicas} replicas, got {ports}")]
        return []
    addresses = executor.addresses()
    if not addresses:
        return [(("external",), "an external executor needs the `port` (and `host`) where it listens")]
    if replicas not in (1, len(addresses)):
        return [(("replicas",), f"expected {len(addresses)}, one for each address, or no `replicas`, got {replicas}")]
    return []
