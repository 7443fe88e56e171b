"""What all objects share: labels, names, how they are written as YAML."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.metadata import version
from typing import Any

import yaml

from flowdex_orchestrator.export.model import Deployment

__all__ = ["Object", "labels", "manifest", "metadata", "selector", "write_yaml"]

Object = dict[str, Any]
"""A Kubernetes object, or a part of one."""

_APP = "app.kubernetes.io"


def selector(deployment: Deployment, component: str = "") -> dict[str, str]:
    """The labels that select the pods of one component, or all of the flow."""
    found = {f"{_APP}/name": "flowdex", f"{_APP}/instance": deployment.name}
    return {**found, f"{_APP}/component": component} if component else found


def labels(deployment: Deployment, component: str = "") -> dict[str, str]:
    """The labels of an object; they hold its selector."""
    return {**selector(deployment, component), f"{_APP}/version": version("flowdex")}


def metadata(deployment: Deployment, name: str, component: str = "", **more: Any) -> Object:
    """`metadata` of an object."""
    return {"name": name, "labels": labels(deployment, component), **more}


def manifest(api: str, kind: str, head: Object, **body: Any) -> Object:
    """An object; parts that are None or empty are left out."""
    return {"apiVersion": api, "kind": kind, "metadata": head, **without_empty(body)}


def without_empty(values: Mapping[str, Any]) -> Object:
    """The values that say something; `{}` and `[]` said in a selector are kept as `ANY` by their makers."""
    return {key: value for key, value in values.items() if value is not None and value not in ({}, [], ())}


class _Dumper(yaml.SafeDumper):
    """Indents lists below their key, never writes anchors, and long texts as blocks."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


_Dumper.add_representer(str, _text)


def write_yaml(comment: str, objects: Iterable[Object]) -> str:
    """Objects as one YAML file, in the order of their keys, below a comment."""
    head = "".join(f"# {line}\n" for line in comment.splitlines())
    documents = [
        yaml.dump(each, Dumper=_Dumper, sort_keys=False, width=110, allow_unicode=True, default_flow_style=False)
        for each in objects
    ]
    return head + "---\n".join(documents)
