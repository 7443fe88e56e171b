"""Which addresses reach nobody but this machine, and the refusal to open others to everybody.

check_gateway("0.0.0.0", keys=False, insecure=False)    --> ConfigurationError: both remedies
check_executor("0.0.0.0", mutual=False, insecure=False) --> the same, of a process that has no keys to ask for
"""

from __future__ import annotations

import ipaddress

from flowdex.errors import ConfigurationError

__all__ = ["check_executor", "check_gateway", "is_loopback", "open_executor", "open_gateway"]


def is_loopback(host: str) -> bool:
    """Whether an address or name is this machine's own: 127.0.0.0/8, ::1 or localhost (RFC 6761, section 6.3)."""
    name = host.strip("[]").lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def open_gateway(host: str, *, keys: bool, insecure: bool) -> str | None:
    """Why a gateway must not listen there; None where it may."""
    if keys or insecure or is_loopback(host):
        return None
    return (
        f"listening on {host} would open the flow to everybody on the network, and it has no keys: make one with "
        "`flowdex keys add NAME --role search` and name its file under `gateway: keys:`, or say `--insecure` "
        "(`gateway: insecure: true`) where something else keeps others out"
    )


def open_executor(host: str, *, mutual: bool, insecure: bool) -> str | None:
    """Why an executor must not listen there; None where it may. Keys are the gateway's: an executor knows none."""
    if mutual or insecure or is_loopback(host):
        return None
    return (
        f"listening on {host} would open the executor to everybody on the network, past the gateway's keys and limits: "
        "name certificate, key and ca under `with: tls:` (mutual TLS; `flowdex tls init` makes some), or say "
        "`--insecure` (`insecure: true` at the executor) where the network lets nobody in but the flow itself"
    )


def check_gateway(host: str, *, keys: bool, insecure: bool) -> None:
    """Refuse to let a gateway listen beyond this machine for everybody.

    Raises:
        ConfigurationError: There are no keys, and nobody has said that this is meant.
    """
    _refuse(open_gateway(host, keys=keys, insecure=insecure))


def check_executor(host: str, *, mutual: bool, insecure: bool) -> None:
    """Refuse to let an executor listen beyond this machine for everybody.

    Raises:
        ConfigurationError: Callers need no certificate, and nobody has said that this is meant.
    """
    _refuse(open_executor(host, mutual=mutual, insecure=insecure))


def _refuse(reason: str | None) -> None:
    if reason is not None:
        raise ConfigurationError(reason)
