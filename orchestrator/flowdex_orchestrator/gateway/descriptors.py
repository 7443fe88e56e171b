"""File descriptors: each connection takes one, and where there are none left, nobody is answered any more.

Systems give a process 1024 by default (the soft limit), though it may take more (the hard limit).
"""

from __future__ import annotations

import resource

__all__ = ["most_connections", "raise_limit"]

_SERVERS = 2  # that take connections: HTTP and gRPC


def raise_limit() -> None:
    """Take as many descriptors as the system allows this process."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def most_connections(wanted: int) -> int:
    """How many connections one server may have: `wanted`, or fewer where there are not descriptors for them."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return wanted
    return max(1, min(wanted, (soft - min(256, soft // 4)) // _SERVERS))  # some are for replicas, logs and the like
