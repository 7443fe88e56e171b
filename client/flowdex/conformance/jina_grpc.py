"""Jina 3 over gRPC: what `jina.Client`, and with it clip-as-service's, sends, and what must come back.

DataRequestProto --process_single_data | Call (a stream)--> server --> DataRequestProto: documents, status, routes

The messages: jina_messages.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from flowdex import wire
from flowdex.conformance import jina_messages as messages
from flowdex.conformance.coded import CodedCase, coded, unless
from flowdex.conformance.jina_messages import NoReply
from flowdex.conformance.model import Absent, Check, Contract, Problem, Server, shown
from flowdex.conformance.relations import different_vectors, equal, same_vectors
from flowdex.documents import DocumentBatch, new_id
from flowdex.errors import Unauthenticated, Unavailable
from flowdex.proto import flowdex_pb2 as pb
from flowdex.transport.target import Target

if TYPE_CHECKING:
    import grpc

__all__ = ["JinaGrpcContract"]

_HEALTH = "/grpc.health.v1.Health/Check"
_SERVING = b"\x08\x01"
_OPTIONS = (("grpc.max_receive_message_length", 64 << 20), ("grpc.enable_retries", 0))


class _Connection:
    """A channel, and its requests."""

    def __init__(self, channel: grpc.Channel, target: Target, seconds: float) -> None:
        self._channel = channel
        self._metadata = tuple(target.headers.items())
        self._seconds = seconds

    def call(self, method: str, data: bytes = b"") -> bytes:
        """A unary call of bytes."""
        import grpc

        try:
            ask: Any = self._channel.unary_unary(method)
            reply: bytes = ask(data, timeout=self._seconds, metadata=self._metadata)
        except grpc.RpcError as error:
            raise NoReply(_told(error)) from error
        return reply

    def process(self, documents: DocumentBatch, request_id: str | None = None) -> pb.DataRequestProto:
        """Send documents to /encode."""
        return messages.reply(self.call(wire.PROCESS_SINGLE_DATA, messages.request(documents, request_id or new_id())))

    def encode(self, texts: Sequence[str]) -> list[Any]:
        """The vectors of texts."""
        return messages.vectors(wire.documents_of(self.process(messages.documents(texts))))

    def stream(self, requests: Sequence[bytes], in_order: bool) -> list[pb.DataRequestProto]:
        """Send requests in one stream."""
        import grpc

        metadata = (*self._metadata, *((("__results_in_order__", "true"),) if in_order else ()))
        call: Any = self._channel.stream_stream(wire.CALL)
        try:
            return [messages.reply(reply) for reply in call(iter(requests), timeout=self._seconds, metadata=metadata)]
        except grpc.RpcError as error:
            raise NoReply(_told(error)) from error


class JinaGrpcContract(Contract):
    """What Jina's clients ask of a gateway with an endpoint /encode."""

    name = "jina-grpc"
    title = "Jina 3 over gRPC"
    probes = 1

    @property
    def cases(self) -> Sequence[CodedCase[_Connection]]:
        """Those below."""
        return _CASES

    @contextmanager
    def session(self, server: Server) -> Iterator[Check]:
        """See `Contract`."""
        from flowdex.transport.grpc import open_channel

        target = server.grpc
        if target is None:
            raise Absent("needs an address with grpc://")
        with open_channel(target, _OPTIONS) as channel:
            connection = _Connection(channel, target, server.timeout)
            _probe(connection, target)
            yield lambda case: _run(case, connection)


def _probe(connection: _Connection, target: Target) -> None:
    import grpc

    try:
        endpoints = _endpoints(connection)
    except NoReply as error:
        code = error.__cause__.code() if isinstance(error.__cause__, grpc.RpcError) else None
        if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
            raise Unavailable(target.unreachable(str(error))) from None
        if code in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
            raise Unauthenticated(
                f"{target} refuses the question for its endpoints; name a key with --api-key"
            ) from None
        raise Absent(f"the question for its endpoints: {error}") from None
    if messages.ENCODE not in endpoints:
        raise Absent(f"it has no endpoint {messages.ENCODE}, only {', '.join(endpoints) or 'none'}")


def _run(case: CodedCase[_Connection], connection: _Connection) -> list[Problem]:
    try:
        return list(case.check(connection))
    except NoReply as error:
        return [Problem(case.name, "an answer that can be read", str(error))]


def _endpoints(connection: _Connection) -> list[str]:
    reply = connection.call(wire.ENDPOINT_DISCOVERY)
    return list(messages.parsed(pb.EndpointsProto, reply).endpoints)


def _told(error: Any) -> str:
    return f"{error.code().name}: {shown(error.details())}"


# ---- cases ----


@coded("endpoints", "JinaDiscoverEndpointsRPC: the endpoints that can be asked")
def _discovery(server: _Connection) -> Iterator[Problem]:
    wrong = [each for each in _endpoints(server) if not each.startswith("/")]
    if wrong:
        yield Problem("endpoints", "names that start with /", shown(wrong))


@coded("dry run", "JinaGatewayDryRunRPC: SUCCESS where all of the flow is ready")
def _dry_run(server: _Connection) -> Iterator[Problem]:
    status = messages.parsed(pb.StatusProto, server.call(wire.DRY_RUN))
    if status.code != wire.SUCCESS:
        yield Problem("status", "SUCCESS", shown(status.description))


@coded("health", "grpc.health.v1: SERVING")
def _health(server: _Connection) -> Iterator[Problem]:
    reply = server.call(_HEALTH)
    if reply != _SERVING:
        yield Problem("status", "SERVING", shown(reply.hex()))


@coded("vectors", "encode: each document comes back with its embedding")
def _encode(server: _Connection) -> Iterator[Problem]:
    vectors = server.encode(messages.TEXTS)
    sizes = sorted({len(vector) for vector in vectors})
    if len(vectors) != len(messages.TEXTS) or len(sizes) != 1:
        yield Problem("documents", f"{len(messages.TEXTS)} vectors of one size", f"{len(vectors)} of sizes {sizes}")


@coded("the order of the documents", "encode: results keep the order of the input", 2)
def _order(server: _Connection) -> Iterator[Problem]:
    first, second = server.encode(messages.TEXTS), server.encode(messages.TEXTS[::-1])
    yield from unless(different_vectors(first), "the vectors")
    yield from unless(same_vectors(second, first[::-1]), "the documents the other way round")


@coded("what documents hold", "encode: ids, texts and fields of one's own come back as they were")
def _fields(server: _Connection) -> Iterator[Problem]:
    sent = messages.documents(messages.TEXTS)
    sent.set_column("price", [2.5, 0.5, 1.5])
    found = wire.documents_of(server.process(sent))
    for name in ("id", "text", "price"):
        yield from unless(equal(found.column(name), sent.column(name)), name)


@coded("request id", "header: request_id comes back")
def _request_id(server: _Connection) -> Iterator[Problem]:
    reply = server.process(messages.documents(messages.TEXTS[:1]), "a-request-of-mine")
    yield from unless(equal(reply.header.request_id, "a-request-of-mine"), "header.request_id")


@coded("routes", "profile: routes[0] is the gateway, the executors follow, each with its times")
def _routes(server: _Connection) -> Iterator[Problem]:
    routes = list(server.process(messages.documents(messages.TEXTS[:1])).routes)
    yield from unless(equal([route.executor for route in routes[:1]], ["gateway"]), "routes")
    if len(routes) < 2:
        yield Problem("routes", "an executor after the gateway", shown([route.executor for route in routes]))
    for route in routes:
        start, end = route.start_time.ToNanoseconds(), route.end_time.ToNanoseconds()
        if not 0 < start <= end:
            yield Problem(f"times of {route.executor}", "a start, and an end not before it", f"{start} and {end} ns")


@coded("no documents", "encode: empty content gives an empty result")
def _empty(server: _Connection) -> Iterator[Problem]:
    found = len(wire.documents_of(server.process(DocumentBatch())))
    if found:
        yield Problem("documents", "none", str(found))


@coded("a stream", "JinaRPC/Call: a reply to each request, known by its request id", 5)
def _stream(server: _Connection) -> Iterator[Problem]:
    names = [f"request-{index}" for index in range(5)]
    replies = server.stream([messages.request(messages.documents([name]), name) for name in names], in_order=False)
    yield from unless(equal(sorted(reply.header.request_id for reply in replies), names), "request ids")
    for reply in replies:
        texts = wire.documents_of(reply).texts
        yield from unless(equal(texts, [reply.header.request_id]), f"texts of {reply.header.request_id}")


@coded("a stream in order", "JinaRPC/Call: with __results_in_order__ replies are in the order of the requests", 5)
def _ordered_stream(server: _Connection) -> Iterator[Problem]:
    names = [f"request-{index}" for index in range(5)]
    # The first request is the largest, so that its reply is the last where nobody takes care.
    sizes = (40, 20, 10, 2, 1)
    requests = [
        messages.request(messages.documents([name] * size), name) for name, size in zip(names, sizes, strict=True)
    ]
    replies = server.stream(requests, in_order=True)
    yield from unless(equal([reply.header.request_id for reply in replies], names), "request ids")


_CASES: tuple[CodedCase[_Connection], ...] = (
    _discovery,
    _dry_run,
    _health,
    _encode,
    _order,
    _fields,
    _request_id,
    _routes,
    _empty,
    _stream,
    _ordered_stream,
)
