"""The typed model of a flow: Jina's `jtype: Flow` syntax as immutable Python objects, valid by construction.

    Flow
     +-- settings   (`with`)      what holds for all; gateway and executors inherit from it
     +-- gateway    (`gateway`)   ports, protocols, class: resolved, that is with what it inherits
     +-- executors  (`executors`) one item an executor, resolved likewise
     +-- predecessors()

`load.load_flow` makes one from a file and knows the line of every key.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, PrivateAttr, ValidationInfo, field_validator, model_validator

from flowdex.errors import ConfigurationError
from flowdex_orchestrator.flow import topology
from flowdex_orchestrator.flow.consistency import InconsistentFlow, address_problems, gateway_problems
from flowdex_orchestrator.flow.findings import Finding, KeyPath, format_key, nearest
from flowdex_orchestrator.flow.overrides import Overrides
from flowdex_orchestrator.flow.places import as_written
from flowdex_orchestrator.flow.sections import Executor, FlowSettings, Gateway, Section
from flowdex_orchestrator.flow.values import (
    Text,
    expected,
)
from flowdex_orchestrator.flow.yaml_reader import Document

__all__ = ["Executor", "Flow", "FlowSettings", "Gateway"]

EXTENSION = "x-"
"""Prefix of top-level keys that are the author's own, such as places for YAML anchors."""


class Flow(Section):
    """A whole flow, resolved: gateway and executors carry what they inherit from `with`.

    Attributes:
        settings: The `with` section.
        gateway: The `gateway` section over what `with` says.
        executors: In the order of the file.
    """

    aliases: ClassVar[Mapping[str, str]] = {"deployments": "executors"}

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
    _text: str = PrivateAttr("")

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
    def text(self) -> str:
        """What the file says, byte order mark aside; empty for a flow made in Python."""
        return self._text

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

    def with_arguments(self, overrides: Overrides) -> Flow:
        """The same flow with other arguments of executors, `{"encoder": {"model": "./my-model"}}`.

        Raises:
            ConfigurationError: An executor does not exist, or runs elsewhere.
        """
        for name in overrides:
            if self.executor(name).external:
                raise ConfigurationError(f"{name} is external: its arguments are set where it runs")
        executors = tuple(
            executor.model_copy(update={"uses_with": {**executor.uses_with, **overrides.get(executor.name, {})}})
            for executor in self.executors
        )
        return self.model_copy(update={"executors": executors})

    def with_free_ports(self) -> Flow:
        """The same flow without the ports that it names, but those of external executors: any free ones do."""
        executors = tuple(
            executor if executor.external else executor.model_copy(update={"ports": ()}) for executor in self.executors
        )
        bert = self.gateway.bert.model_copy(update={"port_out": None})
        gateway = self.gateway.model_copy(update={"ports": (), "bert": bert})
        return self.model_copy(update={"gateway": gateway, "executors": executors})

    def finding(self, path: KeyPath, message: str, severity: Literal["error", "warning"] = "error") -> Finding:
        """A finding about the key at `path`, with its place in the file where there is one.

        A key that the file does not write is reported at the mapping or list it would stand in.
        """
        if self._document is None:
            return Finding(message, format_key(path), severity=severity)
        written = as_written(self._document.value, path)
        while written and written not in self._document.positions:
            written = written[:-1]
        line, column = self._document.position(written) or (1, 1)
        return Finding(message, format_key(written), self._file or "<flow>", line, column, severity)
