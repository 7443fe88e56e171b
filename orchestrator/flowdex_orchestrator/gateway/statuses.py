"""What a gRPC status tells of the replica that a call ended with: gone, broken, or well and of another opinion."""

from __future__ import annotations

import grpc
import grpc.aio

from flowdex_orchestrator.gateway.exchange import NotBegun

__all__ = ["is_gone", "is_oversized", "is_trouble", "reason_of", "was_never_sent"]

_IN_TIME = 1.0  # seconds that a call must have had for its being late to be the replica's fault
# Statuses that no executor answers with: something is wrong with the replica, and perhaps not with another one.
_BROKEN = (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.DATA_LOSS)
_OVERSIZED, _SERVER = "Received message larger than max", "SERVER:"  # gRPC's words
# What gRPC says when a call never left: nothing can have run.
_NEVER_SENT = ("failed to connect", "connection refused", "dns resolution failed", "name resolution")


def is_gone(error: grpc.aio.AioRpcError) -> bool:
    """Whether the replica went away, as opposed to having answered with an error.

    CANCELLED counts: this side's own cancellation is a CancelledError, so it was the server that dropped the call.
    """
    return error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


def is_oversized(error: grpc.aio.AioRpcError) -> bool:
    """Whether it is this side that did not take the reply, rather than the replica that did not take the call."""
    details = error.details() or ""
    return error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED and _OVERSIZED in details and _SERVER not in details


def is_trouble(error: grpc.aio.AioRpcError, timeout: float | None) -> bool:
    """Whether a status tells of a replica that is not as it should be, rather than of the request."""
    if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
        return timeout is not None and timeout >= _IN_TIME
    return error.code() in _BROKEN or is_oversized(error)


def was_never_sent(error: grpc.aio.AioRpcError) -> bool:
    """Whether the call cannot have run: it never left, or the replica says that it has not begun it."""
    if isinstance(error, NotBegun):
        return True
    details = (error.details() or "").lower()
    return any(sign in details for sign in _NEVER_SENT)


def reason_of(error: grpc.aio.AioRpcError) -> str:
    """The gist of what gRPC said, such as "Connection refused"."""
    details = error.details() or error.code().name
    return details.rsplit("; last error: ", 1)[-1].split("\n", 1)[0]
