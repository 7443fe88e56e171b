"""The sections of a flow file that say how connections are encrypted: `with: tls:` and `gateway: tls:`.

    gateway: {tls: {certificate: gateway.pem, key: gateway.key, client_ca: clients.pem}}     -> GatewayTls
    with:    {tls: {certificate: inner.pem, key: inner.key, ca: ca.pem}}                     -> HopTls

Both name files, relative to the flow file; `certificates` reads them. A key never stands in a flow file.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PlainValidator, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from flowdex_orchestrator.flow.section import Section
from flowdex_orchestrator.flow.values import expected

__all__ = ["GatewayTls", "HopTls", "Hops"]


def _file(value: Any) -> str:
    if isinstance(value, str) and "-----BEGIN" in value:
        text = "expected the name of a file: certificates and keys do not stand in a flow file"
        raise PydanticCustomError("expected", "{text}", {"text": text})
    if not isinstance(value, str) or not value.strip():
        raise expected("the name of a file", value)
    return value


File = Annotated[str, PlainValidator(_file), WithJsonSchema({"type": "string", "minLength": 1})]


class GatewayTls(Section):
    """How the gateway's gRPC, HTTP and WebSocket ports are encrypted."""

    certificate: File = Field(description="File (PEM) of the gateway's certificate, and those up to the authority.")
    key: File = Field(description="File (PEM) of its private key, without a passphrase.")
    client_ca: File | None = Field(
        default=None, description="File (PEM) of authorities: clients must have a certificate of one of them."
    )
    ca: File | None = Field(
        default=None,
        description="File (PEM) of the authority of `certificate`, for the flow's own calls; the system's by default.",
    )


class HopTls(Section):
    """How connections between the processes of a flow are encrypted."""

    certificate: File | None = Field(
        default=None, description="File (PEM) of the certificate that the flow's processes show each other."
    )
    key: File | None = Field(default=None, description="File (PEM) of its private key, without a passphrase.")
    ca: File | None = Field(
        default=None, description="File (PEM) of the authority that both ends must have a certificate of."
    )

    @model_validator(mode="after")
    def _pair(self) -> HopTls:
        if (self.certificate is None) != (self.key is None):
            missing, there = ("key", "certificate") if self.key is None else ("certificate", "key")
            text = f"expected both certificate and key: the {missing} that belongs to the {there} is not named"
            raise PydanticCustomError("expected", "{text}", {"text": text})
        return self


def _flag(value: Any) -> Any:
    """Jina's `tls: true` of an external executor: encrypted, by an authority that the system trusts."""
    return {True: {}, False: None}[value] if isinstance(value, bool) else value


Hops = Annotated[HopTls | None, BeforeValidator(_flag)]
"""A value of `tls`, which may be Jina's true or false."""
