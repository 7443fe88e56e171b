"""The client's gRPC transport: Jina's unary protocol as raw bytes over one persistent channel.

    DocumentBatch --wire.build_request--> bytes --process_single_data--> bytes --wire.read_request--> documents

The channel is gRPC's threaded one, its futures handed over to asyncio, and not `grpc.aio`: that is bound to an event
loop, and where two loops of a process use it (a notebook and our synchronous client, say) each of them logs spurious
`BlockingIOError`s of the poller that they share. This way costs about 0.1 ms of CPU a call and works from any loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import grpc

from flowdex import attention, ranking, wire
from flowdex.attention import Attention
from flowdex.certificates import channel_credentials
from flowdex.documents import DocumentBatch
from flowdex.errors import (
    Cancelled,
    DeadlineExceeded,
    FlowdexError,
    InternalError,
    TooLarge,
    Unavailable,
    error_from_grpc,
    error_from_name,
)
from flowdex.inputs import MAX_MESSAGE_BYTES
from flowdex.proto import flowdex_pb2 as pb
from flowdex.ranking import RankedText
from flowdex.results import ExecutorStatus, FlowStatus, Hit, Passage, Span
from flowdex.stored import Page, StoredDocument, from_batch
from flowdex.trace_context import carried
from flowdex.transport import IndexReply, SearchReply
from flowdex.transport.handshake import explain_handshake
from flowdex.transport.target import Target

__all__ = ["GrpcTransport", "open_channel"]

HEALTH_CHECK = "/grpc.health.v1.Health/Check"
_SERVING = b"\x08\x01"  # HealthCheckResponse(status=SERVING); the client does without that package
# How gRPC's own explanations begin when there is no connection; a service's UNAVAILABLE looks the same otherwise.
_NO_CONNECTION = ("failed to connect", "DNS resolution failed", "Name resolution", "empty address list")
_HUNG_UP = ("Socket closed", "onnection reset", "Broken pipe")  # a server that speaks TLS does on what does not
_NO_DETAILS = "CANCELLED"  # what gRPC says of a server that dropped the call with its connection
_LOOK_SECONDS = 1.0  # between two looks whether certificate files are new
_OPTIONS = (
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    # A gateway that restarts is found again within the client's own retries.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 10_000),  # this is how long an attempt may take: a busy gateway is slow to greet
    ("grpc.max_reconnect_backoff_ms", 2000),
    ("grpc.use_local_subchannel_pool", 1),  # so that another channel is another connection
)


@dataclass
class _Connection:
    """A channel, the certificates that it was made with, and the calls on it."""

    channel: grpc.Channel
    generation: int
    calls: int = 0
    retired: bool = False


class GrpcTransport:
    """See `flowdex.transport.Transport`.

    Args:
        target: A target of scheme grpc or grpcs.
    """

    def __init__(self, target: Target) -> None:
        self._target = target
        self._metadata = tuple(target.headers.items())
        self._connection: _Connection | None = None
        self._look_at = 0.0
        self._lock = threading.Lock()
        self._reached = False
        self._closed = False

    @property
    def reached(self) -> bool:
        """Whether the service has ever answered."""
        return self._reached

    # ---- calls ----

    async def encode(self, batch: DocumentBatch, parameters: Mapping[str, Any], timeout: float | None) -> DocumentBatch:
        """Send documents to /encode."""
        reply = await self._post("/encode", batch, parameters, timeout)
        return _same_count(wire.documents_of(reply), len(batch), "/encode")

    async def index(self, batch: DocumentBatch, parameters: Mapping[str, Any], timeout: float | None) -> IndexReply:
        """Send documents to /index; a reply without counts of passages counts none."""
        documents = wire.documents_of(await self._post("/index", batch, parameters, timeout))
        errors = {
            row: error_from_name(str(error.get("name")), str(error.get("message")))
            for row, error in enumerate(documents.column("error"))
            if isinstance(error, dict)
        }
        if errors:
            _same_count(documents, len(batch), "/index")
        return IndexReply(sum(int(value) for value in documents.column("passages", 0)), errors)

    async def search(
        self, queries: Sequence[str], parameters: Mapping[str, Any], timeout: float | None
    ) -> list[SearchReply]:
        """Send queries to /search."""
        batch = DocumentBatch.from_columns(texts=queries)
        reply = await self._post("/search", batch, parameters, timeout)
        answers = _same_count(wire.documents_of(reply), len(batch), "/search")
        columns = zip(answers.nested("matches"), answers.column("notes"), strict=True)
        return [SearchReply(_hits(matches), list(notes or ())) for matches, notes in columns]

    async def get(
        self, ids: Sequence[str], parameters: Mapping[str, Any], timeout: float | None
    ) -> list[StoredDocument]:
        """Send ids to /get."""
        reply = await self._post("/get", DocumentBatch.from_columns(ids=ids), parameters, timeout)
        return from_batch(wire.documents_of(reply)).documents

    async def scroll(self, parameters: Mapping[str, Any], timeout: float | None) -> Page:
        """Ask /scroll."""
        return from_batch(wire.documents_of(await self._post("/scroll", None, parameters, timeout)))

    async def count(self, parameters: Mapping[str, Any], timeout: float | None) -> int:
        """Ask /count."""
        reply = await self._post("/count", None, parameters, timeout)
        return sum(int(each.get("documents", 0)) for each in wire.results_of(reply).values())

    async def rank(
        self, query: str, texts: Sequence[str], parameters: Mapping[str, Any], timeout: float | None
    ) -> list[RankedText]:
        """Send a query and texts to /rank."""
        reply = await self._post("/rank", ranking.to_batch(query, texts), parameters, timeout)
        return ranking.from_batch(wire.documents_of(reply), texts)

    async def attention(
        self,
        text: str,
        text_pair: str | None,
        parameters: Mapping[str, Any],
        timeout: float | None,
        *,
        executor: str | None = None,
    ) -> Attention:
        """Ask /attention."""
        target = None if executor is None else f"{re.escape(executor)}\\Z"
        batch = attention.to_batch(text, text_pair)
        return attention.from_batch(
            wire.documents_of(await self._post("/attention", batch, parameters, timeout, target=target))
        )

    async def delete(self, ids: Sequence[str], parameters: Mapping[str, Any], timeout: float | None) -> int:
        """Send ids to /delete."""
        reply = await self._post("/delete", DocumentBatch.from_columns(ids=ids), parameters, timeout)
        return sum(int(each.get("deleted", 0)) for each in wire.results_of(reply).values())

    async def post(
        self, endpoint: str, batch: DocumentBatch | None, parameters: Mapping[str, Any], timeout: float | None
    ) -> tuple[DocumentBatch, dict[str, dict[str, Any]]]:
        """Ask any endpoint; the documents of its answer, and what executors told, by their names."""
        reply = await self._post(endpoint, batch, parameters, timeout)
        return wire.documents_of(reply), wire.results_of(reply)

    async def status(self, timeout: float | None) -> FlowStatus:
        """Ask /status: the gateway's own part is under the name "gateway"."""
        results = wire.results_of(await self._post("/status", None, {}, timeout))
        gateway = results.pop("gateway", {})
        known = {each["name"]: each for each in gateway.get("executors", [])}
        names = [*known, *(name for name in results if name not in known)]
        return FlowStatus(
            name=gateway.get("name", ""),
            version=gateway.get("version", ""),
            uptime_s=gateway.get("uptime_s", 0.0),
            endpoints=gateway.get("endpoints", {}),
            executors=[
                ExecutorStatus(
                    name=name,
                    uses=known.get(name, {}).get("uses", ""),
                    needs=known.get(name, {}).get("needs", ()),
                    replicas=known.get(name, {}).get("replicas", ()),
                    status=results.get(name) or known.get(name, {}).get("status") or {},
                )
                for name in names
            ],
        )

    async def ready(self, timeout: float | None) -> bool:
        """Ask the standard health service."""
        try:
            return await self._call(HEALTH_CHECK, b"", timeout) == _SERVING
        except (Unavailable, DeadlineExceeded):
            return False

    async def close(self) -> None:
        """Close the channel."""
        with self._lock:
            self._closed = True
            connection, self._connection = self._connection, None
        if connection is not None:
            connection.channel.close()

    # ---- how ----

    def _take(self) -> _Connection:
        """The connection for one call, which `_leave` ends; another one than before where certificates are new."""
        with self._lock:
            if self._closed:
                raise Cancelled("the client is closed")
            files, connection = self._target.certificates, self._connection
            if connection is not None and files is not None and time.monotonic() > self._look_at:
                files.current()
                self._look_at = time.monotonic() + _LOOK_SECONDS
                if files.generation != connection.generation:
                    self._retire(connection)
                    connection = None
            if connection is None:
                generation = 0 if files is None else files.generation
                connection = self._connection = _Connection(open_channel(self._target, _OPTIONS), generation)
            connection.calls += 1
            return connection

    def _leave(self, connection: _Connection) -> None:
        with self._lock:
            connection.calls -= 1
            if connection.retired and not connection.calls:
                connection.channel.close()

    def _retire(self, connection: _Connection) -> None:
        """Give it no more calls, and close it after those that it has. Needs the lock."""
        connection.retired = True
        if connection is self._connection:
            self._connection = None
        if not connection.calls:
            connection.channel.close()

    def _give_up(self, connection: _Connection) -> None:
        """Have the next call connect by a channel of its own.

        A threaded channel of grpcio 1.68 never connects again after it was refused once, as by a gateway that starts
        again (https://github.com/grpc/grpc/issues/38290).
        """
        with self._lock:
            if not connection.retired:
                self._retire(connection)

    async def _post(
        self,
        endpoint: str,
        batch: DocumentBatch | None,
        parameters: Mapping[str, Any],
        timeout: float | None,
        *,
        target: str | None = None,
    ) -> pb.DataRequestProto:
        request = wire.build_request(endpoint, batch, parameters=parameters, target_executor=target)
        reply = wire.read_request(await self._call(wire.PROCESS_SINGLE_DATA, request, timeout))
        error = wire.error_of(reply.header)
        if error is not None:
            raise error
        return reply

    async def _call(self, path: str, request: bytes, timeout: float | None) -> bytes:
        """One unary call; a cancelled task cancels it at the server too."""
        loop = asyncio.get_running_loop()
        done = asyncio.Event()

        def wake(_: object) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(done.set)

        connection = self._take()
        try:
            method: grpc.UnaryUnaryMultiCallable[bytes, bytes] = connection.channel.unary_unary(path)
            call = method.future(request, timeout=timeout, metadata=(*self._metadata, *carried()))
            call.add_done_callback(wake)
            try:
                await done.wait()
            finally:
                call.cancel()
        finally:
            self._leave(connection)
        try:
            reply = call.result()
        except grpc.FutureCancelledError:
            raise Cancelled("the client was closed during the call") from None
        except grpc.RpcError as error:
            if _is_unconnected(error):
                self._give_up(connection)
            if self._may_be_tls(error) and (found := await asyncio.to_thread(explain_handshake, self._target)):
                raise found from None
            raise self._error(error) from None
        self._reached = True
        return reply

    def _may_be_tls(self, call: Any) -> bool:
        """Whether a failed handshake may be why there is no connection: gRPC tells the last address's reason alone."""
        return _is_unconnected(call) and (self._target.secure or any(sign in call.details() for sign in _HUNG_UP))

    def _error(self, call: Any) -> FlowdexError:
        code, details = call.code(), call.details() or ""
        if code is grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in details:
            return TooLarge(f"a message is over the limit of {self._target} or of this client: {details}")
        if _is_unconnected(call):
            return Unavailable(self._target.unreachable(_reason(details)))
        if code is grpc.StatusCode.CANCELLED and details in ("", _NO_DETAILS):
            return Unavailable(f"{self._target} ended the call before it was answered: the gateway was stopped")
        if code is not grpc.StatusCode.DEADLINE_EXCEEDED:
            self._reached = True
        return error_from_grpc(code, details, retry_after=_retry_after(call.trailing_metadata() or ()))


def open_channel(target: Target, options: Sequence[tuple[str, Any]] = ()) -> grpc.Channel:
    """A channel to a target of scheme grpc or grpcs."""
    if target.loopback:
        options = (*options, ("grpc.enable_http_proxy", 0))  # a proxy from the environment cannot reach this machine
    if not target.secure:
        return grpc.insecure_channel(target.authority, options=options)
    if target.tls_name is not None:
        options = (*options, ("grpc.ssl_target_name_override", target.tls_name))
    credentials = channel_credentials(target.certificates)
    return grpc.secure_channel(target.authority, credentials, options=options)


def _is_unconnected(call: Any) -> bool:
    """Whether a call failed because there is no connection."""
    return call.code() is grpc.StatusCode.UNAVAILABLE and (call.details() or "").startswith(_NO_CONNECTION)


def _reason(details: str) -> str:
    """The last part of gRPC's long explanation, such as "Connection refused"."""
    return re.sub(r" \(\d+\)$", "", details.rsplit(": ", 1)[-1].rstrip('}" ')) or "no connection"


def _retry_after(metadata: Sequence[tuple[str, Any]]) -> float | None:
    """Seconds from the trailing metadata `retry-after-ms`."""
    for key, value in metadata:
        if key == "retry-after-ms":
            try:
                return max(0.0, float(value) / 1e3)
            except ValueError:
                return None
    return None


def _same_count(documents: DocumentBatch, count: int, endpoint: str) -> DocumentBatch:
    if len(documents) != count:
        raise InternalError(
            f"{endpoint} answered {len(documents)} documents to {count}: an executor of the flow drops some"
        )
    return documents


def _hits(matches: DocumentBatch) -> list[Hit]:
    columns = zip(
        matches.ids,
        matches.texts,
        matches.tags,
        matches.column("location"),
        matches.column("highlights", []),
        matches.column("scores", {}),
        matches.column("explain"),
        matches.column("parent_id"),
        matches.nested("chunks"),
        strict=True,
    )
    return [
        Hit(
            id=id_,
            score=float(scores.get("score", 0.0)),
            text=text or "",
            tags=tags,
            location=_span(location),
            highlights=[(int(start), int(end)) for start, end in highlights],
            scores={name: float(value) for name, value in scores.items()},
            passages=_passages(chunks),
            explain=explain or {},
            parent_id=parent_id,
        )
        for id_, text, tags, location, highlights, scores, explain, parent_id, chunks in columns
    ]


def _passages(chunks: DocumentBatch) -> list[Passage]:
    columns = zip(
        chunks.ids,
        chunks.texts,
        chunks.column("location"),
        chunks.column("scores", {}),
        chunks.column("explain"),
        strict=True,
    )
    return [
        Passage(
            id=id_,
            text=text or "",
            location=_span(location),
            score=float(scores.get("score", 0.0)),
            scores={name: float(value) for name, value in scores.items()},
            explain=explain or {},
        )
        for id_, text, location, scores, explain in columns
    ]


def _span(value: Sequence[float] | None) -> Span | None:
    return None if value is None else (int(value[0]), int(value[1]))
