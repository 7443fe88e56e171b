"""Connect to where the index lives, and make its errors ours.

settings.location --connect--> AsyncQdrantClient | AsyncEdgeClient
qdrant, gRPC, HTTP and engine errors --translate--> flowdex.errors
Unavailable, Overloaded --> the same call again, with back-off, as long as `retry_for` and the request allow

The back-off is exponential with full jitter (Brooker 2015, "Exponential Backoff And Jitter"), and at least what the
server asks for (Retry-After). What is the caller's fault, or ours, is never tried again.
"""

from __future__ import annotations

import asyncio
import logging
import random
import ssl
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import grpc
import httpx
from qdrant_client import AsyncQdrantClient, models
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from flowdex.deadline import seconds_left
from flowdex.errors import (
    ConfigurationError,
    DeadlineExceeded,
    FlowdexError,
    InternalError,
    InvalidInput,
    NotFound,
    Overloaded,
    TooLarge,
    Unavailable,
)
from flowdex_executors.indexer.columns import point_structs
from flowdex_executors.indexer.edge import AsyncEdgeClient
from flowdex_executors.indexer.settings import EdgeLocation, IndexerSettings, MemoryLocation

__all__ = ["Backend", "VectorClient", "connect", "translate"]

logger = logging.getLogger(__name__)
T = TypeVar("T")
VectorClient: TypeAlias = AsyncQdrantClient | AsyncEdgeClient

_BACKEND_ERRORS = (
    UnexpectedResponse,
    ResponseHandlingException,
    ResourceExhaustedResponse,
    grpc.RpcError,
    httpx.HTTPError,
    OSError,
)
_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 2.0
_LEAST_PAUSE = 0.01  # what the jitter leaves, so that a dead backend is never asked in a tight loop
_GRPC_OPTIONS: dict[str, int] = {
    "grpc.max_receive_message_length": -1,  # the server limits what it takes
    "grpc.max_send_message_length": -1,
    # A server that comes back is found within our own retries; gRPC would wait up to two minutes.
    "grpc.initial_reconnect_backoff_ms": 100,
    "grpc.min_reconnect_backoff_ms": 5000,  # this is how long an attempt may take
    "grpc.max_reconnect_backoff_ms": 2000,
}
_CUT_OFF = ("Stream removed", "RST_STREAM", "Socket closed", "GOAWAY")
"""What gRPC says, under other codes than UNAVAILABLE, of a connection that ended in the middle of a call."""
_NOT_TRUSTED = ("CERTIFICATE_VERIFY_FAILED", "certificate verify failed")


class _ServerClient(AsyncQdrantClient):
    """The client, taking points as the indexer makes them, too."""

    async def batch_update_points(self, collection_name: str, update_operations: Any, *args: Any, **kwargs: Any) -> Any:
        """See `AsyncQdrantClient`."""
        operations = await asyncio.to_thread(lambda: [_with_point_structs(each) for each in update_operations])
        return await super().batch_update_points(collection_name, operations, *args, **kwargs)


def _with_point_structs(operation: Any) -> Any:
    if not isinstance(operation, models.UpsertOperation) or not isinstance(operation.upsert, models.PointsList):
        return operation
    points = models.PointsList.model_construct(points=point_structs(operation.upsert.points))
    return models.UpsertOperation.model_construct(upsert=points)


def connect(settings: IndexerSettings) -> VectorClient:
    """Open a client. A server is not contacted yet; an embedded index is locked and its engine started.

    Raises:
        Conflict: Another process holds the embedded index.
        Unavailable: The folder of the embedded index cannot be used.
        ConfigurationError: The file with the certificates to trust cannot be used.
    """
    location = settings.location
    if isinstance(location, EdgeLocation):
        return AsyncEdgeClient(
            location.directory,
            shards=settings.shards,
            durability=settings.durability,
            exact_up_to=settings.exact_up_to,
        )
    if isinstance(location, MemoryLocation):
        folder = tempfile.TemporaryDirectory(prefix="flowdex-index-", ignore_cleanup_errors=True)
        return AsyncEdgeClient(
            Path(folder.name), shards=settings.shards, exact_up_to=settings.exact_up_to, on_close=folder.cleanup
        )
    key = settings.api_key.get_secret_value() if settings.api_key else None
    trust = _trusted(settings) if location.tls else None
    rest: dict[str, Any] = {} if trust is None else {"verify": trust[0]}
    grpc_options: dict[str, Any] = dict(_GRPC_OPTIONS) if trust is None else {**_GRPC_OPTIONS, **trust[1]}
    return _ServerClient(
        host=location.host,
        port=6333 if location.grpc else location.port,
        grpc_port=location.port if location.grpc else 6334,
        prefer_grpc=location.grpc,
        https=location.tls,
        prefix=location.prefix,
        api_key=key,
        timeout=max(1, round(settings.timeout)),
        grpc_options=grpc_options,
        check_compatibility=False,  # it would ask the server during construction, before it may be up
        **rest,
    )


def _trusted(settings: IndexerSettings) -> tuple[ssl.SSLContext, dict[str, bytes]] | None:
    """The certificates to trust, for REST and for gRPC; None for the system's."""
    path = settings.layout.ca_file
    if path is None:
        return None
    try:
        return ssl.create_default_context(cafile=path), {"root_certificates": path.read_bytes()}
    except OSError as error:  # SSLError is one
        raise ConfigurationError(f"server.ca_file: {path} cannot be used as PEM certificates: {error}") from None


def translate(error: BaseException, uri: str) -> FlowdexError:  # noqa: PLR0911 - one return a cause
    """Make a backend's error ours, naming the backend by its URI."""
    if isinstance(error, FlowdexError):
        return error
    if isinstance(error, ResourceExhaustedResponse):
        return Overloaded(f"the index at {uri} limits the rate of requests", retry_after=float(error.retry_after_s))
    if isinstance(error, UnexpectedResponse):
        return _from_http(error.status_code or 500, _reason(error), uri)
    if isinstance(error, grpc.aio.AioRpcError):
        return _from_grpc(error.code(), error.details() or "", uri)
    source = error.source if isinstance(error, ResponseHandlingException) else error
    if any(sign in str(source) for sign in _NOT_TRUSTED):
        return _not_trusted(uri)
    if isinstance(source, httpx.TimeoutException) and not isinstance(source, httpx.ConnectTimeout):
        return DeadlineExceeded(f"the index at {uri} did not answer in time; see uses_with.timeout")
    if isinstance(source, (httpx.TransportError, grpc.RpcError, OSError)):
        return Unavailable(f"the index at {uri} cannot be reached ({source or type(source).__name__}); is it running?")
    return InternalError(f"the index at {uri} gave an answer that could not be read: {source}")


def _reason(error: UnexpectedResponse) -> str:
    try:
        status = error.structured().get("status", {})
        return str(status.get("error", "") if isinstance(status, dict) else status)
    except (ValueError, AttributeError):  # a proxy's page, not the server's answer
        return error.reason_phrase


def _from_http(code: int, reason: str, uri: str) -> FlowdexError:  # noqa: PLR0911 - one return a code
    if code in (401, 403):
        return _refused(uri)
    if code == 413:
        return _too_large(uri)
    if code == 429:
        return Overloaded(f"the index at {uri} limits the rate of requests: {reason}")
    if code in (502, 503, 504):
        return Unavailable(f"the index at {uri} is not available (HTTP {code}): {reason}")
    if code == 404:
        return NotFound(f"the index at {uri} has lost something: {reason}")
    if code in (400, 409, 422):
        return InvalidInput(f"the index at {uri} refuses the request: {reason}")
    return InternalError(f"the index at {uri} failed (HTTP {code}): {reason}")


def _from_grpc(code: grpc.StatusCode, details: str, uri: str) -> FlowdexError:  # noqa: PLR0911 - one return a code
    if code in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
        return _refused(uri)
    if any(sign in details for sign in _NOT_TRUSTED):
        return _not_trusted(uri)
    if code is grpc.StatusCode.UNAVAILABLE or any(sign in details for sign in _CUT_OFF):
        return Unavailable(f"the index at {uri} cannot be reached ({details}); is it running?")
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return DeadlineExceeded(f"the index at {uri} did not answer in time; see uses_with.timeout")
    if code in (grpc.StatusCode.OUT_OF_RANGE, grpc.StatusCode.RESOURCE_EXHAUSTED):
        if code is grpc.StatusCode.OUT_OF_RANGE or "larger than" in details:  # "message larger than max", or "limit"
            return _too_large(uri)
        return Overloaded(f"the index at {uri} limits the rate of requests: {details}")
    if code is grpc.StatusCode.NOT_FOUND:
        return NotFound(f"the index at {uri} has lost something: {details}")
    if code in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.ALREADY_EXISTS):
        return InvalidInput(f"the index at {uri} refuses the request: {details}")
    return InternalError(f"the index at {uri} failed ({code.name}): {details}")


def _refused(uri: str) -> FlowdexError:
    # Not PermissionDenied, which would tell the caller that the caller's own key is wrong.
    return ConfigurationError(f"the index at {uri} refuses this flow's API key; set uses_with.api_key of the indexer")


def _not_trusted(uri: str) -> FlowdexError:
    return ConfigurationError(
        f"the certificate of the index at {uri} is not trusted; name the file of the authority that signed it in "
        "uses_with.server.ca_file of the indexer, and use the host name that the certificate is for"
    )


def _too_large(uri: str) -> FlowdexError:
    return TooLarge(
        f"the index at {uri} refuses a message of this size: send fewer or shorter documents, "
        "or raise the server's service.max_request_size_mb"
    )


class Backend:
    """A client whose calls raise our errors and are tried again while the backend is away.

    Every call that the indexer makes can be repeated: points carry ids of their own, and deleting is idempotent.

    Args:
        settings: Where it lives and how long to try.
    """

    def __init__(self, settings: IndexerSettings) -> None:
        self.client = connect(settings)
        self._uri = settings.uri
        self._retry_for = settings.retry_for
        self._closed = False

    async def call(self, operation: Callable[[VectorClient], Awaitable[T]]) -> T:
        """Run `operation(client)`.

        Waiting also ends with the request: at its deadline, and when its caller goes away, which cancels this.

        Raises:
            FlowdexError: What went wrong; `Unavailable` and `Overloaded` only after all retries, or after `close`.
        """
        left = seconds_left()
        deadline = time.monotonic() + (self._retry_for if left is None else min(self._retry_for, left))
        longest = _FIRST_PAUSE
        while True:
            if self._closed:
                raise Unavailable(f"the index at {self._uri} is closed")
            try:
                return await operation(self.client)
            except (FlowdexError, *_BACKEND_ERRORS) as caught:
                error = translate(caught, self._uri)
                pause = max(random.uniform(_LEAST_PAUSE, longest), error.retry_after or 0.0)  # nosec B311 # spreads load, hides nothing
                if not isinstance(error, (Unavailable, Overloaded)) or time.monotonic() + pause > deadline:
                    raise error from caught
                logger.warning("%s; trying again in %.1f s", error, pause)
            await asyncio.sleep(pause)
            longest = min(2 * longest, _LONGEST_PAUSE)

    def close(self) -> asyncio.Task[None] | None:
        """End the engine process, which flushes, or let go of the server.

        Returns:
            Within a running event loop and with a server: a task that closes its connections. Otherwise it is done.
        """
        self._closed = True
        if isinstance(self.client, AsyncEdgeClient):
            self.client.close_now()
            return None
        try:
            return asyncio.get_running_loop().create_task(self.client.close())
        except RuntimeError:
            asyncio.run(self.client.close())
            return None
