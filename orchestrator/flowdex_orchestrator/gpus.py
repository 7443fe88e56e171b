"""The GPUs of this machine, and which replica gets which.

    CUDA_VISIBLE_DEVICES: RR       replica i gets GPU i, and after the last one it goes on from the first
    CUDA_VISIBLE_DEVICES: RR0:4    of the GPUs 0 to 3 (a slice, as Python's)
    CUDA_VISIBLE_DEVICES: RR1,3    of these; numbers or UUIDs

The notation is Jina's. Anything else is CUDA's own, and is left alone.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence

from flowdex.errors import ConfigurationError

__all__ = ["VISIBLE", "count_gpus", "deal_gpus"]

VISIBLE = "CUDA_VISIBLE_DEVICES"
_ROUND_ROBIN = "RR"
_TIMEOUT = 10.0
_SLICE = re.compile(r"(-?\d*)(?::(-?\d*))?(?::(-?\d*))?")


def count_gpus() -> int:
    """GPUs of this machine, as its driver lists them, or else as `CUDA_TOTAL_DEVICES` says."""
    command = shutil.which("nvidia-smi")
    if command is not None:
        try:
            listed = subprocess.run([command, "-L"], capture_output=True, text=True, timeout=_TIMEOUT, check=False)
            return sum(line.startswith("GPU ") for line in listed.stdout.splitlines())
        except (OSError, subprocess.TimeoutExpired):
            pass
    total = os.environ.get("CUDA_TOTAL_DEVICES", "")
    return int(total) if total.isdecimal() else 0


def deal_gpus(visible: str, replica: int, count: Callable[[], int] = count_gpus) -> str:
    """The value of `CUDA_VISIBLE_DEVICES` for one replica.

    Args:
        visible: The value for all of them.
        replica: The replica's number, from 0.
        count: Counts this machine's GPUs.

    Returns:
        One GPU where `visible` starts with "RR", none (an empty text) where this machine has none; else `visible`.

    Raises:
        ConfigurationError: What follows "RR" cannot be read, or names none of the GPUs there are.
    """
    if not visible.startswith(_ROUND_ROBIN):
        return visible
    asked = visible.removeprefix(_ROUND_ROBIN).removeprefix("[").removesuffix("]")
    total = count()
    if not total:
        return ""
    chosen = _choose(asked, total)
    if not chosen:
        raise ConfigurationError(
            f"{VISIBLE}: {visible} names none of the {total} GPUs of this machine; write RR for all"
        )
    return chosen[replica % len(chosen)]


def _choose(asked: str, total: int) -> Sequence[str]:
    every = [str(number) for number in range(total)]
    parts = [part.strip() for part in asked.split(",")]
    if len(parts) > 1 or asked.startswith(("GPU-", "MIG-")):
        return [part for part in parts if not part.isdecimal() or int(part) < total]
    match = _SLICE.fullmatch(asked)
    if match is None:
        raise ConfigurationError(f"{VISIBLE}: RR{asked} is not understood; write RR, RR0:4, RR1,3 or RRGPU-<uuid>,...")
    if asked and ":" not in asked:
        return every[int(asked) :][:1]
    step = int(match[3]) if match[3] else None
    if step == 0:
        raise ConfigurationError(f"{VISIBLE}: RR{asked} has a step of 0; write RR0:{total}")
    return every[slice(*(int(part) if part else None for part in (match[1], match[2], match[3])))]
