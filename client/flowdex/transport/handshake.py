"""Why no connection came about: what libraries do not say of a failed handshake, found out by another one.

Target --connect, TLS handshake, read--> error of ours that says what to change | None: something else is wrong
"""

from __future__ import annotations

import socket
import ssl

from flowdex.errors import ConfigurationError, FlowdexError, Unauthenticated
from flowdex.transport.target import Target

__all__ = ["explain_handshake"]

_CONNECT_SECONDS = 3.0
_REFUSAL_SECONDS = 1.0  # a server that refuses the client's certificate says so at once; the others wait
_PLAIN = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNEXPECTED_EOF_WHILE_READING", "RECORD_LAYER_FAILURE")


def explain_handshake(target: Target) -> FlowdexError | None:
    """Connect once more and say why it fails; blocks for up to some seconds.

    Returns:
        `ConfigurationError`: one side speaks TLS and the other does not. `Unauthenticated`: one side does not trust the
        other's certificate, or misses it. None: it is something else, or is over.
    """
    try:
        with socket.create_connection((target.host, target.port), timeout=_CONNECT_SECONDS) as connection:
            return _secure(target, connection) if target.secure else _plain(target, connection)
    except (OSError, ValueError):
        return None


def _plain(target: Target, connection: socket.socket) -> FlowdexError | None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # nothing is sent: does it speak TLS at all?
    try:
        with context.wrap_socket(connection, server_hostname=target.host):
            pass
    except ssl.SSLError as error:
        if not error.reason or error.reason in _PLAIN:
            return None
    return ConfigurationError(f"{target} speaks TLS: write {target.scheme}s:// in its address")


def _secure(target: Target, connection: socket.socket) -> FlowdexError | None:
    files = target.certificates
    context = ssl.create_default_context() if files is None else files.client_context()
    if target.scheme == "grpcs":
        context.set_alpn_protocols(["h2"])
    try:
        with context.wrap_socket(connection, server_hostname=target.tls_name or target.host) as stream:
            stream.settimeout(_REFUSAL_SECONDS)
            try:
                accepted = bool(stream.recv(1))
            except TimeoutError:
                accepted = True
            return None if accepted else _refused(target, "")
    except ssl.SSLCertVerificationError as error:
        return Unauthenticated(
            f"the certificate of {target} is not trusted: {error.verify_message.rstrip('.')}; {_remedy(error)}"
        )
    except ssl.SSLError as error:
        reason = error.reason or ""
        if "ALERT" in reason:
            return _refused(target, reason.partition("ALERT_")[2].lower().replace("_", " "))
        if reason in _PLAIN:
            return ConfigurationError(f"{target} speaks no TLS: write {target.scheme[:-1]}:// in its address")
        return None
    except ConnectionError:
        return _refused(target, "")


def _remedy(error: ssl.SSLCertVerificationError) -> str:
    if "mismatch" in error.verify_message:
        return "use a name that it is for, or give that name in FLOWDEX_TLS_NAME"
    if "expired" in error.verify_message or "not yet valid" in error.verify_message:
        return "it has to be renewed there (or a clock is wrong)"
    return "name the authority that signed it with ca= (--ca, FLOWDEX_CA)"


def _refused(target: Target, reason: str) -> FlowdexError:
    files = target.certificates
    if files is None or files.certificate is None:
        return Unauthenticated(
            f"{target} asks for a certificate of the client: give certificate= and key= (--certificate and --key, "
            "FLOWDEX_CERTIFICATE and FLOWDEX_KEY)"
        )
    why = reason
    if (files.expires_in or 0.0) < 0:
        why = "it has expired"
    return Unauthenticated(
        f"{target} does not accept the client's certificate {files.certificate}{f' ({why})' if why else ''}: it must "
        "be valid, and signed by an authority that the gateway trusts (gateway: tls: client_ca)"
    )
