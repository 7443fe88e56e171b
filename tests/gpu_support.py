"""What tests of GPUs share: which of them the replicas of a running flow were given."""

from __future__ import annotations

from pathlib import Path

__all__ = ["DEALT", "dealt_devices"]

DEALT = """\
    replicas: 2
    env:
      CUDA_VISIBLE_DEVICES: RR
"""


def dealt_devices(flow_file: Path) -> list[str]:
    """CUDA_VISIBLE_DEVICES of each process of the executor `encoder` of a flow on this machine, sorted."""
    found = []
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = command.read_bytes().split(b"\0")
            environment = command.with_name("environ").read_bytes().decode(errors="replace")
        except OSError:  # it has ended, or is none of ours
            continue
        if {b"executor", b"encoder", str(flow_file).encode()} <= set(words):
            variables = dict(each.partition("=")[::2] for each in environment.split("\0"))
            found.append(variables.get("CUDA_VISIBLE_DEVICES", "unset"))
    return sorted(found)
