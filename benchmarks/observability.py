"""What metrics, logs and traces cost a request: CPU time of the code that they add, beside nothing else.

    python benchmarks/observability.py

Prints microseconds of CPU a request: of the gateway with four calls of executors, and of one executor.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from flowdex.proto import flowdex_pb2 as pb
from flowdex.work_notes import note, noting
from flowdex_orchestrator.gateway.metrics import Metrics
from flowdex_orchestrator.gateway.trail import Call, SlowLog, Trail
from flowdex_orchestrator.observability.logs import about
from flowdex_orchestrator.observability.tracing import Tracing

ROUNDS, REPEATS = 1_000, 5
EXECUTORS = ("segmenter", "encoder", "indexer", "ranker")
METADATA = (("x-request-id", "0" * 32), ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"))


def tracing(ratio: float) -> Tracing:
    """Tracing whose spans are made and sampled, and go nowhere."""
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.sampling import TraceIdRatioBased

    return Tracing(TracerProvider(sampler=TraceIdRatioBased(ratio)))


def gateway(traces: Tracing | None) -> Callable[[], None]:
    """One request with four calls."""
    metrics, slow, status = Metrics(), SlowLog(5000), pb.StatusProto()

    def run() -> None:
        trail = Trail(METADATA, traces)
        trail.name("0" * 32)
        for executor in EXECUTORS:
            _, span = trail.hop(executor, 100)
            if span is not None:
                span.end()
            trail.calls.append(Call(executor, 0, 0, status, b"", b""))
            metrics.observe_call(executor, 0.001, False)
        took = time.time_ns() - trail.started
        metrics.observe("/search", took / 1e9)
        trail.end("/search", None)
        if took > slow.threshold:
            slow.look(trail, "/search", None, took)

    return run


def worker(traces: Tracing | None) -> Callable[[], None]:
    """One request's part in an executor."""

    def run() -> None:
        notes: dict[str, float] = {}
        about("0" * 32, METADATA)
        span = traces.start("encoder", METADATA) if traces is not None else None
        with noting(notes):
            note(queue_ms=0.1, compute_ms=2.0, texts=1, tokens=9)
        if span is not None:
            span.end(attributes=notes)

    return run


def microseconds(run: Callable[[], None]) -> float:
    """The least of several means."""
    best = float("inf")
    for _ in range(REPEATS):
        began = time.process_time()
        for _ in range(ROUNDS):
            run()
        best = min(best, (time.process_time() - began) / ROUNDS)
    return 1e6 * best


def main() -> None:
    """Measure and print."""
    print(f"{'':<28}{'gateway':>10}{'executor':>10}")
    kinds = {"traces off": None, "traces on, none sampled": tracing(0.0), "all sampled": tracing(1.0)}
    for name, traces in kinds.items():
        print(f"{name:<28}{microseconds(gateway(traces)):>10.1f}{microseconds(worker(traces)):>10.1f}")


if __name__ == "__main__":
    main()
