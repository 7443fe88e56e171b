"""Certificates to try TLS with: an authority of one's own, and what it signs (X.509, RFC 5280).

    authority = Authority.make("flowdex development")
    authority.issue("gateway", ["localhost"], server=True).write(folder, "gateway")    gateway.pem, gateway.key

For development and tests. In production the certificates come from what the place has: cert-manager, ACME, Vault.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from flowdex.errors import ConfigurationError

__all__ = ["Authority", "Pair"]

_CLOCKS_DIFFER = timedelta(minutes=5)
_PRIVATE, _PUBLIC = 0o600, 0o644


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, as PEM."""

    certificate: bytes
    key: bytes

    def write(self, folder: Path, name: str) -> None:
        """Write `name`.pem and `name`.key, each at once and the key for its owner alone."""
        _write(folder / f"{name}.key", self.key, _PRIVATE)
        _write(folder / f"{name}.pem", self.certificate, _PUBLIC)


class Authority:
    """Signs certificates.

    Args:
        certificate: Its own.
        key: Its key.
    """

    def __init__(self, certificate: x509.Certificate, key: CertificateIssuerPrivateKeyTypes) -> None:
        self._certificate, self._key = certificate, key

    @classmethod
    def make(cls, name: str, *, valid: timedelta = timedelta(days=3650)) -> Authority:
        """A new one."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = _named(name)
        usage = _usage(signs=True)
        builder = _builder(subject, subject, key, valid)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        builder = builder.add_extension(usage, critical=True)
        return cls(builder.sign(key, hashes.SHA256()), key)

    @classmethod
    def read(cls, folder: Path) -> Authority:
        """That of `ca.pem` and `ca.key`.

        Raises:
            ConfigurationError: They cannot be read.
        """
        try:
            certificate = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())
            key = serialization.load_pem_private_key((folder / "ca.key").read_bytes(), None)
        except (OSError, ValueError, TypeError) as error:
            raise ConfigurationError(f"{folder}: no authority can be read from ca.pem and ca.key: {error}") from None
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ConfigurationError(f"{folder / 'ca.key'}: not a key that `flowdex tls init` has made")
        return cls(certificate, key)

    @property
    def pair(self) -> Pair:
        """Its own certificate and key."""
        return _pem(self._certificate, self._key)

    def issue(
        self,
        name: str,
        hosts: Sequence[str] = (),
        *,
        server: bool = False,
        client: bool = False,
        valid: timedelta = timedelta(days=365),
        ended: timedelta = timedelta(0),
    ) -> Pair:
        """A certificate with a new key.

        Args:
            name: Whose it is.
            hosts: Host names and addresses that it is for.
            server: Whether a server may show it.
            client: Whether a client may.
            valid: How long it is valid from now on.
            ended: How long ago it ended instead, for tests.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(_named(name), self._certificate.subject, key, valid, ended)
        uses = [ExtendedKeyUsageOID.SERVER_AUTH] * server + [ExtendedKeyUsageOID.CLIENT_AUTH] * client
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_usage(signs=False), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage(uses), critical=False)
        own = self._certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        issuer = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)
        builder = builder.add_extension(issuer, critical=False)
        if hosts:
            builder = builder.add_extension(x509.SubjectAlternativeName(list(map(_host, hosts))), critical=False)
        return _pem(builder.sign(self._key, hashes.SHA256()), key)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    valid: timedelta,
    ended: timedelta = timedelta(0),
) -> x509.CertificateBuilder:
    now = datetime.now(timezone.utc)
    end = now - ended if ended else now + valid
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(min(now, end) - _CLOCKS_DIFFER)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _host(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _pem(certificate: x509.Certificate, key: CertificateIssuerPrivateKeyTypes) -> Pair:
    form, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    pem = serialization.Encoding.PEM
    return Pair(certificate.public_bytes(pem), key.private_bytes(pem, form, plain))


def _write(path: Path, content: bytes, mode: int) -> None:
    """Put a file in place at once: no reader sees a part of it, nobody else ever sees a key."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mode 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        temporary = Path(name)
        temporary.chmod(mode)
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise
