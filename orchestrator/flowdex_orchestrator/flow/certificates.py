"""The certificate files that a flow file names, read and checked: errors point at the line.

    gateway_files(flow)          what the gateway serves with           executor_files(flow, executor)  an executor does
    hop_files(flow, executor)    what others present to an executor, and trust it by

Paths are relative to the flow file.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

from flowdex.certificates import CertificateFileError, CertificateFiles, handshake
from flowdex_orchestrator.flow.findings import Finding, FlowFileError, KeyPath
from flowdex_orchestrator.flow.model import Executor, Flow
from flowdex_orchestrator.flow.tls import HopTls

__all__ = ["certificate_findings", "executor_files", "gateway_files", "hop_files"]

_GATEWAY: KeyPath = ("gateway", "tls")


def gateway_files(flow: Flow) -> CertificateFiles | None:
    """What the gateway serves with; None without TLS.

    Raises:
        FlowFileError: A file cannot be used.
    """
    tls = flow.gateway.serving_tls
    if tls is None:
        return None
    return _read(flow, _GATEWAY, {"certificate": tls.certificate, "key": tls.key, "ca": tls.client_ca}, server=True)


def executor_files(flow: Flow, executor: Executor) -> CertificateFiles | None:
    """What a process of the executor serves with; None without TLS.

    Raises:
        FlowFileError: A file cannot be used.
    """
    if executor.tls is None:
        return None
    tls = executor.tls
    path = _place(flow, executor)
    return _read(flow, path, {"certificate": tls.certificate, "key": tls.key, "ca": tls.ca}, server=True)


def hop_files(flow: Flow, executor: Executor) -> CertificateFiles | None:
    """What gateway and runner trust the executor by, and present to it; None without TLS.

    They present the certificate of `with: tls:`, and to an external executor that of its own `tls:`.

    Raises:
        FlowFileError: A file cannot be used.
    """
    if executor.tls is None:
        return None
    own = executor.tls if executor.external or flow.settings.tls is None else flow.settings.tls
    pair = {"certificate": own.certificate, "key": own.key}
    return _read(flow, _place(flow, executor), {**pair, "ca": executor.tls.ca}, server=False)


def certificate_findings(flow: Flow) -> Iterator[Finding]:
    """What keeps the flow's certificates from working on this machine."""
    seen: set[Finding] = set()
    try:
        gateway_files(flow)
    except FlowFileError as error:
        seen.update(error.findings)
    for executor in flow.executors:
        try:
            hop_files(flow, executor)
            if not executor.external and executor.tls is not None:
                executor_files(flow, executor)
                seen.update(_untrusted(flow, executor, executor.tls))
        except FlowFileError as error:
            seen.update(error.findings)
    yield from seen


def _untrusted(flow: Flow, executor: Executor, tls: HopTls) -> Iterator[Finding]:
    """Why gateway and runner would not trust a replica on this machine."""
    certificate, key, ca = (_path(flow, name) for name in (tls.certificate, tls.key, tls.ca))
    if certificate is None or key is None or ca is None:
        return
    host = executor.hosts[0]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # a server that listens everywhere  # nosec B104 # read, not bound
    try:
        handshake(certificate, key, server=True, ca=ca, host=host)
    except ssl.SSLCertVerificationError as error:
        yield flow.finding(
            (*_place(flow, executor), "certificate"),
            f"{certificate}: the flow's processes would not trust it at {host}: {error.verify_message.rstrip('.')}",
        )


def _place(flow: Flow, executor: Executor) -> KeyPath:
    """Where the executor's `tls` is written: at itself, or in `with`."""
    if executor.tls is flow.settings.tls:
        return ("with", "tls")
    return ("executors", [each.name for each in flow.executors].index(executor.name), "tls")


def _path(flow: Flow, name: str | None) -> Path | None:
    return None if name is None else flow.folder / name


def _read(flow: Flow, path: KeyPath, names: dict[str, str | None], *, server: bool) -> CertificateFiles:
    files = {field: _path(flow, name) for field, name in names.items()}
    try:
        return CertificateFiles(**files, server=server)
    except CertificateFileError as error:
        key = "client_ca" if path == _GATEWAY and error.field == "ca" else error.field
        message = error.message.partition(": ")[2]
        raise FlowFileError([flow.finding((*path, key), message)]) from None
