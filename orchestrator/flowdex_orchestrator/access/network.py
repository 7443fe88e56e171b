"""Which addresses reach nobody but this machine, and the refusal to open others to everybody.

check_open("0.0.0.0", keys=False, insecure=False) --> ConfigurationError: both remedies
"""

from __future__ import annotations

import ipaddress

from flowdex.errors import ConfigurationError

__all__ = ["check_open", "is_loopback", "open_to_network"]


def is_loopback(host: str) -> bool:
    """Whether an address or name is this machine's own: 127.0.0.0/8, ::1 or localhost (RFC 6761, section 6.3)."""
    name = host.strip("[]").lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def open_to_network(host: str, *, keys: bool, insecure: bool) -> str | None:
    """Why a gateway must not listen there; None where it may."""
    if keys or insecure or is_loopback(host):
        return None
    return (
        f"listening on {host} would open the flow to everybody on the network, and it has no keys: make one with "
        "`flowdex keys add NAME --role search` and name its file under `gateway: keys:`, or say `--insecure` "
        "(`gateway: insecure: true`) where something else keeps others out"
    )


def check_open(host: str, *, keys: bool, insecure: bool) -> None:
    """Refuse to listen beyond this machine for everybody.

    Raises:
        ConfigurationError: There are no keys, and nobody has said that this is meant.
    """
    if reason := open_to_network(host, keys=keys, insecure=insecure):
        raise ConfigurationError(reason)
