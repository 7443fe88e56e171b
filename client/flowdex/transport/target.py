"""Where the flow is, and what every request to it carries.

    "grpc://host:port", FLOWDEX_URL, api_key, headers --parse--> Target

Credentials travel as headers, never in the address, which is shown in messages.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from flowdex.errors import ConfigurationError

__all__ = ["DEFAULT_URL", "Target"]

DEFAULT_URL = "grpc://127.0.0.1:51000"
_PORTS = {"grpc": 51000, "grpcs": 443, "http": 80, "https": 443}
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
        root_certificates: PEM text of the certificate authorities to trust; None for the system's.
    """

    scheme: str
    host: str
    port: int
    path: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    root_certificates: bytes | None = None

    @classmethod
    def parse(
        cls,
        url: str | None = None,
        *,
        api_key: str | None = None,
        headers: Mapping[str, str] | None = None,
        root_certificates: str | Path | None = None,
    ) -> Target:
        """Read an address.

        Args:
            url: "grpc://", "grpcs://", "http://" or "https://", host and port; without a scheme it is gRPC. Default:
                the environment variable FLOWDEX_URL, or else grpc://127.0.0.1:51000.
            api_key: Sent as a bearer token. Default: the environment variable FLOWDEX_API_KEY, if set.
            headers: Further headers.
            root_certificates: PEM file of the certificate authorities to trust.

        Raises:
            ConfigurationError: The address or the file cannot be read.
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
        key = api_key or os.environ.get("FLOWDEX_API_KEY")
        if key:
            sent.setdefault("authorization", f"Bearer {key}")
        return cls(
            scheme=parts.scheme,
            host=host,
            port=port if port is not None else _PORTS[parts.scheme],
            path=parts.path.rstrip("/"),
            headers=sent,
            root_certificates=_read(root_certificates),
        )

    @property
    def authority(self) -> str:
        """host:port, with brackets around an IPv6 address."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def secure(self) -> bool:
        """Whether the connection is encrypted."""
        return self.scheme in ("grpcs", "https")

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


def _read(file: str | Path | None) -> bytes | None:
    try:
        return None if file is None else Path(file).read_bytes()
    except OSError as error:
        raise ConfigurationError(f"root_certificates: {file}: {(error.strerror or str(error)).lower()}") from None
