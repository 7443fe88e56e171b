"""Exports of several flows, and their overlays as Kustomize builds them; for the tests of manifests."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from flowdex_orchestrator.export import make_deployment
from flowdex_orchestrator.export.folder import write_folder
from flowdex_orchestrator.export.kubernetes import render
from flowdex_orchestrator.flow import parse_flow

ROOT = Path(__file__).resolve().parents[2]
KUBECTL = shutil.which("kubectl")
EMBEDDED = {"embedded": True, "uri": "edge://.flowdex/index"}
EVERYTHING = """
jtype: Flow
with: {name: all, protocol: [grpc, http]}
gateway: {kubernetes: {replicas: 3, ingress: {host: s.test}, service: {type: LoadBalancer}}}
executors:
  - {name: a, uses: flowdex_executors.BertEncoder, gpus: 1, autoscale: {min: 2}, uses_with: {model: org/m},
     kubernetes: {model_cache: {size: 3Gi}, tolerations: {operator: Exists}}}
  - {name: b, uses: flowdex_executors.BertEncoder, autoscale: {target_cpu: 0.6}, env: {X: $X_TOKEN, Y: $Y}}
  - {name: c, uses: flowdex_executors.QdrantIndexer}
  - {name: d, uses: mine.Own, replicas: 2, needs: gateway}
  - {name: e, external: true, host: h, port: 7}
"""
EXPORTS = ("default", "everything", "remote")
OVERLAYS = ("base", "overlays/local", "overlays/gpu", "overlays/production", "overlays/production-keda")


def export(text: str, facts: Mapping[int, Mapping[str, Any]], folder: Path) -> Path:
    env = {"QDRANT_URL": "grpc://qdrant:6334", "QDRANT_API_KEY": "k", "X_TOKEN": "t", "Y": "y"}
    write_folder(folder, render(make_deployment(parse_flow(text, env=env), text, facts, environment=env)))
    return folder


def make_exports(folder: Path) -> dict[str, Path]:
    """The folders of all exports: the committed one, and others made below `folder`."""
    remote = (ROOT / "flows/qdrant.yml").read_text(encoding="utf-8")
    return {
        "default": ROOT / "k8s",
        "everything": export(EVERYTHING, {2: EMBEDDED}, folder / "everything"),
        "remote": export(remote, {2: {"uri": "grpc://qdrant:6334"}}, folder / "remote"),
    }


@cache
def build(folder: Path) -> list[dict[str, Any]]:
    assert KUBECTL is not None
    done = subprocess.run([KUBECTL, "kustomize", str(folder)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return [each for each in yaml.safe_load_all(done.stdout) if each]
