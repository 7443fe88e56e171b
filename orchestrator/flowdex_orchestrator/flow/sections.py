"""The sections of a flow file: `with`, `gateway` and each of `executors`, as immutable typed objects.

    mapping --Section.model_validate--> typed keys | keys of Jina that are only accepted | error for anything else

One field is one key, with its type, its default and the description that editors show. Attribute names are the YAML
keys, in the plural where a key takes one or several (`ports` for `port`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, TypeVar

from pydantic import Field

from flowdex_orchestrator.flow import jina_keys
from flowdex_orchestrator.flow.bert import Bert
from flowdex_orchestrator.flow.deployment import Autoscale, ExecutorKubernetes, GatewayKubernetes
from flowdex_orchestrator.flow.section import Section
from flowdex_orchestrator.flow.tls import GatewayTls, Hops
from flowdex_orchestrator.flow.values import (
    Environment,
    Flag,
    Gpus,
    Hosts,
    LogFormat,
    LogLevel,
    Mapped,
    Milliseconds,
    Origins,
    Polling,
    Ports,
    PositiveInteger,
    Protocols,
    Retries,
    Roles,
    Strings,
    Text,
    Uses,
)

__all__ = ["Executor", "FlowSettings", "Gateway", "Section"]

DEFAULT_HOST = "127.0.0.1"
_OWN = frozenset({"name", "env"})  # never inherited, or merged
_LISTENING = frozenset({"host", "ports", "protocols"})  # of the gateway: executors stay on loopback and free ports
_HAS_PORT = re.compile(r"(\[[^\]]*\]|[^:]*):[0-9]+")
SectionT = TypeVar("SectionT", bound="Section")


def _seconds(milliseconds: int) -> float | None:
    return None if milliseconds < 0 else milliseconds / 1000


class Gateway(Section):
    """The flow's front: what it listens on and which class serves it under stock Jina."""

    accepted: ClassVar[Mapping[str, str]] = jina_keys.GATEWAY_KEYS
    aliases: ClassVar[Mapping[str, str]] = {
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
    protocols: Protocols = Field(
        default=("grpc",), alias="protocol", description="Protocols to serve: grpc, http, websocket, bert."
    )
    env: Environment = Field(default_factory=dict, description="Environment variables of the process.")
    workspace: Text | None = Field(default=None, description="Folder for files of the gateway.")
    timeout_ready: Milliseconds = Field(default=600_000, description="Time to become ready in, in ms; -1 for no limit.")
    timeout_silent: Milliseconds = Field(
        default=60_000,
        description="Time without a health answer until it is restarted, in ms; -1 for never.",
    )
    timeout_send: Milliseconds = Field(
        default=-1, description="Time for a call of an executor, in ms; -1 for no limit."
    )
    retries: Retries = Field(default=-1, description="Further tries of a call of an executor; -1 for the default.")
    log_level: LogLevel = Field(default="INFO", description="Least level of messages in the log.")
    log_format: LogFormat = Field(default="text", description="Lines for people, or JSON for machines.")
    tracing: Flag = Field(default=False, description="Send OpenTelemetry traces, as its environment variables say.")
    cors: Origins = Field(default=(), description="Origins whose web pages may call the HTTP interface; true for any.")
    uvicorn_kwargs: Mapped = Field(default_factory=dict, description="Options of stock Jina's HTTP server.")
    title: Text | None = Field(default=None, description="Title of the HTTP interface's documentation.")
    description: Text | None = Field(default=None, description="Text of the HTTP interface's documentation.")
    keys: Text | None = Field(
        default=None, description="File of the API keys that callers need, beside this file; see `flowdex keys`."
    )
    insecure: Flag = Field(default=False, description="Listen beyond this machine though there are no keys.")
    roles: Roles = Field(
        default_factory=dict, description="Role that an endpoint of an own executor needs: search, index or admin."
    )
    hosts: Strings = Field(
        default=(), description="Further names in the Host header that the HTTP interface answers on loopback."
    )
    serving_tls: GatewayTls | None = Field(
        default=None, alias="tls", description="Encrypt what clients send: {certificate, key, client_ca}."
    )
    bert: Bert = Field(default_factory=Bert, description="What clients of bert-as-service get.")
    kubernetes: GatewayKubernetes = Field(
        default_factory=GatewayKubernetes, description="Its pods, service and ingress, for `flowdex export`."
    )

    @property
    def send_timeout(self) -> float | None:
        """Seconds for a call of an executor, None for no limit."""
        return _seconds(self.timeout_send)

    @property
    def ready_timeout(self) -> float | None:
        """Seconds to become ready in, None for no limit."""
        return _seconds(self.timeout_ready)

    @property
    def silent_timeout(self) -> float | None:
        """Seconds without an answer to health checks until it is restarted, None for never."""
        return _seconds(self.timeout_silent)

    def listeners(self) -> list[tuple[str, int]]:
        """(protocol, port) of each server, port 0 where the flow names none: any free one.

        `bert` has a second port, which is listed as `bert-out`.
        """
        ports = self.ports or (0,) * len(self.protocols)
        found = list(zip(self.protocols, ports, strict=True))
        return found + [("bert-out", self._bert_out(port)) for protocol, port in found if protocol == "bert"]

    def _bert_out(self, port: int) -> int:
        if self.bert.port_out is not None:
            return self.bert.port_out
        return port + 1 if port else 0


class Executor(Section):
    """One step of the flow: a class, its arguments, how many replicas, and what it waits for."""

    accepted: ClassVar[Mapping[str, str]] = jina_keys.EXECUTOR_KEYS
    aliases: ClassVar[Mapping[str, str]] = {"force": "force_update", "host_in": "host", "ports": "port"}

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
    shards: PositiveInteger = Field(default=1, description="Parts of the data. flowdex runs one.")
    polling: Polling = Field(default="ANY", description="With shards: ask any or all of them. flowdex has one.")
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
    timeout_silent: Milliseconds = Field(
        default=60_000,
        description="Time without a health answer until it is restarted, in ms; -1 for never.",
    )
    timeout_send: Milliseconds = Field(default=-1, description="Time for one call, in ms; -1 for no limit.")
    retries: Retries = Field(default=-1, description="Further tries of a call on other replicas; -1 for the default.")
    workspace: Text | None = Field(default=None, description="Folder for the executor's files.")
    volumes: Strings = Field(default=(), description="host:container folders; only containers have them.")
    gpus: Gpus | None = Field(default=None, description="GPUs it uses: a number, 'all' or 'device=ID,...'.")
    log_level: LogLevel = Field(default="INFO", description="Least level of messages in the log.")
    log_format: LogFormat = Field(default="text", description="Lines for people, or JSON for machines.")
    tracing: Flag = Field(default=False, description="Send OpenTelemetry traces, as its environment variables say.")
    canary: Milliseconds = Field(
        default=10_000, description="Time between two looks at whether it still works, in ms; -1 for none."
    )
    tls: Hops = Field(
        default=None, description="Encrypt what the gateway sends it: {certificate, key, ca}, where not as in `with`."
    )
    insecure: Flag = Field(default=False, description="Listen beyond this machine though callers need no certificate.")
    autoscale: Autoscale | None = Field(default=None, description="How many replicas: as many as the load needs.")
    kubernetes: ExecutorKubernetes = Field(
        default_factory=ExecutorKubernetes, description="Its pods, for `flowdex export`."
    )

    @property
    def send_timeout(self) -> float | None:
        """Seconds for one call, None for no limit."""
        return _seconds(self.timeout_send)

    @property
    def ready_timeout(self) -> float | None:
        """Seconds to load in, None for no limit."""
        return _seconds(self.timeout_ready)

    @property
    def canary_period(self) -> float | None:
        """Seconds between two canaries, None for none."""
        return _seconds(self.canary)

    @property
    def silent_timeout(self) -> float | None:
        """Seconds without an answer to health checks until it is restarted, None for never."""
        return _seconds(self.timeout_silent)

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
            bare = (host.partition("://")[2] or host).rstrip("/")
            if _HAS_PORT.fullmatch(bare):
                found.append(bare)
            elif port is not None:
                found.append(f"[{bare}]:{port}" if ":" in bare and not bare.startswith("[") else f"{bare}:{port}")
        return found


class FlowSettings(Section):
    """`with`: what holds for the gateway, and what the executors take where they say nothing themselves."""

    accepted: ClassVar[Mapping[str, str]] = {
        **jina_keys.FLOW_KEYS,
        "external": "Whether all executors run elsewhere; say so at each.",
        "floating": "Whether no executor follows another by default; say so at each.",
        "gpus": "GPUs of all executors; say so at each.",
        "uses_metas": "Metas of all executors; say so at each.",
        "uses_requests": "Endpoints of all executors; say so at each.",
        "uses_with": "Arguments of all executors; say so at each.",
        "volumes": "Volumes of all executors; say so at each.",
    }
    aliases: ClassVar[Mapping[str, str]] = {**Executor.aliases, **Gateway.aliases}

    name: Text = Field(default="flowdex", description="Name of the flow.")
    host: Text = Field(
        default=DEFAULT_HOST, description="Address the gateway listens on; 0.0.0.0 opens it to the network."
    )
    ports: Ports = Field(
        default=(), alias="port", description="One port of the gateway for each protocol, in the same order."
    )
    protocols: Protocols = Field(
        default=("grpc",), alias="protocol", description="Protocols of the gateway: grpc, http, websocket, bert."
    )
    env: Environment = Field(default_factory=dict, description="Environment variables of all processes.")
    workspace: Text | None = Field(default=None, description="Folder for files of the executors.")
    py_modules: Strings = Field(default=(), description="Python files or modules that all executors import first.")
    replicas: PositiveInteger = Field(default=1, description="Replicas of each executor that does not say.")
    shards: PositiveInteger = Field(default=1, description="Parts of the data. flowdex runs one.")
    polling: Polling = Field(default="ANY", description="With shards: ask any or all of them. flowdex has one.")
    timeout_ready: Milliseconds = Field(default=600_000, description="Time to load in, in ms; -1 for no limit.")
    timeout_silent: Milliseconds = Field(
        default=60_000,
        description="Time without a health answer until it is restarted, in ms; -1 for never.",
    )
    timeout_send: Milliseconds = Field(
        default=-1, description="Time for one call of an executor, in ms; -1 for no limit."
    )
    canary: Milliseconds = Field(
        default=10_000, description="Time between two looks at whether an executor still works, in ms; -1 for none."
    )
    retries: Retries = Field(default=-1, description="Further tries of a call of an executor; -1 for the default.")
    log_level: LogLevel = Field(default="INFO", description="Least level of messages in the logs.")
    log_format: LogFormat = Field(default="text", description="Lines for people, or JSON for machines.")
    tracing: Flag = Field(default=False, description="Send OpenTelemetry traces, as its environment variables say.")
    tls: Hops = Field(
        default=None, description="Encrypt what gateway and executors send each other: {certificate, key, ca}."
    )
    cors: Origins = Field(default=(), description="Origins whose web pages may call the HTTP interface; true for any.")
    uvicorn_kwargs: Mapped = Field(default_factory=dict, description="Options of stock Jina's HTTP server.")
    title: Text | None = Field(default=None, description="Title of the HTTP interface's documentation.")
    description: Text | None = Field(default=None, description="Text of the HTTP interface's documentation.")

    def hand_down(self, section: SectionT, *, ports: bool = False) -> SectionT:
        """`section` with what it leaves open taken from here; ports, protocols and host only where `ports` says so."""
        update: dict[str, Any] = {"env": {**self.env, **getattr(section, "env", {})}}
        for name in type(section).model_fields:
            if name in self.model_fields_set - section.model_fields_set - _OWN and (ports or name not in _LISTENING):
                update[name] = getattr(self, name)
        return section.model_copy(update=update)
