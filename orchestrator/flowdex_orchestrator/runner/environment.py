"""The environment variables of the flow's processes.

    flowdex's defaults, threads of the replica  <-  this process's variables  <-  FLOWDEX_URL  <-  the executor's `env:`

Numeric libraries start as many threads as there are cores, in every process. Several replicas would then fight for the
cores, so each gets its share; who sets a variable, in the shell or in `env:`, is right. GPUs are dealt to the replicas
where `CUDA_VISIBLE_DEVICES` says so; see `gpus`.

`FLOWDEX_URL` is the address of the flow's own gateway, whatever it is in the shell: `flowdex.Client()` inside an
executor reaches the flow that the executor is part of.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from flowdex_orchestrator.gpus import VISIBLE, deal_gpus

__all__ = ["child_environment", "usable_cores"]

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS")
_DEFAULTS = {
    "PYTHONUNBUFFERED": "1",  # the last line of a crash must reach the log
    "JINA_OPTOUT_TELEMETRY": "1",
    "JINA_HIDE_SURVEY": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
}
_CGROUP_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def usable_cores() -> int:
    """Cores this process may use: its affinity, cut by the container's CPU quota. At least 1."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity is not None else os.cpu_count() or 1
    try:
        quota, period = _CGROUP_QUOTA.read_text().split()
        cores = min(cores, max(1, int(quota) // int(period)))
    except (OSError, ValueError):
        pass  # no cgroup v2, or no quota ("max")
    return cores


def child_environment(
    env: Mapping[str, str],
    *,
    replicas: int = 1,
    replica: int = 0,
    url: str | None = None,
    base: Mapping[str, str] | None = None,
    cores: int | None = None,
) -> dict[str, str]:
    """The variables of one replica.

    Args:
        env: `env:` of the executor.
        replicas: Replicas of the executor, which share the cores.
        replica: Which of them, from 0.
        url: Address of the flow's gateway.
        base: The variables to start from; this process's by default.
        cores: Cores to share; those that this process may use by default.

    Raises:
        ConfigurationError: `CUDA_VISIBLE_DEVICES` names GPUs that there are not.
    """
    threads = str(max(1, (cores or usable_cores()) // max(1, replicas)))
    variables = {**_DEFAULTS, **dict.fromkeys(THREAD_VARIABLES, threads)}
    variables.update(os.environ if base is None else base)
    if url is not None:
        variables["FLOWDEX_URL"] = url
    variables.update(env)
    if VISIBLE in variables:
        variables[VISIBLE] = deal_gpus(variables[VISIBLE], replica)
    return variables
