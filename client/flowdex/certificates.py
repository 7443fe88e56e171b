"""A certificate, its key and the authorities to trust: PEM files that are read again when they change.

    files = CertificateFiles(certificate="a.pem", key="a.key", ca="ca.pem")     ConfigurationError: what is wrong, where
    files.current()  --stat--> as known | --changed--> read, checked --fits--> the new ones
                                                          +--half-written, expired--> still the old ones, tried again

Renewal tools write the two files of a pair one after the other, so that a pair may not fit for a moment: what does not
fit never replaces what does. Checks need no further library: the pair makes a TLS handshake with itself, in memory,
which tells its names and its end (RFC 5280, 4.1.2.5) as the `ssl` module reads them from a peer.
"""

from __future__ import annotations

import logging
import ssl
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, NamedTuple, NoReturn

import grpc

from flowdex.errors import ConfigurationError

__all__ = [
    "EXPIRES_SOON",
    "CertificateFileError",
    "CertificateFiles",
    "Field",
    "Pem",
    "channel_credentials",
    "handshake",
]

Field = Literal["ca", "certificate", "key"]

EXPIRES_SOON = 14 * 86_400.0
"""Seconds before its end from which on a certificate is spoken of in the log."""

_SETTLED = 1.0  # seconds since the last write after which the same size and time mean the same content
_WRITTEN_WITHIN = 1.0  # seconds that renewing a pair may take, for who reads it first just then
_WARN_EVERY = 86_400.0
_LARGEST = 1 << 20  # bytes of a file: the authorities of a system are a quarter of that

_log = logging.getLogger(__name__)

_Stamp = tuple[tuple[int, int, int], ...]


class CertificateFileError(ConfigurationError):
    """A file cannot be used.

    Attributes:
        field: Which of them.
    """

    def __init__(self, field: Field, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field: Field = field


class Pem(NamedTuple):
    """The files' contents; None for those not given."""

    ca: bytes | None
    certificate: bytes | None
    key: bytes | None


class CertificateFiles:
    """The files of one end of a connection. Safe to use from any thread.

    Args:
        ca: Authorities whose certificates are trusted.
        certificate: The own certificate, and those between it and the authority.
        key: Its private key, without a passphrase.
        server: Whether the certificate is a server's; else a client's. It may be made for one use only.

    Attributes:
        generation: How often the files were taken over; 1 at first.
        not_after: The end of the certificate, in seconds since 1970; None without one.
        names: What the certificate is for, such as "DNS:localhost".

    Raises:
        CertificateFileError: A file is missing or cannot be read, holds something else, the key does not fit, or the
            certificate has expired.
    """

    def __init__(
        self,
        *,
        ca: str | Path | None = None,
        certificate: str | Path | None = None,
        key: str | Path | None = None,
        server: bool = False,
    ) -> None:
        for missing, there in (("key", "certificate"), ("certificate", "key")):
            given = {"certificate": certificate, "key": key}
            if given[there] is not None and given[missing] is None:
                raise CertificateFileError(there, f"the {missing} that belongs to it is not named: {missing}=FILE")  # type: ignore[arg-type]
        self.ca = None if ca is None else Path(ca)
        self.certificate = None if certificate is None else Path(certificate)
        self.key = None if key is None else Path(key)
        self.generation = 0
        self.not_after: float | None = None
        self.names: tuple[str, ...] = ()
        self._server = server
        self._lock = threading.Lock()
        self._refused: str | None = None
        self._warn_at = 0.0
        self._stamp: _Stamp | None = None
        self._pem = self._first()

    @property
    def expires_in(self) -> float | None:
        """Seconds that the certificate in use is still valid, negative after its end; None without one."""
        return None if self.not_after is None else self.not_after - time.time()

    def current(self) -> Pem:
        """The contents, the newest that fit. Costs a `stat` of each file while they do not change."""
        with self._lock:
            if self._stamp is None or self._stamp != self._stat():
                try:
                    self._pem = self._load()
                except ConfigurationError as error:
                    if self._refused != error.message:
                        _log.warning("the certificate in use stays, because the new one cannot be used: %s", error)
                    self._refused = error.message
            self._warn()
            return self._pem

    def server_context(self) -> ssl.SSLContext:
        """A context for a server with these files; with `ca`, clients must have a certificate.

        Raises:
            ssl.SSLError: The files have just changed, and do not fit.
            OSError: One has gone.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.load_pair(context)
        if self.ca is not None:
            context.load_verify_locations(self.ca)
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def client_context(self) -> ssl.SSLContext:
        """A context for a client with these files; without `ca` the system's authorities are trusted."""
        context = ssl.create_default_context(cafile=self.ca)
        self.load_pair(context)
        return context

    def load_pair(self, context: ssl.SSLContext) -> None:
        """Let the context's next handshakes present the certificate, if there is one."""
        if self.certificate is not None:
            context.load_cert_chain(self.certificate, self.key, password=_no_password)

    # ---- how ----

    def _paths(self) -> list[tuple[Field, Path]]:
        named: list[tuple[Field, Path | None]] = [("ca", self.ca), ("certificate", self.certificate), ("key", self.key)]
        return [(field, path) for field, path in named if path is not None]

    def _stat(self) -> _Stamp | None:
        """What tells that nothing has changed; None while the last change is too young to tell."""
        stamps = []
        for _, path in self._paths():
            try:
                found = path.stat()
            except OSError:
                return None
            if abs(time.time() - found.st_mtime) < _SETTLED:
                return None
            stamps.append((found.st_ino, found.st_size, found.st_mtime_ns))
        return tuple(stamps)

    def _first(self) -> Pem:
        """What the files hold; waits a moment where they are just being written."""
        end = time.monotonic() + _WRITTEN_WITHIN
        while True:
            try:
                return self._load()
            except ConfigurationError:
                if time.monotonic() > end or not any(_young(path) for _, path in self._paths()):
                    raise
            time.sleep(0.05)

    def _load(self) -> Pem:
        stamp = self._stat()
        pem = self._read()
        if self.generation and pem == self._pem:
            self._stamp = stamp
            return pem
        if self.ca is not None:
            self._check_ca(self.ca, pem.ca or b"")
        if self.certificate is not None and self.key is not None:
            self._check_pair(self.certificate, self.key, pem)
        if self._read() != pem:
            raise ConfigurationError("the files are being written")
        if self.generation:
            _log.info("took over renewed certificate files: %s", ", ".join(str(path) for _, path in self._paths()))
        self.generation += 1
        self._stamp, self._refused, self._warn_at = stamp, None, 0.0
        return pem

    def _read(self) -> Pem:
        found: dict[str, bytes] = {}
        for field, path in self._paths():
            try:
                with path.open("rb") as file:
                    found[field] = file.read(_LARGEST + 1)
            except OSError as error:
                raise CertificateFileError(field, f"{path}: {(error.strerror or str(error)).lower()}") from None
            if len(found[field]) > _LARGEST:
                raise CertificateFileError(field, f"{path}: more than {_LARGEST:,} bytes: not a file of certificates")
        return Pem(found.get("ca"), found.get("certificate"), found.get("key"))

    @staticmethod
    def _check_ca(path: Path, pem: bytes) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        try:
            context.load_verify_locations(path)
        except (ssl.SSLError, OSError):
            raise CertificateFileError("ca", f"{path}: holds no certificates in PEM form") from None
        if b"-----BEGIN" not in pem:
            raise CertificateFileError("ca", f"{path}: holds no certificates in PEM form")

    def _check_pair(self, certificate: Path, key: Path, pem: Pem) -> None:
        if b"-----BEGIN CERTIFICATE-----" not in (pem.certificate or b""):
            raise CertificateFileError("certificate", f"{certificate}: holds no certificate in PEM form")
        if b"PRIVATE KEY-----" not in (pem.key or b""):
            raise CertificateFileError("key", f"{key}: holds no private key in PEM form")
        try:
            found = handshake(certificate, key, server=self._server)
        except ssl.SSLCertVerificationError as error:
            raise CertificateFileError("certificate", f"{certificate}: {error.verify_message}") from None
        except (ssl.SSLError, ValueError, OSError) as error:
            reason = getattr(error, "reason", None) or ""
            if reason == "KEY_VALUES_MISMATCH":
                raise CertificateFileError("key", f"{key}: is not the key of {certificate}") from None
            if isinstance(error, ValueError) or b"ENCRYPTED" in (pem.key or b""):
                raise CertificateFileError("key", f"{key}: is encrypted; give a key without a passphrase") from None
            raise CertificateFileError(
                "certificate", f"{certificate}, {key}: cannot be used ({reason.lower().replace('_', ' ') or error})"
            ) from None
        self.not_after = ssl.cert_time_to_seconds(found["notAfter"])
        self.names = tuple(f"{kind}:{value}" for kind, value in found.get("subjectAltName", ()))

    def _warn(self) -> None:
        left = self.expires_in
        if left is None or left > EXPIRES_SOON or time.monotonic() < self._warn_at:
            return
        self._warn_at = time.monotonic() + _WARN_EVERY
        if left > 0:
            _log.warning("the certificate %s expires in %.1f days: renew it", self.certificate, left / 86_400)
        else:
            _log.error("the certificate %s has expired: nobody trusts it any more; renew it", self.certificate)


def handshake(
    certificate: Path, key: Path, *, server: bool, ca: Path | None = None, host: str | None = None
) -> dict[str, Any]:
    """Let a certificate be verified in a handshake in memory.

    Args:
        certificate: The file.
        key: Its key.
        server: Whether as a server's certificate; else as a client's.
        ca: Trust these authorities; by default the certificate itself, so that its dates and use alone are checked.
        host: The name or address that it has to be for.

    Returns:
        As `ssl.SSLSocket.getpeercert`.

    Raises:
        ssl.SSLCertVerificationError: It is not trusted; `verify_message` says why.
        ssl.SSLError: The pair cannot be used.
        ValueError: The key has a passphrase.
    """
    serving, calling = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    calling.check_hostname, calling.verify_mode = False, ssl.CERT_NONE
    serving.load_cert_chain(certificate, key, password=_no_password)
    if not server:
        calling.load_cert_chain(certificate, key, password=_no_password)
    verifying = calling if server else serving
    verifying.load_verify_locations(ca or certificate)
    if ca is None:
        verifying.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    verifying.verify_mode = ssl.CERT_REQUIRED
    if host is not None:
        calling.check_hostname = True
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = calling.wrap_bio(to_client, to_server, server_hostname=host or "localhost")
    other = serving.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(4):  # TLS 1.3 needs two turns, 1.2 three
        for end in (client, other):
            with suppress(ssl.SSLWantReadError):
                end.do_handshake()
    return dict((client if server else other).getpeercert() or {})


def _young(path: Path) -> bool:
    try:
        return abs(time.time() - path.stat().st_mtime) < _SETTLED
    except OSError:
        return False


def _no_password() -> NoReturn:
    raise ValueError("the key has a passphrase")  # OpenSSL would ask for it on the terminal


def channel_credentials(files: CertificateFiles | None) -> grpc.ChannelCredentials:
    """What a gRPC client trusts and presents, as the files are now; None trusts the system's authorities."""
    if files is None:
        return grpc.ssl_channel_credentials()
    pem = files.current()
    return grpc.ssl_channel_credentials(pem.ca, pem.key, pem.certificate)
