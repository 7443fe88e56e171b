"""What one request leaves behind on its way through the gateway: its calls, spans, a line in the log if it was slow.

Trail --hop()--> Hop: a call of an executor --end()--> Call, with the route that the executor wrote
|
+--SlowLog.look()--> one line: where the time went
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from google.protobuf.message import DecodeError

from flowdex.errors import FlowdexError
from flowdex.proto import flowdex_pb2 as pb
from flowdex_orchestrator.observability.logs import about, shown

if TYPE_CHECKING:
    from flowdex_orchestrator.gateway.exchange import Metadata
    from flowdex_orchestrator.observability.tracing import Span, Tracing

__all__ = ["Call", "SlowLog", "Trail"]

log = logging.getLogger(__name__)

_LOG_EVERY = 1.0  # seconds


class Call(NamedTuple):
    """One call that was made: to whom, when (nanoseconds since 1970), its status, the results among its parameters.

    `route` is what the executor wrote about it, serialised: its own times and notes.
    """

    executor: str
    start: int
    end: int
    status: pb.StatusProto
    results: bytes
    route: bytes


class Trail:
    """One request.

    Args:
        metadata: That came with it.
        tracing: Makes spans; None for none.

    Attributes:
        started: In nanoseconds since 1970.
        calls: Of executors, that were answered.
        metadata: To pass on.
    """

    __slots__ = ("_span", "calls", "metadata", "request_id", "started")

    def __init__(self, metadata: Metadata, tracing: Tracing | None) -> None:
        self.started = time.time_ns()
        self.metadata = metadata
        self.request_id = ""
        self.calls: list[Call] = []
        self._span: Span | None = None
        if tracing is not None:
            span = tracing.start("request", metadata)
            if span.recording:
                self._span = span
            else:  # executors learn that it is not sampled, and nothing more is made of it
                self.metadata = span.onward(metadata)

    def name(self, request_id: str) -> None:
        """Say what the request is called: in the log lines about it."""
        self.request_id = request_id
        about(request_id, self.metadata if self._span is None else self._span.onward(self.metadata))

    def hop(self, executor: str, size: int) -> tuple[Metadata, Span | None]:
        """The metadata of a call of an executor, and its span, which is to be ended."""
        if self._span is None:
            return self.metadata, None
        span = self._span.child(f"call {executor}", {"flowdex.executor": executor, "flowdex.request.bytes": size})
        return span.onward(self.metadata), span

    def end(self, endpoint: str, error: BaseException | None) -> None:
        """The request is over."""
        if self._span is not None:
            attributes = {"flowdex.request_id": self.request_id, "flowdex.endpoint": endpoint}
            # Callers can name as many endpoints as they like; spans are only named after those that there are.
            self._span.end(endpoint if self.calls else None, error=_name_of(error), attributes=attributes)


class SlowLog:
    """Logs requests that took long, at most one a second.

    Args:
        threshold_ms: From how many milliseconds on; 0 for never.
    """

    def __init__(self, threshold_ms: float) -> None:
        self.threshold = threshold_ms * 1e6 if threshold_ms else math.inf
        self._last = -math.inf
        self._left_out = 0

    def look(self, trail: Trail, endpoint: str, error: BaseException | None, took: int) -> None:
        """Log a request that took so many nanoseconds, if that is too many."""
        if took < self.threshold:
            return
        now = time.monotonic()
        if now - self._last < _LOG_EVERY:
            self._left_out += 1
            return
        self._last, left_out, self._left_out = now, self._left_out, 0
        calls = [_receipt(call) for call in trail.calls]
        fields: dict[str, Any] = {"endpoint": shown(endpoint), "took_ms": _ms(took), "calls": calls}
        if error is not None:
            fields |= {"error": _name_of(error), "executor": getattr(error, "executor", None)}
        if left_out:
            fields["left_out"] = left_out
        words = "; ".join(", ".join(f"{key} {value}" for key, value in call.items()) for call in calls)
        ending = f", ended with {fields['error']}" if error is not None else ""
        more = f" ({left_out} more since the last line)" if left_out else ""
        log.warning(
            "slow request: %s took %s ms%s: %s%s",
            shown(endpoint),
            fields["took_ms"],
            ending,
            words,
            more,
            extra={"fields": {"slow_request": fields}},
        )


def _receipt(call: Call) -> Mapping[str, Any]:
    """Where the time of a call went: as the gateway saw it, and as the executor says."""
    found: dict[str, Any] = {"executor": call.executor, "ms": _ms(call.end - call.start)}
    try:
        routes = pb.DataRequestProtoWoData.FromString(call.route).routes
        if routes:
            worked = routes[-1].end_time.ToNanoseconds() - routes[-1].start_time.ToNanoseconds()
            found["hop_ms"] = _ms(max(0, call.end - call.start - worked))
            found |= json.loads(routes[-1].status.description or "{}")
    except (DecodeError, ValueError):  # somebody else's executor
        pass
    return found


def _ms(nanoseconds: int) -> float:
    return round(nanoseconds / 1e6, 3)


def _name_of(error: BaseException | None) -> str:
    if error is None:
        return ""
    return error.name if isinstance(error, FlowdexError) else type(error).__name__
