"""Free loopback ports for the replicas of a flow.

    free_ports(3) -> [23117, 29980, 20455]

A replica keeps its port over restarts, so a port must not be one that the system hands out for the outgoing connections
of other programs: it is taken from below that *ephemeral* range.
"""

from __future__ import annotations

import random
import socket
from pathlib import Path

from flowdex.errors import Unavailable

__all__ = ["LOOPBACK", "free_ports", "is_free"]

LOOPBACK = "127.0.0.1"
_LOWEST = 20_000
_EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")
_EPHEMERAL_START = 32_768  # Linux' default; other systems start at 49,152
_ATTEMPTS = 1_000


def is_free(port: int, host: str = LOOPBACK) -> bool:
    """Whether a server could listen on `host:port` now (connections of an earlier server that linger do not count)."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def free_ports(count: int, host: str = LOOPBACK, *, exclude: frozenset[int] = frozenset()) -> list[int]:
    """Find `count` different free ports, none of them in `exclude`.

    Raises:
        Unavailable: So many ports are taken that none was found.
    """
    highest = _ephemeral_start() - 1
    low = _LOWEST if highest - _LOWEST >= _ATTEMPTS else 1_024
    found: list[int] = []
    for _ in range(_ATTEMPTS + count):
        if len(found) == count:
            return found
        port = random.randint(low, max(highest, low + _ATTEMPTS))  # nosec B311 # a port, no secret
        if port not in exclude and port not in found and is_free(port, host):
            found.append(port)
    raise Unavailable(f"found no free port on {host} between {low} and {highest}; give the executors a `port:` each")


def _ephemeral_start() -> int:
    try:
        return int(_EPHEMERAL.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return _EPHEMERAL_START
