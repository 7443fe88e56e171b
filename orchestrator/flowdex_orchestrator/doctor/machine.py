"""The machine a flow would run on: GPU, cores, memory, limits, clock, proxies, text encoding."""

from __future__ import annotations

import locale
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from flowdex_orchestrator.doctor.report import Check, Verdict

__all__ = [
    "available_memory",
    "check_clock",
    "check_cores",
    "check_files",
    "check_gpu",
    "check_locale",
    "check_memory",
    "check_proxies",
    "list_gpus",
    "newest_file_time",
    "total_memory",
]

_NVIDIA_TIMEOUT = 10.0  # seconds
_FEW_FILES, _TOO_FEW_FILES = 1024, 256
_DAY = 86_400.0
_CGROUP = Path("/sys/fs/cgroup")
_MEMINFO = Path("/proc/meminfo")
GIB = 2**30


# ---- GPU ----


def list_gpus() -> list[str]:
    """Name, memory and driver of each GPU, as NVIDIA's driver says; empty where there is none."""
    command = shutil.which("nvidia-smi")
    if command is None:
        return []
    query = [command, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=_NVIDIA_TIMEOUT, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [line.strip() for line in done.stdout.splitlines() if line.strip()] if done.returncode == 0 else []


def check_gpu(gpus: Sequence[str], required: Sequence[str], wished: Sequence[str], device_file: bool = False) -> Check:
    """GPUs for the executors that ask for one.

    Args:
        gpus: Those of this machine.
        required: Executors that compute on `cuda` and on nothing else.
        wished: Executors with `gpus:`, which compute on the CPU where there is none.
        device_file: Whether the system has a GPU's device file.
    """
    if gpus:
        return Check("gpu", Verdict.OK, "; ".join(gpus))
    if device_file:
        remedy = "install NVIDIA's driver tools, or in a container its toolkit (--gpus all)"
        verdict = Verdict.ERROR if required else Verdict.WARNING
        return Check("gpu", verdict, "there is a GPU, but nvidia-smi does not answer", remedy)
    if required:
        remedy = "set `device: auto` in its uses_with, or run the flow on a machine with a GPU"
        return Check("gpu", Verdict.ERROR, f"none, but {', '.join(required)} computes on cuda", remedy)
    if wished:
        remedy = "take `gpus:` out of the file, or run the flow on a machine with a GPU; encoders use the CPU meanwhile"
        return Check("gpu", Verdict.WARNING, f"none, but {', '.join(wished)} asks for one", remedy)
    return Check("gpu", Verdict.OK, "none, and none is asked for")


# ---- cores and memory ----


def check_cores(cores: int, encoders: int) -> Check:
    """A core for each replica of an encoder."""
    detail = f"{cores} usable"
    if encoders > cores:
        remedy = f"have {cores} {'replica' if cores == 1 else 'replicas'} of encoders on this machine"
        return Check("cores", Verdict.WARNING, f"{detail}, and {encoders} replicas of encoders share them", remedy)
    return Check("cores", Verdict.OK, detail)


def check_memory(available: int | None, total: int | None, needed: int, *, running: bool = False) -> Check:
    """Memory for the flow's processes, as the capacity model has it.

    Args:
        available: Bytes that programs can have now; None where that is not known.
        total: Bytes of the machine, or of the container.
        needed: Bytes that the flow takes.
        running: Whether the flow runs already, and has its memory.
    """
    if available is None or total is None:
        return Check("memory", Verdict.OK, f"the flow takes about {_gib(needed)}; what is free is not known here")
    detail = f"{_gib(available)} of {_gib(total)} available, the flow takes about {_gib(needed)}"
    if running:
        return Check("memory", Verdict.OK, f"{detail}, and runs")
    remedy = "have fewer replicas or a smaller model, end other programs, or take a larger machine (`flowdex plan`)"
    if needed > total:
        return Check("memory", Verdict.ERROR, detail, remedy)
    if needed > available:
        return Check("memory", Verdict.WARNING, detail, remedy)
    return Check("memory", Verdict.OK, detail)


def total_memory() -> int | None:
    """Bytes of memory of this machine, or of the container that this is."""
    limit, whole = _cgroup("memory.max"), _meminfo("MemTotal")
    known = [value for value in (limit, whole) if value is not None]
    return min(known, default=None)


def available_memory() -> int | None:
    """Bytes that programs can have without swapping."""
    limit, used, free = _cgroup("memory.max"), _cgroup("memory.current"), _meminfo("MemAvailable")
    rest = None if limit is None or used is None else max(0, limit - used)
    known = [value for value in (rest, free) if value is not None]
    return min(known, default=None)


def _cgroup(name: str) -> int | None:
    try:
        return int((_CGROUP / name).read_text())
    except (OSError, ValueError):
        return None  # no cgroup v2, or no limit ("max")


def _meminfo(name: str) -> int | None:
    try:
        lines = _MEMINFO.read_text().splitlines()
    except OSError:
        return None
    found = next((line for line in lines if line.startswith(f"{name}:")), None)
    return None if found is None else int(found.split()[1]) * 1024


def _gib(size: float) -> str:
    return f"{size / GIB:,.1f} GiB"


# ---- limits and environment ----


def check_files(soft: int | None = None, hard: int | None = None) -> Check:
    """How many files and connections a process may have open; by default what holds for this one."""
    if soft is None or hard is None:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    infinite = resource.RLIM_INFINITY
    detail = "open files: " + ("no limit" if soft == infinite else f"{soft:,}")
    if soft == infinite or soft >= _FEW_FILES:
        return Check("files", Verdict.OK, detail)
    raised = _FEW_FILES if hard in (infinite, None) else min(_FEW_FILES, hard)
    remedy = f"ulimit -n {raised}" if raised > soft else "have the system's administrator raise the limit (nofile)"
    verdict = Verdict.ERROR if soft < _TOO_FEW_FILES else Verdict.WARNING
    return Check("files", verdict, f"{detail}, which a busy gateway or index exceeds", remedy)


def newest_file_time() -> float:
    """When the newest file of this installation was written, in seconds since the epoch."""
    folder = Path(__file__).resolve().parent
    return max(file.stat().st_mtime for file in folder.glob("*.py"))


def check_clock(now: float, newest: float) -> Check:
    """A clock that is not behind the files of this installation: certificates and log lines go by it."""
    shown = time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(now))
    if now < newest - _DAY:
        remedy = "set it, for example by switching time synchronisation on (timedatectl set-ntp true)"
        written = time.strftime("%Y-%m-%d", time.localtime(newest))
        return Check("clock", Verdict.WARNING, f"{shown}, which is before flowdex was installed ({written})", remedy)
    return Check("clock", Verdict.OK, shown)


_PROXIES = ("grpc_proxy", "http_proxy", "https_proxy", "all_proxy")
_LOOPBACK = ("127.0.0.1", "localhost", "127.0.0.0/8", "*")


def check_proxies(environment: Mapping[str, str] = os.environ) -> Check:
    """No proxy between the processes of one machine.

    flowdex itself goes past proxies on loopback; stock Jina, curl and other clients do as the variables say.
    """
    lower = {name.lower(): value for name, value in environment.items() if value}
    proxies = [name for name in _PROXIES if name in lower]
    if not proxies:
        return Check("proxies", Verdict.OK, "none")
    excepted = {part.strip() for name in ("no_proxy", "no_grpc_proxy") for part in lower.get(name, "").split(",")}
    if excepted & set(_LOOPBACK):
        return Check("proxies", Verdict.OK, f"{', '.join(proxies)}, but not for this machine")
    detail = f"{', '.join(proxies)} would catch connections of other clients to 127.0.0.1"
    before = f"{lower['no_proxy']}," if lower.get("no_proxy") else ""
    return Check("proxies", Verdict.WARNING, detail, f"export NO_PROXY={before}127.0.0.1,localhost,::1")


def check_locale(preferred: str | None = None, files: str | None = None) -> Check:
    """Texts and names of files in UTF-8; by default as this process has it."""
    preferred = preferred or locale.getpreferredencoding(False)
    files = files or sys.getfilesystemencoding()
    odd = [name for name in (preferred, files) if name.lower().replace("-", "").replace("_", "") != "utf8"]
    if odd:
        return Check("locale", Verdict.WARNING, f"texts are {preferred}, file names {files}", "export LC_ALL=C.UTF-8")
    return Check("locale", Verdict.OK, "UTF-8")
