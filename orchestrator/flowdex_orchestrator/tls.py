"""TLS between processes: servers whose certificate is renewed while they run, and channels to them.

    listen(server, "127.0.0.1:0", files)      every handshake asks the files: a new certificate needs no restart
    server_context(files)                     the same for HTTP and WebSockets
    Hop(files).channel(address)               a connection to a process of the flow; `generation`: when to renew it

Without files everything is as without TLS, and costs as much.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import grpc
import grpc.aio

from flowdex.certificates import CertificateFiles, channel_credentials

__all__ = ["PLAIN", "Hop", "listen", "server_context"]

_log = logging.getLogger(__name__)

Options = Sequence[tuple[str, Any]]


def listen(server: grpc.aio.Server, address: str, files: CertificateFiles | None) -> int:
    """Open a gRPC port, encrypted where there are files; with `files.ca`, clients must have a certificate.

    Raises:
        RuntimeError: The port cannot be had.
    """
    if files is None:
        return server.add_insecure_port(address)
    return server.add_secure_port(address, _server_credentials(files))


def _server_credentials(files: CertificateFiles) -> grpc.ServerCredentials:
    def configuration() -> grpc.ServerCertificateConfiguration:
        pem = files.current()
        pair = (pem.key or b"", pem.certificate or b"")  # a server's files have both
        return grpc.ssl_server_certificate_configuration([pair], root_certificates=pem.ca)

    known = files.generation

    def renewed() -> grpc.ServerCertificateConfiguration | None:
        """Asked by gRPC at each handshake; None for no change."""
        nonlocal known
        files.current()
        if files.generation == known:
            return None
        known = files.generation
        return configuration()

    fetch = cast("Callable[[], grpc.ServerCertificateConfiguration]", renewed)  # typeshed forgets the None
    return grpc.dynamic_ssl_server_credentials(
        configuration(), fetch, require_client_authentication=files.ca is not None
    )


def server_context(files: CertificateFiles) -> ssl.SSLContext:
    """A context for HTTP/1.1 whose every handshake uses the files as they are then.

    The callback that OpenSSL has for several names (RFC 6066, 3) is asked at each handshake, name or not, and hands the
    connection over to a context of the newest files: certificate, key and authorities alike.
    """
    newest, generation = _http_context(files), files.generation

    def follow(connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        nonlocal newest, generation
        files.current()
        if files.generation != generation:
            wanted = files.generation
            try:
                newest, generation = _http_context(files), wanted
            except (ssl.SSLError, OSError) as error:  # they have changed again just now: the next handshake reads them
                _log.warning("the certificate in use stays, because the new one cannot be read: %s", error)
        connection.context = newest

    first = _http_context(files)
    first.sni_callback = follow
    return first


def _http_context(files: CertificateFiles) -> ssl.SSLContext:
    context = files.server_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


@dataclass(frozen=True)
class Hop:
    """How a process connects to others of the flow.

    Attributes:
        files: What to trust and to present; None for no TLS.
        name: The name that the others' certificate is for, where it is not that of the address.
    """

    files: CertificateFiles | None = None
    name: str | None = None

    @property
    def generation(self) -> int:
        """Which contents of the files a channel that is made now would have; looks at the files."""
        if self.files is None:
            return 0
        self.files.current()
        return self.files.generation

    def channel(self, address: str, options: Options) -> grpc.aio.Channel:
        """A channel; certificates are those of now."""
        if self.files is None:
            return grpc.aio.insecure_channel(address, options=options)
        if self.name is not None:
            options = (*options, ("grpc.ssl_target_name_override", self.name))
        return grpc.aio.secure_channel(address, channel_credentials(self.files), options=options)

    def named(self, name: str | None) -> Hop:
        """The same, to a process whose certificate is for `name`."""
        return self if self.files is None or name is None else Hop(self.files, name)


PLAIN = Hop()
"""Without TLS."""
