"""The one hierarchy of errors, and the one place that maps it to gRPC and HTTP status.

Every error that a caller may see derives from `FlowdexError`. An error travels as its class name and its message (in
the status of a Jina reply, or as an RFC 9457 problem document) and comes out at the caller as the same class:

    executor --(StatusProto: name, message)--> gateway --(gRPC status | problem document)--> client --> raise

Anything else that is raised in a service is an incident: it is logged there, and the caller gets `InternalError` (or,
for the code of a user's own executor, `ExecutorError`) without internals.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import grpc

__all__ = [
    "Cancelled",
    "ConfigurationError",
    "Conflict",
    "DeadlineExceeded",
    "ExecutorError",
    "FlowdexError",
    "InternalError",
    "InvalidInput",
    "NotFound",
    "Overloaded",
    "PermissionDenied",
    "StatusMapping",
    "TooLarge",
    "Unauthenticated",
    "Unavailable",
    "error_from_grpc",
    "error_from_name",
]


@dataclass(frozen=True)
class StatusMapping:
    """How one class of error appears in the protocols.

    Attributes:
        grpc: The gRPC status code.
        http: The HTTP status code.
        title: The short, constant summary of a problem document (RFC 9457, section 3.1.3).
        retryable: Whether the same call may succeed later, because it cannot have run.
    """

    grpc: grpc.StatusCode
    http: int
    title: str
    retryable: bool = False


class FlowdexError(Exception):
    """Base of all errors that callers see.

    Args:
        message: What is wrong and what to do about it, fit for the caller's eyes.
        retry_after: Seconds after which a retry makes sense, if known.
        executor: Name of the executor that raised it, if one did.
    """

    status: ClassVar[StatusMapping] = StatusMapping(grpc.StatusCode.INTERNAL, 500, "Internal error")

    def __init__(self, message: str, *, retry_after: float | None = None, executor: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after = retry_after
        self.executor = executor

    @property
    def name(self) -> str:
        """The name under which this error travels."""
        return type(self).__name__


# ---- the caller's fault ----


class InvalidInput(FlowdexError, ValueError):
    """The request is well-formed but asks for something that cannot be done: empty text, wrong vector size, ..."""

    status = StatusMapping(grpc.StatusCode.INVALID_ARGUMENT, 422, "Invalid input")


class TooLarge(InvalidInput):
    """A limit on what a request may carry is exceeded; the message names the limit and its setting."""

    status = StatusMapping(grpc.StatusCode.OUT_OF_RANGE, 413, "Too large")


class NotFound(FlowdexError):
    """Unknown endpoint, executor or document."""

    status = StatusMapping(grpc.StatusCode.NOT_FOUND, 404, "Not found")


class Conflict(FlowdexError):
    """The request contradicts what is stored, such as vectors of another model than the collection's."""

    status = StatusMapping(grpc.StatusCode.FAILED_PRECONDITION, 409, "Conflict")


class Unauthenticated(FlowdexError):
    """No API key, or an unknown one."""

    status = StatusMapping(grpc.StatusCode.UNAUTHENTICATED, 401, "Unauthenticated")


class PermissionDenied(FlowdexError):
    """The API key's role does not allow the call."""

    status = StatusMapping(grpc.StatusCode.PERMISSION_DENIED, 403, "Permission denied")


class Cancelled(FlowdexError):
    """The caller went away or cancelled."""

    status = StatusMapping(grpc.StatusCode.CANCELLED, 499, "Cancelled by the caller")


class ConfigurationError(FlowdexError, ValueError):
    """A flow file or a command line is wrong. Raised before start, never by a running service."""

    status = StatusMapping(grpc.StatusCode.FAILED_PRECONDITION, 500, "Wrong configuration")


# ---- ours, or the moment's ----


class Overloaded(FlowdexError):
    """More requests in flight than allowed: try again after `retry_after` seconds."""

    status = StatusMapping(grpc.StatusCode.RESOURCE_EXHAUSTED, 429, "Overloaded", retryable=True)


class Unavailable(FlowdexError):
    """No live replica, or the service cannot be reached."""

    status = StatusMapping(grpc.StatusCode.UNAVAILABLE, 503, "Unavailable", retryable=True)


class DeadlineExceeded(FlowdexError, TimeoutError):
    """The deadline of the request passed before the answer was there."""

    status = StatusMapping(grpc.StatusCode.DEADLINE_EXCEEDED, 504, "Deadline exceeded")


class ExecutorError(FlowdexError):
    """An executor's own code raised something that is not a flowdex error."""

    status = StatusMapping(grpc.StatusCode.UNKNOWN, 500, "Executor failed")


class InternalError(FlowdexError):
    """A defect of the service. The log of the named executor or of the gateway has the details."""


def _subclasses(cls: type[FlowdexError]) -> list[type[FlowdexError]]:
    found = [cls]
    for sub in cls.__subclasses__():
        found.extend(_subclasses(sub))
    return found


def error_from_name(name: str, message: str, *, executor: str | None = None) -> FlowdexError:
    """Rebuild an error that travelled by name; an unknown name is an `ExecutorError` whose message starts with it."""
    for cls in _subclasses(FlowdexError):
        if cls.__name__ == name:
            return cls(message, executor=executor)
    return ExecutorError(f"{name}: {message}" if message else name, executor=executor)


def error_from_grpc(code: grpc.StatusCode, details: str, *, retry_after: float | None = None) -> FlowdexError:
    """Rebuild an error from a gRPC status; a code of no class of ours becomes `InternalError`."""
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and "message larger than max" in details:
        return TooLarge(details)  # gRPC's own limit: the same code as overload, but trying again would never help
    for cls in (
        InvalidInput,
        TooLarge,
        NotFound,
        Conflict,
        Unauthenticated,
        PermissionDenied,
        Cancelled,
        Overloaded,
        Unavailable,
        DeadlineExceeded,
        ExecutorError,
    ):
        if cls.status.grpc is code:
            return cls(details, retry_after=retry_after)
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return NotFound(details)
    return InternalError(details)
