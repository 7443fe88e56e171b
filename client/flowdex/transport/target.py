"""Where the flow is, and what every request to it carries.

    "grpc://host:port", FLOWDEX_URL, api_key, headers, certificate files --parse--> Target

Credentials travel as headers or in the handshake, never in the address, which is shown in messages.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from flowdex.certificates import CertificateFiles
from flowdex.errors import ConfigurationError

__all__ = ["DEFAULT_URL", "Target"]

DEFAULT_URL = "grpc://127.0.0.1:51000"
_PORTS = {"grpc": 51000, "grpcs": 443, "http": 80, "https": 443}
_SECURE = ("grpcs", "https")
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Target:
    """A parsed address with its credentials.

    Attributes:
        scheme: "grpc", "grpcs", "http" or "https".
        host: Name or address; an IPv6 address without brackets.
        port: The port.
        path: Prefix of all HTTP paths, without a slash at the end.
        headers: Sent with every request (gRPC metadata, HTTP headers), names in lower case.
        certificates: What to trust and what to present, with grpcs:// and https://; None for the system's authorities
            and nothing.
        tls_name: The name that the service's certificate is for, where it is not that of the host.
    """

    scheme: str
    host: str
    port: int
    path: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    certificates: CertificateFiles | None = None
    tls_name: str | None = None

    @classmethod
    def parse(
        cls,
        url: str | None = None,
        *,
        api_key: str | None = None,
        headers: Mapping[str, str] | None = None,
        ca: str | Path | None = None,
        certificate: str | Path | None = None,
        key: str | Path | None = None,
    ) -> Target:
        """Read an address.

        Args:
            url: "grpc://", "grpcs://", "http://" or "https://", host and port; without a scheme it is gRPC. Default:
                the environment variable FLOWDEX_URL, or else grpc://127.0.0.1:51000.
            api_key: Sent as a bearer token. Default: the environment variable FLOWDEX_API_KEY, if set.
            headers: Further headers.
            ca: PEM file of the certificate authorities to trust. Default: the environment variable FLOWDEX_CA, or else
                the system's.
            certificate: PEM file of the client's own certificate, for a service that asks for one. Default: the
                environment variable FLOWDEX_CERTIFICATE, if set.
            key: PEM file of its key. Default: the environment variable FLOWDEX_KEY, if set.

        FLOWDEX_TLS_NAME is the name that the service's certificate is for, where the address has another.

        Raises:
            ConfigurationError: The address or a file cannot be read.
        """
        text = (url or os.environ.get("FLOWDEX_URL") or DEFAULT_URL).strip()
        wrong = f"the address {text!r} cannot be used; write grpc://HOST:PORT, grpcs://, http:// or https://"
        try:
            parts = urlsplit(text if "://" in text else f"grpc://{text}")
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise ConfigurationError(f"{wrong} ({error})") from None
        if parts.scheme not in _PORTS:
            raise ConfigurationError(f"{wrong} (unknown scheme {parts.scheme!r})")
        if not host:
            raise ConfigurationError(f"{wrong} (no host)")
        if (
            parts.username
            or parts.query
            or parts.fragment
            or (parts.scheme.startswith("grpc") and parts.path not in ("", "/"))
        ):
            raise ConfigurationError(f"{wrong} (nothing may follow the port; credentials go into api_key or headers)")
        sent = {name.lower(): value for name, value in (headers or {}).items()}
        token = api_key or os.environ.get("FLOWDEX_API_KEY")
        if token:
            sent.setdefault("authorization", f"Bearer {token}")
        if "authorization" in sent and parts.scheme in ("grpc", "http") and host not in _LOOPBACK:
            warnings.warn(  # once for each place in a program, as warnings are
                f"the API key goes to {host} without encryption; use {parts.scheme}s:// there", stacklevel=2
            )
        return cls(
            scheme=parts.scheme,
            host=host,
            port=port if port is not None else _PORTS[parts.scheme],
            path=parts.path.rstrip("/"),
            headers=sent,
            certificates=_certificates(ca, certificate, key, secure=parts.scheme in _SECURE),
            tls_name=os.environ.get("FLOWDEX_TLS_NAME") or None,
        )

    @property
    def authority(self) -> str:
        """host:port, with brackets around an IPv6 address."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def secure(self) -> bool:
        """Whether the connection is encrypted."""
        return self.scheme in _SECURE

    @property
    def loopback(self) -> bool:
        """Whether it is this machine."""
        return self.host in _LOOPBACK

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}{self.path}"

    def unreachable(self, reason: str) -> str:
        """The message for a service that cannot be reached."""
        start = "start it with 'flowdex up', or name" if self.loopback else "check that it runs, or name"
        return f"nothing answers at {self} ({reason}): {start} another address by url or FLOWDEX_URL"


def _certificates(
    ca: str | Path | None, certificate: str | Path | None, key: str | Path | None, *, secure: bool
) -> CertificateFiles | None:
    """What is given, over what the environment says; a pair comes from one of them."""
    if (ca or certificate or key) and not secure:
        raise ConfigurationError("ca, certificate and key are for grpcs:// and https://: the address has no encryption")
    if not secure:
        return None
    ca = ca or os.environ.get("FLOWDEX_CA") or None
    if certificate is None and key is None:
        certificate, key = os.environ.get("FLOWDEX_CERTIFICATE") or None, os.environ.get("FLOWDEX_KEY") or None
    return CertificateFiles(ca=ca, certificate=certificate, key=key) if ca or certificate or key else None
