"""What a gateway is told before it starts: its executors and its limits.

Flow (YAML) + command line --targets_from_flow--> [ExecutorTarget, ...] + GatewaySettings --> server.Gateway
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from flowdex.certificates import CertificateFiles
from flowdex.errors import ConfigurationError

if TYPE_CHECKING:
    from flowdex_orchestrator.flow.model import Flow

__all__ = ["IDEMPOTENT_ENDPOINTS", "LIVE", "ExecutorTarget", "GatewaySettings", "options_of"]

LIVE = frozenset(
    {
        "max_fields",
        "max_in_flight",
        "max_parameter_bytes",
        "max_parameters",
        "max_text_characters",
        "max_texts",
        "stream_window",
        "replica_wait",
        "replica_retries",
        "split_documents",
        "idempotent_endpoints",
    }
)
"""Settings that a gateway can change while requests come (`flowdex reload`); for the others it starts anew."""

# A call to one of these may run twice without harm: they only read, or write by document id.
IDEMPOTENT_ENDPOINTS = frozenset(
    {
        "/encode",
        "/attention",
        "/tokenize",
        "/decode",
        "/embed_sparse",
        "/index",
        "/search",
        "/rank",
        "/get",
        "/scroll",
        "/count",
        "/sample",
        "/map",
        "/delete",
        "/status",
    }
)


@dataclass(frozen=True)
class ExecutorTarget:
    """One executor as the gateway sees it.

    Attributes:
        name: Its name in the flow.
        needs: Names of the executors whose output it takes; `gateway` (or nothing) means the request itself.
        addresses: `host:port` of each replica, or `dns:///name:port` for all addresses of a name.
        timeout: Seconds after which one call to it fails, None for no limit but the request's deadline.
        retries: How often a call that may have run is tried again on another replica; negative for the default.
        floating: Whether it only listens: it is called, its reply is not waited for and not part of the answer.
        uses: The class it runs, for people to read.
        certificates: What it is trusted by, and what is presented to it; None for no TLS.
    """

    name: str
    needs: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    timeout: float | None = None
    retries: int = -1
    floating: bool = False
    uses: str = ""
    certificates: CertificateFiles | None = None


@dataclass(frozen=True)
class GatewaySettings:
    """Limits and habits of a gateway; each can be set in the flow file, under `gateway: uses_with:`.

    Attributes:
        max_in_flight: Requests worked on at the same time; one more is answered `Overloaded` at once.
        longest_wait: Seconds that a request may have to wait for executors that are busy; one that would wait longer is
            answered `Overloaded` at once. 0 for no limit but `max_in_flight`.
        least_queue: Requests at an executor that are let in whatever they wait; a slow executor's only caller needs
            as many places as it sends requests at a time.
        small_request: Bytes of the largest request that is interactive without saying so.
        max_message_bytes: Largest request accepted, over gRPC or HTTP.
        max_reply_bytes: Largest reply that is taken from an executor. flowdex's own send 64 MiB at most.
        max_texts: Most texts or documents in one request.
        max_fields: Most protobuf fields in the documents of one request: an empty value in a list is one, a text in a
            dictionary four; however large a text or an array is. Each takes some 60 bytes of memory where it is read.
        max_text_characters: Longest text, in characters.
        max_parameters: Most parameters of one request.
        max_parameter_bytes: Most bytes that they take, serialised.
        max_connections: Most HTTP connections and WebSockets at the same time, and as many of gRPC; beyond, the HTTP
            connection that has been idle for longest is closed.
        max_headers: Most headers of an HTTP request.
        max_header_bytes: Most bytes of them and of the URL; and of the header in a protobuf message.
        client_timeout: Seconds for which an HTTP client may keep the gateway waiting: for a request's head, for a body
            that does not get on, for taking the answer; 0 for ever.
        stream_window: Requests of one gRPC stream worked on at the same time.
        replica_wait: Seconds a request waits for a replica to come (back) when none is ready.
        replica_retries: How often a call that may have run is tried again on another replica.
        split_documents: Documents that each part has at least when a large request is divided between replicas (of an
            executor that allows it); 0 for never.
        slow_request_ms: Milliseconds from which on a request is logged with where its time went; 0 for never.
        drain: Seconds given to requests in flight when the gateway stops.
        idempotent_endpoints: Endpoints whose calls may run twice without harm.
        title: Title of the HTTP API's documentation; the flow's name if empty.
        description: Text of it.
        cors: Origins whose web pages may call the HTTP API; `*` is any.
        insecure: Whether it may listen beyond this machine without keys.
        hosts: Further names that the HTTP API answers to on loopback.
        bert_without_key: Whether bert-as-service's protocol is served although there are keys, which it cannot carry.
    """

    max_in_flight: int = 1024
    longest_wait: float = 10.0
    least_queue: int = 16
    small_request: int = 2048
    max_message_bytes: int = 64 * 1024 * 1024
    max_reply_bytes: int = 256 * 1024 * 1024
    max_texts: int = 65_536
    max_fields: int = 2_000_000
    max_text_characters: int = 16 * 1024 * 1024
    max_parameters: int = 256
    max_parameter_bytes: int = 1024 * 1024
    max_connections: int = 4096
    max_headers: int = 128
    max_header_bytes: int = 65_536
    client_timeout: float = 30.0
    stream_window: int = 64
    replica_wait: float = 10.0
    replica_retries: int = 2
    split_documents: int = 64
    slow_request_ms: float = 5000.0
    drain: float = 30.0
    idempotent_endpoints: frozenset[str] = field(default=IDEMPOTENT_ENDPOINTS)
    title: str = ""
    description: str = ""
    cors: frozenset[str] = frozenset()
    insecure: bool = False
    hosts: frozenset[str] = frozenset()
    bert_without_key: bool = False

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> GatewaySettings:
        """Settings from the flow file's `gateway: uses_with:`.

        Raises:
            ConfigurationError: An option is unknown or has a value of the wrong type or range.
        """
        known = {each.name: each for each in fields(cls)}
        values: dict[str, Any] = {}
        default = cls()
        for name, value in options.items():
            if name not in known:
                near = get_close_matches(name, known, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(sorted(known))}"
                raise ConfigurationError(f"gateway.uses_with has no setting {name!r}; {hint}")
            kind = type(getattr(default, name))
            if name == "cors" and isinstance(value, bool):
                value = ["*"] if value else []  # noqa: PLW2901 - as under stock Jina
            if kind in (str, bool):
                values[name] = _exactly(kind, name, value)
            else:
                values[name] = frozenset(_strings(name, value)) if kind is frozenset else _number(name, value, kind)
        return replace(default, **values)


def options_of(flow: Flow) -> dict[str, Any]:
    """The gateway's options as the file writes them."""
    gateway = flow.gateway
    own = {
        "title": gateway.title,
        "description": gateway.description,
        "cors": gateway.cors or None,
        "insecure": gateway.insecure or None,
        "hosts": gateway.hosts or None,
        "bert_without_key": gateway.bert.without_key or None,
    }
    return {**{name: value for name, value in own.items() if value is not None}, **gateway.uses_with}


def _exactly(kind: type, name: str, value: Any) -> Any:
    if type(value) is not kind:
        expected = "true or false" if kind is bool else "a string"
        raise ConfigurationError(f"gateway.uses_with.{name} must be {expected}, got {value!r}")
    return value


def _number(name: str, value: Any, kind: type) -> int | float:
    number = value if isinstance(value, (int, float)) and not isinstance(value, bool) else math.nan
    if not math.isfinite(number) or (kind is int and number != int(number)):
        raise ConfigurationError(f"gateway.uses_with.{name} must be a number, got {value!r}")
    if value < 0 or (value == 0 and name.startswith("max_")):
        raise ConfigurationError(f"gateway.uses_with.{name} must not be {value!r}")
    converted: int | float = kind(value)
    return converted


def _strings(name: str, value: Any) -> list[str]:
    if not isinstance(value, (list, tuple, set, frozenset)) or not all(isinstance(item, str) for item in value):
        raise ConfigurationError(f"gateway.uses_with.{name} must be a list of texts, got {value!r}")
    return list(value)
