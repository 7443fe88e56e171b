"""A flow on this machine: its file, models, ports, index, disk, and what an earlier run has left."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from flowdex.formats import NewerFormat
from flowdex_orchestrator.doctor.listeners import Listener, listener_on
from flowdex_orchestrator.doctor.report import Check, Verdict

if TYPE_CHECKING:
    from flowdex_orchestrator.flow.findings import Finding
    from flowdex_orchestrator.flow.model import Executor, Flow
    from flowdex_orchestrator.runner.state import FlowState, RunFolder

__all__ = [
    "check_disk",
    "check_file",
    "check_index_server",
    "check_models",
    "check_ports",
    "check_state",
    "encoders",
    "flow_folders",
    "index_servers",
    "memory_of",
    "needed_extras",
]

_PACKAGE = "flowdex_executors."
_EXTRAS: Mapping[str, tuple[str, ...]] = {
    "BertEncoder": ("bert",),
    "GptEncoder": ("bert",),
    "ElmoEncoder": ("bert", "elmo"),
    "UlmfitEncoder": ("bert",),
    "Segmenter": ("segmenter",),
    "QdrantIndexer": ("indexer",),
}
_BACKENDS = ("onnx", "ctranslate2")
_LITTLE_DISK, _TOO_LITTLE_DISK = 2 * 2**30, 100 * 2**20
_CONNECT_TIMEOUT = 2.0  # seconds
_DEFAULT_INDEX = "edge://.flowdex/index"
_DEFAULT_PORTS = {"http": 6333, "https": 6333, "grpc": 6334, "grpcs": 6334}


# ---- what a flow needs ----


def _bare(executor: Executor) -> str:
    return executor.uses.removeprefix(_PACKAGE) if isinstance(executor.uses, str) else ""


def _started(flow: Flow) -> Iterator[Executor]:
    return (executor for executor in flow.executors if not executor.external)


def encoders(flow: Flow) -> list[Executor]:
    """The encoders that the flow starts."""
    return [each for each in _started(flow) if _bare(each).endswith("Encoder") or each.name == "encoder"]


def needed_extras(flow: Flow) -> dict[str, str]:
    """Extras of flowdex that the flow needs, each with what needs it."""
    needed = {"gateway": "the gateway"}
    if "bert" in flow.gateway.protocols:
        needed["zeromq"] = "the protocol bert"
    for executor in _started(flow):
        needed.setdefault("executor", executor.name)
        for extra in _EXTRAS.get(_bare(executor), ()):
            needed.setdefault(extra, executor.name)
        if (backend := executor.uses_with.get("backend")) in _BACKENDS:
            needed.setdefault(str(backend), executor.name)
        packaged = _bare(executor) in ("BertEncoder", "WordVectorEncoder", "Segmenter")
        model = executor.uses_with.get("tokenizer" if _bare(executor) == "Segmenter" else "model")
        if packaged and model in (None, "default"):
            needed.setdefault("models", executor.name)
        if executor.uses_with.get("cross_encoder") is not None:
            needed.setdefault("bert", executor.name)
    return needed


def memory_of(flow: Flow) -> int:
    """Bytes that the flow's processes take before anything is indexed, by the capacity model."""
    from flowdex_orchestrator.capacity.costs import ENCODERS, REFERENCE, UNKNOWN_MEMORY
    from flowdex_orchestrator.capacity.flow import read_flow

    fixed = {
        "QdrantIndexer": REFERENCE.index.host_memory + REFERENCE.index.base_memory,
        "Segmenter": REFERENCE.segmenter.memory,
    }
    among = encoders(flow)
    shape = read_flow(flow).encoder if among else None
    total = REFERENCE.gateway.memory
    for executor in _started(flow):
        each = fixed.get(_bare(executor), REFERENCE.ranker.memory)
        if executor in among:
            kind = shape.kind if shape is not None and shape.name == executor.name else _bare(executor)
            each = ENCODERS[kind][0].memory if kind in ENCODERS else UNKNOWN_MEMORY
        total += each * executor.replicas
    return total


# ---- the file and its models ----


def check_file(path: Path, findings: Iterable[Finding]) -> list[Check]:
    """The findings of `flowdex check`, errors first, or that there are none."""
    checks = [
        Check("flow file", Verdict(finding.severity), str(replace(finding, severity="error")))  # said once
        for finding in sorted(findings, key=lambda finding: finding.severity != "error")
    ]
    return checks or [Check("flow file", Verdict.OK, f"{path}: no problems")]


def check_models(
    flow: Flow, facts: Mapping[int, Mapping[str, Any]], *, offline: bool, cache: Path | None = None
) -> list[Check]:
    """Each model is on this machine, or can be fetched when the flow starts.

    Args:
        flow: The flow.
        facts: What the executors' classes say of themselves, by index.
        offline: Whether nothing may be fetched (HF_HUB_OFFLINE).
        cache: Where fetched models are kept.
    """
    checks = []
    for index, executor in enumerate(flow.executors):
        told = facts.get(index, {})
        if "model" not in told:
            continue
        detail = f"{executor.name}: {told['model']}"
        if told.get("dimensions") is not None:
            checks.append(Check("model", Verdict.OK, f"{detail}, {told['dimensions']} dimensions"))
            continue
        place = f" in {cache}" if cache is not None else ""
        if offline:
            remedy = "unset HF_HUB_OFFLINE once, or name a folder"
            checks.append(Check("model", Verdict.ERROR, f"{detail} is not{place or ' here'}, and offline", remedy))
        elif cache is not None and not _writable(cache):
            remedy = "set HF_HOME to a folder that is yours"
            checks.append(Check("model", Verdict.ERROR, f"{detail}: {cache} cannot be written to", remedy))
        else:
            remedy = f"it is fetched when the flow starts; to do that now: hf download {told['model']}"
            checks.append(Check("model", Verdict.WARNING, f"{detail} is not{place or ' here'} yet", remedy))
    return checks


# ---- ports ----


def check_ports(
    flow: Flow,
    state: FlowState | None,
    *,
    reason: Callable[[str, int], str],
    holder: Callable[[int], Listener | None] = listener_on,
) -> Check:
    """The ports that the file names can be listened on, or this very flow does.

    Args:
        flow: The flow.
        state: Of its run, if it runs.
        reason: Why a port cannot be listened on; empty where it can.
        holder: Who listens on it.
    """
    from flowdex_orchestrator.flow.check import named_ports

    own = {each.process.pid for each in state.processes if each.process} if state is not None else set()
    wanted = [(host, port) for _, host, port in named_ports(flow)]
    taken = []
    for host, port in wanted:
        why = reason(host, port)
        who = holder(port) if why else None
        if why and not (who is not None and who.pid in own) and not (own and who is None):
            taken.append((port, f"port {port} is held by process {who.pid} ({who.command})" if who else why))
    if taken:
        first = next((who for port, _ in taken if (who := holder(port))), None)
        stop = f"kill {first.pid}, or " if first is not None else ""
        remedy = f"{stop}give `port:` other numbers, or start with `flowdex up --free-ports`"
        return Check("ports", Verdict.ERROR, "; ".join(text for _, text in taken), remedy)
    numbers = ", ".join(str(port) for _, port in wanted) or "any"
    return Check("ports", Verdict.OK, f"{numbers}: {'this flow has them' if own else 'free'}")


# ---- index and disk ----


def flow_folders(flow: Flow, state_folder: Path, cwd: Path) -> dict[str, Path]:
    """The folders that the flow writes to, by what for; of the embedded indexes and the runner."""
    folders = {"state and logs": state_folder}
    for executor in _indexers(flow):
        uri = str(executor.uses_with.get("uri", _DEFAULT_INDEX))
        if uri.startswith("edge://"):
            folders[executor.name] = cwd / Path(uri.removeprefix("edge://")).expanduser()
    return folders


def index_servers(flow: Flow) -> dict[str, tuple[str, int]]:
    """Executor -> (host, port) of the Qdrant server that it keeps its index on."""
    servers = {}
    for executor in _indexers(flow):
        parts = urlsplit(str(executor.uses_with.get("uri", "")))
        if parts.hostname and parts.scheme in _DEFAULT_PORTS:
            servers[executor.name] = (parts.hostname, parts.port or _DEFAULT_PORTS[parts.scheme])
    return servers


def _indexers(flow: Flow) -> Iterator[Executor]:
    return (each for each in _started(flow) if _bare(each) == "QdrantIndexer")


def check_disk(
    folders: Mapping[str, Path], free: Callable[[Path], int] = lambda path: shutil.disk_usage(path).free
) -> list[Check]:
    """Folders that can be written to, with room.

    Args:
        folders: By what they are for; those that are not there yet will be made.
        free: Bytes of room at a folder that exists.
    """
    checks = []
    for purpose, folder in folders.items():
        room = free(_existing(folder))
        detail = f"{purpose}: {folder}, {room / 2**30:,.1f} GiB free"
        if not _writable(folder):
            remedy = f"make it yours (sudo chown -R $USER {_existing(folder)}), or name another folder"
            checks.append(Check("disk", Verdict.ERROR, f"{purpose}: {folder} cannot be written to", remedy))
        elif room < _LITTLE_DISK:
            verdict = Verdict.ERROR if room < _TOO_LITTLE_DISK else Verdict.WARNING
            checks.append(Check("disk", verdict, detail, "make room, or name a folder on another disk"))
        else:
            checks.append(Check("disk", Verdict.OK, detail))
    return checks


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    return next(path for path in (folder, *folder.absolute().parents) if path.exists())


def _writable(folder: Path) -> bool:
    there = _existing(folder)
    return there.is_dir() and os.access(there, os.W_OK | os.X_OK)


def check_index_server(name: str, host: str, port: int) -> Check:
    """A Qdrant server that takes connections; loopback or wherever the flow file says it is."""
    try:
        socket.create_connection((host, port), timeout=_CONNECT_TIMEOUT).close()
    except OSError as error:
        reason = str(error.strerror or error).lower()
        remedy = "start it, or correct `uri` in the flow file; the flow waits for it, and cannot search until then"
        return Check("index server", Verdict.ERROR, f"{name}: nothing answers at {host}:{port} ({reason})", remedy)
    return Check("index server", Verdict.OK, f"{name}: {host}:{port} answers")


# ---- an earlier run ----


def check_state(folder: RunFolder, flow_file: Path) -> Check:
    """No processes without their runner, no state that cannot be read."""
    from flowdex_orchestrator.runner.state import Status

    found = "what is no state"
    try:
        state = folder.read()
    except NewerFormat:
        state, found = None, "the state of another version"
    if state is None:
        if (folder.path / "state.json").exists():
            remedy = f"rm -r {folder.path}, after `flowdex down` of the version that wrote it"
            return Check("state", Verdict.WARNING, f"{folder.path} holds {found}", remedy)
        return Check("state", Verdict.OK, "not started yet")
    if state.running:
        return Check("state", Verdict.OK, f"{state.status.value}, runner is process {state.runner.pid}")
    if left := state.survivors():
        pids = ", ".join(str(process.pid) for process in left)
        detail = f"the runner has died; process{'es' if len(left) > 1 else ''} {pids} went on without it"
        return Check("state", Verdict.WARNING, detail, f"flowdex down {flow_file}")
    if state.status is Status.FAILED:
        remedy = f"flowdex logs --flow {flow_file}"
        return Check("state", Verdict.WARNING, f"the last start failed: {state.error or 'no reason is known'}", remedy)
    return Check("state", Verdict.OK, "stopped")
