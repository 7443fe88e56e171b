"""What TLS asks of containers: certificate files at their places, and health checks that get in.

    gateway: tls:, with: tls:  --executor_encryption, gateway_encryption-->  files by Secret, health command, variables

The files lie where the flow file names them, relative to it, so that the same flow file serves everywhere. A Secret's
keys cannot have slashes: `tls/flow.pem` is the key `tls__flow.pem`. Of a Secret the cluster renews the files in place,
and processes take them over.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from flowdex_orchestrator.flow.model import Executor, Flow

__all__ = ["FLOW_SECRET", "GATEWAY_SECRET", "Encryption", "executor_encryption", "gateway_encryption", "outside"]

FLOW_SECRET = "flow-certificates"  # nosec B105 # a name
"""Secret with what executors and gateway show each other."""
GATEWAY_SECRET = "gateway-certificates"  # nosec B105 # a name
"""Secret with what the gateway shows clients."""


@dataclass(frozen=True)
class Encryption:
    """What TLS asks of a container.

    Attributes:
        files: Secret -> names of files, relative to the flow file.
        env: Variables for calls of the flow's own gateway.
        health: Command that asks for the process's health; None where that needs no certificate.
    """

    files: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    health: tuple[str, ...] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """All files."""
        return tuple(dict.fromkeys(name for names in self.files.values() for name in names))


def executor_encryption(flow: Flow, executor: Executor, label: str, port: int, folder: str) -> Encryption:
    """For the containers of an executor.

    Args:
        flow: The flow.
        executor: One that the flow starts.
        label: Its host name, which its certificate is for.
        port: Where it listens.
        folder: Of the flow file in the container.
    """
    tls, gateway, inner = executor.tls, flow.gateway.serving_tls, flow.settings.tls
    names: list[str | None] = [tls.certificate, tls.key, tls.ca] if tls is not None else []
    env = {}
    if gateway is not None and gateway.ca is not None:
        names.append(gateway.ca)
        env["FLOWDEX_CA"] = _inside(folder, gateway.ca)
    if gateway is not None and gateway.client_ca is not None and inner is not None and inner.certificate and inner.key:
        names += [inner.certificate, inner.key]
        env["FLOWDEX_CERTIFICATE"] = _inside(folder, inner.certificate)
        env["FLOWDEX_KEY"] = _inside(folder, inner.key)
    if tls is None:
        return Encryption(_secrets({FLOW_SECRET: names}), env)
    health = _health(
        f"grpcs://127.0.0.1:{port}", label, {"ca": tls.ca, "certificate": tls.certificate, "key": tls.key}, folder
    )
    return Encryption(_secrets({FLOW_SECRET: names}), env, health)


def gateway_encryption(flow: Flow, ports: Mapping[str, int], label: str, folder: str) -> Encryption:
    """For the containers of the gateway; see `executor_encryption`."""
    tls, inner = flow.gateway.serving_tls, flow.settings.tls
    called: list[str | None] = [inner.certificate, inner.key, inner.ca] if inner is not None else []
    called += [executor.tls.ca for executor in flow.executors if executor.tls is not None]
    for executor in flow.executors:
        if executor.external and executor.tls is not None:
            called += [executor.tls.certificate, executor.tls.key]
    if tls is None:
        return Encryption(_secrets({FLOW_SECRET: called}))
    served = [tls.certificate, tls.key, tls.client_ca, tls.ca]
    scheme, port = next((f"{name}s", ports[name]) for name in ("grpc", "http") if name in ports)
    shown: dict[str, str | None] = {"ca": tls.ca}
    if inner is not None and tls.client_ca is not None:
        shown |= {"certificate": inner.certificate, "key": inner.key}
    health = _health(f"{scheme}://127.0.0.1:{port}", label, shown, folder)
    return Encryption(_secrets({FLOW_SECRET: called, GATEWAY_SECRET: served}), health=health)


def outside(names: Iterable[str]) -> list[str]:
    """Those that do not lie beside the flow file or below: nothing can be put there."""
    return [name for name in names if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts]


def _secrets(files: Mapping[str, Iterable[str | None]]) -> dict[str, tuple[str, ...]]:
    found = {secret: tuple(dict.fromkeys(name for name in names if name)) for secret, names in files.items()}
    return {secret: names for secret, names in found.items() if names}


def _health(url: str, name: str, files: Mapping[str, str | None], folder: str) -> tuple[str, ...]:
    """`flowdex health` with its files; the certificate is for the host's name, not for the address of the container."""
    options = [part for option, file in files.items() if file for part in (f"--{option}", _inside(folder, file))]
    return ("env", f"FLOWDEX_TLS_NAME={name}", "flowdex", *options, "health", url)


def _inside(folder: str, name: str) -> str:
    return str(PurePosixPath(folder) / name)
